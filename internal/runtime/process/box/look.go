package box

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// OpStart marks the fs.PathErrors of starting a program.
const OpStart = "start"

// Look finds a program by the PATH of its own environment, from its working
// directory dir. An error is a fs.PathError of OpStart.
func Look(name, dir string, env []string) (string, error) {
	if strings.Contains(name, "/") {
		if !filepath.IsAbs(name) {
			name = filepath.Join(dir, name)
		}
		return name, nil
	}
	why := &fs.PathError{Op: OpStart, Path: name, Err: fs.ErrNotExist}
	for _, v := range env {
		list, ok := strings.CutPrefix(v, "PATH=")
		if !ok {
			continue
		}
		for _, d := range filepath.SplitList(list) {
			full := filepath.Join(d, name)
			if !filepath.IsAbs(d) {
				full = filepath.Join(dir, d, name)
			}
			st, err := os.Stat(full)
			switch {
			case err != nil || !st.Mode().IsRegular():
			case st.Mode()&0o111 != 0:
				return full, nil
			default:
				why = &fs.PathError{Op: OpStart, Path: full, Err: fs.ErrPermission}
			}
		}
	}
	return "", why
}
