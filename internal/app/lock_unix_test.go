//go:build unix

package app

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"testing/synctest"

	"golang.org/x/sys/unix"
)

// TestLockOutlivesServer: a child between fork and exec holds the lock of a server
// that was killed; the next one waits for it.
func TestLockOutlivesServer(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "lock")
	held, err := lockFile(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	child := exec.Command("cat")
	child.ExtraFiles = []*os.File{held}
	stdin, err := child.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	held.Close() // as a kill does
	if other, err := os.OpenFile(path, os.O_RDWR, 0); err != nil {
		t.Fatal(err)
	} else if err := unix.Flock(int(other.Fd()), unix.LOCK_EX|unix.LOCK_NB); !errors.Is(err, unix.EWOULDBLOCK) {
		t.Fatalf("the child does not hold the lock: %v", err)
	} else {
		other.Close()
	}
	locked := make(chan error, 1)
	go func() {
		f, err := lockFile(t.Context(), path)
		if err == nil {
			err = f.Close()
		}
		locked <- err
	}()
	stdin.Close()
	if err := errors.Join(child.Wait(), <-locked); err != nil {
		t.Error(err)
	}
}

func TestLockInUse(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "lock")
		held, err := lockFile(t.Context(), path)
		if err != nil {
			t.Fatal(err)
		}
		defer held.Close()
		if _, err := lockFile(t.Context(), path); !errors.Is(err, unix.EWOULDBLOCK) {
			t.Errorf("a second lock: %v", err)
		}
	})
}
