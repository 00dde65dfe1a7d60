package gcs

import (
	"compress/gzip"
	"io"
	"log/slog"
	"net/http"
	"strconv"
	"strings"
	"time"

	"google.golang.org/grpc/codes"

	"tategu/internal/blob"
	"tategu/internal/identity"
	"tategu/internal/resource"
)

// download gives an object's bytes: whole, some ranges, or unzipped.
func (h *Handler) download(c *call) (err error) {
	o, err := h.openRanges(c)
	if err != nil {
		return err
	}
	defer func() {
		if cerr := o.Close(); cerr != nil {
			h.log.ErrorContext(c.ctx(), "close content", slog.Any("error", cerr))
		}
	}()
	small, err := c.readSmall(o)
	if err != nil {
		return err
	}
	header := c.w.Header()
	setObjectHeaders(header, o.Object)
	c.overrideHeaders(o.Object)
	if gunzips(c.r, o.Object) {
		return h.gunzip(c, o.Object, o.bytes[0])
	}
	if len(o.spans) > 1 {
		return h.sendMany(c, o)
	}
	status, length := http.StatusOK, o.Size
	if len(o.spans) == 1 {
		status, length = http.StatusPartialContent, o.spans[0].length
		header.Set("Content-Range", o.spans[0].contentRange(o.Size))
	}
	header.Set("Content-Length", strconv.FormatInt(length, 10))
	header.Set("Accept-Ranges", "bytes")
	c.w.WriteHeader(status)
	if c.r.Method == http.MethodHead {
		return nil
	}
	if small != nil {
		_, _ = c.w.Write(small) // the client may be gone
		return nil
	}
	if n, err := io.Copy(c.w, o.bytes[0]); err != nil || n != length {
		return h.broken(c, o.Object, err)
	}
	return nil
}

// maxSmall is the most bytes that are read before an answer begins.
const maxSmall = 256 << 10

// readSmall gives a small object that is sent whole and as it is: read before the
// answer begins, it can be refused with a status when it is damaged.
func (c *call) readSmall(o *opened) ([]byte, error) {
	if len(o.spans) > 0 || o.Size > maxSmall || c.r.Method == http.MethodHead || gunzips(c.r, o.Object) {
		return nil, nil
	}
	data := make([]byte, o.Size)
	_, err := io.ReadFull(o.bytes[0], data)
	return data, err
}

// broken ends the connection of an answer that has begun and cannot be ended: the
// client must see that it has not got all. What is damaged or missing is the
// server's to report; everything else is a client that left.
func (h *Handler) broken(c *call, o blob.Object, err error) error {
	level := slog.LevelDebug
	if resource.CodeOf(err) == codes.DataLoss {
		level = slog.LevelError
	}
	h.log.Log(c.ctx(), level, "download ended early", slog.String("bucket", o.Bucket), slog.String("object", o.Name), slog.Any("error", err))
	panic(http.ErrAbortHandler)
}

// overrideHeaders gives the XML API's form of the headers, and those that the
// request asks for (response-content-type and response-content-disposition).
func (c *call) overrideHeaders(o blob.Object) {
	if !c.xml {
		return
	}
	header := c.w.Header()
	header.Set("ETag", quoted(xmlETag(o)))
	if identity.FromContext(c.ctx()).Anonymous() {
		return // a link to what everybody may read must not be turned into a page
	}
	for _, name := range []string{"Content-Type", "Content-Disposition", "Content-Language", "Content-Encoding", "Cache-Control"} {
		if v := c.query.Get("response-" + strings.ToLower(name)); v != "" && !strings.ContainsAny(v, "\r\n") {
			header.Set(name, v)
		}
	}
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
	set("ETag", quoted(etag(o.Generation, o.Metageneration)))
	set("Last-Modified", o.Updated.UTC().Format(http.TimeFormat))
	set("X-Goog-Storage-Class", o.StorageClass)
	setStoredHeaders(header, o)
	if o.Components > 0 {
		set("X-Goog-Component-Count", strconv.Itoa(o.Components))
	}
	if !o.CustomTime.IsZero() {
		set("X-Goog-Custom-Time", o.CustomTime.UTC().Format(time.RFC3339Nano))
	}
	for k, v := range o.Metadata {
		if validHeader(k, v) {
			header[metaHeader+k] = []string{v}
		}
	}
	header.Add("Vary", "Accept-Encoding")
	// What users store is never a page of ours.
	set("X-Content-Type-Options", "nosniff")
	set("Content-Security-Policy", "sandbox")
}

// setStoredHeaders say what is stored, whatever of it is sent.
func setStoredHeaders(header http.Header, o blob.Object) {
	header.Set("X-Goog-Generation", strconv.FormatInt(o.Generation, 10))
	header.Set("X-Goog-Metageneration", strconv.FormatInt(o.Metageneration, 10))
	header.Set("X-Goog-Stored-Content-Length", strconv.FormatInt(o.Size, 10))
	encoding := o.ContentEncoding
	if encoding == "" {
		encoding = "identity"
	}
	header.Set("X-Goog-Stored-Content-Encoding", encoding)
	header.Set("X-Goog-Hash", hashText(o.CRC32C, o.MD5))
}

// validHeader reports a name and value that an HTTP header can carry; metadata
// given as JSON may be any text.
func validHeader(name, value string) bool {
	token := func(r rune) bool {
		return r <= ' ' || r >= 0x7f || strings.ContainsRune(`()<>@,;:\"/[]?={}`, r)
	}
	return name != "" && !strings.ContainsFunc(name, token) &&
		!strings.ContainsFunc(value, func(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f })
}

// gunzips decides decompressive transcoding: an object stored with gzip for a
// client that does not take gzip (cloud.google.com/storage/docs/transcoding).
func gunzips(r *http.Request, o blob.Object) bool {
	return o.ContentEncoding == "gzip" && !acceptsGzip(r.Header.Values("Accept-Encoding")) && !strings.Contains(o.CacheControl, "no-transform")
}

// acceptsGzip: named, and not with a weight of zero (RFC 9110, section 12.5.3).
func acceptsGzip(headers []string) bool {
	for _, header := range headers {
		for item := range strings.SplitSeq(header, ",") {
			coding, weight, _ := strings.Cut(item, ";")
			if !strings.EqualFold(strings.TrimSpace(coding), "gzip") {
				continue
			}
			q, ok := strings.CutPrefix(strings.ReplaceAll(weight, " ", ""), "q=")
			n, err := strconv.ParseFloat(q, 64)
			return !ok || err != nil || n > 0
		}
	}
	return false
}

func (h *Handler) gunzip(c *call, o blob.Object, content io.Reader) error {
	z, err := gzip.NewReader(content)
	if resource.CodeOf(err) == codes.DataLoss {
		return err
	}
	if err != nil {
		return resource.Errorf(codes.InvalidArgument, "object gs://%s/%s says gzip and is not: %w", o.Bucket, o.Name, err).
			WithHint("ask for it with Accept-Encoding: gzip to get the stored bytes")
	}
	header := c.w.Header()
	header.Del("Content-Encoding")
	header.Set("Warning", "214 UploadServer gunzipped")
	header.Set("ETag", "W/"+header.Get("ETag")) // other bytes of the same object
	c.w.WriteHeader(http.StatusOK)
	if c.r.Method == http.MethodHead {
		return nil
	}
	// The length is not known before: a broken stream must break the connection.
	if _, err := io.Copy(c.w, z); err != nil { //nolint:gosec // streamed, so that a bomb costs no memory
		return h.broken(c, o, err)
	}
	return nil
}
