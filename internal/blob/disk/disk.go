// Package disk keeps content as files in one directory tree, named by id and
// spread over folders. New content is written to a temporary file, hashed on the
// way, synced and renamed, so that an id either has all its bytes or is not there.
package disk

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"tategu/internal/blob"
	"tategu/internal/resource"
	"tategu/internal/volume"
)

// bufferSize is what one transfer holds in memory.
const bufferSize = 256 << 10

// Content is a blob.Content in a directory.
type Content struct {
	dir     string
	volume  *volume.Volume
	buffers sync.Pool
	link    func(from, to string) error
}

var _ blob.Content = (*Content)(nil)

// Option changes what Open makes.
type Option func(*Content)

// OnVolume names the disk that the directory is on: its reserve is kept free,
// what fails there is told to it, and nothing changes once it is read-only.
func OnVolume(v *volume.Volume) Option { return func(c *Content) { c.volume = v } }

// Open makes the directory if needed and removes what a killed process left
// unfinished. One process uses a directory at a time.
func Open(dir string, options ...Option) (*Content, error) {
	if err := os.RemoveAll(filepath.Join(dir, "tmp")); err != nil {
		return nil, fmt.Errorf("open content: %w", err)
	}
	if err := os.MkdirAll(filepath.Join(dir, "tmp"), 0o700); err != nil {
		return nil, fmt.Errorf("open content: %w", err)
	}
	c := &Content{dir: dir, link: os.Link}
	for _, option := range options {
		option(c)
	}
	c.buffers.New = func() any { b := make([]byte, bufferSize); return &b }
	return c, errors.Join(syncDir(dir), syncDir(filepath.Dir(dir)))
}

// path of an id: ids are ours or hex, never what a user named.
func (c *Content) path(id string) (string, error) {
	if len(id) < 8 || len(id) > 80 {
		return "", fmt.Errorf("content id %q is not well formed", id)
	}
	for _, b := range []byte(id) {
		if (b < 'a' || b > 'z') && (b < '0' || b > '9') && b != '-' {
			return "", fmt.Errorf("content id %q is not well formed", id)
		}
	}
	return filepath.Join(c.dir, id[len(id)-2:], id), nil
}

// Create implements blob.Content.
func (c *Content) Create(ctx context.Context, r io.Reader) (id string, d blob.Digest, err error) {
	if err := c.volume.Room(); err != nil {
		return "", blob.Digest{}, err
	}
	f, err := os.CreateTemp(filepath.Join(c.dir, "tmp"), "new-")
	if err != nil {
		return "", blob.Digest{}, c.volume.Check("create content", err)
	}
	defer func() {
		if err != nil {
			_ = f.Close() // a second Close after an error is harmless
			_ = os.Remove(f.Name())
		}
	}()
	h := blob.NewHasher(reader(ctx, r))
	defer h.Close()
	if _, err := c.copy(f, h, volume.Content); err != nil {
		return "", blob.Digest{}, err
	}
	if err := errors.Join(f.Sync(), f.Close()); err != nil {
		return "", blob.Digest{}, c.volume.Check("write content", err)
	}
	id = resource.RandomID()
	if err := c.place(f.Name(), id, os.Rename); err != nil {
		return "", blob.Digest{}, err
	}
	return id, h.Digest(), nil
}

// place gives a synced file its durable name with os.Rename or os.Link.
func (c *Content) place(from, id string, how func(from, to string) error) error {
	to, err := c.path(id)
	if err != nil {
		return err
	}
	if err := c.folder(filepath.Dir(to)); err != nil {
		return err
	}
	if err := how(from, to); err != nil {
		return c.volume.Check("name content", err)
	}
	return c.volume.Check("name content", syncDir(filepath.Dir(to)))
}

// folder makes one of the folders that ids are spread over.
func (c *Content) folder(dir string) error {
	if err := os.Mkdir(dir, 0o700); errors.Is(err, fs.ErrExist) {
		return nil
	} else if err != nil {
		return c.volume.Check("create folder", err)
	}
	return c.volume.Check("create folder", syncDir(c.dir))
}

