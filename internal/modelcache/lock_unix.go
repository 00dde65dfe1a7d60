//go:build unix

package modelcache

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// lockEvery is how often a lock that someone else has is tried again.
const lockEvery = 20 * time.Millisecond

// errBusy says that someone else has a lock.
var errBusy = errors.New("in use")

// tryLock takes the advisory lock of an open file or directory, which ends with the
// file's closing and so with the process, however that ends. Several may share it.
func tryLock(f *os.File, shared bool) error {
	how := unix.LOCK_EX
	if shared {
		how = unix.LOCK_SH
	}
	err := unix.Flock(int(f.Fd()), how|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		return errBusy
	}
	return err
}

// waitLock takes the lock once no one else has it.
func waitLock(ctx context.Context, f *os.File, shared bool) error {
	tick := time.NewTicker(lockEvery)
	defer tick.Stop()
	for {
		if err := tryLock(f, shared); !errors.Is(err, errBusy) {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// isAt reports whether the open file still is what a path leads to.
func isAt(f *os.File, path string) bool {
	here, err := f.Stat()
	if err != nil {
		return false
	}
	there, err := os.Lstat(path)
	return err == nil && os.SameFile(here, there)
}

// links gives what names a file on this machine, and how many names it has.
func links(info fs.FileInfo) (inode string, n uint64) {
	s, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return "", 0
	}
	return fmt.Sprintf("%d/%d", s.Dev, s.Ino), uint64(s.Nlink) //nolint:unconvert // its type differs between systems
}
