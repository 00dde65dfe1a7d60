package bucket

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"gocloud.dev/blob/driver"
)

// gsReader downloads a part of an object, and goes on where a connection broke.
type gsReader struct {
	ctx        context.Context //nolint:containedctx // an io.Reader of one call
	b          *gsBucket
	key        string
	generation string // of the object, so that what follows a break is of the same one
	body       io.ReadCloser
	at, end    int64
	breaks     int
	attrs      driver.ReaderAttributes
}

// NewRangeReader implements driver.Bucket.
func (b *gsBucket) NewRangeReader(ctx context.Context, key string, offset, length int64, opts *driver.ReaderOptions) (driver.Reader, error) {
	r := &gsReader{ctx: ctx, b: b, key: key, at: offset}
	if opts.BeforeRead != nil {
		if err := opts.BeforeRead(r.As); err != nil {
			return nil, err
		}
	}
	if length == 0 { // a range has at least one byte
		a, err := b.Attributes(ctx, key)
		if err != nil {
			return nil, err
		}
		r.attrs = driver.ReaderAttributes{ContentType: a.ContentType, ModTime: a.ModTime, Size: a.Size}
		r.body, r.end = http.NoBody, offset
		return r, nil
	}
	return r, r.open(length)
}

// open asks for length bytes from at, for all that follow if length < 0.
func (r *gsReader) open(length int64) error {
	request := gsRequest{method: http.MethodGet, header: map[string]string{"Accept-Encoding": "identity"}}
	ranged := r.at > 0 || length > 0
	switch {
	case length > 0:
		request.header["Range"] = fmt.Sprintf("bytes=%d-%d", r.at, r.at+length-1)
	case ranged:
		request.header["Range"] = fmt.Sprintf("bytes=%d-", r.at)
	}
	query := url.Values{"alt": {"media"}}
	if r.generation != "" {
		query.Set("generation", r.generation)
	}
	request.url = r.b.object(r.key, "", query)
	response, err := r.b.do(r.ctx, request)
	if err != nil {
		return err
	}
	size := response.ContentLength
	if ranged {
		if size, err = totalOf(response, r.at); err != nil {
			return errors.Join(err, response.Body.Close())
		}
	}
	if size < 0 || response.ContentLength < 0 {
		return errors.Join(errors.New("the service did not say how long the object is"), response.Body.Close())
	}
	r.body, r.end, r.generation = response.Body, r.at+response.ContentLength, response.Header.Get("X-Goog-Generation")
	r.attrs = driver.ReaderAttributes{ContentType: response.Header.Get("Content-Type"), Size: size}
	r.attrs.ModTime, _ = http.ParseTime(response.Header.Get("Last-Modified")) // zero if it has none
	return nil
}

// totalOf gives the object's size of an answer that must begin at byte from.
func totalOf(response *http.Response, from int64) (int64, error) {
	what := response.Header.Get("Content-Range")
	span, total, ok := strings.Cut(strings.TrimPrefix(what, "bytes "), "/")
	first, _, _ := strings.Cut(span, "-")
	size, err := strconv.ParseInt(total, 10, 64)
	if response.StatusCode != http.StatusPartialContent || !ok || err != nil || first != strconv.FormatInt(from, 10) {
		return 0, fmt.Errorf("asked for bytes from %d the service answered %d with Content-Range %q", from, response.StatusCode, what)
	}
	return size, nil
}

// Read implements io.Reader.
func (r *gsReader) Read(p []byte) (int, error) {
	for {
		n, err := r.body.Read(p)
		r.at += int64(n)
		switch {
		case n > 0 || err == nil:
			return n, nil // an error comes again
		case r.at >= r.end:
			return 0, io.EOF
		case errors.Is(err, io.EOF):
			err = io.ErrUnexpectedEOF
		}
		if r.breaks++; r.breaks == attempts || !temporary(r.ctx, err) {
			return 0, err
		}
		_ = r.body.Close() // it is broken
		r.body = http.NoBody
		if err := r.open(r.end - r.at); err != nil {
			return 0, err
		}
	}
}

// Close implements io.Closer.
func (r *gsReader) Close() error { return r.body.Close() }

// Attributes implements driver.Reader.
func (r *gsReader) Attributes() *driver.ReaderAttributes { return &r.attrs }

// As implements driver.Reader.
func (r *gsReader) As(any) bool { return false }
