package backup

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc/codes"

	"tategu/internal/blob"
	"tategu/internal/resource"
)

// Verify reads the whole backup in dir against what was written, and what its state
// names against what it holds.
func Verify(ctx context.Context, dir string, open OpenSnapshot, progress func(Progress)) (Manifest, error) {
	m, err := ReadManifest(dir)
	if err != nil {
		return m, err
	}
	for _, f := range append([]File{m.State}, m.Secrets...) {
		size, crc, err := sumFile(ctx, filepath.Join(dir, f.Path))
		if err != nil {
			return m, fmt.Errorf("read the backup: %w", err)
		}
		if size != f.Size || crc != f.CRC32C {
			return m, damaged(f.Path)
		}
	}
	held, err := m.checkContents(ctx, dir, progress)
	if err != nil {
		return m, err
	}
	return m, m.checkState(ctx, dir, open, held)
}

// checkContents reads every content, and gives how many there are.
func (m Manifest) checkContents(ctx context.Context, dir string, progress func(Progress)) (held int, err error) {
	var bytes, count atomic.Int64
	err = m.each(dir, func(entries []Entry) error {
		group, ctx := errgroup.WithContext(ctx)
		group.SetLimit(parallel)
		for _, e := range entries {
			group.Go(func() error {
				size, crc, err := sumFile(ctx, filepath.Join(dir, dirObjects, e.File))
				if err != nil {
					return fmt.Errorf("read the backup: %w", err)
				}
				if size != e.Size || crc != e.CRC32C {
					return damaged(filepath.Join(dirObjects, e.File))
				}
				progress(Progress{Phase: "contents", Done: bytes.Add(size), Total: m.Bytes, Contents: int(count.Add(1))})
				return nil
			})
		}
		return group.Wait()
	})
	return int(count.Load()), err
}

// checkState compares the rows with the contents.
func (m Manifest) checkState(ctx context.Context, dir string, open OpenSnapshot, held int) error {
	snapshot, err := open(filepath.Join(dir, m.State.Path))
	if err != nil {
		return err
	}
	defer func() { _ = snapshot.Close() }() // it was only read
	if err := snapshot.Check(ctx); err != nil {
		return err
	}
	if _, err := blob.CheckSmall(ctx, snapshot); err != nil {
		return err
	}
	lost := map[string]bool{}
	for _, name := range m.Damaged {
		lost[name] = true
	}
	named := 0
	err = blob.References(ctx, snapshot, func(refs []blob.Reference) error {
		for _, r := range refs {
			if lost[r.Name] || r.Grows && r.Size == 0 {
				continue
			}
			named++
			if _, err := os.Stat(filepath.Join(dir, dirObjects, name(r.ID, r.Size, r.Grows))); err != nil {
				return resource.Errorf(codes.DataLoss, "the backup lacks the content of %s: %v", r.Name, err).WithHint("use another backup")
			}
		}
		return nil
	})
	if err == nil && (held != m.Contents || named > held) {
		err = damaged(m.List.Path)
	}
	return err
}

// Content is where restored contents go; a blob.Content is one.
type Content interface {
	Append(ctx context.Context, id string, offset int64, r io.Reader) (n int64, err error)
}

// Target is what Restore makes.
type Target struct {
	Data string // the data directory: missing or empty
	// Contents opens the store of contents of a data directory that is being made.
	Contents func(data string) (Content, error)
	Open     OpenSnapshot
	Schema   int64 // the newest one that this program knows
}

