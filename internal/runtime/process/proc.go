package process

import (
	"context"
	"time"

	"tategu/internal/runtime/process/wrapper"
)

// pollExit waits where the system cannot tell us of the end.
func pollExit(ctx context.Context, pid int, start string) error {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for wrapper.Alive(pid, start) {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
	return nil
}
