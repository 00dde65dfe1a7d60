package backup

import (
	"bufio"
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc/codes"

	"tategu/internal/blob"
	"tategu/internal/resource"
	"tategu/internal/store"
)

// Source is a running server.
type Source struct {
	Version string
	Now     func() time.Time
	// Hold keeps every content that rows name until the function it gives is called.
	Hold func(ctx context.Context) (release func())
	// State writes a copy of the state of one moment into a new file.
	State func(ctx context.Context, path string, progress func(done, total int)) error
	Open  OpenSnapshot
	// Logs gives the content ids of the logs that the state knows.
	Logs func(ctx context.Context, r store.Reader) ([]string, error)
	// Read opens a content; length < 0 means all of it. fs.ErrNotExist when it is missing.
	Read func(ctx context.Context, id string, length int64) (io.ReadCloser, error)
	// Link gives a content that never changes a second name; it may fail.
	Link func(ctx context.Context, id, path string) error
	// Secrets are directories by the names they have in a data directory.
	Secrets map[string]string
	// Lock takes a file for this process alone.
	Lock func(path string) (io.Closer, error)
}

// creation is one run of Create.
type creation struct {
	Source
	dir      string
	m        Manifest
	list     *bufio.Writer
	current  map[string]bool // files below objects/ that the new manifest names
	progress func(Progress)

	mu sync.Mutex
	at Progress
}

// Create makes a backup in dir, which is missing, empty or holds an earlier one.
func Create(ctx context.Context, dir string, s Source, progress func(Progress)) (m Manifest, err error) {
	lock, err := prepare(dir, s.Lock)
	if err != nil {
		return m, err
	}
	defer func() { err = errors.Join(err, lock.Close()) }()
	id := make([]byte, 4)
	_, _ = rand.Read(id) // never fails since Go 1.24
	now := s.Now().UTC()
	c := &creation{Source: s, dir: dir, current: map[string]bool{}, progress: progress}
	c.m = Manifest{Format: format, ID: now.Format("20060102T150405Z") + "-" + hex.EncodeToString(id), Created: now, Version: s.Version, Secrets: []File{}}
	if err := c.run(ctx); err != nil {
		c.clean(func(id string) bool { return id == c.m.ID })
		return c.m, fmt.Errorf("backup into %s: %w", dir, err)
	}
	c.clean(func(id string) bool { return id != c.m.ID })
	c.prune()
	c.report(func(p *Progress) { p.Phase = "done" })
	return c.m, nil
}

// prepare makes the directory and takes its lock.
func prepare(dir string, lock func(string) (io.Closer, error)) (io.Closer, error) {
	if !filepath.IsAbs(dir) {
		return nil, resource.Invalid("directory", "the directory of a backup is an absolute path, not %q", dir)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, resource.Invalid("directory", "make the backup's directory: %v", err)
	}
	marker := filepath.Join(dir, fileMarker)
	if _, err := os.Stat(marker); errors.Is(err, fs.ErrNotExist) {
		entries, err := os.ReadDir(dir)
		if err != nil {
			return nil, err
		}
		if len(entries) > 0 {
			return nil, resource.Errorf(codes.FailedPrecondition, "%s holds something else than a backup", dir).WithHint("name an empty directory, or one of an earlier backup")
		}
		if err := os.WriteFile(marker, []byte(markerText), 0o600); err != nil {
			return nil, err
		}
	}
	l, err := lock(marker)
	if err != nil {
		return nil, resource.Errorf(codes.Aborted, "another backup is being made in %s", dir).WithHint("wait for its end")
	}
	return l, nil
}

func (c *creation) run(ctx context.Context) error {
	release := c.Hold(ctx)
	defer release()
	c.m.State.Path = "state-" + c.m.ID + ".db"
	state := filepath.Join(c.dir, c.m.State.Path)
	if err := c.copyState(ctx, state); err != nil {
		return err
	}
	snapshot, err := c.Open(state)
	if err != nil {
		return err
	}
	defer func() { _ = snapshot.Close() }() // it was only read
	if c.m.Schema, err = snapshot.Schema(ctx); err != nil {
		return err
	}
	if err := c.copyContents(ctx, snapshot); err != nil {
		return err
	}
	if err := c.copySecrets(ctx); err != nil {
		return err
	}
	if err := syncTree(c.dir); err != nil {
		return err
	}
	b, err := json.MarshalIndent(c.m, "", "  ")
	if err != nil {
		return err
	}
	if _, err := copyFile(ctx, filepath.Join(c.dir, fileManifest), strings.NewReader(string(b)+"\n")); err != nil {
		return err
	}
	return syncDir(c.dir)
}