// Restore makes a data directory of the backup in dir. It is whole when it has its
// name: it is built under another one beside it, which an error removes again.
func Restore(ctx context.Context, dir string, t Target, progress func(Progress)) (m Manifest, err error) {
	if m, err = ReadManifest(dir); err != nil {
		return m, err
	}
	if m.Schema > t.Schema {
		return m, resource.Errorf(codes.FailedPrecondition, "the backup has schema %d; this tategu knows schemas up to %d", m.Schema, t.Schema).
			WithHint("use tategu %s or a newer one", m.Version)
	}
	switch entries, err := os.ReadDir(t.Data); {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return m, fmt.Errorf("look at %s: %w", t.Data, err)
	case len(entries) > 0:
		return m, resource.Errorf(codes.FailedPrecondition, "%s is not empty: a server's data is there already", t.Data).
			WithHint("name a new directory with --data")
	}
	parent := filepath.Dir(t.Data)
	if err := os.MkdirAll(parent, 0o700); err != nil {
		return m, fmt.Errorf("restore: %w", err)
	}
	tmp, err := os.MkdirTemp(parent, "."+filepath.Base(t.Data)+"-restore-") // mode 0700
	if err != nil {
		return m, fmt.Errorf("restore: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.RemoveAll(tmp))
		}
	}()
	if err := m.restore(ctx, dir, tmp, t, progress); err != nil {
		return m, err
	}
	if err := syncTree(tmp); err != nil {
		return m, fmt.Errorf("restore: %w", err)
	}
	if err := os.Rename(tmp, t.Data); err != nil { // over an empty directory is allowed
		return m, fmt.Errorf("restore: %w", err)
	}
	return m, syncDir(parent)
}

func (m Manifest) restore(ctx context.Context, dir, data string, t Target, progress func(Progress)) error {
	files := map[string]File{"state.db": m.State}
	for _, f := range m.Secrets {
		_, rel, _ := strings.Cut(f.Path, string(filepath.Separator))
		files[rel] = f
	}
	for to, f := range files {
		if !filepath.IsLocal(to) || !filepath.IsLocal(f.Path) {
			return damaged(fileManifest)
		}
		in, err := os.Open(filepath.Join(dir, f.Path))
		if err != nil {
			return fmt.Errorf("read the backup: %w", err)
		}
		got, err := copyFile(ctx, filepath.Join(data, to), in)
		if err = errors.Join(err, in.Close()); err != nil {
			return fmt.Errorf("restore %s: %w", to, err)
		}
		if got.Size != f.Size || got.CRC32C != f.CRC32C {
			return damaged(f.Path)
		}
	}
	contents, err := t.Contents(data)
	if err != nil {
		return err
	}
	held, err := m.restoreContents(ctx, dir, contents, progress)
	if err != nil {
		return err
	}
	return m.checkState(ctx, dir, t.Open, held)
}

func (m Manifest) restoreContents(ctx context.Context, dir string, contents Content, progress func(Progress)) (held int, err error) {
	var bytes, count atomic.Int64
	err = m.each(dir, func(entries []Entry) error {
		group, ctx := errgroup.WithContext(ctx)
		group.SetLimit(parallel)
		for _, e := range entries {
			group.Go(func() error {
				if err := restoreOne(ctx, dir, e, contents); err != nil {
					return err
				}
				progress(Progress{Phase: "contents", Done: bytes.Add(e.Size), Total: m.Bytes, Contents: int(count.Add(1))})
				return nil
			})
		}
		return group.Wait()
	})
	return int(count.Load()), err
}

func restoreOne(ctx context.Context, dir string, e Entry, contents Content) (err error) {
	if !filepath.IsLocal(e.File) {
		return damaged(e.File)
	}
	in, err := os.Open(filepath.Join(dir, dirObjects, e.File))
	if err != nil {
		return fmt.Errorf("read the backup: %w", err)
	}
	defer func() { err = errors.Join(err, in.Close()) }()
	sum := crc32.New(table())
	n, err := contents.Append(ctx, e.ID, 0, io.TeeReader(in, sum))
	if err != nil {
		return fmt.Errorf("restore content %s: %w", e.ID, err)
	}
	if n != e.Size || sum.Sum32() != e.CRC32C {
		return damaged(filepath.Join(dirObjects, e.File))
	}
	return nil
}
