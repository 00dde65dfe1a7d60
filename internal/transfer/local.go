package transfer

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"google.golang.org/grpc/codes"

	"tategu/internal/resource"
)

// localPath gives the path of a file below a directory for a relative object name,
// or why it can have none.
func localPath(name string) (string, error) {
	path, err := resource.FilePath(name)
	if e, ok := errors.AsType[*resource.Error](err); ok {
		return "", e.WithHint("copy this object by itself, to a name that can")
	}
	return path, err
}

// place is where downloads go: files below one directory and nowhere else, also
// when links lead out of it.
type place struct {
	dir  string // made when the first file comes
	root *os.Root
}

func (p *place) open() error {
	if p.root != nil {
		return nil
	}
	if err := os.MkdirAll(p.dir, 0o750); err != nil {
		return err
	}
	var err error
	p.root, err = os.OpenRoot(p.dir)
	return err
}

func (p *place) close() error {
	if p.root == nil {
		return nil
	}
	return p.root.Close()
}

// exists reports a file at a path below the directory.
func (p *place) exists(path string) (bool, error) {
	_, err := p.root.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

// write lets fill write a temporary file beside path and gives it the name only
// when that went well, so that a file is there whole or not at all.
func (p *place) write(path string, noClobber bool, fill func(io.Writer) error) (err error) {
	folder := filepath.Dir(path)
	if err := p.root.MkdirAll(folder, 0o750); err != nil {
		return err
	}
	var random [8]byte
	_, _ = rand.Read(random[:]) // never fails
	temp := filepath.Join(folder, ".tategu-"+hex.EncodeToString(random[:]))
	f, err := p.root.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o640)
	if err != nil {
		return err
	}
	defer func() {
		if rerr := p.root.Remove(temp); !errors.Is(rerr, fs.ErrNotExist) {
			err = errors.Join(err, rerr)
		}
	}()
	if err := errors.Join(fill(f), f.Close()); err != nil {
		return err
	}
	if noClobber {
		if err := p.root.Link(temp, path); errors.Is(err, fs.ErrExist) {
			return errExists
		} else if err != nil {
			return err
		}
		return nil
	}
	if info, err := p.root.Stat(path); err == nil && info.IsDir() {
		return resource.Errorf(codes.FailedPrecondition, "%s is a directory", filepath.Join(p.dir, path)).WithHint("an object and a folder cannot have one name on a disk")
	}
	return p.root.Rename(temp, path)
}