func (c *creation) report(change func(*Progress)) {
	c.mu.Lock()
	change(&c.at)
	at := c.at
	c.mu.Unlock()
	c.progress(at)
}

func (c *creation) copyState(ctx context.Context, path string) error {
	// The file is made first, for its mode: it holds what tokens are checked against.
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	const page = 4096
	err = c.State(ctx, path, func(done, total int) {
		c.report(func(p *Progress) { p.Phase, p.Done, p.Total = "state", int64(done)*page, int64(total)*page })
	})
	if err != nil {
		return err
	}
	if f, err = os.OpenFile(path, os.O_RDWR, 0); err != nil {
		return err
	}
	if err := errors.Join(f.Sync(), f.Close()); err != nil {
		return err
	}
	c.m.State.Size, c.m.State.CRC32C, err = sumFile(ctx, path)
	return err
}

func (c *creation) copyContents(ctx context.Context, snapshot Snapshot) (err error) {
	logs, err := c.Logs(ctx, snapshot)
	if err != nil {
		return err
	}
	var total int64
	err = blob.References(ctx, snapshot, func(refs []blob.Reference) error {
		for _, r := range refs {
			total += r.Size
		}
		return nil
	})
	if err != nil {
		return err
	}
	c.report(func(p *Progress) { p.Phase, p.Done, p.Total = "contents", 0, total })
	c.m.List.Path = "contents-" + c.m.ID + ".jsonl"
	f, err := os.OpenFile(filepath.Join(c.dir, c.m.List.Path), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	c.list = bufio.NewWriter(f)
	err = blob.References(ctx, snapshot, func(refs []blob.Reference) error { return c.copyAll(ctx, refs) })
	for len(logs) > 0 && err == nil {
		n := min(len(logs), 256)
		refs := make([]blob.Reference, n)
		for i, id := range logs[:n] {
			refs[i] = blob.Reference{ID: id, Name: "log " + id, Size: -1, Grows: true}
		}
		logs, err = logs[n:], c.copyAll(ctx, refs)
	}
	if err = errors.Join(err, c.list.Flush(), f.Sync(), f.Close()); err != nil {
		return err
	}
	c.m.List.Size, c.m.List.CRC32C, err = sumFile(ctx, f.Name())
	return err
}

// copyAll copies some contents at the same time and lists them.
func (c *creation) copyAll(ctx context.Context, refs []blob.Reference) error {
	entries := make([]*Entry, len(refs))
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(parallel)
	for i, r := range refs {
		group.Go(func() (err error) {
			entries[i], err = c.copyOne(ctx, r)
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	out := json.NewEncoder(c.list)
	for _, e := range entries {
		if e == nil {
			continue
		}
		if err := out.Encode(e); err != nil {
			return err
		}
		c.current[e.File] = true
		c.m.Contents, c.m.Bytes = c.m.Contents+1, c.m.Bytes+e.Size
	}
	return nil
}

// copyOne gives nil for a content that there is none of: a log or an upload that
// has no byte yet, or one that is lost, which the manifest then says.
func (c *creation) copyOne(ctx context.Context, r blob.Reference) (*Entry, error) {
	if r.Grows && r.Size == 0 {
		return nil, nil
	}
	e := &Entry{ID: r.ID, File: name(r.ID, r.Size, r.Grows), Size: r.Size, CRC32C: r.CRC32C}
	copied, linked := true, false
	err := c.bring(ctx, r, e, &copied, &linked)
	switch {
	case errors.Is(err, fs.ErrNotExist) && r.Size < 0:
		return nil, nil // nothing was ever written to this log
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, errDamaged):
		c.mu.Lock()
		c.m.Damaged = append(c.m.Damaged, r.Name)
		c.mu.Unlock()
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("%s: %w", r.Name, err)
	}
	c.report(func(p *Progress) {
		p.Contents, p.Done = p.Contents+1, p.Done+max(r.Size, 0)
		if copied {
			p.Copied++
		}
		if linked {
			p.Linked++
		}
	})
	return e, nil
}

// errDamaged is the error of a content that is not what its row says.
var errDamaged = errors.New("its bytes are not those that were written")

func (c *creation) bring(ctx context.Context, r blob.Reference, e *Entry, copied, linked *bool) error {
	path := filepath.Join(c.dir, dirObjects, e.File)
	if info, err := os.Stat(path); err == nil && r.Size >= 0 && info.Size() == r.Size {
		*copied = false
		return nil
	}
	if !r.Grows {
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			return err
		}
		if err := c.Link(ctx, r.ID, path); err == nil {
			*linked = true
			if info, err := os.Stat(path); err != nil || info.Size() == r.Size {
				return err
			}
			return errors.Join(errDamaged, os.Remove(path))
		}
	}
	in, err := c.Read(ctx, r.ID, r.Size)
	if err != nil {
		return err
	}
	defer func() { _ = in.Close() }() // it was read to its end
	if r.Size < 0 {
		return c.bringLog(ctx, r, e, in, copied)
	}
	f, err := copyFile(ctx, path, in)
	if err != nil {
		return err
	}
	if f.Size != r.Size || f.CRC32C != r.CRC32C {
		return errors.Join(errDamaged, os.Remove(path))
	}
	return nil
}

// bringLog copies a log as long as it is now; its length is part of its name.
func (c *creation) bringLog(ctx context.Context, r blob.Reference, e *Entry, in io.Reader, copied *bool) error {
	folder := filepath.Join(c.dir, dirObjects, filepath.Dir(name(r.ID, 0, false)))
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return err
	}
	tmp := filepath.Join(folder, r.ID+".new-"+c.m.ID)
	f, err := copyFile(ctx, tmp, in)
	if err != nil {
		return err
	}
	e.File, e.Size, e.CRC32C = name(r.ID, f.Size, true), f.Size, f.CRC32C
	path := filepath.Join(c.dir, dirObjects, e.File)
	if _, err := os.Stat(path); err == nil {
		*copied = false
	}
	return os.Rename(tmp, path) // over the same bytes, where they are there already
}

func (c *creation) copySecrets(ctx context.Context) error {
	for sub, from := range c.Secrets {
		err := filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
			if err != nil || !d.Type().IsRegular() {
				return err
			}
			rel, err := filepath.Rel(from, path)
			if err != nil {
				return err
			}
			in, err := os.Open(path) //nolint:gosec // G122: a directory of our own
			if err != nil {
				return err
			}
			defer func() { _ = in.Close() }() // opened for reading
			to := filepath.Join("secrets-"+c.m.ID, sub, rel)
			f, err := copyFile(ctx, filepath.Join(c.dir, to), in)
			f.Path = to
			c.m.Secrets = append(c.m.Secrets, f)
			return err
		})
		if err != nil {
			return fmt.Errorf("copy %s: %w", sub, err)
		}
	}
	return nil
}

// clean removes the files of those backups whose id is wanted gone. What fails is
// tried again by the next backup.
func (c *creation) clean(gone func(id string) bool) {
	for _, pattern := range []string{"state-*.db", "state-*.db-journal", "contents-*.jsonl", "secrets-*"} {
		paths, err := filepath.Glob(filepath.Join(c.dir, pattern))
		if err != nil {
			return // the patterns are well formed
		}
		for _, path := range paths {
			_, id, _ := strings.Cut(filepath.Base(path), "-")
			id, _, _ = strings.Cut(id, ".")
			if gone(id) {
				_ = os.RemoveAll(path)
			}
		}
	}
}

// prune removes contents that the manifest does not name.
func (c *creation) prune() {
	root := filepath.Join(c.dir, dirObjects)
	_ = filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error { // as in clean
		if err != nil || d.IsDir() {
			return nil //nolint:nilerr // what cannot be read now is removed another time
		}
		if rel, err := filepath.Rel(root, path); err == nil && !c.current[rel] {
			_ = os.Remove(path) //nolint:gosec // G122: as above
		}
		return nil
	})
}
