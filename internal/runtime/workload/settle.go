package workload

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"time"

	"tategu/internal/resource"
	"tategu/internal/runtime"
	"tategu/internal/volume"

	"google.golang.org/grpc/codes"
)

// ErrStopped ends the preparation of a workload that is to stop.
var ErrStopped = errors.New("stopped")

// Settle does what follows the program: its files and the rest of its output are
// put away before anybody hears of the end.
func (p Place) Settle(ctx context.Context, exit runtime.Exit, logs *Shipper) runtime.Exit {
	kept := make(chan struct{}) // the log and the files are made durable together
	go func() {
		defer close(kept)
		p.keepLog(ctx, logs)
	}()
	defer func() { <-kept }()
	if p.Workload.Publish {
		if err := p.publishSoon(ctx, exit.OK()); err != nil && ctx.Err() == nil && exit.OK() {
			failed := p.Failed(err)
			failed.Tail, exit = exit.Tail, failed
		} else if err != nil {
			p.Log.WarnContext(ctx, "publish the files of a failed workload", slog.String("workload", p.Workload.ID), slog.Any("error", err))
		}
	}
	return exit
}

// keepLog keeps the rest of the output; what cannot be kept is given up after seconds.
func (p Place) keepLog(ctx context.Context, logs *Shipper) {
	for attempt := range 5 {
		err := logs.Flush(ctx)
		if err == nil || ctx.Err() != nil {
			return
		}
		p.Log.WarnContext(ctx, "keep the log of a workload", slog.String("workload", p.Workload.ID), slog.Any("error", err))
		select {
		case <-ctx.Done():
		case <-time.After(time.Duration(1<<attempt) * 100 * time.Millisecond):
		}
	}
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
	lines := Tail(filepath.Join(p.Dir, Output))
	if errors.Is(err, ErrStopped) {
		return runtime.Judge(runtime.End{Code: 128 + 15, Stopped: true, Ended: p.Now(), Tail: lines})
	}
	exit := runtime.Refuse(diskFull(err), p.Now())
	exit.Tail = lines
	return exit
}

// diskFull names the cause of an error that a full disk is behind.
func diskFull(err error) error {
	if !errors.Is(err, syscall.ENOSPC) && !errors.Is(err, syscall.EDQUOT) {
		return err
	}
	e := resource.Outcome(err).WithCause(resource.CauseResource)
	e.Code, e.Reason, e.Hint = codes.ResourceExhausted, "DISK_FULL", "free space on the disk that the error names, then run it again"
	return e
}

const tailLines, tailBytes, lineBytes = 20, 16 << 10, 1000

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
	lines = lines[max(0, len(lines)-tailLines):]
	escape := regexp.MustCompile(`\x1b\[[0-9;?]*[A-Za-z]`)
	for i := range lines {
		lines[i] = plain(lines[i], escape)
	}
	return lines
}

// plain is a line as a terminal would show it at last, without what moves cursors
// and sets colours: its escapes.
func plain(line string, escape *regexp.Regexp) string {
	line = strings.TrimRight(line, "\r")
	line = line[strings.LastIndexByte(line, '\r')+1:] // progress bars
	line = escape.ReplaceAllString(line, "")
	line = strings.Map(func(r rune) rune {
		if r < ' ' && r != '\t' || r == 0x7f {
			return -1
		}
		return r
	}, line)
	if len(line) > lineBytes {
		line = strings.ToValidUTF8(line[:lineBytes], "") + "..."
	}
	return line
}
