package inventory

import (
	"math"
	"os"
	"path/filepath"
	goruntime "runtime"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

const groups = "/sys/fs/cgroup"

// cores counts those that we may run on, and no more than our control group lets
// us use.
func cores() float64 { return quota(groups, float64(goruntime.NumCPU())) }

// quota is the smaller of n and the control group's limit, of version 2 or 1.
func quota(root string, n float64) float64 {
	limit, period := "", ""
	if b, err := os.ReadFile(filepath.Join(root, "cpu.max")); err == nil {
		limit, period, _ = strings.Cut(strings.TrimSpace(string(b)), " ")
	} else {
		limit, period = read(root, "cpu/cpu.cfs_quota_us"), read(root, "cpu/cpu.cfs_period_us")
	}
	l, err := strconv.ParseFloat(limit, 64)
	p, err2 := strconv.ParseFloat(period, 64)
	if err != nil || err2 != nil || !(l > 0) || !(p > 0) { // "max" and -1 are no limit
		return n
	}
	return min(n, math.Round(l/p*1000)/1000)
}

// memory of the machine, or of the control group that we run in.
func memory() int64 {
	var info unix.Sysinfo_t
	if unix.Sysinfo(&info) != nil {
		return 0
	}
	return limited(groups, int64(info.Totalram)*int64(info.Unit))
}

func limited(root string, total int64) int64 {
	for _, file := range []string{"memory.max", "memory/memory.limit_in_bytes"} {
		if limit, err := strconv.ParseInt(read(root, file), 10, 64); err == nil && limit < total {
			total = limit
		}
	}
	return total
}

func read(root, file string) string {
	b, err := os.ReadFile(filepath.Join(root, file))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}
