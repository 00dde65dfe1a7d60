package blob

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"

	"google.golang.org/grpc/codes"

	"tategu/internal/resource"
)

// MaxCompose is how many objects one call may join.
const MaxCompose = 32

// Copy makes dst.Bucket/dst.Name with dst's attributes and the bytes of src,
// which Stat gave. No bytes move.
func (s *Store) Copy(ctx context.Context, src, dst Object, conds Conditions) (Object, error) {
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
	return s.publish(ctx, o, conds, nil)
}

// Compose makes dst of the bytes of sources, which Stat gave, in order. Like the
// cloud's, the result has no MD5.
func (s *Store) Compose(ctx context.Context, dst Object, sources []Object, conds Conditions) (Object, error) {
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
	return s.publish(ctx, o, conds, nil)
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
