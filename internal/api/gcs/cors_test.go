package gcs_test

import (
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"tategu/internal/api/gcs"
	"tategu/internal/blob"
)

func newCORSServer(t *testing.T) *server {
	t.Helper()
	s := newServer(t)
	if _, err := s.blobs.UpdateBucket(t.Context(), "bucket", blob.Conditions{}, func(b *blob.Bucket) error {
		b.CORS = []blob.CORSRule{
			{Origin: []string{"https://a.example"}, Method: []string{"GET", "HEAD"}, ResponseHeader: []string{"Content-Type", "X-Goog-*"}, MaxAgeSeconds: 60},
			{Origin: []string{"https://b.example", "https://c.example"}, Method: []string{"PUT", "DELETE"}, ResponseHeader: []string{"Content-Type"}},
			{Origin: []string{"*"}, Method: []string{"POST"}},
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	s.put("x", "data")
	return s
}

// objectURLs are the forms in which an object is reached.
func objectURLs() []string {
	return []string{
		"/bucket/x", "http://bucket.storage.googleapis.com/x", "http://storage.googleapis.com/bucket/x", objects + "x?alt=media",
		"/download" + objects + "x?alt=media", "/storage/v1/b/bucket/o", uploads + "media&name=x",
	}
}

func TestPreflight(t *testing.T) {
	t.Parallel()
	s := newCORSServer(t)
	s.h = as("", newPlain(s)) // a preflight shows no credential
	for _, tt := range []struct {
		origin, method, headers       string
		allowed, methods, heads, ages string
	}{
		{"https://a.example", "GET", "", "https://a.example", "GET, HEAD", "", "60"},
		{"https://a.example", "GET", "content-type, x-goog-meta-a", "https://a.example", "GET, HEAD", "content-type, x-goog-meta-a", "60"},
		{"https://a.example", "GET", "content-type, authorization", "", "", "", ""},
		{"https://a.example", "PUT", "", "", "", "", ""},
		{"https://c.example", "PUT", "Content-Type", "https://c.example", "PUT, DELETE", "Content-Type", "0"},
		{"https://c.example.evil", "PUT", "", "", "", "", ""},
		{"http://c.example", "PUT", "", "", "", "", ""},
		{"https://evil.example", "POST", "", "*", "POST", "", "0"},
		{"null", "POST", "", "*", "POST", "", "0"},
	} {
		for _, url := range objectURLs() {
			w := s.do("OPTIONS", url, nil, "Origin", tt.origin, "Access-Control-Request-Method", tt.method, "Access-Control-Request-Headers", tt.headers)
			h := w.Header()
			if w.Code != 200 || w.Body.Len() > 0 || h.Get("Access-Control-Allow-Origin") != tt.allowed || h.Get("Access-Control-Allow-Methods") != tt.methods ||
				h.Get("Access-Control-Allow-Headers") != tt.heads || h.Get("Access-Control-Max-Age") != tt.ages || h.Get("Vary") != "Origin" {
				t.Errorf("%+v of %s = %d %v %s", tt, url, w.Code, h, w.Body)
			}
		}
	}
	for _, url := range []string{"http://storage.googleapis.com/none/x", "/storage/v1/b/bucket", "/storage/v1/b?project=p", "/batch/storage/v1"} {
		w := s.do("OPTIONS", url, nil, "Origin", "https://a.example", "Access-Control-Request-Method", "GET")
		if w.Code != 200 || w.Header().Get("Access-Control-Allow-Origin") != "" {
			t.Errorf("%s: %d %v", url, w.Code, w.Header())
		}
	}
	if w := s.do("OPTIONS", "/bucket/x", nil); w.Code != 501 {
		t.Errorf("OPTIONS that is no preflight: %d", w.Code)
	}
}

func TestCORSOfAnswers(t *testing.T) {
	t.Parallel()
	s := newCORSServer(t)
	for _, url := range objectURLs()[:5] {
		for origin, want := range map[string]string{"https://a.example": "https://a.example", "https://b.example": "", "": ""} {
			w := s.do("GET", url, nil, "Origin", origin)
			if h := w.Header(); w.Code != 200 || h.Get("Access-Control-Allow-Origin") != want || (want != "") != (h.Get("Access-Control-Expose-Headers") == "Content-Type, X-Goog-*") ||
				(origin != "") != strings.Contains(strings.Join(h.Values("Vary"), ","), "Origin") {
				t.Errorf("%s from %q: %d %v", url, origin, w.Code, h)
			}
		}
	}
	// An error is for the page to read too.
	if w := s.do("GET", "/bucket/none", nil, "Origin", "https://a.example"); w.Code != 404 || w.Header().Get("Access-Control-Allow-Origin") == "" {
		t.Errorf("an error: %d %v", w.Code, w.Header())
	}
	check(t, s.do("PUT", "/bucket/y", strings.NewReader("1"), "Origin", "https://b.example"), 200)
}

// TestAllowsOrigin: what a page of another origin may send at all.
func TestAllowsOrigin(t *testing.T) {
	t.Parallel()
	s := newCORSServer(t)
	h := newPlain(s)
	for _, tt := range []struct {
		method, url, origin string
		want                bool
	}{
		{"PUT", "/bucket/x", "https://b.example", true},
		{"PUT", "/bucket/x", "https://a.example", false},
		{"PUT", "/bucket/x", "", false},
		{"PUT", "/none/x", "https://b.example", false},
		{"POST", uploads + "media", "https://any.example", true},
		{"POST", "/storage/v1/b?project=p", "https://any.example", false},
		{"PUT", "/storage/v1/b/bucket/iam", "https://b.example", false},
		{"DELETE", objects + "x", "https://c.example", true},
	} {
		r := httptest.NewRequestWithContext(t.Context(), tt.method, tt.url, http.NoBody)
		r.Header.Set("Origin", tt.origin)
		if got := h.AllowsOrigin(r); got != tt.want {
			t.Errorf("%+v = %t", tt, got)
		}
	}
}

// TestSignedFromAPage: a page of another origin uses a signed URL, preflight first,
// and reads why it is refused.
func TestSignedFromAPage(t *testing.T) {
	t.Parallel()
	g := newGuarded(t)
	if _, err := g.blobs.UpdateBucket(t.Context(), "bucket", blob.Conditions{}, func(b *blob.Bucket) error {
		b.CORS = []blob.CORSRule{{Origin: []string{"https://a.example"}, Method: []string{"PUT"}, ResponseHeader: []string{"content-type"}}}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	const origin = "https://a.example"
	url := g.signer("sam@p.iam.tategu.internal").url(t, "PUT", ours, "/bucket/x")
	w := g.do("", "OPTIONS", url, "", "Origin", origin, "Access-Control-Request-Method", "PUT", "Access-Control-Request-Headers", "content-type")
	if w.Code != 200 || w.Header().Get("Access-Control-Allow-Origin") != origin || w.Header().Get("Access-Control-Allow-Headers") != "content-type" {
		t.Errorf("preflight: %d %v %s", w.Code, w.Header(), w.Body)
	}
	for method, status := range map[string]int{"PUT": 200, "DELETE": 403} {
		w := g.do("", method, url, "data", "Origin", origin)
		if allowed := w.Header().Get("Access-Control-Allow-Origin") == origin; w.Code != status || allowed != (method == "PUT") {
			t.Errorf("%s: %d %v %s", method, w.Code, w.Header(), w.Body)
		}
	}
	w = g.do("", "PUT", url+"0", "data", "Origin", origin)
	if w.Code != 403 || w.Header().Get("Access-Control-Allow-Origin") != origin {
		t.Errorf("a bad signature: %d %v %s", w.Code, w.Header(), w.Body)
	}
}

// newPlain is a handler without a caller in front of it.
func newPlain(s *server) *gcs.Handler {
	return gcs.New(s.blobs, allow{}, slog.New(slog.DiscardHandler), time.Now)
}
