package app

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"sync"
	"time"
)

const (
	rollAt    = 100 << 20 // bytes of a log before another one begins
	rollKeep  = 5         // old ones that are kept
	flushSize = 64 << 10
	flushTime = time.Second
)

// rolling is a log that is written in pieces, at least once a second, and begins anew
// when it is large: LOG becomes LOG.1, LOG.1 becomes LOG.2. One that was not opened
// takes lines and drops them.
type rolling struct {
	path  string
	limit int64 // bytes of a file; 0 = rollAt

	mu   sync.Mutex
	f    *os.File
	size int64
	buf  bytes.Buffer
}

func (l *rolling) open() error {
	f, err := os.OpenFile(l.path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("open a log: %w", err)
	}
	info, err := f.Stat()
	if err != nil {
		return errors.Join(err, f.Close())
	}
	l.f, l.size = f, info.Size()
	return nil
}

// Write implements io.Writer.
func (l *rolling) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.f == nil {
		return len(p), nil
	}
	l.buf.Write(p)
	if l.buf.Len() >= flushSize {
		return len(p), l.flush()
	}
	return len(p), nil
}

// flush writes what is there; l.mu is held. What cannot be written is dropped, so that
// a full disk costs lines and no memory.
func (l *rolling) flush() error {
	if l.f == nil || l.buf.Len() == 0 {
		return nil
	}
	n, err := l.f.Write(l.buf.Bytes())
	l.buf.Reset()
	l.size += int64(n)
	limit := l.limit
	if limit == 0 {
		limit = rollAt
	}
	if err != nil || l.size < limit {
		return err
	}
	if err := l.f.Close(); err != nil {
		return err
	}
	l.f = nil
	for i := rollKeep - 1; i >= 0; i-- {
		old := l.path
		if i > 0 {
			old += "." + strconv.Itoa(i)
		}
		if err := os.Rename(old, l.path+"."+strconv.Itoa(i+1)); err != nil && !errors.Is(err, os.ErrNotExist) {
			return errors.Join(err, l.open())
		}
	}
	return l.open()
}

// Flush writes what is there.
func (l *rolling) Flush() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.flush()
}

// Close writes what is there and closes the file.
func (l *rolling) Close() error {
	if l == nil {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.f == nil {
		return nil
	}
	err := errors.Join(l.flush(), l.f.Close())
	l.f = nil
	return err
}

// torchserveLogs are the logs of a server; access is that of requests, the others are
// those of metrics.
type torchserveLogs struct{ access, server, models *rolling }

// Run writes them every second until ctx is done.
func (t *torchserveLogs) Run(ctx context.Context) error {
	tick := time.NewTicker(flushTime)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			for _, l := range []*rolling{t.access, t.server, t.models} {
				_ = l.Flush() // a full disk must not end the server; lines are lost
			}
		}
	}
}

// Close closes them.
func (t *torchserveLogs) Close() error {
	return errors.Join(t.access.Close(), t.server.Close(), t.models.Close())
}
