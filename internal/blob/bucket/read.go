package bucket

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"

	"google.golang.org/grpc/codes"

	"tategu/internal/resource"
)

// Open implements blob.Content. What one Create wrote is one request; for anything
// else the segments are listed first, unless they are remembered.
func (c *Content) Open(ctx context.Context, id string, offset, length int64) (_ io.ReadCloser, err error) {
	if err := wellFormed(id); err != nil {
		return nil, err
	}
	if offset < 0 {
		return nil, fmt.Errorf("read content %s at %d", id, offset)
	}
	if err := c.ids.enter(id); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			c.leave(ctx, id)
		}
	}()
	if c.ids.chain(id) == nil && length != 0 {
		if r, err := c.openWhole(ctx, id, offset, length); r != nil || err != nil {
			return r, err
		}
	}
	live, err := c.find(ctx, id)
	if err != nil {
		return nil, err
	}
	end := live.size()
	if length >= 0 {
		end = min(end, offset+length)
	}
	r := c.read(ctx, id, live, offset, end)
	r.leave = true
	// The first segment is opened now, so that an error is Open's own.
	if err := r.next(); err != nil && !errors.Is(err, io.EOF) {
		return nil, errors.Join(err, r.end())
	}
	return r, nil
}

// openWhole opens what one Create wrote; nil means that the content is something else.
func (c *Content) openWhole(ctx context.Context, id string, offset, length int64) (io.ReadCloser, error) {
	body, err := c.bucket.NewRangeReader(ctx, wholeKey(id), offset, length, nil)
	if err != nil {
		if err = c.missing("read", err); errors.Is(err, fs.ErrNotExist) || errors.Is(err, errRange) {
			return nil, nil //nolint:nilnil // as documented; the list says what there is
		}
		return nil, err
	}
	size := body.Size()
	if size >= c.splitSize { // more may follow
		return nil, body.Close()
	}
	end := size
	if length >= 0 {
		end = min(end, offset+length)
	}
	return &chainReader{ctx: ctx, c: c, id: id, at: offset, stop: end, body: body, left: max(end-offset, 0), leave: true}, nil
}

// chainReader reads segments one after the other, one open at a time. It lives as
// long as the call that it reads for, whose context it carries.
type chainReader struct {
	ctx   context.Context //nolint:containedctx // an io.Reader of one call
	c     *Content
	id    string
	live  chain
	at    int64 // offset of the next byte
	stop  int64
	body  io.ReadCloser // the open segment, nil between two
	left  int64         // bytes to come from body
	leave bool          // Close ends a read that enter began
}

func (c *Content) read(ctx context.Context, id string, live chain, from, to int64) *chainReader {
	return &chainReader{ctx: ctx, c: c, id: id, live: live, at: from, stop: to}
}

func (r *chainReader) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	if r.left == 0 {
		if err := r.next(); err != nil {
			return 0, err
		}
	}
	n, err := r.body.Read(p[:min(int64(len(p)), r.left)])
	r.at, r.left = r.at+int64(n), r.left-int64(n)
	if r.left == 0 {
		return n, nil // next closes it
	}
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return n, r.c.failed("read", err)
}

// next opens the segment that holds the next byte; io.EOF at the end.
func (r *chainReader) next() error {
	if err := r.end(); err != nil {
		return err
	}
	for try := 0; r.at < r.stop; try++ {
		s, ok := r.live.at(r.at)
		if !ok {
			return fmt.Errorf("content %s ends at byte %d of %d: %w", r.id, r.at, r.stop, io.ErrUnexpectedEOF)
		}
		length := min(s.end(), r.stop) - r.at
		body, err := r.c.bucket.NewRangeReader(r.ctx, s.key, r.at-s.offset, length, nil)
		if err == nil {
			r.body, r.left = body, length
			return nil
		}
		err = r.c.missing("read", err)
		if !errors.Is(err, fs.ErrNotExist) || try == maxTries {
			return r.c.unreadable(err)
		}
		// A merge may have replaced the segment since it was listed.
		r.c.ids.forget(r.id)
		if r.live, err = r.c.find(r.ctx, r.id); err != nil {
			return err
		}
	}
	return io.EOF
}

// end closes the open segment.
func (r *chainReader) end() error {
	if r.body == nil {
		return nil
	}
	err := r.body.Close()
	r.body, r.left = nil, 0
	return err
}

// Close ends the read.
func (r *chainReader) Close() error {
	err := r.end()
	if r.leave {
		r.leave = false
		r.c.leave(r.ctx, r.id)
	}
	return err
}

// unreadable is for objects that a list names and a read does not find.
func (c *Content) unreadable(err error) error {
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	// Not wrapped: that the object is missing must not look like a missing content.
	return resource.Errorf(codes.Unavailable, "%s lists an object that cannot be read: %v", c.address, err).
		WithCause(resource.CauseDependency).WithHint("check that reading is allowed and that nothing else deletes there")
}
