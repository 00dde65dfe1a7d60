package transfer

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"net/http"
	"net/url"
	"strconv"

	"google.golang.org/grpc/codes"

	"tategu/internal/resource"
)

// copyBuffer is what one transfer holds in memory, besides what HTTP holds.
const copyBuffer = 256 << 10

// damaged says that bytes changed on their way, or on a disk.
func damaged(what, want, got string) error {
	return resource.Errorf(codes.DataLoss, "%s: the bytes have CRC32C %s, and %s was promised", what, got, want).
		WithHint("try again; if it stays, `tategu gc --verify` looks for damaged objects")
}

// Download writes the bytes of one generation to w, as they are stored, and checks
// them against their CRC32C. A broken connection, or a server that restarts, is
// gone on from where it ended.
func (c *Client) Download(ctx context.Context, o Object, w io.Writer, count func(int64)) error {
	want, err := o.crc()
	if err != nil {
		return err
	}
	sum := &summed{w: w, table: crc32.MakeTable(crc32.Castagnoli), count: count}
	fruitless := 0
	err = c.patiently(ctx, func() error {
		for {
			before := sum.n
			answered, err := c.downloadRest(ctx, o, sum)
			if err == nil || !transient(err) {
				return err
			}
			if sum.n > before {
				fruitless = 0
				continue
			}
			if answered || c.alive(ctx, o) {
				fruitless++
			}
			if fruitless == maxFruitless {
				return resource.Errorf(codes.DataLoss, "the server breaks off after %d of %d bytes, each time", sum.n, o.Size).
					WithHint("the object may be damaged: its log tells, and `tategu gc --verify`")
			}
			return err // patience is for a server that gives nothing
		}
	})
	if err != nil {
		return err
	}
	if sum.crc != want {
		return damaged(o.URL().String(), o.CRC32C, crcText(sum.crc))
	}
	return nil
}

// alive asks a server that broke off for what it surely has.
func (c *Client) alive(ctx context.Context, o Object) bool {
	resp, err := c.once(ctx, request{method: http.MethodGet, path: objectPath(o.URL())})
	if err != nil {
		return resource.CodeOf(err) != codes.Unavailable && !transient(err)
	}
	_ = resp.Body.Close() // only that it answers matters
	return true
}

// maxFruitless is how often a server may answer and then give no byte: it does so
// with an object that is damaged.
const maxFruitless = 3

func (c *Client) downloadRest(ctx context.Context, o Object, to *summed) (answered bool, err error) {
	if to.n == o.Size {
		return true, nil
	}
	r := request{
		method: http.MethodGet, path: objectPath(o.URL()),
		query: url.Values{"alt": {"media"}, "generation": {strconv.FormatInt(o.Generation, 10)}},
		// Asked for by ourselves, gzip comes as it is stored.
		header: http.Header{"Accept-Encoding": {"gzip"}},
	}
	if to.n > 0 {
		r.header.Set("Range", "bytes="+strconv.FormatInt(to.n, 10)+"-")
	}
	resp, err := c.once(ctx, r)
	if err != nil {
		return false, err
	}
	defer func() { _ = resp.Body.Close() }() // its errors come with the bytes
	if to.n > 0 && resp.StatusCode != http.StatusPartialContent {
		return true, fmt.Errorf("%s: asked to go on at byte %d, and the server answered %s", o.URL(), to.n, resp.Status)
	}
	_, err = io.CopyBuffer(to, struct{ io.Reader }{resp.Body}, make([]byte, copyBuffer))
	switch {
	case err == nil && to.n != o.Size:
		return true, fmt.Errorf("%s: %w", o.URL(), io.ErrUnexpectedEOF)
	case err == nil || to.failed:
		return true, err
	case ctx.Err() != nil:
		return true, ctx.Err()
	}
	return true, resource.Errorf(codes.Unavailable, "%s: the connection broke after %d of %d bytes: %w", o.URL(), to.n, o.Size, err)
}

// summed writes, and keeps the checksum of what was written.
type summed struct {
	w      io.Writer
	crc    uint32
	n      int64
	table  *crc32.Table
	count  func(int64)
	failed bool // w gave an error
}

func (s *summed) Write(p []byte) (int, error) {
	n, err := s.w.Write(p)
	s.crc = crc32.Update(s.crc, s.table, p[:n])
	s.n += int64(n)
	if s.count != nil {
		s.count(int64(n))
	}
	if err == nil && n < len(p) {
		err = io.ErrShortWrite
	}
	s.failed = s.failed || err != nil
	return n, err
}

// checksum reads r to its end.
func checksum(r io.Reader) (crc uint32, n int64, err error) {
	s := &summed{w: io.Discard, table: crc32.MakeTable(crc32.Castagnoli)}
	_, err = io.CopyBuffer(s, struct{ io.Reader }{r}, make([]byte, copyBuffer))
	return s.crc, s.n, err
}

var errExists = errors.New("exists already")
