package process

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

// shipper copies the output file to the sink, from where the last server left off.
type shipper struct {
	sink   runtime.LogSink
	stream string
	dir    string

	mu     sync.Mutex
	loaded bool
	offset int64

	cancel context.CancelFunc
	wg     sync.WaitGroup
}

// begin copies every half second until end.
func (s *shipper) begin() {
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
				_ = s.flush(ctx)
			}
		}
	})
}

func (s *shipper) end() {
	if s.cancel != nil {
		s.cancel()
		s.wg.Wait()
	}
}

// flush copies what is there. The offset file may lag behind the sink after a
// kill; the sink knows by the offset what it has.
func (s *shipper) flush(ctx context.Context) error {
	if s.sink == nil {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.loaded {
		if err := readJSON(filepath.Join(s.dir, fileShipped), &s.offset); err != nil {
			s.offset = 0
		}
		s.loaded = true
	}
	f, err := os.Open(filepath.Join(s.dir, fileOutput))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }() // opened for reading
	return s.copyFrom(ctx, f)
}

func (s *shipper) copyFrom(ctx context.Context, f *os.File) error {
	buf := make([]byte, shipChunk)
	before := s.offset
	for {
		n, err := f.ReadAt(buf, s.offset)
		if n > 0 {
			if err := s.sink.AppendLog(ctx, s.stream, s.offset, buf[:n]); err != nil {
				return fmt.Errorf("keep the log: %w", err)
			}
			s.offset += int64(n)
		}
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
	}
	if s.offset == before {
		return nil
	}
	return os.WriteFile(filepath.Join(s.dir, fileShipped), fmt.Appendf(nil, "%d", s.offset), 0o600)
}
