package gcs

import (
	"compress/gzip"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strings"

	"tategu/internal/resource"
)

// unzipBody undoes the compression of a body that is or holds JSON, which Java's
// client sends so. The bytes of a media upload are stored as they come.
func unzipBody(r *http.Request, service string, query url.Values) {
	if !strings.EqualFold(r.Header.Get("Content-Encoding"), "gzip") {
		return
	}
	kind := query.Get("uploadType")
	holdsJSON := service == serviceUpload && r.Method == http.MethodPost && query.Get("upload_id") == "" && (kind == "resumable" || kind == "multipart")
	if service == serviceJSON || service == serviceBatch || holdsJSON {
		r.Body = &unzipped{body: r.Body}
	}
}

// unzipped unzips what is read; readers bound what they take.
type unzipped struct {
	body io.ReadCloser
	z    *gzip.Reader
	err  error
}

func (u *unzipped) Read(p []byte) (int, error) {
	if u.z == nil && u.err == nil {
		u.z, u.err = gzip.NewReader(u.body)
	}
	if u.err != nil {
		return 0, u.fail(u.err)
	}
	n, err := u.z.Read(p)
	return n, u.fail(err)
}

func (u *unzipped) fail(err error) error {
	if err == nil || errors.Is(err, io.EOF) {
		return err
	}
	return resource.Invalid("body", "the body says Content-Encoding: gzip and cannot be unzipped: %w", err)
}

func (u *unzipped) Close() error { return u.body.Close() }

// verbOf gives the verb of a request. HTTP libraries without PATCH, such as
// Java's, send POST and name the verb in a header. A signature is for the verb it
// was made for, whatever else a request says.
func verbOf(r *http.Request, service string) string {
	override := r.Header.Get("X-HTTP-Method-Override")
	if r.Method == http.MethodPost && service == serviceJSON && override != "" && !r.URL.Query().Has("X-Goog-Signature") {
		return strings.ToUpper(override)
	}
	return r.Method
}
