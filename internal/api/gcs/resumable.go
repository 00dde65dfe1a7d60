package gcs

import (
	"errors"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"google.golang.org/grpc/codes"

	"tategu/internal/blob"
	"tategu/internal/identity"
	"tategu/internal/resource"
)

func queryEscape(s string) string { return url.QueryEscape(s) }

// startResumable opens a session
// (cloud.google.com/storage/docs/performing-resumable-uploads).
func (h *Handler) startResumable(c *call) error {
	var f fields
	if err := readJSON(c.r.Body, &f); err != nil {
		return err
	}
	o, conds, err := c.newObject(f)
	if err != nil {
		return err
	}
	if o.ContentType == "" {
		o.ContentType = c.r.Header.Get("X-Upload-Content-Type")
	}
	total := int64(-1)
	if v := c.r.Header.Get("X-Upload-Content-Length"); v != "" {
		if total, err = strconv.ParseInt(v, 10, 64); err != nil || total < 0 {
			return resource.Invalid("X-Upload-Content-Length", "%q is no length", v)
		}
	}
	if err := h.protect(c.ctx(), o.Bucket, o.Name, &conds); err != nil {
		return err
	}
	u, err := h.blobs.StartUpload(c.ctx(), o, conds, total)
	if err != nil {
		return err
	}
	c.w.Header().Set("Location", uploadURL(c.r, u))
	c.w.Header().Set("X-GUploader-UploadID", u.ID)
	c.w.Header().Set("Content-Length", "0")
	c.w.WriteHeader(http.StatusOK)
	return nil
}

// session gives the upload that the request names, in the bucket of its path.
// Its id cannot be guessed and was given to a caller who might start it, so that
// it is a credential by itself: whoever signs the start of an upload for somebody
// else hands them no more (cloud.google.com/storage/docs/resumable-uploads#session-uris).
func (h *Handler) session(c *call) (blob.Upload, error) {
	denied := h.authorize(c.ctx(), c.names[0], "storage.objects.create")
	nobody := identity.FromContext(c.ctx()).Anonymous()
	if denied != nil && !nobody {
		return blob.Upload{}, denied
	}
	id := c.query.Get("upload_id")
	if id == "" {
		if denied != nil {
			return blob.Upload{}, denied
		}
		return blob.Upload{}, resource.Invalid("upload_id", "parameter upload_id is missing")
	}
	u, err := h.blobs.GetUpload(c.ctx(), id)
	if err != nil && denied != nil {
		return u, denied
	}
	if err == nil && (u.Object.Bucket != c.names[0] || c.xml && u.Object.Name != c.names[1]) {
		return u, resource.Errorf(codes.NotFound, "there is no upload %q in bucket %s", id, c.names[0])
	}
	return u, err
}

func (h *Handler) cancel(c *call) error {
	u, err := h.session(c)
	if err != nil {
		return err
	}
	if err := h.blobs.CancelUpload(c.ctx(), u.ID); err != nil {
		return err
	}
	c.w.Header().Set("Content-Length", "0")
	c.w.WriteHeader(resource.StatusClientClosed)
	return nil
}

// resume takes a piece, or tells how much has come.
func (h *Handler) resume(c *call) error {
	u, err := h.session(c)
	if err != nil {
		return err
	}
	piece, err := parseContentRange(c.r.Header.Get("Content-Range"), c.r.ContentLength)
	if err != nil {
		return err
	}
	if u.Finished {
		return c.replyStored(u.Object)
	}
	if piece.total >= 0 && u.Total >= 0 && piece.total != u.Total {
		return resource.Invalid("Content-Range", "the object has %d bytes now and %d when the upload began", piece.total, u.Total)
	}
	if !piece.query {
		if u, err = h.append(c, u, piece); err != nil {
			return err
		}
	}
	total := max(piece.total, u.Total)
	if !piece.query && piece.last < 0 && total < 0 {
		total = u.Received // no Content-Range: the body was the whole object
	}
	if total >= 0 && u.Received > total {
		return resource.Invalid("Content-Range", "%d bytes have come, more than the object's %d", u.Received, total)
	}
	if total < 0 || u.Received < total || piece.query && piece.total < 0 {
		return c.incomplete(u)
	}
	var given blob.Conditions
	if err := headerHashes(c.r.Header, &given); err != nil {
		return err
	}
	o, err := h.blobs.FinishUpload(c.ctx(), u.ID, given)
	if err != nil {
		return err
	}
	return c.replyStored(o)
}

