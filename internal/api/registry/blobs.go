package registry

import (
	"errors"
	"io"
	"net/http"
	"strconv"
	"strings"

	"google.golang.org/grpc/codes"

	"tategu/internal/identity"
	"tategu/internal/image"
)

// blob answers for one blob: GET, HEAD, DELETE.
func (c *call) blob() error {
	if err := c.only(http.MethodGet, http.MethodHead, http.MethodDelete); err != nil {
		return err
	}
	if err := c.may(c.permission()); err != nil {
		return err
	}
	d, err := image.ParseDigest(c.last)
	if err != nil {
		return err
	}
	if c.r.Method == http.MethodDelete {
		if err := c.Images.DeleteBlob(c.ctx(), c.repo.Name, d); err != nil {
			return err
		}
		c.w.WriteHeader(http.StatusAccepted)
		return nil
	}
	b, err := c.Images.Blob(c.ctx(), c.repo.Name, d)
	if err != nil {
		return err
	}
	return c.sendBlob(b)
}

func (c *call) sendBlob(b image.Blob) (err error) {
	h := c.w.Header()
	h.Set("Docker-Content-Digest", string(b.Digest))
	h.Set("ETag", `"`+string(b.Digest)+`"`)
	h.Set("Accept-Ranges", "bytes")
	h.Set("X-Content-Type-Options", "nosniff")
	if c.unchanged(b.Digest) {
		c.w.WriteHeader(http.StatusNotModified)
		return nil
	}
	offset, length, status := int64(0), b.Size, http.StatusOK
	if rng := c.r.Header.Get("Range"); rng != "" && c.r.Method == http.MethodGet {
		from, n, ok, err := parseRange(rng, b.Size)
		if err != nil {
			h.Set("Content-Range", "bytes */"+strconv.FormatInt(b.Size, 10))
			return err
		}
		if ok {
			offset, length, status = from, n, http.StatusPartialContent
			h.Set("Content-Range", "bytes "+strconv.FormatInt(from, 10)+"-"+strconv.FormatInt(from+n-1, 10)+"/"+strconv.FormatInt(b.Size, 10))
		}
	}
	h.Set("Content-Type", "application/octet-stream")
	if c.r.Method == http.MethodHead {
		h.Set("Content-Length", strconv.FormatInt(length, 10))
		c.w.WriteHeader(status)
		return nil
	}
	r, err := c.Images.OpenBlob(c.ctx(), b, offset, length)
	if err != nil {
		h.Del("Content-Range")
		return err
	}
	h.Set("Content-Length", strconv.FormatInt(length, 10))
	c.w.WriteHeader(status)
	n, err := io.Copy(c.w, r)
	err = errors.Join(err, r.Close())
	if (err != nil || n != length) && c.ctx().Err() == nil {
		// The answer has begun: cut it off, so that nobody takes half for the whole.
		panic(http.ErrAbortHandler)
	}
	return nil
}

// unchanged reports that the caller has the thing already.
func (c *call) unchanged(d image.Digest) bool {
	for tag := range strings.SplitSeq(c.r.Header.Get("If-None-Match"), ",") {
		tag = strings.TrimPrefix(strings.TrimSpace(tag), "W/")
		if tag == "*" || tag == `"`+string(d)+`"` {
			return true
		}
	}
	return false
}

// parseRange reads a Range header of one range; ok is false where the whole is the
// answer: several ranges, and what is no range (RFC 9110, section 14.2).
func parseRange(header string, size int64) (offset, length int64, ok bool, err error) {
	spec, found := strings.CutPrefix(header, "bytes=")
	first, last, dash := strings.Cut(strings.TrimSpace(spec), "-")
	if !found || !dash || strings.Contains(spec, ",") {
		return 0, 0, false, nil
	}
	outside := image.Refuse(image.ErrSizeInvalid, "range %.80q is outside of the blob's %d bytes", header, size)
	outside.Code = codes.OutOfRange
	if first == "" { // the last bytes
		n, ok := number(last)
		switch {
		case !ok:
			return 0, 0, false, nil
		case n == 0 || size == 0:
			return 0, 0, false, outside
		}
		n = min(n, size)
		return size - n, n, true, nil
	}
	from, ok := number(first)
	if !ok {
		return 0, 0, false, nil
	}
	to := size - 1
	if last != "" {
		n, ok := number(last)
		if !ok || n < from {
			return 0, 0, false, nil
		}
		to = min(to, n)
	}
	if from >= size {
		return 0, 0, false, outside
	}
	return from, to - from + 1, true, nil
}

// number reads a byte position: digits and nothing else.
func number(s string) (int64, bool) {
	if s == "" || strings.Trim(s, "0123456789") != "" {
		return 0, false
	}
	n, err := strconv.ParseInt(s, 10, 64)
	return n, err == nil
}

// parseContentRange reads the Content-Range of a piece, FIRST-LAST, both counted.
func parseContentRange(s string) (first, length int64, err error) {
	from, to, ok := strings.Cut(s, "-")
	first, ok1 := number(from)
	last, ok2 := number(to)
	if !ok || !ok1 || !ok2 || last < first || last-first == 1<<63-1 {
		return 0, 0, image.Refuse(image.ErrBlobUploadInvalid, "Content-Range %.80q is not FIRST-LAST", s).WithHint("count from 0, both ends included")
	}
	return first, last - first + 1, nil
}

