package transfer

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"google.golang.org/grpc/codes"

	"tategu/internal/resource"
)

// maxSegment is the longest file name of the usual file systems.
const maxSegment = 255

// localPath gives the path of a file below a directory for a relative object name,
// or why it can have none.
func localPath(name string) (string, error) {
	refuse := func(format string, args ...any) error {
		return resource.Invalid("name", "%q cannot be a file: %s", name, fmt.Sprintf(format, args...)).
			WithHint("copy this object by itself, to a name that can")
	}
	for segment := range strings.SplitSeq(name, "/") {
		switch {
		case segment == "":
			return "", refuse("it has an empty segment")
		case segment == "." || segment == "..":
			return "", refuse("it has the segment %q", segment)
		case len(segment) > maxSegment:
			return "", refuse("it has a segment of %d bytes, the most is %d", len(segment), maxSegment)
		case strings.ContainsRune(segment, 0):
			return "", refuse("it holds a NUL")
		}
	}
	path := filepath.FromSlash(name)
	if !filepath.IsLocal(path) {
		return "", refuse("this system has no such path")
	}
	return path, nil
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
