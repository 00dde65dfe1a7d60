package modelcache

import (
	"context"
	"crypto/md5" //nolint:gosec // what storage tells of an object besides its CRC32C
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc/codes"

	"tategu/internal/resource"
)

// Cache is a directory of models that several processes share:
//
//	DIGEST/files/...      a model's files: hard links, read-only
//	DIGEST/manifest.json  what they are; its time is that of the last use
//	.files/KEY            each content once
//	.parts/...            what is being made, locked by who makes it
//	.names/KEY.json       which version a name was when it was last asked for
//
// A whole thing gets its place by a rename. Who uses a model holds a shared lock on
// its directory, who removes one takes the lock alone.
type Cache struct {
	dir string
}

const (
	filesDir     = "files"
	manifestName = "manifest.json"
	contentDir   = ".files"
	partsDir     = ".parts"
	namesDir     = ".names"

	// parallel bounds downloads at once.
	parallel = 8
)

// Open makes the cache of a directory ready.
func Open(dir string) (*Cache, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	for _, sub := range []string{contentDir, partsDir, namesDir} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o750); err != nil {
			return nil, fmt.Errorf("open the cache of models: %w", err)
		}
	}
	return &Cache{dir: dir}, nil
}

func (c *Cache) path(parts ...string) string {
	return filepath.Join(append([]string{c.dir}, parts...)...)
}

// manifest is what is kept beside a model's files.
type manifest struct {
	Model   string `json:"model"` // that the files came for first
	Version string `json:"version"`
	Files   []File `json:"files"`
}

// entry is a model of the cache in use: it stays until it is closed.
type entry struct {
	digest   string
	dir      string // of the files
	manifest manifest
	lock     *os.File // the model's directory
}

func (e *entry) Close() error {
	now := time.Now()
	err := os.Chtimes(filepath.Join(filepath.Dir(e.dir), manifestName), now, now)
	return errors.Join(err, e.lock.Close())
}

// open gives a model that is here; nil = it is not.
func (c *Cache) open(ctx context.Context, digest string) (*entry, error) {
	dir := c.path(digest)
	for {
		f, err := os.Open(dir)
		if errors.Is(err, fs.ErrNotExist) {
			return nil, nil
		}
		if err != nil {
			return nil, err
		}
		if err := waitLock(ctx, f, true); err != nil {
			return nil, errors.Join(err, f.Close())
		}
		if !isAt(f, dir) { // it was removed meanwhile
			if err := f.Close(); err != nil {
				return nil, err
			}
			continue
		}
		e := &entry{digest: digest, dir: filepath.Join(dir, filesDir), lock: f}
		if err := e.read(); err != nil {
			return nil, errors.Join(err, f.Close())
		}
		return e, nil
	}
}

// read reads the manifest and checks that the files still have their sizes.
func (e *entry) read() error {
	file := filepath.Join(filepath.Dir(e.dir), manifestName)
	text, err := os.ReadFile(file)
	if err == nil {
		err = json.Unmarshal(text, &e.manifest)
	}
	damaged := func(format string, args ...any) error {
		return resource.Errorf(codes.DataLoss, "the cached model %s is damaged: %s", filepath.Dir(e.dir), fmt.Sprintf(format, args...)).
			WithHint("someone changed it; `tategu model prune --damaged` removes it, and the next pull brings it again")
	}
	if err != nil {
		return damaged("%v", err)
	}
	for _, f := range e.manifest.Files {
		name, err := resource.FilePath(f.Name)
		if err != nil {
			return damaged("%v", err)
		}
		info, err := os.Lstat(filepath.Join(e.dir, name))
		switch {
		case err != nil:
			return damaged("%v", err)
		case !info.Mode().IsRegular() || info.Size() != f.Size:
			return damaged("%s has %d bytes and not %d", f.Name, info.Size(), f.Size)
		}
	}
	return nil
}

// ensure gives the model of a listing, and brings what is missing.
func (c *Cache) ensure(ctx context.Context, objects Objects, l listing, v Version, p Progress) (*entry, error) {
	for first := true; ; first = false {
		e, err := c.open(ctx, l.digest)
		if err != nil {
			return nil, err
		}
		if e != nil {
			if first {
				for _, f := range l.files {
					p.Found(f.Size)
					p.Skipped()
				}
				p.Planned()
			}
			return e, nil
		}
		if err := c.build(ctx, objects, l, v, p); err != nil {
			return nil, err
		}
	}
}

// build makes a model's directory beside its place and moves it there. If someone
// else was faster, theirs stays.
func (c *Cache) build(ctx context.Context, objects Objects, l listing, v Version, p Progress) (err error) {
	part, err := os.MkdirTemp(c.path(partsDir), l.digest[:16]+"-")
	if err != nil {
		return err
	}
	lock, err := os.Open(part)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, lock.Close()) }()
	if err := tryLock(lock, false); err != nil {
		return errors.Join(err, removeAll(part))
	}
	err = c.fill(ctx, objects, l, filepath.Join(part, filesDir), p)
	if err == nil {
		err = writeManifest(filepath.Join(part, manifestName), manifest{Model: v.Model, Version: v.ID, Files: l.files})
	}
	if err == nil {
		err = seal(part)
	}
	if err == nil {
		if err = os.Rename(part, c.path(l.digest)); err == nil {
			return syncDir(c.dir)
		}
		if errors.Is(err, fs.ErrExist) {
			err = nil // someone was faster
		}
	}
	return errors.Join(err, removeAll(part))
}

