package bucket

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
)

// dirs makes the names that the file driver gives durable: the driver renames
// without syncing directories.
type dirs struct {
	root string // of the keys

	mu   sync.Mutex
	seen map[string]bool // directories whose own names are durable
}

func newDirs(root, prefix string) *dirs {
	return &dirs{root: filepath.Join(root, prefix), seen: map[string]bool{}}
}

// sync returns when the name of key is durable.
func (d *dirs) sync(key string) error {
	dir := filepath.Dir(filepath.Join(d.root, filepath.FromSlash(key)))
	if err := syncDir(dir); err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	for ; !d.seen[dir]; dir = filepath.Dir(dir) {
		parent := filepath.Dir(dir)
		if parent == dir {
			return nil
		}
		if err := syncDir(parent); err != nil {
			return err
		}
		d.seen[dir] = true
		if dir == d.root {
			return nil
		}
	}
	return nil
}

// present says whether a key is there. The driver lists a directory that is not
// there as an empty one, so that an unmounted file system looks empty too.
func (d *dirs) present(key string) error {
	_, err := os.Stat(filepath.Join(d.root, filepath.FromSlash(key)))
	return err
}

// clean removes what a killed process left unfinished.
func (d *dirs) clean() error {
	root, err := os.OpenRoot(d.root)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // nothing was written yet
	}
	if err != nil {
		return err
	}
	err = fs.WalkDir(root.FS(), ".", func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || !strings.HasSuffix(path, ".tmp") {
			return err
		}
		return root.Remove(path)
	})
	return errors.Join(err, root.Close())
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