// upload answers for uploads: POST starts one, or takes or mounts a blob at once;
// PATCH, PUT, GET and DELETE go on with it.
func (c *call) upload() error {
	if c.last == "" {
		if err := c.only(http.MethodPost); err != nil {
			return err
		}
	} else if err := c.only(http.MethodGet, http.MethodHead, http.MethodPatch, http.MethodPut, http.MethodDelete); err != nil {
		return err
	}
	if err := c.may(permissionWrite); err != nil {
		return err
	}
	switch c.r.Method {
	case http.MethodPost:
		return c.startUpload()
	case http.MethodPatch:
		return c.appendUpload()
	case http.MethodPut:
		return c.finishUpload()
	case http.MethodDelete:
		if err := c.Images.CancelUpload(c.ctx(), c.repo.Name, c.last); err != nil {
			return err
		}
		c.w.WriteHeader(http.StatusNoContent)
		return nil
	default:
		u, err := c.Images.GetUpload(c.ctx(), c.repo.Name, c.last)
		if err != nil {
			return err
		}
		c.progress(u)
		c.w.WriteHeader(http.StatusNoContent)
		return nil
	}
}

func (c *call) startUpload() error {
	q := c.r.URL.Query()
	if digest := q.Get("mount"); digest != "" {
		done, err := c.mount(digest, q.Get("from"))
		if done || err != nil {
			return err
		}
	}
	if digest := q.Get("digest"); digest != "" {
		d, err := image.ParseDigest(digest)
		if err != nil {
			return err
		}
		b, err := c.Images.PutBlob(c.ctx(), c.repo, d, c.r.Body)
		if err != nil {
			return err
		}
		c.created(b)
		return nil
	}
	u, err := c.Images.StartUpload(c.ctx(), c.repo)
	if err != nil {
		return err
	}
	c.progress(u)
	c.w.WriteHeader(http.StatusAccepted)
	return nil
}

// maxHolders bounds how many repositories are asked for a blob to mount when the
// client names none.
const maxHolders = 20

// mount takes a blob from another repository, or from any that the caller may read.
// Where there is none, the answer is that of an upload, which the client goes on with.
func (c *call) mount(digest, from string) (done bool, err error) {
	d, err := image.ParseDigest(digest)
	if err != nil {
		return false, err
	}
	holders := []string{from}
	if from == "" {
		if holders, err = c.Images.Holders(c.ctx(), d, maxHolders); err != nil {
			return false, err
		}
	}
	for _, holder := range holders {
		if image.CheckName(holder) != nil {
			continue
		}
		project, err := c.projectOf(holder)
		if err != nil {
			return false, err
		}
		if c.Auth.Authorize(c.ctx(), identity.FromContext(c.ctx()), project, PermissionRead) != nil {
			continue
		}
		b, err := c.Images.Mount(c.ctx(), holder, c.repo, d)
		if code, ok := errors.AsType[image.Code](err); ok && code == image.ErrBlobUnknown {
			continue
		}
		if err != nil {
			return false, err
		}
		c.created(b)
		return true, nil
	}
	return false, nil
}

func (c *call) created(b image.Blob) {
	c.w.Header().Set("Location", "/v2/"+c.repo.Name+"/blobs/"+string(b.Digest))
	c.w.Header().Set("Docker-Content-Digest", string(b.Digest))
	c.w.WriteHeader(http.StatusCreated)
}

// progress tells where an upload stands.
func (c *call) progress(u image.Upload) {
	c.w.Header().Set("Location", "/v2/"+c.repo.Name+"/blobs/uploads/"+u.ID)
	c.w.Header().Set("Docker-Upload-Uuid", u.ID)
	c.w.Header().Set("Range", "0-"+strconv.FormatInt(max(u.Received-1, 0), 10))
}

// piece adds the body of the request.
func (c *call) piece() (image.Upload, error) {
	offset, length := int64(image.AtEnd), c.r.ContentLength
	if rng := c.r.Header.Get("Content-Range"); rng != "" {
		first, n, err := parseContentRange(rng)
		if err != nil {
			return image.Upload{}, err
		}
		if length >= 0 && length != n {
			return image.Upload{}, image.Refuse(image.ErrSizeInvalid, "Content-Range has %d bytes and the body %d", n, length)
		}
		offset, length = first, n
	}
	u, err := c.Images.AppendUpload(c.ctx(), c.repo.Name, c.last, offset, length, c.r.Body)
	if err != nil && u.ID != "" {
		c.progress(u)
	}
	return u, err
}

func (c *call) appendUpload() error {
	u, err := c.piece()
	if err != nil {
		return err
	}
	c.progress(u)
	c.w.WriteHeader(http.StatusAccepted)
	return nil
}

func (c *call) finishUpload() error {
	digest := c.r.URL.Query().Get("digest")
	d, err := image.ParseDigest(digest)
	if err != nil {
		return err
	}
	if c.r.ContentLength != 0 {
		if _, err := c.piece(); err != nil {
			return err
		}
	}
	b, err := c.Images.FinishUpload(c.ctx(), c.repo.Name, c.last, d)
	if err != nil {
		return err
	}
	c.created(b)
	return nil
}

// broken reports a body that ended early.
func broken(err error) bool { return errors.Is(err, io.ErrUnexpectedEOF) }
