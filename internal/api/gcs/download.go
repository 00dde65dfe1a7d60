package gcs

import (
	"compress/gzip"
	"encoding/base64"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"strconv"
	"strings"

	"google.golang.org/grpc/codes"

	"tategu/internal/blob"
	"tategu/internal/resource"
)

// noneMatch reports that If-None-Match names the object as it is.
func noneMatch(header string, o blob.Object) bool {
	for tag := range strings.SplitSeq(header, ",") {
		tag = strings.TrimSpace(tag)
		if tag == "*" || tag != "" && strings.Trim(tag, `"`) == etag(o.Generation, o.Metageneration) {
			return true
		}
	}
	return false
}

// download gives an object's bytes: whole, one range, or unzipped.
func (h *Handler) download(c *call) (err error) {
	o, content, offset, length, err := h.openRange(c)
	if err != nil {
		return err
	}
	defer func() {
		if cerr := content.Close(); cerr != nil {
			h.log.ErrorContext(c.ctx(), "close content", slog.Any("error", cerr))
		}
	}()
	header := c.w.Header()
	setObjectHeaders(header, o)
	if gunzips(c.r, o) {
		return h.gunzip(c, o, content)
	}
	status := http.StatusOK
	if length != o.Size || offset != 0 || isPartial(c.r, o.Size) {
		status = http.StatusPartialContent
		header.Set("Content-Range", "bytes "+strconv.FormatInt(offset, 10)+"-"+strconv.FormatInt(offset+length-1, 10)+"/"+strconv.FormatInt(o.Size, 10))
	}
	header.Set("Content-Length", strconv.FormatInt(length, 10))
	header.Set("Accept-Ranges", "bytes")
	c.w.WriteHeader(status)
	if c.r.Method == http.MethodHead {
		return nil
	}
	// A short copy leaves the answer shorter than it says, which ends the
	// connection: the client sees that it has not got all.
	if n, err := io.Copy(c.w, content); err != nil || n != length {
		h.log.DebugContext(c.ctx(), "download ended early", slog.String("object", o.Name), slog.Int64("sent", n), slog.Any("error", err))
	}
	return nil
}

func isPartial(r *http.Request, size int64) bool {
	_, _, ok, err := parseRange(r.Header.Get("Range"), size)
	return ok && err == nil
}

// openRange opens what is asked. An object that is overwritten between its row
// and its bytes is read again, unless one generation was asked for.
func (h *Handler) openRange(c *call) (o blob.Object, r io.ReadCloser, offset, length int64, err error) {
	for range 10 {
		if o, err = h.stat(c); err != nil {
			return o, nil, 0, 0, err
		}
		length = o.Size
		if !gunzips(c.r, o) {
			offset, length, _, err = parseRange(c.r.Header.Get("Range"), o.Size)
		}
		if errors.Is(err, errRange) {
			return o, nil, 0, 0, &rangeError{size: o.Size}
		}
		r, err = h.blobs.Open(c.ctx(), o, offset, length)
		if !resource.IsNotFound(err) || c.query.Get("generation") != "" {
			return o, r, offset, length, err
		}
	}
	return o, nil, 0, 0, err
}

// setObjectHeaders are the headers of a download
// (cloud.google.com/storage/docs/xml-api/reference-headers).
func setObjectHeaders(header http.Header, o blob.Object) {
	set := func(name, value string) {
		if value != "" {
			header.Set(name, value)
		}
	}
	contentType := o.ContentType
	if contentType == "" {
		contentType = "application/octet-stream"
	}
	set("Content-Type", contentType)
	set("Content-Encoding", o.ContentEncoding)
	set("Content-Disposition", o.ContentDisposition)
	set("Content-Language", o.ContentLanguage)
	set("Cache-Control", o.CacheControl)
	set("ETag", `"`+etag(o.Generation, o.Metageneration)+`"`)
	set("Last-Modified", o.Updated.UTC().Format(http.TimeFormat))
	set("X-Goog-Generation", strconv.FormatInt(o.Generation, 10))
	set("X-Goog-Metageneration", strconv.FormatInt(o.Metageneration, 10))
	set("X-Goog-Storage-Class", o.StorageClass)
	set("X-Goog-Stored-Content-Length", strconv.FormatInt(o.Size, 10))
	stored := o.ContentEncoding
	if stored == "" {
		stored = "identity"
	}
	set("X-Goog-Stored-Content-Encoding", stored)
	hashes := "crc32c=" + crcText(o.CRC32C)
	if len(o.MD5) > 0 {
		hashes += ",md5=" + base64.StdEncoding.EncodeToString(o.MD5)
	}
	set("X-Goog-Hash", hashes)
	if o.Components > 0 {
		set("X-Goog-Component-Count", strconv.Itoa(o.Components))
	}
	for k, v := range o.Metadata {
		if !strings.ContainsAny(k+v, "\r\n") {
			header["X-Goog-Meta-"+k] = []string{v}
		}
	}
	header.Add("Vary", "Accept-Encoding")
	// What users store is never a page of ours.
	set("X-Content-Type-Options", "nosniff")
	set("Content-Security-Policy", "sandbox")
}

// gunzips decides decompressive transcoding: an object stored with gzip for a
// client that does not take gzip (cloud.google.com/storage/docs/transcoding).
func gunzips(r *http.Request, o blob.Object) bool {
	return o.ContentEncoding == "gzip" && !strings.Contains(r.Header.Get("Accept-Encoding"), "gzip") &&
		!strings.Contains(o.CacheControl, "no-transform")
}

func (h *Handler) gunzip(c *call, o blob.Object, content io.Reader) error {
	z, err := gzip.NewReader(content)
	if err != nil {
		return resource.Errorf(codes.InvalidArgument, "object gs://%s/%s says gzip and is not: %w", o.Bucket, o.Name, err).
			WithHint("ask for it with Accept-Encoding: gzip to get the stored bytes")
	}
	header := c.w.Header()
	header.Del("Content-Encoding")
	header.Set("Warning", "214 UploadServer gunzipped")
	c.w.WriteHeader(http.StatusOK)
	if c.r.Method == http.MethodHead {
		return nil
	}
	// The length is not known before: a broken stream must break the connection.
	if _, err := io.Copy(c.w, z); err != nil { //nolint:gosec // streamed, so that a bomb costs no memory
		h.log.DebugContext(c.ctx(), "unzipping ended early", slog.String("object", o.Name), slog.Any("error", err))
		panic(http.ErrAbortHandler)
	}
	return nil
}
