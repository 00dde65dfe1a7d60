package process

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"

	"tategu/internal/runtime"
	"tategu/internal/runtime/process/wrapper"
	"tategu/internal/runtime/record"
	"tategu/internal/runtime/workload"

	"golang.org/x/sys/unix"
)

// mostSpare is how many directories of each kind wait for their next use.
const mostSpare = 16

// shelf keeps directories that programs have left as they found them. To make an inode
// and to remove it costs more than most of what is done for a short program, and a
// rename costs next to nothing: docs/adr/0013.
type shelf struct {
	dir string // below that of workloads, so that a rename takes one there

	mu   sync.Mutex
	seq  int
	free map[string][]string // by what they are good for; the last one is taken first
	n    int
}

func newShelf(dir string) *shelf { return &shelf{dir: dir, free: map[string][]string{}} }

// take gives one the path to, where nothing is; false = there is none.
func (s *shelf) take(key, to string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	free := s.free[key]
	if len(free) == 0 {
		return false
	}
	last := len(free) - 1
	s.free[key] = free[:last]
	s.n--
	return os.Rename(free[last], to) == nil
}

// give takes the directory at path away, unless there are enough.
func (s *shelf) give(key, path string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.n >= mostSpare || os.MkdirAll(s.dir, 0o700) != nil {
		return false
	}
	s.seq++
	spare := filepath.Join(s.dir, strconv.Itoa(s.seq))
	if os.Rename(path, spare) != nil {
		return false
	}
	s.free[key] = append(s.free[key], spare)
	s.n++
	return true
}

// skeletons are directories of workloads, with the directories that each has.
type skeletons struct{ shelf *shelf }

// bones are the directories of a skeleton.
func bones() []string { return []string{dirGCS, dirWork, dirTmp, wrapper.DirRoot} }

// make makes the directory of a workload, and in it, where that is for nothing, some of
// the directories that it asks for.
func (s skeletons) make(dir string, w runtime.Workload) error {
	if s.shelf.take("", dir) {
		err := rename(filepath.Join(dir, dirGCS), asked(w))
		if err == nil {
			return nil
		}
		if err := workload.RemoveAll(dir); err != nil {
			return err
		}
	}
	return os.MkdirAll(dir, 0o700)
}

// asked are the names that lead to the directory that a workload asks for below dirGCS;
// none where that is not one.
func asked(w runtime.Workload) []string {
	if len(w.Dirs) != 1 {
		return nil
	}
	rel, ok := strings.CutPrefix(w.Dirs[0], runtime.GCSRoot+"/")
	if !ok || !filepath.IsLocal(rel) {
		return nil
	}
	return strings.Split(filepath.Clean(rel), "/")
}

// give takes all that is in the directory of a workload out of it and keeps the rest;
// false = it is still there, for what somebody has made of it.
func (s skeletons) give(dir string, w runtime.Workload) bool {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return false
	}
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		switch {
		case e.Name() == dirGCS && private(path):
			err = strip(path, asked(w))
		case slices.Contains(bones(), e.Name()) && private(path):
			err = strip(path, nil)
		case slices.Contains(records(), e.Name()) && record.Keep(path):
		default:
			err = workload.RemoveAll(path)
		}
		if err != nil {
			return false
		}
	}
	return private(dir) && s.shelf.give("", dir)
}

// records are the files whose inodes serve the next workload's: nobody but the server
// and its wrappers reads them.
func records() []string { return []string{fileRecord, fileSpec, fileWrapper, fileExit, fileEnd} }

// strip removes all that is in a directory but the directories that lead down, where
// they are as we made them.
func strip(dir string, down []string) error {
	entries, err := os.ReadDir(dir)
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		if len(down) > 0 && e.Name() == down[0] && leads(path) {
			err = errors.Join(err, strip(path, down[1:]))
		} else {
			err = errors.Join(err, workload.RemoveAll(path))
		}
	}
	return err
}

// rename has the directories that strip has left in dir lead where the next workload
// asks, as far as there are any, and removes what is left of them.
func rename(dir string, down []string) error {
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if len(entries) != 1 || len(down) == 0 {
		return strip(dir, nil)
	}
	next := filepath.Join(dir, down[0])
	if entries[0].Name() != down[0] {
		if err := os.Rename(filepath.Join(dir, entries[0].Name()), next); err != nil {
			return err
		}
	}
	return rename(next, down[1:])
}

// leads reports a directory as MkdirAll makes it for a workload.
func leads(path string) bool {
	info, err := os.Lstat(path)
	return err == nil && info.Mode() == fs.ModeDir|0o755 && plain(path, info)
}

// private reports a directory as we make them.
func private(path string) bool {
	info, err := os.Lstat(path)
	return err == nil && info.Mode() == fs.ModeDir|0o700 && plain(path, info)
}

// plain reports a file that is ours and has no attributes beyond those of stat(2).
func plain(path string, info fs.FileInfo) bool {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok || int(st.Uid) != os.Geteuid() {
		return false
	}
	names := make([]byte, 256)
	n, err := unix.Llistxattr(path, names)
	if err != nil {
		return errors.Is(err, unix.ENOTSUP) // the disk has none
	}
	rest := strings.ReplaceAll(string(names[:n]), "security.selinux\x00", "") // the system's own label
	return rest == ""
}
