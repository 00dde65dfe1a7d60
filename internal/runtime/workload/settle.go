package workload

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"tategu/internal/resource"
	"tategu/internal/runtime"
	"tategu/internal/volume"
)

// ErrStopped ends the preparation of a workload that is to stop.
var ErrStopped = errors.New("stopped")

// Settle does what follows the program: its files and the rest of its output are
// put away before anybody hears of the end.
func (p Place) Settle(ctx context.Context, exit runtime.Exit, logs *Shipper) runtime.Exit {
	if p.Workload.Publish {
		if err := p.publishSoon(ctx, exit.OK()); err != nil && ctx.Err() == nil && exit.OK() {
			failed := p.Failed(err)
			failed.Tail, exit = exit.Tail, failed
		} else if err != nil {
			p.Log.WarnContext(ctx, "publish the files of a failed workload", slog.String("workload", p.Workload.ID), slog.Any("error", err))
		}
	}
	for attempt := range 5 {
		err := logs.Flush(ctx)
		if err == nil || ctx.Err() != nil {
			break
		}
		p.Log.WarnContext(ctx, "keep the log of a workload", slog.String("workload", p.Workload.ID), slog.Any("error", err))
		select {
		case <-ctx.Done():
		case <-time.After(time.Duration(1<<attempt) * 100 * time.Millisecond):
		}
	}
	return exit
}

// publishSoon waits for room on the disk where the work was well done: what a
// program made in hours is not thrown away for want of space. Stop ends the wait.
func (p Place) publishSoon(ctx context.Context, wait bool) error {
	if !wait {
		return p.Publish(ctx)
	}
	ctx, cancel := UntilStop(ctx, p.Stop)
	defer cancel()
	return volume.Retry(ctx, func(err error) {
		p.Say(runtime.Running, "the program has ended; its files wait for space on the disk")
		p.Log.WarnContext(ctx, "the files of a workload wait for the disk", slog.String("workload", p.Workload.ID), slog.Any("error", err))
	}, func() error { return p.Publish(ctx) })
}

// Failed is the Exit of a workload whose program never ran.
func (p Place) Failed(err error) runtime.Exit {
	exit := runtime.Exit{Code: -1, Ended: p.Now(), Cause: resource.CausePlatform, Message: err.Error(), Tail: Tail(filepath.Join(p.Dir, Output))}
	if errors.Is(err, ErrStopped) {
		exit.Code, exit.Cause, exit.Message = 128+15, resource.CauseInput, "stopped"
		return exit
	}
	if e, ok := errors.AsType[*resource.Error](err); ok && e.Cause != "" {
		exit.Cause = e.Cause
	} else if volume.Blocked(err) {
		exit.Cause = resource.CauseResource
	}
	return exit
}

const tailLines, tailBytes = 20, 16 << 10

// Tail gives the last lines of the output.
func Tail(path string) []string {
	f, err := os.Open(path)
	if err != nil {
		return nil
	}
	defer func() { _ = f.Close() }() // opened for reading
	st, err := f.Stat()
	if err != nil {
		return nil
	}
	from := max(0, st.Size()-tailBytes)
	b := make([]byte, st.Size()-from)
	n, err := f.ReadAt(b, from)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil
	}
	text := strings.TrimRight(strings.ToValidUTF8(string(b[:n]), "\uFFFD"), "\n")
	if text == "" {
		return nil
	}
	lines := strings.Split(text, "\n")
	if from > 0 && len(lines) > 1 {
		lines = lines[1:] // cut in the middle
	}
	return lines[max(0, len(lines)-tailLines):]
}