// Append implements blob.Content.
func (c *Content) Append(ctx context.Context, id string, offset int64, r io.Reader) (n int64, err error) {
	path, err := c.path(id)
	if err != nil {
		return 0, err
	}
	use := volume.Content
	if strings.HasPrefix(id, blob.LogPrefix) {
		use = volume.Logs
	}
	done, err := c.volume.Claim(0, use)
	if err != nil {
		return 0, err
	}
	done()
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	created := errors.Is(err, fs.ErrNotExist)
	if created {
		if err := c.folder(filepath.Dir(path)); err != nil {
			return 0, err
		}
		f, err = os.OpenFile(path, os.O_WRONLY|os.O_CREATE, 0o600)
	}
	if err != nil {
		return 0, c.volume.Check("append to content", err)
	}
	defer func() {
		if cerr := f.Close(); cerr != nil {
			n, err = 0, errors.Join(err, c.volume.Check("append to content", cerr))
		}
	}()
	info, err := f.Stat()
	if err != nil {
		return 0, c.volume.Check("append to content", err)
	}
	if info.Size() < offset {
		return 0, fmt.Errorf("append to content %s at %d: it has %d bytes", id, offset, info.Size())
	}
	if err := f.Truncate(offset); err != nil {
		return 0, c.volume.Check("append to content", err)
	}
	if _, err := f.Seek(offset, io.SeekStart); err != nil {
		return 0, c.volume.Check("append to content", err)
	}
	n, failure := c.copy(f, reader(ctx, r), use)
	if volume.Blocked(failure) {
		// What did not fit comes again as a whole: its beginning must not hold the
		// little room there is, perhaps for days.
		n = 0
		if err := f.Truncate(offset); err != nil {
			return 0, c.volume.Check("append to content", err)
		}
	}
	if use == volume.Logs {
		return n, failure
	}
	if err := f.Sync(); err != nil {
		return 0, c.volume.Check("append to content", err)
	}
	if created {
		if err := syncDir(filepath.Dir(path)); err != nil {
			return 0, c.volume.Check("append to content", err)
		}
	}
	return n, failure
}

// Open implements blob.Content.
func (c *Content) Open(_ context.Context, id string, offset, length int64) (io.ReadCloser, error) {
	path, err := c.path(id)
	if err != nil {
		return nil, err
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err // fs.ErrNotExist is part of the contract
	}
	if length < 0 {
		info, err := f.Stat()
		if err != nil {
			return nil, errors.Join(err, f.Close())
		}
		length = max(info.Size()-offset, 0)
	}
	if _, err := f.Seek(offset, io.SeekStart); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return &section{LimitedReader: io.LimitedReader{R: f, N: length}, f: f, offset: offset}, nil
}

// section is a part of a file. WriteTo lets a socket take the bytes from the
// file without a copy through user space.
type section struct {
	io.LimitedReader
	f      *os.File
	offset int64
}

// Place says where the bytes are, for helper processes.
func (s *section) Place() (path string, offset int64) {
	path, err := filepath.Abs(s.f.Name())
	if err != nil { // there is no working directory: nobody else finds it either
		return "", 0
	}
	return path, s.offset
}

func (s *section) Close() error { return s.f.Close() }

func (s *section) WriteTo(w io.Writer) (int64, error) { return io.Copy(w, &s.LimitedReader) }

// Size implements blob.Content.
func (c *Content) Size(_ context.Context, id string) (int64, error) {
	path, err := c.path(id)
	if err != nil {
		return 0, err
	}
	info, err := os.Stat(path)
	if err != nil {
		return 0, err
	}
	return info.Size(), nil
}

