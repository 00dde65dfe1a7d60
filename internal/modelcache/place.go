package modelcache

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"google.golang.org/grpc/codes"

	"tategu/internal/resource"
)

// Mark is the file that tells a directory made by Place from others.
const Mark = ".tategu-model.json"

// Place makes dir hold the files of a version: hard links to the cache, or copies
// where that is another file system. What Place made before is replaced in one step
// (on Linux and macOS); anything else that is there is an error. The files do not
// need the cache any more. It gives the directory's full path.
func (l *Local) Place(dir string) (string, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return "", err
	}
	there, err := mayReplace(dir)
	if err != nil {
		return "", err
	}
	return dir, l.placeAt(dir, there)
}

func (l *Local) placeAt(dir string, there bool) (err error) {
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return err
	}
	part, err := os.MkdirTemp(filepath.Dir(dir), ".tategu-model-")
	if err != nil {
		return err
	}
	defer func() {
		if rerr := removeAll(part); !errors.Is(rerr, fs.ErrNotExist) {
			err = errors.Join(err, rerr)
		}
	}()
	if err := l.copyTo(part, dir); err != nil {
		return err
	}
	if !there {
		return os.Rename(part, dir)
	}
	return swap(part, dir) // what was there is removed as the part
}

// mayReplace reports whether something is at dir, which has to be ours or empty.
func mayReplace(dir string) (there bool, err error) {
	entries, err := os.ReadDir(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return false, nil
	case err != nil:
		return false, fmt.Errorf("look at %s: %w", dir, err)
	case len(entries) == 0:
		return true, nil
	}
	if _, err := os.Lstat(filepath.Join(dir, Mark)); err != nil {
		return false, resource.Errorf(codes.FailedPrecondition, "%s holds files that are not a model's", dir).WithHint("name a directory that does not exist, is empty, or was made by --to before")
	}
	return true, nil
}

// copyTo fills a directory that will be at a path.
func (l *Local) copyTo(dir, at string) error {
	for _, f := range l.Files {
		name, err := resource.FilePath(f.Name)
		if err == nil && name == Mark {
			err = resource.Errorf(codes.FailedPrecondition, "the model has a file %s, which marks directories of ours", Mark)
		}
		if err != nil {
			return err
		}
		target := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(target), 0o755); err != nil {
			return err
		}
		source := filepath.Join(l.Path, name)
		err = os.Link(source, target)
		if errors.Is(err, syscall.EXDEV) || errors.Is(err, syscall.EPERM) || errors.Is(err, syscall.EMLINK) {
			err = copyFile(source, target)
		}
		if err != nil {
			return err
		}
	}
	told := *l
	told.Path = at
	text, err := json.MarshalIndent(told, "", "  ")
	if err == nil {
		err = writeFile(filepath.Join(dir, Mark), append(text, '\n'))
	}
	return errors.Join(err, os.Chmod(dir, 0o755)) //nolint:gosec // as any directory that is made for others
}

func copyFile(source, target string) (err error) {
	r, err := os.Open(source)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	w, err := os.OpenFile(target, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o444) //nolint:gosec // as the file that it is a copy of
	if err != nil {
		return err
	}
	_, err = io.Copy(w, r)
	return errors.Join(err, w.Sync(), w.Close())
}
