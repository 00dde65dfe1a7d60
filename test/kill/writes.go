package main

import (
	"bytes"
	"context"
	"crypto/md5" //nolint:gosec // the API's checksum, not a secret
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"time"
)

// The ways to change an object.

func (e *entry) uploadPath(kind string) string {
	return "/upload/storage/v1/b/" + e.bucket + "/o?uploadType=" + kind + "&name=" + url.QueryEscape(e.name)
}

// put uploads in one request; half of them say which generation they replace.
func (o *objects) put(ctx context.Context, e *entry, data []byte) error {
	path := e.uploadPath("media")
	if o.random.IntN(2) == 0 {
		path += "&ifGenerationMatch=" + strconv.FormatInt(e.generation, 10)
	}
	return o.write(ctx, e, outcome{data: data}, request{method: http.MethodPost, path: path, body: data})
}

// multipart uploads metadata and content in one request, with its MD5.
func (o *objects) multipart(ctx context.Context, e *entry, data []byte) error {
	sum := md5.Sum(data) //nolint:gosec // as above
	const boundary = "a-boundary-that-no-random-byte-makes"
	var body bytes.Buffer
	fmt.Fprintf(&body, "--%s\r\nContent-Type: application/json\r\n\r\n{\"md5Hash\": %q, \"metadata\": {\"by\": \"kill\"}}\r\n", boundary, base64.StdEncoding.EncodeToString(sum[:]))
	fmt.Fprintf(&body, "--%s\r\nContent-Type: application/octet-stream\r\n\r\n%s\r\n--%s--\r\n", boundary, data, boundary)
	return o.write(ctx, e, outcome{data: data}, request{
		method: http.MethodPost, path: e.uploadPath("multipart"), body: body.Bytes(),
		header: map[string]string{"Content-Type": "multipart/related; boundary=" + boundary},
	})
}

func (o *objects) remove(ctx context.Context, e *entry) error {
	if e.acked.deleted {
		return o.put(ctx, e, o.bytes(1000))
	}
	return o.write(ctx, e, outcome{deleted: true}, request{method: http.MethodDelete, path: e.path()})
}

// rewrite copies, perhaps into the other bucket.
func (o *objects) rewrite(ctx context.Context, e, source *entry) error {
	want := outcome{data: source.acked.data}
	e.maybe = append(e.maybe, want)
	a, err := o.do(ctx, request{
		method: http.MethodPost, path: source.path() + "/rewriteTo/b/" + e.bucket + "/o/" + url.PathEscape(e.name), value: map[string]any{},
	})
	if err != nil {
		return err
	}
	var done struct {
		Done     bool           `json:"done"`
		Resource objectResource `json:"resource"`
	}
	if a.status != http.StatusOK {
		return fmt.Errorf("rewrite %s to %s: %s", source, e, a)
	}
	if err := a.into(&done); err != nil {
		return err
	}
	if !done.Done {
		return fmt.Errorf("rewrite %s to %s is not done in one call: %s", source, e, a)
	}
	a.body = fmt.Appendf(nil, `{"generation": %q, "size": %q, "crc32c": %q}`, done.Resource.Generation, done.Resource.Size, done.Resource.CRC32C)
	return o.acknowledge(e, want, a)
}

// compose joins up to three objects of one bucket.
func (o *objects) compose(ctx context.Context, e *entry) error {
	var sources []map[string]any
	var data []byte
	for range 3 {
		if s := o.any(); s != nil && s.bucket == e.bucket && len(data)+len(s.acked.data) < 2<<20 {
			sources = append(sources, map[string]any{"name": s.name, "generation": strconv.FormatInt(s.generation, 10)})
			data = append(data, s.acked.data...)
		}
	}
	if len(sources) == 0 {
		return nil
	}
	return o.write(ctx, e, outcome{data: data}, request{
		method: http.MethodPost, path: e.path() + "/compose",
		value: map[string]any{"sourceObjects": sources, "destination": map[string]any{"contentType": "application/octet-stream"}},
	})
}

// pieceSize is what the API wants pieces to be a multiple of.
const pieceSize = 256 << 10

// resumable uploads in pieces, with pauses. After a kill it asks how much has
// come, which is at least what was acknowledged, and goes on from there.
func (o *objects) resumable(ctx context.Context, e *entry, data []byte) error {
	want := outcome{data: data}
	a, err := o.do(ctx, request{method: http.MethodPost, path: e.uploadPath("resumable"), value: map[string]any{"contentType": "application/x-kill"}})
	if err != nil {
		return err
	}
	session := a.header.Get("Location")
	if a.status != http.StatusOK || session == "" {
		return fmt.Errorf("start an upload of %s: %s", e, a)
	}
	o.book.acked.Add(1)
	received, killed := 0, false
	for {
		r := request{method: http.MethodPut, path: session, header: map[string]string{"Content-Range": fmt.Sprintf("bytes */%d", len(data))}}
		if !killed {
			end := min(received+pieceSize*(1+o.random.IntN(2)), len(data))
			r.body = data[received:end]
			r.header["Content-Range"] = fmt.Sprintf("bytes %d-%d/%d", received, end-1, len(data))
			if end == len(data) {
				e.maybe = append(e.maybe, want)
			}
		}
		a, err := o.do(ctx, r)
		switch {
		case errors.Is(err, errKilled):
			killed = true
			continue
		case err != nil:
			return err
		case a.status == http.StatusOK:
			return o.acknowledge(e, want, a)
		case a.status != http.StatusPermanentRedirect:
			return fmt.Errorf("upload %s after %d bytes: %s", e, received, a)
		}
		now, err := receivedBytes(a.header.Get("Range"))
		if err != nil {
			return fmt.Errorf("upload %s: %w", e, err)
		}
		if now < received {
			o.book.isLost("upload of %s: %d bytes were acknowledged and %d are there", e, received, now)
		}
		if killed {
			o.resumed++
		}
		if now > received {
			o.book.acked.Add(1)
		}
		received, killed = now, false
		if err := pause(ctx, time.Duration(o.random.IntN(60))*time.Millisecond); err != nil {
			return err
		}
	}
}

// receivedBytes reads "bytes=0-N"; no header means that nothing has come.
func receivedBytes(header string) (int, error) {
	if header == "" {
		return 0, nil
	}
	var last int
	if _, err := fmt.Sscanf(header, "bytes=0-%d", &last); err != nil {
		return 0, fmt.Errorf("the answer's Range %q: %w", header, err)
	}
	return last + 1, nil
}
