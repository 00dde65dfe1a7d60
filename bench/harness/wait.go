package harness

import (
	"context"
	"errors"
	"fmt"
	"os"
	"regexp"
	"time"
)

// Until polls until something holds, every pause and for as long as patience.
func Until(ctx context.Context, patience, pause time.Duration, what string, holds func() (bool, error)) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	tick := time.NewTicker(pause)
	defer tick.Stop()
	for {
		if ok, err := holds(); ok || err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("after %v still not: %s: %w", patience, what, ctx.Err())
		case <-tick.C:
		}
	}
}

// Listens waits until the log of a tategu says where it is ready, and gives that
// HOST:PORT. It gives up when ended is closed.
func Listens(ctx context.Context, log string, ended <-chan struct{}) (address string, err error) {
	pattern := regexp.MustCompile(`ready on https?://(\S+:\d+)`)
	err = Until(ctx, time.Minute, 20*time.Millisecond, "the server is ready", func() (bool, error) {
		text, err := os.ReadFile(log)
		if found := pattern.FindSubmatch(text); err == nil && found != nil {
			address = string(found[1])
			return true, nil
		}
		select {
		case <-ended:
			return false, errors.New("the server ended")
		default:
			return false, nil
		}
	})
	if err != nil {
		err = fmt.Errorf("%w\n%s", err, Tail(log))
	}
	return address, err
}

// Tail is the end of a log.
func Tail(log string) string {
	text, err := os.ReadFile(log)
	if err != nil {
		return err.Error()
	}
	return "the server's log ends:\n" + string(text[max(0, len(text)-2000):])
}
