//go:build unix

package box

import (
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"tategu/internal/runtime/record"
)

// Make makes the directory of a workload that the container is built in.
func Make(dir string, ids Mapping) error {
	box := filepath.Join(dir, Box)
	if err := record.RemoveAll(box); err != nil { // left by a server that was killed
		return err
	}
	for _, d := range []string{box, filepath.Join(box, boxRoot), filepath.Join(box, boxUpper), filepath.Join(box, boxWork)} {
		if err := os.Mkdir(d, 0o755); err != nil {
			return err
		}
		if ids.Count > 1 {
			if err := os.Lchown(d, ids.Base, ids.Base); err != nil {
				return err
			}
		}
	}
	return nil
}

// ChownTree gives all below a directory, which no program can change meanwhile,
// to ids of this machine.
func ChownTree(dir string, uid, gid int) error {
	return filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return os.Lchown(path, uid, gid) //nolint:gosec // no program runs yet that could change a path
	})
}

func ownedBy(path string, uid int) bool {
	st, err := os.Lstat(path)
	if err != nil {
		return false
	}
	s, ok := st.Sys().(*syscall.Stat_t)
	return ok && int(s.Uid) == uid
}
