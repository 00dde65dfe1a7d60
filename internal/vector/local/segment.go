package local

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"sync"
	"sync/atomic"

	"google.golang.org/grpc/codes"

	"tategu/internal/resource"
	"tategu/internal/vector/ann"
)

// segment is an open file that views share.
type segment struct {
	*ann.Segment
	part   part
	path   string
	users  atomic.Int64 // views
	gone   atomic.Bool  // its file goes with the last user
	sparse *inverted    // nil = no row has a sparse embedding
	pool   sync.Pool    // *ann.Results
}

// openSegment maps a part, whose file it brings into the cache where it is not there.
// A file that is damaged is brought once more.
func (b *Backend) openSegment(ctx context.Context, p part) (*segment, error) {
	path := b.cachePath(p.Content)
	if info, err := os.Stat(path); err != nil || info.Size() != p.Size {
		if err := b.download(ctx, p, path); err != nil {
			return nil, err
		}
	}
	opened, err := ann.Open(path)
	if errors.Is(err, ann.ErrDamaged) {
		if err := b.download(ctx, p, path); err != nil {
			return nil, err
		}
		opened, err = ann.Open(path)
	}
	if err != nil {
		return nil, fmt.Errorf("open a segment: %w", err)
	}
	s := &segment{Segment: opened, part: p, path: path}
	s.pool.New = func() any { return &ann.Results{} }
	if p.Sparse > 0 {
		if s.sparse, err = invert(opened); err != nil {
			return nil, errors.Join(err, opened.Close())
		}
	}
	return s, nil
}

// download copies a content into a file that appears whole.
func (b *Backend) download(ctx context.Context, p part, path string) (err error) {
	r, err := b.cfg.Contents.Open(ctx, p.Content, 0, p.Size)
	if errors.Is(err, fs.ErrNotExist) {
		return resource.Errorf(codes.DataLoss, "a segment of the index is missing from the data directory").WithCause(resource.CausePlatform).
			WithHint("restore a backup, or update the index from its files once more")
	}
	if err != nil {
		return fmt.Errorf("read a segment: %w", err)
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	if err := b.makeCache(); err != nil {
		return fmt.Errorf("cache a segment: %w", err)
	}
	f, err := os.CreateTemp(b.cfg.Cache, ".download-*")
	if err != nil {
		return fmt.Errorf("cache a segment: %w", err)
	}
	n, err := io.Copy(f, r)
	if err == nil && n != p.Size {
		err = fmt.Errorf("a segment has %d bytes instead of %d", n, p.Size)
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return nil
}

func (s *segment) retain() { s.users.Add(1) }

// release closes the file with its last user. A mapping that cannot be undone is
// memory that stays, which nobody can help.
func (s *segment) release() {
	if s.users.Add(-1) > 0 {
		return
	}
	_ = s.Close()
	if s.gone.Load() {
		_ = os.Remove(s.path)
	}
}

// probe searches for a row's own vector.
func (s *segment) probe(row uint32) error {
	const neighbors = 10
	return s.Search([]ann.Query{{Vector: s.Vector(row), K: neighbors}}, nil, &ann.Results{})
}
