//go:build !linux

package inventory

import (
	goruntime "runtime"

	"golang.org/x/sys/unix"
)

func cores() float64 { return float64(goruntime.NumCPU()) }

func memory() int64 {
	n, err := unix.SysctlUint64("hw.memsize")
	if err != nil {
		return 0
	}
	return int64(n)
}
