package gcs

import (
	"encoding/xml"
	"errors"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"tategu/internal/blob"
	"tategu/internal/resource"
)

const metaHeader = "X-Goog-Meta-"

// headerObject reads an object's metadata from the headers of an upload
// (cloud.google.com/storage/docs/xml-api/put-object-upload).
func headerObject(h http.Header, bucket, name string) (blob.Object, error) {
	o := blob.Object{
		Bucket: bucket, Name: name,
		ContentType: h.Get("Content-Type"), ContentEncoding: h.Get("Content-Encoding"), ContentDisposition: h.Get("Content-Disposition"),
		ContentLanguage: h.Get("Content-Language"), CacheControl: h.Get("Cache-Control"), StorageClass: h.Get("X-Goog-Storage-Class"),
	}
	for key, values := range h {
		if meta, ok := strings.CutPrefix(key, metaHeader); ok && meta != "" {
			if o.Metadata == nil {
				o.Metadata = map[string]string{}
			}
			o.Metadata[strings.ToLower(meta)] = strings.Join(values, ",")
		}
	}
	if v := h.Get("X-Goog-Custom-Time"); v != "" {
		t, err := time.Parse(time.RFC3339, v)
		if err != nil {
			return o, resource.Invalid("x-goog-custom-time", "x-goog-custom-time %q is no RFC 3339 time", v)
		}
		o.CustomTime = t.UTC()
	}
	if err := checkClass(o.StorageClass); err != nil {
		return o, err
	}
	return o, blob.CheckName(name)
}

func checkClass(class string) error {
	if class == "" || slices.Contains(blob.StorageClasses(), class) {
		return nil
	}
	return &xmlError{
		http.StatusBadRequest, "InvalidStorageClass",
		resource.Invalid("x-goog-storage-class", "%q is no storage class: want one of %s", class, strings.Join(blob.StorageClasses(), ", ")),
	}
}

// xmlPut stores the body, or copies another object.
func (h *Handler) xmlPut(c *call) error {
	if c.r.Header.Get("X-Goog-Copy-Source") != "" {
		return h.xmlCopy(c)
	}
	o, err := headerObject(c.r.Header, c.names[0], c.names[1])
	if err != nil {
		return err
	}
	conds, err := h.xmlConditions(c)
	if err != nil {
		return err
	}
	if err := headerHashes(c.r.Header, &conds); err != nil {
		return err
	}
	r, err := lengthChecked(c.r)
	if err != nil {
		return err
	}
	if err := h.protect(c.ctx(), o.Bucket, o.Name, &conds); err != nil {
		return err
	}
	if o, err = h.blobs.Put(c.ctx(), o, r, conds); err != nil {
		return err
	}
	return c.replyStored(o)
}

// lengthChecked is the body, held to x-goog-content-length-range: "MIN,MAX".
func lengthChecked(r *http.Request) (io.Reader, error) {
	v := r.Header.Get("X-Goog-Content-Length-Range")
	if v == "" {
		return body{r.Body}, nil
	}
	low, high, ok := strings.Cut(v, ",")
	least, err1 := strictUint(strings.TrimSpace(low))
	most, err2 := strictUint(strings.TrimSpace(high))
	if !ok || err1 != nil || err2 != nil || least > most {
		return nil, resource.Invalid("x-goog-content-length-range", "x-goog-content-length-range %q is not MIN,MAX", v)
	}
	b := &bounded{r: body{r.Body}, least: least, most: most}
	if r.ContentLength >= 0 {
		if err := b.check(r.ContentLength, true); err != nil {
			return nil, err
		}
	}
	return b, nil
}

// bounded refuses a body that is shorter or longer than it may be.
type bounded struct {
	r              io.Reader
	least, most, n int64
}

func (b *bounded) Read(p []byte) (int, error) {
	n, err := b.r.Read(p)
	b.n += int64(n)
	if refused := b.check(b.n, errors.Is(err, io.EOF)); refused != nil {
		return n, refused
	}
	return n, err
}