// fill puts the files of a listing into a new directory.
func (c *Cache) fill(ctx context.Context, objects Objects, l listing, dir string, p Progress) error {
	made := map[string]bool{}
	for _, f := range l.files {
		p.Found(f.Size)
		if folder := filepath.Dir(filepath.Join(dir, f.path)); !made[folder] {
			if err := os.MkdirAll(folder, 0o750); err != nil {
				return err
			}
			made[folder] = true
		}
	}
	p.Planned()
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(parallel)
	for _, f := range l.files {
		group.Go(func() error { return c.place(ctx, objects, f, filepath.Join(dir, f.path), p) })
	}
	return group.Wait()
}

// place puts one file, from the contents that are here or from storage.
func (c *Cache) place(ctx context.Context, objects Objects, f File, target string, p Progress) error {
	for {
		err := c.link(f, target)
		if err == nil {
			p.Skipped()
			return nil
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if done, err := c.download(ctx, objects, f, target, p); err != nil || done {
			return err
		}
	}
}

// link makes target the content of a file, when that is here.
func (c *Cache) link(f File, target string) error {
	content := c.path(contentDir, f.key)
	info, err := os.Lstat(content)
	if err != nil {
		return err
	}
	if info.Size() != f.Size {
		if err := os.Remove(content); err != nil { // someone wrote into it
			return err
		}
		return fs.ErrNotExist
	}
	if err := os.Link(content, target); err != nil {
		return fmt.Errorf("share the content of %s: %w (the cache needs a file system with hard links)", f.Name, err)
	}
	return nil
}

// download brings a content that is not here and puts it at target. It holds the
// lock of the part, so that others wait for it instead of bringing the same again;
// done is false when someone else had the lock: then it is to be looked for again.
func (c *Cache) download(ctx context.Context, objects Objects, f File, target string, p Progress) (done bool, err error) {
	part := c.path(partsDir, f.key)
	w, err := os.OpenFile(part, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, w.Close()) }()
	if err := waitLock(ctx, w, false); err != nil {
		return false, err
	}
	if !isAt(w, part) {
		return false, nil
	}
	if err := receive(ctx, objects, f, w, p); err != nil {
		return false, errors.Join(err, os.Remove(part))
	}
	content := c.path(contentDir, f.key)
	if err := os.Rename(part, content); err != nil {
		return false, err
	}
	if err := c.link(f, target); err != nil {
		return false, err
	}
	p.Finished()
	return true, syncDir(c.path(contentDir))
}

// receive writes an object into an empty file, checked, on disk and read-only.
func receive(ctx context.Context, objects Objects, f File, w *os.File, p Progress) error {
	if err := w.Truncate(0); err != nil {
		return err
	}
	sum := md5.New() //nolint:gosec // as above
	if err := objects.Download(ctx, f.object, io.MultiWriter(w, sum), p.Add); err != nil {
		return fmt.Errorf("download gs://%s/%s: %w", f.object.Bucket, f.object.Name, err)
	}
	if got := base64.StdEncoding.EncodeToString(sum.Sum(nil)); f.object.MD5 != "" && got != f.object.MD5 {
		return resource.Errorf(codes.DataLoss, "gs://%s/%s: the bytes have MD5 %s, and %s was promised", f.object.Bucket, f.object.Name, got, f.object.MD5)
	}
	info, err := w.Stat()
	if err != nil {
		return err
	}
	if info.Size() != f.Size {
		return resource.Errorf(codes.DataLoss, "gs://%s/%s: %d bytes came, and %d were promised", f.object.Bucket, f.object.Name, info.Size(), f.Size)
	}
	return errors.Join(w.Chmod(0o444), w.Sync())
}

func writeManifest(file string, m manifest) error {
	text, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return err
	}
	return writeFile(file, append(text, '\n'))
}

// writeFile writes a new file that is on disk when it returns.
func writeFile(file string, text []byte) error {
	f, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644) //nolint:gosec // read by whom the directory lets in
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	return errors.Join(err, f.Sync(), f.Close())
}

// seal makes the directories of a model's files read-only, and all of it durable.
func seal(dir string) error {
	var dirs []string
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			dirs = append(dirs, path)
		}
		return err
	})
	if err != nil {
		return err
	}
	for _, d := range dirs {
		if err := syncDir(d); err != nil {
			return err
		}
		if d == dir { // a directory is renamed by who may write into it
			continue
		}
		if err := os.Chmod(d, 0o555); err != nil { //nolint:gosec // read by whom the cache's own directory lets in
			return err
		}
	}
	return os.Chmod(dir, 0o755) //nolint:gosec // likewise
}

func syncDir(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// removeAll removes a directory, also one that is read-only.
func removeAll(dir string) error {
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			err = os.Chmod(path, 0o700) //nolint:gosec // to be removed
		}
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	})
	return errors.Join(err, os.RemoveAll(dir))
}

// isDigest reports the name of a model's directory.
func isDigest(name string) bool {
	return len(name) == 64 && strings.Trim(name, "0123456789abcdef") == ""
}
