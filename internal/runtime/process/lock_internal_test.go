package process

import (
	"errors"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"testing"
)

// TestLookAtLock: who looks whether a directory is locked leaves it unlocked, also
// when other programs are started meanwhile, which inherit descriptors until they run.
func TestLookAtLock(t *testing.T) {
	t.Parallel()
	in := &instance{dir: t.TempDir()}
	done := make(chan struct{})
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				if err := exec.CommandContext(t.Context(), "true").Run(); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	defer wg.Wait()
	defer close(done)
	for range 3000 {
		if in.locked() {
			t.Fatal("locked by nobody")
		}
		f, err := os.Open(in.dir)
		if err != nil {
			t.Fatal(err)
		}
		syscall.ForkLock.RLock()
		err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		_ = syscall.Flock(int(f.Fd()), syscall.LOCK_UN)
		syscall.ForkLock.RUnlock()
		_ = f.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			t.Fatal("still locked after a look")
		}
	}
}
