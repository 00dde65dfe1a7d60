package volume

import (
	"context"
	"time"
)

// Pauses between tries of work that the disk blocks.
const (
	firstPause = 500 * time.Millisecond
	maxPause   = 15 * time.Second
)

// Retry runs fn until its error is another than that of a full or read-only
// disk, or ctx ends; it gives fn's last error. told is called before each pause.
func Retry(ctx context.Context, told func(error), fn func() error) error {
	for pause := firstPause; ; pause = min(2*pause, maxPause) {
		err := fn()
		if !Blocked(err) || ctx.Err() != nil {
			return err
		}
		told(err)
		t := time.NewTimer(pause)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return err
		}
	}
}
