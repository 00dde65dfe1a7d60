// Package record keeps what a server, the programs it starts and the next server
// tell each other in files: each is written whole, and a torn one counts as absent.
// It is linked into the wrapper of workloads, so that it imports little.
package record

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// WriteWhole replaces a private file in one step: whoever reads it, also after we
// were killed, finds the old or the new one whole. A power loss may leave neither.
func WriteWhole(path string, v any) error { return replace(path, v, false) }

// WriteDurable is WriteWhole that survives a power loss.
func WriteDurable(path string, v any) error {
	if err := replace(path, v, true); err != nil {
		return err
	}
	return SyncDir(filepath.Dir(path))
}

func replace(path string, v any, durable bool) (err error) {
	b, err := json.MarshalIndent(v, "", " ")
	if err != nil {
		return err
	}
	f, err := fresh(path, durable)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = os.Remove(f.Name()) // the first error is the one to tell
		}
	}()
	_, err = f.Write(b)
	if err == nil { // it may have been another's, and longer
		err = f.Truncate(int64(len(b)))
	}
	if err == nil && durable {
		err = f.Sync()
	}
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}

// kept is the name under which Keep leaves a file for the next one of its name.
func kept(path string) string {
	return filepath.Join(filepath.Dir(path), ".kept-"+filepath.Base(path))
}

// Keep leaves the inode of a record that says nothing any more for the next record of
// its name in that directory: to make and to remove one costs more than to write to it.
// false = it is no file as we make them, and still there.
func Keep(path string) bool {
	info, err := os.Lstat(path)
	if err != nil || info.Mode() != 0o600 {
		return false
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	return ok && st.Nlink == 1 && int(st.Uid) == os.Geteuid() && os.Rename(path, kept(path)) == nil
}

// fresh is a file that takes the name of path once it is written: one that was kept, or
// a new one. Of one that was kept a power loss could leave another record's content.
func fresh(path string, durable bool) (*os.File, error) {
	if !durable {
		if f, err := os.OpenFile(kept(path), os.O_WRONLY|syscall.O_NOFOLLOW, 0); err == nil {
			return f, nil
		}
	}
	return os.CreateTemp(filepath.Dir(path), ".new-*")
}

// ErrTorn is wrapped by what a file gives that a power loss, or somebody else, has
// left without its content.
var ErrTorn = errors.New("not a whole record")

// Absent reports a record that says nothing: it is not there, or torn.
func Absent(err error) bool { return errors.Is(err, fs.ErrNotExist) || errors.Is(err, ErrTorn) }

// ReadJSON reads a file of no record.
func ReadJSON(path string, v any) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(b, v); err != nil {
		return fmt.Errorf("read %s: %w: %w", path, ErrTorn, err)
	}
	return nil
}

// Whole says of itself whether it has all that it must: a file of the right form
// can still lack everything.
type Whole interface{ Whole() bool }

// ReadWhole reads a record; one that is not whole is torn.
func ReadWhole(path string, v Whole) error {
	if err := ReadJSON(path, v); err != nil {
		return err
	}
	if !v.Whole() {
		return fmt.Errorf("read %s: %w", path, ErrTorn)
	}
	return nil
}

// SyncDir makes the names in a directory survive a power loss.
func SyncDir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	defer func() { _ = d.Close() }() // opened for reading
	return d.Sync()
}

// Exists reports a file of any kind.
func Exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// RemoveAll removes a directory with all below it, also what a program left
// without write permission.
func RemoveAll(dir string) error {
	err := os.RemoveAll(dir)
	if err == nil || !errors.Is(err, fs.ErrPermission) {
		return err
	}
	_ = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			_ = os.Chmod(path, 0o700) //nolint:gosec // a directory needs x; best effort, the second removal tells
		}
		return nil
	})
	return os.RemoveAll(dir)
}
