package workload

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"tategu/internal/runtime"
)

const (
	shipEvery = 500 * time.Millisecond
	shipChunk = 256 << 10
)

// Shipper copies the output file to a sink, from where the last server left off.
type Shipper struct {
	sink   runtime.LogSink // nil: nothing is copied
	stream string
	dir    string

	mu     sync.Mutex
	loaded bool
	offset int64

	cancel context.CancelFunc
	wg     sync.WaitGroup
}

// NewShipper ships the output of a workload, unless that is not to be kept; sink may be nil.
func NewShipper(sink runtime.LogSink, w runtime.Workload, dir string) *Shipper {
	if w.Unlogged {
		sink = nil
	}
	return &Shipper{sink: sink, stream: runtime.LogStream(w.Owner, w.ID), dir: dir}
}

// Begin copies every half second until End.
func (s *Shipper) Begin() {
	if s.sink == nil {
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	s.cancel = cancel
	s.wg.Go(func() {
		tick := time.NewTicker(shipEvery)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
				// An error shows in the flush at the end; until then the next round tries again.
				_ = s.flush(ctx, true)
			}
		}
	})
}

// End stops copying; what is left stays for Flush.
func (s *Shipper) End() {
	if s.cancel != nil {
		s.cancel()
		s.wg.Wait()
	}
}

// Flush copies what is there.
func (s *Shipper) Flush(ctx context.Context) error { return s.flush(ctx, false) }

// flush notes how far it came where the program goes on, so that the next server need
// not read a long output from its beginning. The note may lag behind the sink; the
// sink knows by the offset what it has.
func (s *Shipper) flush(ctx context.Context, note bool) error {
	if s.sink == nil {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.loaded {
		if err := ReadJSON(filepath.Join(s.dir, fileShipped), &s.offset); err != nil {
			s.offset = 0
		}
		s.loaded = true
	}
	f, err := os.Open(filepath.Join(s.dir, Output))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }() // opened for reading
	st, err := f.Stat()
	if err != nil {
		return err
	}
	before := s.offset
	if err := s.copyFrom(ctx, f, st.Size()); err != nil || !note || s.offset == before {
		return err
	}
	return os.WriteFile(filepath.Join(s.dir, fileShipped), fmt.Appendf(nil, "%d", s.offset), 0o600)
}

// copyFrom copies a file that was of some size a moment ago.
func (s *Shipper) copyFrom(ctx context.Context, f io.ReaderAt, size int64) error {
	if size <= s.offset {
		return nil
	}
	// Most programs say little. One byte more than there is shows the end at once.
	buf := make([]byte, min(size-s.offset+1, shipChunk))
	for {
		n, err := f.ReadAt(buf, s.offset)
		if n > 0 {
			if err := s.sink.AppendLog(ctx, s.stream, s.offset, buf[:n]); err != nil {
				return fmt.Errorf("keep the log: %w", err)
			}
			s.offset += int64(n)
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if len(buf) < shipChunk { // it goes on writing
			buf = make([]byte, shipChunk)
		}
	}
}
