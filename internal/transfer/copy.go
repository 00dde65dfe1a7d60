package transfer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"mime"
	"os"
	"path"
	"path/filepath"
	"strings"
	"sync"

	"tategu/internal/resource"
)

// parallel bounds transfers at once.
const parallel = 8

// Copier copies between files and objects, in any direction.
type Copier struct {
	Client    *Client
	Recursive bool
	NoClobber bool // what exists already stays
	DryRun    bool // only tells
	Move      bool // removes each source that was copied
	Stdin     io.Reader
	Stdout    io.Writer
	Progress  *Progress
	// Say is told of what was done or would be (dry runs); Fail of every source that
	// could not be copied. Both may be called by several goroutines at once.
	Say  func(line string)
	Fail func(what string, err error)
}

// job is one thing to copy.
type job struct {
	file     string // local source, or
	object   Object // remote source; a zero Name: stdin
	relative string // below a destination that is a folder
	size     int64  // -1 = not known
	remote   bool
}

func (j job) String() string {
	switch {
	case j.remote:
		return j.object.URL().String()
	case j.file != "":
		return j.file
	}
	return "stdin"
}

// errFailed says that some sources failed, each of which was told to Fail.
var errFailed = errors.New("not everything was copied")

// Copy copies all sources. It goes on after a source that fails, and gives an
// error at the end then.
func (c *Copier) Copy(ctx context.Context, sources []string, dst string) error {
	to, err := c.destination(ctx, sources, dst)
	if err != nil {
		return err
	}
	jobs := make(chan job)
	var failures sync.Map
	fail := func(what string, err error) { failures.Store(what, true); c.Fail(what, err) }
	var workers sync.WaitGroup
	n := parallel
	if to.stdout {
		n = 1 // one after the other, in the order of the sources
	}
	for range n {
		workers.Go(func() {
			for j := range jobs {
				if err := c.do(ctx, j, to); err != nil && ctx.Err() == nil {
					fail(j.String(), err)
				}
			}
		})
	}
	for _, source := range sources {
		err := c.plan(ctx, source, to, func(j job) error {
			c.Progress.Found(j.size)
			select {
			case jobs <- j:
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		})
		if err != nil && ctx.Err() == nil {
			fail(source, err)
		}
	}
	c.Progress.Planned()
	close(jobs)
	workers.Wait()
	if err := to.place.close(); err != nil {
		return err
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	failed := 0
	failures.Range(func(any, any) bool { failed++; return true })
	if failed > 0 {
		return fmt.Errorf("%w: %d failed", errFailed, failed)
	}
	return nil
}

// destination is where a copy goes.
type destination struct {
	text   string
	remote bool
	url    URL
	place  place
	file   string // the one file of place, when it is not a folder
	folder bool   // names are appended
	stdout bool
}

// destination decides whether names are appended to dst: a bucket, a name that
// ends with a slash, a directory that exists, and whatever takes several sources
// are folders.
func (c *Copier) destination(ctx context.Context, sources []string, dst string) (*destination, error) {
	d := &destination{text: dst}
	several := len(sources) > 1
	for _, s := range sources {
		several = several || IsRemote(s) && isPattern(strings.TrimPrefix(s, scheme))
	}
	switch {
	case dst == "-":
		d.stdout = true
		return d, nil
	case IsRemote(dst):
		u, err := ParseURL(dst)
		if err != nil {
			return nil, err
		}
		if isPattern(u.Name) || u.Generation != 0 {
			return nil, resource.Invalid("destination", "the destination %s has a wildcard or a generation", dst)
		}
		d.remote, d.url = true, u
		d.folder = several || u.Name == "" || strings.HasSuffix(u.Name, "/")
		if d.folder && u.Name != "" && !strings.HasSuffix(u.Name, "/") {
			d.url.Name += "/"
		}
		if _, err := c.Client.page(ctx, Query{Bucket: u.Bucket, Limit: 1}, ""); err != nil {
			return nil, c.Client.explain(ctx, u, err)
		}
		return d, nil
	}
	info, err := os.Stat(dst)
	isDir := err == nil && info.IsDir()
	if several && err == nil && !isDir {
		return nil, resource.Invalid("destination", "%s is a file, and there are several sources", dst).WithHint("name a directory")
	}
	d.folder = several || isDir || strings.HasSuffix(dst, "/")
	d.place.dir = dst
	if !d.folder {
		d.place.dir, d.file = filepath.Split(filepath.Clean(dst))
		if d.place.dir == "" {
			d.place.dir = "."
		}
	}
	if c.DryRun {
		return d, nil
	}
	if !d.folder && c.Recursive { // the copy of a folder: decided by the first source
		return d, nil
	}
	return d, d.place.open()
}

// plan finds what one source stands for.
func (c *Copier) plan(ctx context.Context, source string, to *destination, add func(job) error) error {
	switch {
	case source == "-":
		if to.folder || to.stdout {
			return resource.Invalid("source", "standard input has no name").WithHint("name the object or file to write")
		}
		return c.single(to, func() error { return add(job{size: -1}) })
	case IsRemote(source):
		return c.planRemote(ctx, source, to, add)
	}
	return c.planLocal(source, to, add)
}

// single readies a destination that takes one file under its own name.
func (c *Copier) single(to *destination, add func() error) error {
	if !to.remote && !to.stdout && !c.DryRun {
		if err := to.place.open(); err != nil {
			return err
		}
	}
	return add()
}

// tree makes a destination that is no folder yet the root of a copied folder:
// names go below it, without the folder's own.
func (c *Copier) tree(to *destination, base string) (prefix string, err error) {
	if to.stdout {
		return "", nil
	}
	if to.folder {
		if base == "" {
			return "", nil
		}
		return base + "/", nil
	}
	to.folder = true
	if to.remote {
		to.url.Name += "/"
		return "", nil
	}
	to.place = place{dir: filepath.Join(to.place.dir, to.file)}
	if c.DryRun {
		return "", nil
	}
	return "", to.place.open()
}

func (c *Copier) planRemote(ctx context.Context, source string, to *destination, add func(job) error) error {
	u, err := ParseURL(source)
	if err != nil {
		return err
	}
	prefix, first := "", true
	for s, err := range c.Client.Select(ctx, u, c.Recursive, false) {
		if err != nil {
			return err
		}
		if s.Single {
			return c.single(to, func() error {
				return add(job{remote: true, object: s.Object, relative: s.Relative, size: s.Size})
			})
		}
		if first {
			base := ""
			if !isPattern(u.Name) && u.Name != "" {
				base = baseOf(u.Name)
			}
			if prefix, err = c.tree(to, base); err != nil {
				return err
			}
			first = false
		}
		if !to.remote && strings.HasSuffix(s.Name, "/") && s.Size == 0 {
			continue // a folder marker, as consoles and mounts make them
		}
		if err := add(job{remote: true, object: s.Object, relative: prefix + s.Relative, size: s.Size}); err != nil {
			return err
		}
	}
	return nil
}

func (c *Copier) planLocal(source string, to *destination, add func(job) error) error {
	info, err := os.Stat(source)
	if err != nil {
		return err
	}
	if !to.remote {
		return resource.Invalid("source", "%s and %s are both on this machine", source, to.text).WithHint("use cp; one of the two must be gs://…")
	}
	if !info.IsDir() {
		return add(job{file: source, relative: filepath.Base(source), size: info.Size()})
	}
	if !c.Recursive {
		return resource.Invalid("source", "%s is a directory", source).WithHint("add -r for all that is below")
	}
	base := filepath.Base(filepath.Clean(source))
	if base == "." || base == ".." || base == string(filepath.Separator) {
		base = ""
	}
	prefix, err := c.tree(to, base)
	if err != nil {
		return err
	}
	return filepath.WalkDir(source, func(file string, d os.DirEntry, err error) error {
		if err != nil {
			c.Fail(file, err)
			return nil
		}
		if d.IsDir() {
			return nil
		}
		info, err := os.Stat(file) // what a link leads to
		if err != nil || !info.Mode().IsRegular() {
			c.Progress.Skipped()
			c.Say("skipped " + file + ": not a regular file")
			return nil //nolint:nilerr // told, and not an error
		}
		rel, err := filepath.Rel(source, file)
		if err != nil {
			return err
		}
		return add(job{file: file, relative: prefix + filepath.ToSlash(rel), size: info.Size()})
	})
}

// do copies one thing.
func (c *Copier) do(ctx context.Context, j job, to *destination) error {
	name, err := c.name(j, to)
	if err != nil {
		return err
	}
	if c.DryRun {
		c.Say("would copy " + j.String() + " to " + name)
		return nil
	}
	switch {
	case to.remote && j.remote:
		err = c.Client.rewrite(ctx, j.object, c.remoteName(j, to), c.NoClobber)
		err = target{noClobber: c.NoClobber}.exists(err)
		if err == nil {
			c.Progress.Add(j.size)
		}
	case to.remote:
		err = c.upload(ctx, j, c.remoteName(j, to))
	default:
		err = c.download(ctx, j, to)
	}
	if errors.Is(err, errExists) {
		c.Progress.Skipped()
		c.Say("skipped " + name + ": it exists")
		return nil
	}
	if err != nil {
		return err
	}
	c.Progress.Finished()
	if c.Move {
		return c.removeSource(ctx, j)
	}
	return nil
}

func (c *Copier) removeSource(ctx context.Context, j job) error {
	switch {
	case j.remote:
		return c.Client.Remove(ctx, j.object.URL(), j.object.Generation)
	case j.file != "":
		return os.Remove(j.file)
	}
	return nil
}

// name is what the copy is called, for people; it refuses names that cannot be.
func (c *Copier) name(j job, to *destination) (string, error) {
	switch {
	case to.stdout:
		return "stdout", nil
	case to.remote:
		return c.remoteName(j, to).String(), nil
	case !to.folder:
		return filepath.Join(to.place.dir, to.file), nil
	}
	path, err := localPath(j.relative)
	return filepath.Join(to.place.dir, path), err
}

func (c *Copier) remoteName(j job, to *destination) URL {
	u := to.url
	if to.folder {
		u.Name += j.relative
	}
	return u
}

func (c *Copier) upload(ctx context.Context, j job, u URL) error {
	t := target{url: u, contentType: mime.TypeByExtension(path.Ext(u.Name)), noClobber: c.NoClobber}
	if t.contentType == "" {
		t.contentType = "application/octet-stream"
	}
	if j.file == "" {
		return c.Client.uploadStream(ctx, c.Stdin, t, c.Progress.Add)
	}
	f, err := os.Open(j.file)
	if err != nil {
		return err
	}
	return errors.Join(c.Client.uploadFile(ctx, f, j.size, t, c.Progress.Add), f.Close())
}

func (c *Copier) download(ctx context.Context, j job, to *destination) error {
	if to.stdout {
		return c.Client.Download(ctx, j.object, c.Stdout, c.Progress.Add)
	}
	file := to.file
	if to.folder {
		var err error
		if file, err = localPath(j.relative); err != nil {
			return err
		}
	}
	if c.NoClobber {
		if there, err := to.place.exists(file); err != nil || there {
			return errors.Join(err, errExists)
		}
	}
	return to.place.write(file, c.NoClobber, func(w io.Writer) error {
		return c.Client.Download(ctx, j.object, w, c.Progress.Add)
	})
}