func (h *Handler) append(c *call, u blob.Upload, piece contentRange) (blob.Upload, error) {
	var r io.Reader = body{c.r.Body}
	if piece.last >= 0 {
		r = &exactly{r: r, left: piece.last - piece.first + 1}
	}
	return h.blobs.AppendUpload(c.ctx(), u.ID, piece.first, r)
}

// exactly reads the announced number of bytes, neither less nor more.
type exactly struct {
	r    io.Reader
	left int64
}

func (e *exactly) Read(p []byte) (int, error) {
	if e.left == 0 {
		var one [1]byte
		if n, _ := io.ReadFull(e.r, one[:]); n > 0 { // an error after the last byte changes nothing
			return 0, resource.Invalid("Content-Range", "the body is longer than its Content-Range")
		}
		return 0, io.EOF
	}
	if int64(len(p)) > e.left {
		p = p[:e.left]
	}
	n, err := e.r.Read(p)
	e.left -= int64(n)
	if errors.Is(err, io.EOF) {
		err = nil
		if e.left > 0 {
			err = &clientError{err: io.ErrUnexpectedEOF}
		}
	}
	return n, err
}

// incomplete answers 308 with what has come. Clients whose HTTP library would
// take 308 for a redirect ask for 200 and a header instead (Go's gensupport).
func (c *call) incomplete(u blob.Upload) error {
	header := c.w.Header()
	header.Set("X-GUploader-UploadID", u.ID)
	header.Set("Content-Length", "0")
	if u.Received > 0 {
		header.Set("Range", "bytes=0-"+strconv.FormatInt(u.Received-1, 10))
	}
	status := http.StatusPermanentRedirect
	if c.r.Header.Get("X-GUploader-No-308") == "yes" {
		header.Set("X-Http-Status-Code-Override", "308")
		status = http.StatusOK
	}
	c.w.WriteHeader(status)
	return nil
}

// contentRange is what a piece says of itself.
type contentRange struct {
	first, last int64 // last = -1: to the end of the body
	total       int64 // -1 = not known yet
	query       bool  // no bytes: "bytes */..."
}

// parseContentRange reads "bytes A-B/N", "bytes A-B/*", "bytes */N" and
// "bytes */*"; no header means that the body is the whole object.
func parseContentRange(header string, length int64) (contentRange, error) {
	if header == "" {
		return contentRange{last: -1, total: length}, nil
	}
	invalid := resource.Invalid("Content-Range", "Content-Range %q is not: bytes A-B/TOTAL", header)
	spec, ok := strings.CutPrefix(header, "bytes ")
	span, total, slash := strings.Cut(strings.TrimSpace(spec), "/")
	if !ok || !slash {
		return contentRange{}, invalid
	}
	r := contentRange{total: -1}
	var err error
	if total != "*" {
		if r.total, err = strictUint(total); err != nil {
			return contentRange{}, invalid
		}
	}
	if span == "*" {
		r.query = true
		return r, nil
	}
	first, last, dash := strings.Cut(span, "-")
	if !dash {
		return contentRange{}, invalid
	}
	if r.first, err = strictUint(first); err != nil {
		return contentRange{}, invalid
	}
	if last == "*" {
		r.last = -1
		return r, nil
	}
	if r.last, err = strictUint(last); err != nil {
		return contentRange{}, invalid
	}
	if r.total == 0 && r.first == 0 && r.last == 0 { // how Python's client says "empty"
		return contentRange{query: true}, nil
	}
	if r.last < r.first || r.total >= 0 && r.last >= r.total {
		return contentRange{}, invalid
	}
	return r, nil
}

func strictUint(s string) (int64, error) {
	n, err := strconv.ParseUint(s, 10, 62)
	return int64(n), err
}