// Link implements blob.Content. The bytes are copied where the file system makes no
// further link: it has none, or the file has as many as it may (65,000 on ext4).
func (c *Content) Link(ctx context.Context, id string) (string, error) {
	from, err := c.path(id)
	if err != nil {
		return "", err
	}
	if err := c.volume.Writable(); err != nil {
		return "", err
	}
	// A link has the times of the file, and Sweep takes young content for not yet
	// named: both names start young.
	if err := os.Chtimes(from, time.Time{}, time.Now()); err != nil {
		return "", c.volume.Check("link content", err) // fs.ErrNotExist is part of the contract
	}
	second := resource.RandomID()
	err = c.place(from, second, c.link)
	if !noLink(err) {
		return second, err
	}
	r, err := c.Open(ctx, id, 0, -1)
	if err != nil {
		return "", err
	}
	second, _, err = c.Create(ctx, r)
	return second, errors.Join(err, r.Close())
}

func noLink(err error) bool {
	return errors.Is(err, syscall.EMLINK) || errors.Is(err, syscall.EPERM) || errors.Is(err, errors.ErrUnsupported)
}

// LinkTo gives the file of a content a second name, on the same file system.
func (c *Content) LinkTo(_ context.Context, id, path string) error {
	from, err := c.path(id)
	if err != nil {
		return err
	}
	return os.Link(from, path)
}

// Remove implements blob.Content.
func (c *Content) Remove(_ context.Context, id string) error {
	path, err := c.path(id)
	if err != nil {
		return err
	}
	if err := c.volume.Writable(); err != nil {
		return err
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return c.volume.Check("remove content", err)
	}
	return nil
}

// Walk implements blob.Content.
func (c *Content) Walk(ctx context.Context, fn func(id string, written time.Time) error) error {
	folders, err := os.ReadDir(c.dir)
	if err != nil {
		return fmt.Errorf("walk content: %w", err)
	}
	for _, folder := range folders {
		if len(folder.Name()) != 2 || !folder.IsDir() {
			continue
		}
		files, err := os.ReadDir(filepath.Join(c.dir, folder.Name()))
		if err != nil {
			return fmt.Errorf("walk content: %w", err)
		}
		for _, file := range files {
			if err := ctx.Err(); err != nil {
				return err
			}
			info, err := file.Info()
			if errors.Is(err, fs.ErrNotExist) {
				continue // removed meanwhile
			}
			if err != nil {
				return fmt.Errorf("walk content: %w", err)
			}
			if err := fn(file.Name(), info.ModTime()); err != nil {
				return err
			}
		}
	}
	return nil
}

// flushEvery is how much is written before the kernel is told to begin with the
// disk, so that the sync at the end has little left to do.
const flushEvery = 8 << 20

func (c *Content) copy(f *os.File, r io.Reader, use volume.Use) (n int64, err error) {
	buf, ok := c.buffers.Get().(*[]byte)
	if !ok {
		return 0, errors.New("buffer pool holds something else")
	}
	defer c.buffers.Put(buf)
	start, err := f.Seek(0, io.SeekCurrent)
	if err != nil {
		return 0, c.volume.Check("write content", err)
	}
	for flushed := int64(0); ; {
		got, rerr := r.Read(*buf)
		wrote, werr := c.write(f, (*buf)[:got], use)
		n += int64(wrote)
		switch {
		case werr != nil:
			return n, werr
		case errors.Is(rerr, io.EOF):
			return n, nil
		case rerr != nil:
			return n, rerr
		}
		if n-flushed >= flushEvery {
			if err := startWriting(f, start+flushed, n-flushed); err != nil {
				return n, c.volume.Check("write content", err)
			}
			flushed = n
		}
	}
}

// write takes p while there is room for it. Its errors are the disk's.
func (c *Content) write(f *os.File, p []byte, use volume.Use) (int, error) {
	done, err := c.volume.Claim(int64(len(p)), use)
	if err != nil {
		return 0, err
	}
	defer done()
	n, err := f.Write(p)
	return n, c.volume.Check("write content", err)
}

// cancelled ends a transfer when its context does.
type cancelled struct {
	done func() error
	r    io.Reader
}

func reader(ctx context.Context, r io.Reader) io.Reader { return cancelled{done: ctx.Err, r: r} }

func (c cancelled) Read(p []byte) (int, error) {
	if err := c.done(); err != nil {
		return 0, err
	}
	return c.r.Read(p)
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
