//go:build !linux

package workload

import "time"

// CPUTime is not known on this system.
func CPUTime(int) (time.Duration, bool) { return 0, false }
