package bucket

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync/atomic"
	"time"

	"gocloud.dev/blob"
)

const (
	// peekSize is what is read before a writer is opened: most contents end within
	// it, and then the driver needs no larger buffer.
	peekSize = 256 << 10
	// partSize and partsAtOnce bound what one transfer holds in memory.
	partSize    = 8 << 20
	partsAtOnce = 2
	// stall is how long a write waits for a bucket that takes no bytes: the drivers
	// try again and again, some without end.
	stall = time.Minute
	// grace bounds what is tidied up for a caller who may have left.
	grace = 30 * time.Second
)

// putting says what put does with less than it hoped for.
type putting struct {
	keep  bool // what came before the reader failed becomes the object; otherwise nothing does
	empty bool // no bytes at all become an empty object; otherwise nothing is written
}

// put streams r into key until EOF or splitSize bytes, n == splitSize meaning that
// there may be more. ctx ends the write; readErr is r's own error.
func (c *Content) put(ctx context.Context, key string, r io.Reader, how putting) (n int64, readErr, err error) {
	buf, ok := c.buffers.Get().(*[]byte)
	if !ok {
		return 0, nil, errors.New("buffer pool holds something else")
	}
	defer c.buffers.Put(buf)
	r = io.LimitReader(r, c.splitSize)
	head, rest := fill(r, *buf)
	if broken := rest != nil && !errors.Is(rest, io.EOF); broken && !how.keep {
		return 0, rest, nil
	} else if head == 0 && !how.empty {
		return 0, ended(rest), nil
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	w, finish, err := c.writer(ctx, key, rest != nil, false)
	if err != nil {
		return 0, nil, c.failed("write to", err)
	}
	patience := &watch{limit: c.stall, cancel: cancel}
	n, readErr, err = pump(func(p []byte) error { return patience.during(func() error { _, err := w.Write(p); return err }) }, r, *buf, head, rest)
	if err != nil || (readErr != nil && !how.keep) {
		cancel() // so that Close leaves nothing
		closed := w.Close()
		c.discardParts(context.WithoutCancel(ctx), key)
		if err != nil {
			return 0, nil, c.failed("write to", errors.Join(err, closed))
		}
		return 0, readErr, nil
	}
	if err := patience.during(func() error { return finish(w) }); err != nil {
		return 0, nil, c.failed("write to", err)
	}
	return n, readErr, nil
}

// ended makes the end of a reader no error.
func ended(err error) error {
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

// writer opens key; the second result is called in place of Close and returns when the
// object is durable.
func (c *Content) writer(ctx context.Context, key string, small, onlyNew bool) (*blob.Writer, func(*blob.Writer) error, error) {
	opts := &blob.WriterOptions{ContentType: "application/octet-stream", BufferSize: partSize, MaxConcurrency: partsAtOnce, IfNotExist: onlyNew}
	if small && !c.minimumPart {
		opts.BufferSize, opts.MaxConcurrency = peekSize, 1
	}
	var file *os.File
	opts.BeforeWrite = func(as func(any) bool) error {
		as(&file)
		return nil
	}
	w, err := c.bucket.NewWriter(ctx, key, opts)
	return w, func(w *blob.Writer) error {
		if file == nil || c.dirs == nil {
			return w.Close()
		}
		if err := file.Sync(); err != nil {
			return errors.Join(err, os.Remove(file.Name()), w.Close())
		}
		if err := w.Close(); err != nil {
			return err
		}
		return c.dirs.sync(key)
	}, err
}

// watch ends a write that makes no progress.
type watch struct {
	limit  time.Duration
	cancel func()
}

// during runs do, and gives up after the limit.
func (w *watch) during(do func() error) error {
	var late atomic.Bool
	timer := time.AfterFunc(w.limit, func() { late.Store(true); w.cancel() })
	defer timer.Stop()
	err := do()
	if err != nil && late.Load() {
		// The context's error is not the caller's.
		return fmt.Errorf("it took no bytes for %s: %v", w.limit, err) //nolint:errorlint // as said
	}
	return err
}

// pump copies head and then r with write; rest is the error that ended head, nil when r
// goes on. readErr is nil at EOF.
func pump(write func([]byte) error, r io.Reader, buf []byte, head int, rest error) (n int64, readErr, err error) {
	for {
		if head > 0 {
			if err := write(buf[:head]); err != nil {
				return n, nil, err
			}
			n += int64(head)
		}
		if rest != nil {
			return n, ended(rest), nil
		}
		head, rest = fill(r, buf)
	}
}

// fill reads until buf is full or r ends.
func fill(r io.Reader, buf []byte) (n int, err error) {
	for n < len(buf) && err == nil {
		var m int
		m, err = r.Read(buf[n:])
		n += m
	}
	return n, err
}

// cancelled ends a transfer when its context does.
type cancelled struct {
	done func() error
	r    io.Reader
}

func reader(ctx context.Context, r io.Reader) io.Reader { return cancelled{done: ctx.Err, r: r} }

func (c cancelled) Read(p []byte) (int, error) {
	if err := c.done(); err != nil {
		return 0, err
	}
	return c.r.Read(p)
}
