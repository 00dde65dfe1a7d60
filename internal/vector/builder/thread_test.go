package builder

import (
	"path/filepath"
	"runtime"
	"sync"
	"testing"

	"tategu/internal/vector/ann"
)

// TestThread: a build lives as long as the server does, not as the thread that started it,
// although the kernel kills it with that one.
func TestThread(t *testing.T) {
	t.Parallel()
	rows := func(yield func(ann.Row, error) bool) {
		n := 0
		for r, err := range some(6000) {
			if n++; n == 100 {
				endThreads()
			}
			if !yield(r, err) {
				return
			}
		}
	}
	built, err := newProcess(t).Build(t.Context(), filepath.Join(t.TempDir(), "s"), rows, options(), true)
	if err != nil || built.Stats.Rows != 6000 {
		t.Errorf("built %+v, %v", built.Stats, err)
	}
}

// endThreads ends all threads of this process that wait for work.
func endThreads() {
	const many = 100 // more than there are
	var locked, ended sync.WaitGroup
	locked.Add(many)
	for range many {
		ended.Go(func() {
			runtime.LockOSThread() // and its goroutine ends: so does the thread
			locked.Done()
			locked.Wait()
		})
	}
	ended.Wait()
}
