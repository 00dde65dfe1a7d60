package workload

import (
	"os"
	"strings"
)

// Boot names this run of the machine, whose end ends all programs; "" = not to be had.
func Boot() string {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}
