package sqlite_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"google.golang.org/grpc/codes"

	"tategu/internal/resource"
	"tategu/internal/store"
	"tategu/internal/store/sqlite"
	"tategu/internal/volume"
)

func put(t *testing.T, s *sqlite.Store, key string, size int) error {
	t.Helper()
	return s.Update(t.Context(), func(tx store.Tx) error {
		return tx.Put(t.Context(), store.Row{Kind: "thing", Key: key, Data: make([]byte, size)})
	})
}

// TestFullFile: every caller of a common commit that meets a full disk hears of
// it by code, whichever of them was too large; what was acknowledged is there.
func TestFullFile(t *testing.T) {
	t.Parallel()
	s := open(t, filepath.Join(t.TempDir(), "state.db"))
	if err := s.LimitPages(t.Context(), 300); err != nil {
		t.Fatal(err)
	}
	var refused atomic.Int64
	var kept sync.Map
	var callers sync.WaitGroup
	for w := range 8 {
		callers.Go(func() {
			for n := range 40 {
				key := fmt.Sprintf("%d-%d", w, n)
				switch err := put(t, s, key, 1000+n*200*w); {
				case err == nil:
					kept.Store(key, true)
				case resource.CodeOf(err) == codes.ResourceExhausted && errors.Is(err, syscall.ENOSPC):
					refused.Add(1)
				default:
					t.Errorf("put on a full disk: %v", err)
				}
			}
		})
	}
	callers.Wait()
	if refused.Load() == 0 {
		t.Fatal("nothing was refused")
	}
	kept.Range(func(key, _ any) bool {
		if _, err := s.Get(t.Context(), "thing", fmt.Sprint(key)); err != nil {
			t.Errorf("%v was acknowledged: %v", key, err)
		}
		return true
	})
	if err := s.LimitPages(t.Context(), 1<<20); err != nil {
		t.Fatal(err)
	}
	if err := put(t, s, "later", 100_000); err != nil {
		t.Errorf("with room again: %v", err)
	}
}

// TestLogStaysShort: the write-ahead log is moved into the database as it grows.
func TestLogStaysShort(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "state.db")
	s := open(t, path)
	for n := range 60 {
		if err := put(t, s, strconv.Itoa(n), 1<<20); err != nil {
			t.Fatal(err)
		}
	}
	info, err := os.Stat(path + "-wal")
	if err != nil {
		t.Fatal(err)
	}
	// It is moved at 4 MB, which one write may overstep.
	if info.Size() > 8<<20 {
		t.Errorf("the log has %d bytes after 60 MB of writes", info.Size())
	}
}

// TestBrokenVolume: nothing is written once the disk failed, whoever noticed.
func TestBrokenVolume(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	v, err := volume.Open(dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	s, err := sqlite.Open(t.Context(), filepath.Join(dir, "state.db"), sqlite.OnVolume(v))
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}()
	if err := put(t, s, "before", 1); err != nil {
		t.Fatal(err)
	}
	_ = v.Check("write content", syscall.EIO)
	if err := put(t, s, "after", 1); resource.CodeOf(err) != codes.Unavailable || !errors.Is(err, volume.ErrReadOnly) {
		t.Errorf("put on a broken disk: %v", err)
	}
	if _, err := s.Get(t.Context(), "thing", "before"); err != nil {
		t.Errorf("reads go on: %v", err)
	}
	if _, err := s.Get(t.Context(), "thing", "after"); !resource.IsNotFound(err) {
		t.Errorf("it was written: %v", err)
	}
}
