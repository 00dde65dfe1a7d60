package image

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"hash"
	"io"
	"slices"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"

	"google.golang.org/grpc/codes"

	"tategu/internal/resource"
)

// maxWindow bounds what a zstd layer may make its reader keep in memory. The
// format's own recommendation is 8 MiB; zstd --ultra --long=27 needs 128 MiB.
const maxWindow = 128 << 20

// layerReader gives the tar of a layer and checks it at the end.
type layerReader struct {
	ctx    context.Context //nolint:containedctx // of one Open, which ends with Close
	r      io.Reader
	h      hash.Hash
	diffID Digest
	intact func(ctx context.Context) error // of the bytes as kept
	closes []func() error
	failed error
}

// openLayer reads a layer as an uncompressed tar. Its compression is told by its
// first bytes, as Docker does it: media types are wrong now and then, and the
// digest of what comes out is checked in any case.
func (s *Store) openLayer(ctx context.Context, b Blob, diffID Digest) (io.ReadCloser, error) {
	blob, err := s.OpenBlob(ctx, b, 0, -1)
	if err != nil {
		return nil, err
	}
	l := &layerReader{ctx: ctx, h: diffID.hash(), diffID: diffID, closes: []func() error{blob.Close}}
	l.intact = func(ctx context.Context) error { return s.intact(ctx, b) }
	if l.r, err = l.decompress(bufio.NewReaderSize(blob, 128<<10)); err != nil {
		return nil, errors.Join(l.bad(err), l.Close())
	}
	return l, nil
}

func (l *layerReader) decompress(r *bufio.Reader) (io.Reader, error) {
	magic, err := r.Peek(4)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	switch {
	case len(magic) >= 2 && magic[0] == 0x1f && magic[1] == 0x8b:
		z, err := gzip.NewReader(r)
		if err != nil {
			return nil, err
		}
		l.closes = append(l.closes, z.Close)
		return z, nil
	case string(magic) == "\x28\xb5\x2f\xfd":
		z, err := zstd.NewReader(r, zstd.WithDecoderMaxWindow(maxWindow), zstd.WithDecoderLowmem(true), zstd.WithDecoderConcurrency(1))
		if err != nil {
			return nil, err
		}
		l.closes = append(l.closes, func() error { z.Close(); return nil })
		return z, nil
	default:
		return r, nil
	}
}

// Read implements io.Reader.
func (l *layerReader) Read(p []byte) (int, error) {
	if l.failed != nil {
		return 0, l.failed
	}
	if err := l.ctx.Err(); err != nil {
		return 0, err
	}
	n, err := l.r.Read(p)
	_, _ = l.h.Write(p[:n]) // never fails
	switch {
	case errors.Is(err, io.EOF):
		l.failed = io.EOF
		if l.diffID.check(l.h) != nil {
			l.failed = l.bad(errors.New("its content is not what the image's config names"))
		}
	case err != nil:
		l.failed = l.bad(err)
	}
	return n, l.failed
}

// bad is the error of a layer that is not what it should be. It was checked when
// it came, so that either our disk has lost it or it was made wrong.
func (l *layerReader) bad(err error) error {
	if lost := l.intact(l.ctx); lost != nil {
		return resource.Errorf(codes.DataLoss, "layer %s is damaged in the data directory: %w", l.diffID, lost).
			WithHint("check the disk, then push or import the image again").WithCause(resource.CausePlatform)
	}
	return resource.Errorf(codes.DataLoss, "layer %s cannot be read: %w", l.diffID, err).
		WithHint("build the image again, or pull it anew").WithCause(resource.CauseInput)
}

// Close implements io.Closer.
func (l *layerReader) Close() error {
	var errs []error
	for _, end := range slices.Backward(l.closes) {
		errs = append(errs, end())
	}
	l.closes, l.failed = nil, errors.New("the layer is closed")
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("close layer %s: %w", l.diffID, err)
	}
	return nil
}
