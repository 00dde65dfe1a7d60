//go:build !linux

package workload

import "golang.org/x/sys/unix"

// Boot names this run of the machine, whose end ends all programs; "" = not to be had.
func Boot() string {
	id, err := unix.Sysctl("kern.bootsessionuuid")
	if err != nil {
		return ""
	}
	return id
}
