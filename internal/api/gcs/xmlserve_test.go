package gcs_test

import (
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"tategu/internal/api/gcs"
	"tategu/internal/blob"
	"tategu/internal/blob/disk"
	"tategu/internal/store/sqlite"
)

// FuzzXMLRequest sends any request to the XML API: it is answered, and whatever is
// wrong with it is the client's fault or named as not supported.
func FuzzXMLRequest(f *testing.F) {
	rows, err := sqlite.Open(f.Context(), filepath.Join(f.TempDir(), "state.db"))
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { _ = rows.Close() })
	content, err := disk.Open(filepath.Join(f.TempDir(), "content"))
	if err != nil {
		f.Fatal(err)
	}
	blobs := blob.New(rows, content, time.Now)
	if err := blobs.EnsureBucket(f.Context(), "p", "bucket"); err != nil {
		f.Fatal(err)
	}
	if _, err := blobs.Put(f.Context(), blob.Object{Bucket: "bucket", Name: "x"}, strings.NewReader("0123456789"), blob.Conditions{}); err != nil {
		f.Fatal(err)
	}
	u, err := blobs.StartMultipart(f.Context(), blob.Object{Bucket: "bucket", Name: "x"}, blob.Conditions{})
	if err != nil {
		f.Fatal(err)
	}
	h := as("operator", gcs.New(blobs, allow{}, slog.New(slog.DiscardHandler), time.Now))

	for _, seed := range []struct{ method, path, query, header, value, body string }{
		{"GET", "/bucket/x", "generation=1", "Range", "bytes=0-1,-2", ""},
		{"GET", "/bucket/x", "response-content-type=a", "If-Modified-Since", "Mon, 02 Jan 2006 15:04:05 GMT", ""},
		{"PUT", "/bucket/y", "", "X-Goog-Copy-Source", "bucket/x", ""},
		{"PUT", "/bucket/y", "", "X-Goog-Meta-K", "v", "data"},
		{"PUT", "/bucket/y", "", "X-Goog-Content-Length-Range", "0,9", "data"},
		{"PUT", "/bucket/z", "compose", "X-Goog-If-Generation-Match", "0", "<ComposeRequest><Component><Name>x</Name></Component></ComposeRequest>"},
		{"POST", "/bucket/z", "uploads", "X-Goog-Storage-Class", "NEARLINE", ""},
		{"PUT", "/bucket/x", "partNumber=1&uploadId=" + u.ID, "X-Goog-Hash", "crc32c=AAAAAA==", "data"},
		{"POST", "/bucket/x", "uploadId=" + u.ID, "Content-MD5", "AAAA", completeBody("1", "x")},
		{"GET", "/bucket/x", "uploadId=" + u.ID + "&max-parts=1&part-number-marker=2", "", "", ""},
		{"POST", "/bucket/z", "", "X-Goog-Resumable", "start", ""},
		{"GET", "/bucket", "list-type=2&delimiter=/&max-keys=1&continuation-token=MXg&encoding-type=url", "", "", ""},
		{"GET", "/bucket", "versions&generation-marker=5&marker=x", "", "", ""},
		{"GET", "/bucket", "uploads&key-marker=x&upload-id-marker=0&delimiter=/&max-uploads=1", "", "", ""},
		{"POST", "/bucket", "delete", "", "", "<Delete><Object><Key>y</Key><VersionId>1</VersionId></Object></Delete>"},
		{"PUT", "/bucket", "cors", "Origin", "https://a", "<CorsConfig><Cors><Origins><Origin>*</Origin></Origins></Cors></CorsConfig>"},
		{"PUT", "/bucket", "lifecycle", "", "", lifecycleBody("<Delete/>", "<Age>999</Age>")},
		{"PUT", "/bucket", "tagging", "", "", "<Tagging><TagSet><Tag><Key>a</Key><Value>b</Value></Tag></TagSet></Tagging>"},
		{"PUT", "/other", "", "X-Goog-Project-Id", "p", "<CreateBucketConfiguration/>"},
		{"OPTIONS", "/bucket/x", "", "Access-Control-Request-Method", "GET", ""},
		{"DELETE", "/bucket/none", "generation=-1", "If-Match", "*", ""},
	} {
		f.Add(seed.method, seed.path, seed.query, seed.header, seed.value, seed.body)
	}
	f.Fuzz(func(t *testing.T, method, path, query, header, value, body string) {
		r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "http://storage.googleapis.com/", io.NopCloser(strings.NewReader(body)))
		r.Method, r.ContentLength = method, int64(len(body))
		r.URL = &url.URL{Path: path, RawPath: path, RawQuery: query}
		if header != "" && !strings.ContainsAny(header+value, "\r\n\x00") {
			r.Header.Set(header, value)
		}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if w.Code >= 500 && w.Code != http.StatusNotImplemented {
			t.Errorf("%s %s?%s with %s: %s = %d %s", method, path, query, header, value, w.Code, w.Body)
		}
	})
}
