package blob

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"

	"google.golang.org/grpc/codes"

	"tategu/internal/resource"
	"tategu/internal/store"
)

// MaxCompose is how many objects one call may join.
const MaxCompose = 32

// Copy makes dst.Bucket/dst.Name with dst's attributes and the bytes of src,
// which Stat gave. No bytes move.
func (s *Store) Copy(ctx context.Context, src, dst Object, conds Conditions) (Object, error) {
	return s.copy(ctx, src, dst, conds, nil)
}

func (s *Store) copy(ctx context.Context, src, dst Object, conds Conditions, also func(store.Tx, Object) error) (Object, error) {
	if err := s.precheck(ctx, dst, conds); err != nil {
		return Object{}, err
	}
	id, err := s.content.Link(ctx, src.Content)
	if errors.Is(err, fs.ErrNotExist) {
		return Object{}, missingObject(src.Bucket, fmt.Sprintf("%s#%d", src.Name, src.Generation))
	}
	if err != nil {
		return Object{}, fmt.Errorf("copy gs://%s/%s: %w", src.Bucket, src.Name, err)
	}
	o := dst.with(id, Digest{Size: src.Size, MD5: src.MD5, CRC32C: src.CRC32C})
	o.Components = src.Components
	return s.publish(ctx, o, conds, also)
}

// Move gives src, which Stat gave, another name in its bucket, in one step: there
// is no moment at which both or none are there. srcConds are checked again then.
func (s *Store) Move(ctx context.Context, src, dst Object, srcConds, conds Conditions) (Object, error) {
	if src.Name == dst.Name {
		return Object{}, resource.Invalid("destinationObject", "%s cannot be moved to itself", src.Name)
	}
	var gone string
	srcConds.GenerationMatch = &src.Generation
	o, err := s.copy(ctx, src, dst, conds, func(tx store.Tx, _ Object) (err error) {
		gone, err = s.remove(ctx, tx, src.Bucket, src.Name, 0, srcConds)
		return err
	})
	if err == nil {
		s.discard(ctx, gone)
	}
	return o, err
}

// Compose makes dst of the bytes of sources, which Stat gave, in order. Like the
// cloud's, the result has no MD5. With deleteSources those go in the same step.
func (s *Store) Compose(ctx context.Context, dst Object, sources []Object, conds Conditions, deleteSources bool) (Object, error) {
	if len(sources) == 0 || len(sources) > MaxCompose {
		return Object{}, resource.Errorf(codes.InvalidArgument, "compose takes 1 to %d source objects, got %d", MaxCompose, len(sources))
	}
	if err := s.precheck(ctx, dst, conds); err != nil {
		return Object{}, err
	}
	components := 0
	for _, src := range sources {
		components += max(src.Components, 1)
	}
	r := &chain{ctx: ctx, store: s, rest: sources}
	id, digest, err := s.content.Create(ctx, r)
	if err = errors.Join(err, r.Close()); err != nil {
		if id != "" {
			s.discard(ctx, id)
		}
		return Object{}, fmt.Errorf("compose gs://%s/%s: %w", dst.Bucket, dst.Name, err)
	}
	if err := conds.checkDigest(digest); err != nil {
		s.discard(ctx, id)
		return Object{}, err
	}
	digest.MD5 = nil
	o := dst.with(id, digest)
	o.Components = components
	if !deleteSources {
		return s.publish(ctx, o, conds, nil)
	}
	var gone []string
	o, err = s.publish(ctx, o, conds, func(tx store.Tx, _ Object) (err error) {
		gone, err = s.removeSources(ctx, tx, dst.Name, sources)
		return err
	})
	if err == nil {
		for _, id := range gone {
			s.discard(ctx, id)
		}
	}
	return o, err
}

// removeSources deletes what was composed, but for the destination itself and
// what was named twice.
func (s *Store) removeSources(ctx context.Context, tx store.Tx, dst string, sources []Object) (gone []string, err error) {
	done := map[string]bool{dst: true}
	for _, src := range sources {
		if done[src.Name] {
			continue
		}
		done[src.Name] = true
		id, err := s.remove(ctx, tx, src.Bucket, src.Name, 0, Conditions{GenerationMatch: &src.Generation})
		if err != nil {
			return nil, err
		}
		gone = append(gone, id)
	}
	return gone, nil
}

// chain reads objects one after the other, one open at a time. It lives for one
// call, whose context it carries.
type chain struct {
	ctx     context.Context //nolint:containedctx // an io.Reader of one call
	store   *Store
	rest    []Object
	current io.ReadCloser
}

func (c *chain) Read(p []byte) (int, error) {
	for {
		if c.current == nil {
			if len(c.rest) == 0 {
				return 0, io.EOF
			}
			r, err := c.store.Open(c.ctx, c.rest[0], 0, -1)
			if err != nil {
				return 0, err
			}
			c.current, c.rest = r, c.rest[1:]
		}
		n, err := c.current.Read(p)
		if !errors.Is(err, io.EOF) {
			return n, err
		}
		if err := c.Close(); err != nil || n > 0 {
			return n, err
		}
	}
}

// Close ends the object that is open.
func (c *chain) Close() error {
	if c.current == nil {
		return nil
	}
	err := c.current.Close()
	c.current = nil
	return err
}
