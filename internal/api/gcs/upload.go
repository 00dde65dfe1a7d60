package gcs

import (
	"errors"
	"io"
	"net/http"

	"tategu/internal/blob"
	"tategu/internal/resource"
)

// upload starts or does an upload
// (cloud.google.com/storage/docs/json_api/v1/objects/insert).
func (h *Handler) upload(c *call) error {
	if c.query.Get("upload_id") != "" { // Go's client sends pieces with POST
		return h.resume(c)
	}
	if err := h.authorize(c.ctx(), c.names[0], "storage.objects.create"); err != nil {
		return err
	}
	switch kind := c.query.Get("uploadType"); kind {
	case "media":
		return h.uploadMedia(c)
	case "multipart":
		return h.uploadMultipart(c)
	case "resumable":
		return h.startResumable(c)
	default:
		return resource.Invalid("uploadType", "uploadType=%q is not known: want media, multipart or resumable", kind)
	}
}

// newObject joins what parameters and metadata say of the object to be.
func (c *call) newObject(f fields) (o blob.Object, conds blob.Conditions, err error) {
	o = blob.Object{Bucket: c.names[0]}
	if err := applyObject(&o, f); err != nil {
		return o, conds, err
	}
	if raw, ok := f["name"]; ok {
		if o.Name, err = text("name", raw); err != nil {
			return o, conds, err
		}
	}
	if name := c.query.Get("name"); name != "" {
		o.Name = name
	}
	if v := c.query.Get("contentEncoding"); v != "" {
		o.ContentEncoding = v
	}
	if err := blob.CheckName(o.Name); err != nil {
		return o, conds, err
	}
	if conds, err = c.conditions(); err != nil {
		return o, conds, err
	}
	if err := bodyHashes(f, &conds); err != nil {
		return o, conds, err
	}
	return o, conds, headerHashes(c.r.Header, &conds)
}

func (h *Handler) uploadMedia(c *call) error {
	o, conds, err := c.newObject(nil)
	if err != nil {
		return err
	}
	o.ContentType = c.r.Header.Get("Content-Type")
	return h.put(c, o, c.r.Body, conds)
}

func (h *Handler) put(c *call, o blob.Object, r io.Reader, conds blob.Conditions) error {
	if err := h.protect(c.ctx(), o.Bucket, o.Name, &conds); err != nil {
		return err
	}
	o, err := h.blobs.Put(c.ctx(), o, body{r}, conds)
	if err != nil {
		return err
	}
	return c.reply(objectJSON(baseURL(c.r), o))
}

// uploadMultipart reads multipart/related: the metadata, then the bytes
// (RFC 2387; exactly two parts).
func (h *Handler) uploadMultipart(c *call) error {
	parts, err := relatedParts(c.r.Header.Get("Content-Type"), body{c.r.Body})
	if err != nil {
		return err
	}
	meta, err := parts.must()
	if err != nil {
		return err
	}
	var f fields
	if err := readJSON(meta, &f); err != nil {
		return err
	}
	o, conds, err := c.newObject(f)
	if err != nil {
		return err
	}
	media, err := parts.must()
	if err != nil {
		return err
	}
	if o.ContentType == "" {
		o.ContentType = media.Header.Get("Content-Type")
	}
	return h.put(c, o, &lastPart{part: media, parts: parts}, conds)
}

// lastPart ends well only when the closing boundary follows: a body that was cut
// off must not become an object.
type lastPart struct {
	part  io.Reader
	parts *partReader
}

func (l *lastPart) Read(p []byte) (int, error) {
	n, err := l.part.Read(p)
	if !errors.Is(err, io.EOF) {
		if err != nil {
			err = asClientError(err)
		}
		return n, err
	}
	if _, next := l.parts.next(); !errors.Is(next, io.EOF) {
		if next == nil {
			return n, resource.Invalid("body", "the body has more than two parts")
		}
		return n, asClientError(next)
	}
	return n, io.EOF
}

func asClientError(err error) error {
	if _, ok := errors.AsType[*clientError](err); ok {
		return err
	}
	return &clientError{err: err}
}

// uploadURL is where the pieces of a resumable upload go.
func uploadURL(r *http.Request, u blob.Upload) string {
	q := "?uploadType=resumable&name=" + queryEscape(u.Object.Name) + "&upload_id=" + u.ID
	return baseURL(r) + "/upload/storage/v1/b/" + u.Object.Bucket + "/o" + q
}
