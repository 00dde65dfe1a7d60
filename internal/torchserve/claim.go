package torchserve

import (
	"errors"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// claim is a folder that is one server's, below one that several may share: servers of
// one model store unpack into it side by side. Its lock ends with the process.
type claim struct {
	dir  string
	lock *os.File
}

const lockSuffix = ".lock"

// claimFolder makes one, and removes those of servers that are no more.
func claimFolder(parent string) (*claim, error) {
	if err := os.MkdirAll(parent, 0o700); err != nil {
		return nil, err
	}
	// Between the making of a folder and its lock nobody may look.
	gate, err := os.OpenFile(filepath.Join(parent, ".gate"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	defer func() { _ = gate.Close() }() // nothing was written
	if err := flock(gate, unix.LOCK_EX); err != nil {
		// A file system without locks: what others left stays.
		return makeClaim(parent)
	}
	entries, err := os.ReadDir(parent)
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		if e.Name() == ".gate" {
			continue
		}
		if err := removeAbandoned(filepath.Join(parent, strings.TrimSuffix(e.Name(), lockSuffix))); err != nil {
			return nil, err
		}
	}
	return makeClaim(parent)
}

func makeClaim(parent string) (*claim, error) {
	dir, err := os.MkdirTemp(parent, "server-")
	if err != nil {
		return nil, err
	}
	lock, err := os.OpenFile(dir+lockSuffix, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, errors.Join(err, os.Remove(dir))
	}
	_ = flock(lock, unix.LOCK_EX|unix.LOCK_NB) // without locks nobody removes what is another's
	return &claim{dir, lock}, nil
}

// removeAbandoned removes a folder whose lock nobody holds.
func removeAbandoned(dir string) error {
	lock, err := os.OpenFile(dir+lockSuffix, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	if flock(lock, unix.LOCK_EX|unix.LOCK_NB) != nil {
		return lock.Close() // a server runs
	}
	return (&claim{dir, lock}).release()
}

// release removes the folder, then its lock.
func (c *claim) release() error {
	return errors.Join(os.RemoveAll(c.dir), os.Remove(c.lock.Name()), c.lock.Close())
}

func flock(f *os.File, how int) error {
	for {
		if err := unix.Flock(int(f.Fd()), how); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}