func (b *bounded) check(n int64, ended bool) error {
	refuse := func(code string) error {
		return &xmlError{http.StatusBadRequest, code, resource.Invalid("body", "the body has %d bytes, and x-goog-content-length-range is %d,%d", n, b.least, b.most)}
	}
	switch {
	case n > b.most:
		return refuse("EntityTooLarge")
	case ended && n < b.least:
		return refuse("EntityTooSmall")
	}
	return nil
}

// parseCopySource reads BUCKET/OBJECT, escaped as a path; a slash may go ahead.
func parseCopySource(header string) (bucket, name string, err error) {
	path, err := url.PathUnescape(strings.TrimPrefix(header, "/"))
	bucket, name, ok := strings.Cut(path, "/")
	if err != nil || !ok || bucket == "" || name == "" {
		return "", "", resource.Invalid("x-goog-copy-source", "x-goog-copy-source %q is not BUCKET/OBJECT", header)
	}
	return bucket, name, nil
}

// copySource finds the object that x-goog-copy-source names under its conditions.
func (h *Handler) copySource(c *call) (blob.Object, error) {
	bucket, name, err := parseCopySource(c.r.Header.Get("X-Goog-Copy-Source"))
	if err != nil {
		return blob.Object{}, err
	}
	if err := h.authorize(c.ctx(), bucket, "storage.objects.get"); err != nil {
		return blob.Object{}, err
	}
	header := func(name string) string { return c.r.Header.Get("X-Goog-Copy-Source-" + name) }
	q := url.Values{
		"ifGenerationMatch": {header("If-Generation-Match")}, "ifMetagenerationMatch": {header("If-Metageneration-Match")},
		"ifGenerationNotMatch": {header("If-Generation-Not-Match")}, "ifMetagenerationNotMatch": {header("If-Metageneration-Not-Match")},
		"generation": {header("Generation")},
	}
	conds, err := conditions(q, "if")
	if err != nil {
		return blob.Object{}, err
	}
	number, err := generation(q, "generation")
	if err != nil {
		return blob.Object{}, err
	}
	src, err := h.blobs.Stat(c.ctx(), bucket, name, number, conds)
	if err != nil {
		return src, copyError(err, bucket, name)
	}
	if httpConditions(header, &src) != holds {
		return src, failedHeader(bucket, name)
	}
	return src, nil
}

// copyError: a condition on the source fails with 412 whatever its kind.
func copyError(err error, bucket, name string) error {
	if status, _ := answerOf(err); status == http.StatusNotModified {
		return failedHeader(bucket, name)
	}
	return err
}

// xmlCopy makes an object of another one
// (cloud.google.com/storage/docs/xml-api/put-object-copy).
func (h *Handler) xmlCopy(c *call) error {
	src, err := h.copySource(c)
	if err != nil {
		return err
	}
	dst := src
	given, err := headerObject(c.r.Header, c.names[0], c.names[1])
	if err != nil {
		return err
	}
	switch directive := c.r.Header.Get("X-Goog-Metadata-Directive"); strings.ToUpper(directive) {
	case "", "COPY":
		if src.Bucket == c.names[0] && src.Name == c.names[1] && given.StorageClass == "" {
			return &xmlError{http.StatusBadRequest, "InvalidRequest", resource.Invalid("x-goog-metadata-directive",
				"an object is copied onto itself only to replace its metadata").WithHint("send x-goog-metadata-directive: REPLACE")}
		}
		if given.StorageClass != "" {
			dst.StorageClass = given.StorageClass
		}
	case "REPLACE":
		dst = given
		if given.ContentType == "" {
			dst.ContentType = src.ContentType
		}
	default:
		return resource.Invalid("x-goog-metadata-directive", "x-goog-metadata-directive %q is not COPY or REPLACE", directive)
	}
	dst.Bucket, dst.Name = c.names[0], c.names[1]
	conds, err := h.xmlConditions(c)
	if err != nil {
		return err
	}
	if err := h.protect(c.ctx(), dst.Bucket, dst.Name, &conds); err != nil {
		return err
	}
	o, err := h.blobs.Copy(c.ctx(), src, dst, conds)
	if err != nil {
		return err
	}
	setStoredHeaders(c.w.Header(), o)
	c.w.Header().Set("X-Goog-Copy-Source-Generation", strconv.FormatInt(src.Generation, 10))
	return c.replyXML(struct {
		XMLName      xml.Name `xml:"CopyObjectResult"`
		LastModified string
		ETag         string
	}{LastModified: xmlTime(o.Updated), ETag: quoted(xmlETag(o))})
}

