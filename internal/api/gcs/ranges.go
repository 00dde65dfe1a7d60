package gcs

import (
	"errors"
	"io"
	"mime/multipart"
	"net/http"
	"net/textproto"
	"strconv"
	"strings"

	"tategu/internal/blob"
	"tategu/internal/resource"
)

// maxRanges is the most ranges that one answer holds.
const maxRanges = 50

// span is a part of an object.
type span struct{ offset, length int64 }

func (s span) contentRange(size int64) string {
	return "bytes " + strconv.FormatInt(s.offset, 10) + "-" + strconv.FormatInt(s.offset+s.length-1, 10) + "/" + strconv.FormatInt(size, 10)
}

// parseRanges reads a Range header against an object of size bytes. No span means
// that the whole object is the answer: no header, one of no form, and one whose
// many ranges would send more than there is (RFC 9110, section 14.2 lets a server
// ignore those). Ranges outside of the object are left out as long as one is inside.
func parseRanges(header string, size int64) ([]span, error) {
	list, ok := strings.CutPrefix(header, "bytes=")
	if !ok || strings.Count(list, ",") >= maxRanges {
		return nil, nil
	}
	var spans []span
	var outside error
	var total int64
	for spec := range strings.SplitSeq(list, ",") {
		if strings.TrimSpace(spec) == "" {
			continue
		}
		offset, length, ok, err := parseRange("bytes="+strings.TrimSpace(spec), size)
		switch {
		case err != nil:
			outside = err
			continue
		case !ok:
			return nil, nil
		}
		if total += length; len(spans) > 0 && total > size {
			return nil, nil
		}
		spans = append(spans, span{offset, length})
	}
	if len(spans) == 0 {
		return nil, outside
	}
	return spans, nil
}

// opened is an object with the bytes of one answer: all of them, or those of its
// spans, in order.
type opened struct {
	blob.Object
	spans []span
	bytes []io.ReadCloser
}

func (o *opened) Close() error {
	var err error
	for _, r := range o.bytes {
		err = errors.Join(err, r.Close())
	}
	return err
}

// openRanges opens what is asked. An object that is overwritten between its row
// and its bytes is read again, unless one generation was asked for.
func (h *Handler) openRanges(c *call) (o *opened, err error) {
	for range 10 {
		o = &opened{}
		if o.Object, err = h.stat(c); err != nil {
			return nil, err
		}
		if err = h.open(c, o); err == nil {
			return o, nil
		}
		err = errors.Join(err, o.Close())
		if !resource.IsNotFound(err) || c.query.Get("generation") != "" {
			return nil, err
		}
	}
	return nil, err
}

func (h *Handler) open(c *call, o *opened) (err error) {
	if !gunzips(c.r, o.Object) && c.rangeHolds(o.Object) { // of what is unzipped on the way, no range is known
		if o.spans, err = parseRanges(c.r.Header.Get("Range"), o.Size); errors.Is(err, errRange) {
			return &rangeError{size: o.Size}
		}
	}
	spans := o.spans
	if len(spans) == 0 {
		spans = []span{{0, o.Size}}
	}
	for _, s := range spans {
		r, err := h.blobs.Open(c.ctx(), o.Object, s.offset, s.length)
		if err != nil {
			return err
		}
		o.bytes = append(o.bytes, r)
	}
	return nil
}

// rangeHolds reports that If-Range, if any, names the object as it is: otherwise
// the whole of it is the answer.
func (c *call) rangeHolds(o blob.Object) bool {
	tag := c.r.Header.Get("If-Range")
	if tag == "" || matchesTag(tag, &o) {
		return true
	}
	t, err := http.ParseTime(tag)
	return err == nil && !o.Updated.Truncate(1e9).After(t)
}

// sendMany answers with several ranges as multipart/byteranges.
func (h *Handler) sendMany(c *call, o *opened) error {
	header := c.w.Header()
	part := func(s span) textproto.MIMEHeader {
		return textproto.MIMEHeader{"Content-Type": {header.Get("Content-Type")}, "Content-Range": {s.contentRange(o.Size)}}
	}
	// The length is that of the same answer without the bytes.
	var length counter
	dry := multipart.NewWriter(&length)
	for _, s := range o.spans {
		if _, err := dry.CreatePart(part(s)); err != nil {
			return err
		}
		length += counter(s.length)
	}
	if err := dry.Close(); err != nil {
		return err
	}
	parts := multipart.NewWriter(c.w)
	if err := parts.SetBoundary(dry.Boundary()); err != nil {
		return err
	}
	heads := make([]textproto.MIMEHeader, len(o.spans))
	for i, s := range o.spans {
		heads[i] = part(s)
	}
	header.Set("Content-Type", "multipart/byteranges; boundary="+parts.Boundary())
	header.Set("Content-Length", strconv.FormatInt(int64(length), 10))
	header.Set("Accept-Ranges", "bytes")
	c.w.WriteHeader(http.StatusPartialContent)
	if c.r.Method == http.MethodHead {
		return nil
	}
	for i, s := range o.spans {
		w, err := parts.CreatePart(heads[i])
		if err != nil {
			return h.broken(c, o.Object, err)
		}
		if n, err := io.Copy(w, o.bytes[i]); err != nil || n != s.length {
			return h.broken(c, o.Object, err)
		}
	}
	if err := parts.Close(); err != nil {
		return h.broken(c, o.Object, err)
	}
	return nil
}

// counter counts what is written to it.
type counter int64

func (c *counter) Write(p []byte) (int, error) {
	*c += counter(len(p))
	return len(p), nil
}