// composeXML is cloud.google.com/storage/docs/xml-api/put-object-compose.
type composeXML struct {
	XMLName   xml.Name `xml:"ComposeRequest"`
	Component []struct {
		Name              string
		Generation        string
		IfGenerationMatch string
	}
}

func (h *Handler) xmlCompose(c *call) error {
	bucket := c.names[0]
	dst, err := headerObject(c.r.Header, bucket, c.names[1])
	if err != nil {
		return err
	}
	conds, err := h.xmlConditions(c)
	if err != nil {
		return err
	}
	var req composeXML
	if err := readXML(c, &req); err != nil {
		return err
	}
	if len(req.Component) == 0 || len(req.Component) > blob.MaxCompose {
		return malformed("the request has %d components: want 1 to %d", len(req.Component), blob.MaxCompose)
	}
	sources := make([]blob.Object, 0, len(req.Component))
	for _, s := range req.Component {
		q := url.Values{"generation": {s.Generation}, "ifGenerationMatch": {s.IfGenerationMatch}}
		srcConds, err := conditions(q, "if")
		if err != nil {
			return err
		}
		number, err := generation(q, "generation")
		if err != nil {
			return err
		}
		o, err := h.blobs.Stat(c.ctx(), bucket, s.Name, number, srcConds)
		if err != nil {
			return err
		}
		sources = append(sources, o)
	}
	if err := h.protect(c.ctx(), dst.Bucket, dst.Name, &conds); err != nil {
		return err
	}
	o, err := h.blobs.Compose(c.ctx(), dst, sources, conds, false)
	if err != nil {
		return err
	}
	return c.replyStored(o)
}

func (h *Handler) xmlDelete(c *call) error {
	conds, err := h.xmlConditions(c)
	if err != nil {
		return err
	}
	number, err := c.generation()
	if err != nil {
		return err
	}
	if err := h.blobs.Delete(c.ctx(), c.names[0], c.names[1], number, conds); err != nil {
		return err
	}
	return c.replyEmpty(http.StatusNoContent)
}

// xmlPost starts a resumable upload, which goes on at a URL in the XML style.
func (h *Handler) xmlPost(c *call) error {
	if v := c.r.Header.Get("X-Goog-Resumable"); v != "start" {
		return resource.Invalid("x-goog-resumable", "POST of an object wants ?uploads, ?uploadId or x-goog-resumable: start, not %q", v)
	}
	o, err := headerObject(c.r.Header, c.names[0], c.names[1])
	if err != nil {
		return err
	}
	conds, err := h.xmlConditions(c)
	if err != nil {
		return err
	}
	if err := headerHashes(c.r.Header, &conds); err != nil {
		return err
	}
	total := int64(-1)
	if v := c.r.Header.Get("X-Upload-Content-Length"); v != "" {
		if total, err = strictUint(v); err != nil {
			return resource.Invalid("x-upload-content-length", "%q is no length", v)
		}
	}
	if v := c.r.Header.Get("X-Upload-Content-Type"); v != "" {
		o.ContentType = v
	}
	if err := h.protect(c.ctx(), o.Bucket, o.Name, &conds); err != nil {
		return err
	}
	u, err := h.blobs.StartUpload(c.ctx(), o, conds, total)
	if err != nil {
		return err
	}
	c.w.Header().Set("Location", baseURL(c.r)+c.r.URL.EscapedPath()+"?upload_id="+u.ID)
	c.w.Header().Set("X-GUploader-UploadID", u.ID)
	return c.replyEmpty(http.StatusCreated)
}
