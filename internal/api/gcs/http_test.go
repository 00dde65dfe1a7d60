package gcs_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"

	"tategu/internal/api/gcs"
	"tategu/internal/blob"
)

// server is a handler over a bucket "bucket" of project "p".
type server struct {
	t     *testing.T
	h     http.Handler
	blobs *blob.Store
}

func newServer(t *testing.T) *server {
	t.Helper()
	h, blobs := newHandler(t)
	if err := blobs.EnsureBucket(t.Context(), "p", "bucket"); err != nil {
		t.Fatal(err)
	}
	return &server{t: t, h: h, blobs: blobs}
}

// do sends a request; headers are pairs.
func (s *server) do(method, url string, body io.Reader, headers ...string) *httptest.ResponseRecorder {
	s.t.Helper()
	r := httptest.NewRequestWithContext(s.t.Context(), method, url, body)
	for i := 0; i < len(headers); i += 2 {
		r.Header.Add(headers[i], headers[i+1])
	}
	w := httptest.NewRecorder()
	s.h.ServeHTTP(w, r)
	return w
}

func (s *server) put(name, data string) blob.Object {
	s.t.Helper()
	o, err := s.blobs.Put(s.t.Context(), blob.Object{Bucket: "bucket", Name: name}, strings.NewReader(data), blob.Conditions{})
	if err != nil {
		s.t.Fatal(err)
	}
	return o
}

func (s *server) checkData(name, want string) {
	s.t.Helper()
	got, err := s.blobs.ReadAll(s.t.Context(), "gs://bucket/"+name, 0)
	if err != nil || string(got) != want {
		s.t.Errorf("%s = %.60q, %v, want %.60q", name, got, err, want)
	}
}

func (s *server) checkMissing(name string) {
	s.t.Helper()
	if ok, err := s.blobs.Exists(s.t.Context(), "gs://bucket/"+name); ok || err != nil {
		s.t.Errorf("%s exists (%v), and must not", name, err)
	}
}

func check(t *testing.T, w *httptest.ResponseRecorder, status int, parts ...string) {
	t.Helper()
	if w.Code != status {
		t.Errorf("status %d, want %d: %s", w.Code, status, w.Body)
	}
	for _, part := range parts {
		if !strings.Contains(w.Body.String(), part) {
			t.Errorf("answer lacks %q: %s", part, w.Body)
		}
	}
}

const (
	objects = "/storage/v1/b/bucket/o/"
	uploads = "/upload/storage/v1/b/bucket/o?uploadType="
)

func TestErrorEnvelope(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	w := s.do("GET", objects+"none", nil)
	var got struct {
		Error struct {
			Code    int
			Message string
			Errors  []struct{ Domain, Reason, Message string }
		}
	}
	if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil {
		t.Fatal(err)
	}
	e := got.Error
	if w.Code != 404 || e.Code != 404 || e.Message != "No such object: bucket/none" || len(e.Errors) != 1 ||
		e.Errors[0].Reason != "notFound" || e.Errors[0].Domain != "global" {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}

func TestRefusals(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	s.put("x", "1")
	for _, tt := range []struct {
		method, url, body string
		status            int
		part              string
	}{
		{"GET", "/storage/v1/b/bucket/acl", "", 400, "uniform bucket-level access"},
		{"GET", "/storage/v1/b/bucket/o/x/acl", "", 400, "uniform bucket-level access"},
		{"DELETE", "/storage/v1/b/bucket/defaultObjectAcl/allUsers", "", 400, "uniform bucket-level access"},
		{"POST", "/storage/v1/b/bucket/notificationConfigs", `{"topic":"t"}`, 400, "topic"},
		{"POST", "/storage/v1/b/bucket/notificationConfigs", `{"topic":"projects/p/topics/t","event_types":["X"]}`, 400, "OBJECT_FINALIZE"},
		{"POST", "/storage/v1/b/bucket/notificationConfigs", `{"topic":"projects/p/topics/t","payload_format":"X"}`, 400, "payload_format"},
		{"GET", "/storage/v1/b/bucket/notificationConfigs/7", "", 404, "7"},
		{"DELETE", "/storage/v1/b/bucket/notificationConfigs/7", "", 404, "7"},
		{"POST", "/storage/v1/b/bucket/o/bulkRestore", "", 501, ""},
		{"GET", "/storage/v1/b/bucket/o?matchGlob=a[", "", 400, "matchGlob"},
		{"GET", "/storage/v1/b/bucket/o?matchGlob=a*&delimiter=-", "", 400, "matchGlob"},
		{"GET", "/storage/v1/b/bucket/o?softDeleted=true&versions=true", "", 400, "softDeleted"},
		{"GET", "/storage/v1/b/bucket/o?fields=items(name", "", 400, "fields"},
		{"GET", objects + "x?softDeleted=true", "", 400, "generation"},
		{"POST", objects + "x/restore", "", 400, "generation"},
		{"POST", objects + "x/restore?generation=5", "", 404, "x#5"},
		{"POST", objects + "x/moveTo/o/x", "", 400, "itself"},
		{"POST", objects + "none/moveTo/o/y", "", 404, "none"},
		{"POST", "/storage/v1/b/bucket/lockRetentionPolicy", "", 400, "ifMetagenerationMatch"},
		{"POST", "/storage/v1/b/bucket/lockRetentionPolicy?ifMetagenerationMatch=9", "", 412, "ifMetagenerationMatch"},
		{"POST", "/storage/v1/b/bucket/lockRetentionPolicy?ifMetagenerationMatch=1", "", 400, "no retention policy"},
		{"GET", objects + "x?alt=media&X-Goog-Signature=00", "", 403, "key"},
		{"POST", uploads + "media&name=y&predefinedAcl=publicRead", "x", 501, "publicRead"},
		{"PATCH", objects + "x", `{"temporaryHold":"yes"}`, 400, "temporaryHold"},
		{"PATCH", objects + "x", `{"retention":{"mode":"Unlocked","retainUntilTime":"2999-01-01T00:00:00Z"}}`, 400, "object retention enabled"},
		{"PATCH", objects + "x", `{"retention":{"mode":"Sealed"}}`, 400, "Sealed"},
		{"PATCH", objects + "x", `{"acl":[{"entity":"allUsers"}]}`, 501, "acl"},
		{"PATCH", objects + "x", `{"nonsense":1}`, 501, "nonsense"},
		{"PATCH", objects + "x", `{"metadata":{"k":1}}`, 400, "metadata"},
		{"PATCH", objects + "x", `{"metadata":`, 400, "JSON"},
		{"PATCH", objects + "x", `{"customTime":"yesterday"}`, 400, "customTime"},
		{"PATCH", "/storage/v1/b/bucket", `{"versioning":{"enabled":1}}`, 400, "versioning"},
		{"PATCH", "/storage/v1/b/bucket", `{"versioning":{"enabled":false}}`, 200, ""},
		{"PATCH", "/storage/v1/b/bucket", `{"lifecycle":{"rule":[{"action":{}}]}}`, 400, "rule 1"},
		{"PATCH", "/storage/v1/b/bucket", `{"lifecycle":{"rule":[{"action":{"type":"Delete"},"condition":{}}]}}`, 400, "empty"},
		{"PATCH", "/storage/v1/b/bucket", `{"lifecycle":{"rule":[{"action":{"type":"Delete"},"condition":{"phase":"full"}}]}}`, 400, "phase"},
		{"PATCH", "/storage/v1/b/bucket", `{"lifecycle":{"rule":[{"action":{"type":"Delete"},"condition":{"createdBefore":"soon"}}]}}`, 400, "createdBefore"},
		{"PATCH", "/storage/v1/b/bucket", `{"cors":[{"origins":["*"]}]}`, 400, "origins"},
		{"PATCH", "/storage/v1/b/bucket", `{"storageClass":"WARM"}`, 400, "WARM"},
		{"PATCH", "/storage/v1/b/bucket", `{"retentionPolicy":{"retentionPeriod":"-5"}}`, 400, "retentionPeriod"},
		{"PATCH", "/storage/v1/b/bucket", `{"softDeletePolicy":{"retentionDurationSeconds":"x"}}`, 400, "retentionDurationSeconds"},
		{"PATCH", "/storage/v1/b/bucket", `{"iamConfiguration":{"uniformBucketLevelAccess":{"enabled":false}}}`, 501, "access control lists"},
		{"PATCH", "/storage/v1/b/bucket", `{"iamConfiguration":{"publicAccessPrevention":"some"}}`, 400, "publicAccessPrevention"},
		{"PATCH", "/storage/v1/b/bucket", `{"autoclass":{"enabled":true}}`, 501, "autoclass"},
		{"POST", "/storage/v1/b?project=p", `{"name":"UPPER"}`, 400, "UPPER"},
		{"POST", "/storage/v1/b", `{"name":"other"}`, 400, "project"},
		{"GET", "/storage/v1/b", "", 400, "project"},
		{"POST", uploads + "media&name=" + strings.Repeat("n", 1025), "x", 400, "1025"},
		{"POST", uploads + "media", "x", 400, "name"},
		{"POST", uploads + "media&name=%ff", "x", 400, "UTF-8"},
		{"POST", uploads + "nonsense&name=x", "x", 400, "nonsense"},
		{"POST", uploads + "multipart&name=x", "x", 400, "multipart"},
		{"PUT", uploads + "resumable&upload_id=none", "x", 404, "none"},
		{"PUT", uploads + "resumable", "x", 400, "upload_id"},
		{"GET", objects + "x?generation=abc", "", 400, "generation"},
		{"GET", objects + "x?generation=-1", "", 400, "generation"},
		{"GET", objects + "x?ifGenerationMatch=1.5", "", 400, "ifGenerationMatch"},
		{"GET", "/storage/v1/b/bucket/o?pageToken=%21", "", 400, "pageToken"},
		{"GET", "/storage/v1/b/bucket/o?maxResults=0", "", 400, "maxResults"},
		{"GET", "/storage/v1/b/bucket/o?a;b", "", 400, "query"},
		{"GET", "/storage/v1/b/none/o", "", 404, "none"},
		{"POST", objects + "x/rewriteTo/b/bucket/o/y?rewriteToken=t", "", 400, "rewrite tokens"},
		{"POST", objects + "y/compose", `{"sourceObjects":[]}`, 400, "1 to 32"},
		{"POST", objects + "y/compose", `{"sourceObjects":[{"name":"none"}]}`, 404, "none"},
		{"POST", "/batch/storage/v1", "x", 400, "multipart"},
		{"GET", "/storage/v2/b/x", "", 501, "/storage/v2/b/x"},
		{"POST", "/upload/storage/v1alpha/b/x", "x", 501, "v1alpha"},
	} {
		w := s.do(tt.method, tt.url, strings.NewReader(tt.body))
		if w.Code != tt.status || !strings.Contains(w.Body.String(), tt.part) {
			t.Errorf("%s %s %s = %d %s, want %d and %q", tt.method, tt.url, tt.body, w.Code, w.Body, tt.status, tt.part)
		}
	}
	s.checkData("x", "1")
}

func TestOwns(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	h := gcs.New(s.blobs, allow{}, slog.New(slog.DiscardHandler), time.Now)
	for path, want := range map[string]bool{
		"/bucket": true, "/bucket/a/b": true, "/bucket/%2F": true, "/none/a": false, "/": false, "/v1/projects": false,
		"/storage/v1/b/bucket": false, "/%zz": false,
	} {
		r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/", nil)
		r.URL.Path, r.URL.RawPath = path, path
		if got := h.Owns(r); got != want {
			t.Errorf("Owns(%s) = %t", path, got)
		}
	}
}

func TestCallers(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	s.put("x", "secret")
	handler := gcs.New(s.blobs, allow{}, slog.New(slog.DiscardHandler), time.Now)
	session := s.do("POST", uploads+"resumable&name=r", nil).Header().Get("X-GUploader-UploadID")
	for email, status := range map[string]int{"": http.StatusUnauthorized, "stranger": http.StatusForbidden} {
		s.h = as(email, handler)
		for _, call := range []string{
			"GET /storage/v1/b?project=p", "POST /storage/v1/b?project=p", "GET /storage/v1/b/bucket", "PATCH /storage/v1/b/bucket",
			"PUT /storage/v1/b/bucket", "DELETE /storage/v1/b/bucket", "GET /storage/v1/b/bucket/iam", "PUT /storage/v1/b/bucket/iam",
			"GET /storage/v1/projects/p/serviceAccount", "GET /storage/v1/b/bucket/o", "GET " + objects + "x", "GET " + objects + "x?alt=media",
			"PATCH " + objects + "x", "PUT " + objects + "x", "DELETE " + objects + "x", "POST " + objects + "x/copyTo/b/bucket/o/y",
			"POST " + objects + "x/rewriteTo/b/bucket/o/y", "POST " + objects + "y/compose", "GET /download" + objects + "x?alt=media",
			"POST " + uploads + "media&name=y", "POST " + uploads + "multipart&name=y", "POST " + uploads + "resumable&name=y",
			"PUT " + uploads + "resumable&upload_id=guess", "DELETE " + uploads + "resumable&upload_id=guess", "GET /bucket/x", "HEAD /bucket/x",
		} {
			method, url, _ := strings.Cut(call, " ")
			w := s.do(method, url, strings.NewReader("{}"))
			if w.Code != status || strings.Contains(w.Body.String(), "secret") {
				t.Errorf("%q: %s = %d %s, want %d", email, call, w.Code, w.Body, status)
			}
		}
	}
	// The id of a session is a credential by itself; a token is judged all the same.
	s.h = as("stranger", handler)
	check(t, s.do("PUT", uploads+"resumable&upload_id="+session, strings.NewReader("{}")), http.StatusForbidden)
	s.h = as("", handler)
	check(t, s.do("PUT", uploads+"resumable&upload_id="+session, strings.NewReader("{}")), http.StatusOK)
	s.checkData("r", "{}")
}

func TestRanges(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	o := s.put("x", "0123456789")
	s.put("empty", "")
	for _, tt := range []struct {
		name, header string
		status       int
		body, span   string
	}{
		{"x", "", 200, "0123456789", ""},
		{"x", "bytes=2-4", 206, "234", "bytes 2-4/10"},
		{"x", "bytes=7-", 206, "789", "bytes 7-9/10"},
		{"x", "bytes=-3", 206, "789", "bytes 7-9/10"},
		{"x", "bytes=-30", 206, "0123456789", "bytes 0-9/10"},
		{"x", "bytes=0-9", 206, "0123456789", "bytes 0-9/10"},
		{"x", "bytes=5-99999999999999999999999", 206, "56789", "bytes 5-9/10"},
		{"x", "bytes=10-", 416, "", "bytes */10"},
		{"x", "bytes=-0", 416, "", "bytes */10"},
		{"x", "bytes=99999999999999999999999-", 416, "", "bytes */10"},
		{"x", "bytes=4-2", 200, "0123456789", ""},
		{"x", "bytes=a-b", 200, "0123456789", ""},
		{"x", "lines=1-2", 200, "0123456789", ""},
		{"empty", "", 200, "", ""},
		{"empty", "bytes=0-", 416, "", "bytes */0"},
	} {
		for _, url := range []string{objects + tt.name + "?alt=media", "/download" + objects + tt.name + "?alt=media", "/bucket/" + tt.name} {
			w := s.do("GET", url, nil, "Range", tt.header)
			if w.Code != tt.status || tt.status < 300 && w.Body.String() != tt.body || w.Header().Get("Content-Range") != tt.span {
				t.Errorf("%s %s = %d %q %q, want %d %q %q", url, tt.header, w.Code, w.Body, w.Header().Get("Content-Range"), tt.status, tt.body, tt.span)
			}
			if w.Code < 300 && w.Header().Get("Content-Length") != strconv.Itoa(w.Body.Len()) {
				t.Errorf("%s %s: Content-Length %s for %d bytes", url, tt.header, w.Header().Get("Content-Length"), w.Body.Len())
			}
		}
	}
	w := s.do("HEAD", "/bucket/x", nil)
	check(t, w, 200)
	if w.Body.Len() != 0 || w.Header().Get("Content-Length") != "10" || w.Header().Get("X-Goog-Generation") != strconv.FormatInt(o.Generation, 10) ||
		w.Header().Get("X-Goog-Hash") != "crc32c=KAwGng==,md5="+base64.StdEncoding.EncodeToString(o.MD5) {
		t.Errorf("HEAD: %v %q", w.Header(), w.Body)
	}
}

func TestETags(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	s.put("x", "1")
	tag := s.do("GET", objects+"x?alt=media", nil).Header().Get("ETag")
	for _, tt := range []struct {
		method, header, value string
		status                int
	}{
		{"GET", "If-Match", tag, 200},
		{"GET", "If-Match", `"AAAAAAAAAAEB"`, 412},
		{"GET", "If-Match", `"nonsense"`, 412},
		{"GET", "If-None-Match", tag, 304},
		{"GET", "If-None-Match", "*", 304},
		{"GET", "If-None-Match", `"other", ` + tag, 304},
		{"GET", "If-None-Match", `"other"`, 200},
		{"PATCH", "If-None-Match", tag, 501},
		{"PATCH", "If-None-Match", "*", 412},
		{"PATCH", "If-Match", tag, 200},
		{"PATCH", "If-Match", tag, 412}, // the patch before changed it
		{"DELETE", "If-Match", tag, 412},
	} {
		w := s.do(tt.method, objects+"x", strings.NewReader(`{"metadata":{"k":"v"}}`), tt.header, tt.value)
		if w.Code != tt.status {
			t.Errorf("%s with %s: %s = %d %s, want %d", tt.method, tt.header, tt.value, w.Code, w.Body, tt.status)
		}
	}
}

// TestNamesOfThePath: the name is what the path's segment decodes to.
func TestNamesOfThePath(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	for path, name := range map[string]string{
		"a%2Fb": "a/b", "a%252Fb": "a%2Fb", "a+b": "a+b", "%2Flead": "/lead", "..%2Fup": "../up", "q%3Fx": "q?x", "d%2F%2Fe": "d//e", "o": "o", "b%2Fo": "b/o",
	} {
		s.put(name, name)
		check(t, s.do("GET", objects+path+"?alt=media", nil), 200, name)
		check(t, s.do("GET", "/bucket/"+path, nil), 200, name)
		check(t, s.do("DELETE", objects+path, nil), 204)
		s.checkMissing(name)
	}
	s.put("plain/slashes", "yes")
	check(t, s.do("GET", "/bucket/plain/slashes", nil), 200, "yes")
	check(t, s.do("GET", "http://bucket.storage.googleapis.com/plain/slashes", nil), 200, "yes")
	check(t, s.do("GET", "http://storage.googleapis.com:443/bucket/plain/slashes", nil), 200, "yes")
	w := s.do("GET", "http://storage.googleapis.com/bucket/none", nil)
	check(t, w, 404, "<Code>NoSuchKey</Code>")
}

func related(parts ...string) (body, contentType string) {
	var b strings.Builder
	for _, p := range parts {
		b.WriteString("--cut\r\n" + p + "\r\n")
	}
	return b.String() + "--cut--\r\n", `multipart/related; boundary="cut"`
}

func TestMultipartUpload(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	meta := func(json string) string { return "Content-Type: application/json\r\n\r\n" + json }
	const media = "Content-Type: text/csv\r\n\r\na,b\n--cu\n"
	body, contentType := related(meta(`{"name":"x","metadata":{"k":"v"}}`), media)
	w := s.do("POST", uploads+"multipart", strings.NewReader(body), "Content-Type", contentType)
	check(t, w, 200, `"contentType":"text/csv"`, `"k":"v"`, `"size":"9"`)
	s.checkData("x", "a,b\n--cu\n")

	for cut := range len(body) - len("--\r\n") {
		w := s.do("POST", uploads+"multipart&name=torn", strings.NewReader(body[:cut]), "Content-Type", contentType)
		if w.Code != 400 {
			t.Fatalf("a body cut at %d of %d = %d %s", cut, len(body), w.Code, w.Body)
		}
	}
	for name, parts := range map[string][]string{
		"wrong crc32c":      {meta(`{"crc32c":"AAAAAA=="}`), media},
		"wrong md5":         {meta(`{"md5Hash":"AAAAAAAAAAAAAAAAAAAAAA=="}`), media},
		"crc32c of no form": {meta(`{"crc32c":"AA"}`), media},
		"three parts":       {meta(`{}`), media, media},
		"one part":          {meta(`{}`)},
		"no JSON":           {"Content-Type: text/plain\r\n\r\nhello", media},
		"endless metadata":  {meta(`{"metadata":{"k":"` + strings.Repeat("v", 2<<20) + `"}}`), media},
	} {
		body, contentType := related(parts...)
		if w := s.do("POST", uploads+"multipart&name=torn", strings.NewReader(body), "Content-Type", contentType); w.Code != 400 {
			t.Errorf("%s = %d %s", name, w.Code, w.Body)
		}
	}
	s.checkMissing("torn")
}

func TestMediaUploadHashes(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	for _, tt := range []struct {
		header, value string
		status        int
	}{
		{"X-Goog-Hash", "crc32c=NksefA==", 400},
		{"X-Goog-Hash", "crc32c=KAwGng==,md5=eB5eJF1p0WatL31+2Sq4Tg==", 400},
		{"X-Goog-Hash", "sha1=xx", 400},
		{"X-Goog-Hash", "crc32c=??", 400},
		{"Content-MD5", "AAAAAAAAAAAAAAAAAAAAAA==", 400},
		{"X-Goog-Hash", "crc32c=KAwGng==,md5=eB5eJFptWaXm4bijSPyxw==", 400},
		{"X-Goog-Hash", "crc32c=KAwGng==", 200},
		{"X-Goog-Hash", "md5=eB5eJF1ptWaXm4bijSPyxw==", 200},
		{"Content-MD5", "eB5eJF1ptWaXm4bijSPyxw==", 200},
	} {
		w := s.do("POST", uploads+"media&name=x", strings.NewReader("0123456789"), tt.header, tt.value, "Content-Type", "text/x")
		if w.Code != tt.status {
			t.Errorf("%s: %s = %d %s, want %d", tt.header, tt.value, w.Code, w.Body, tt.status)
		}
		if tt.status == 400 {
			s.checkMissing("x")
		}
	}
	w := s.do("POST", uploads+"media&name=broken", io.MultiReader(strings.NewReader("half"), failing{}))
	check(t, w, 400, "ended early")
	s.checkMissing("broken")
}

type failing struct{}

func (failing) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }

func (s *server) start(query string, headers ...string) (path string) {
	s.t.Helper()
	w := s.do("POST", uploads+"resumable"+query, strings.NewReader(`{"contentType":"a/b"}`), headers...)
	check(s.t, w, 200)
	path, ok := strings.CutPrefix(w.Header().Get("Location"), "http://example.com")
	if !ok || !strings.Contains(path, "upload_id="+w.Header().Get("X-GUploader-UploadID")) {
		s.t.Fatalf("Location %q", w.Header().Get("Location"))
	}
	return path
}

func TestResumable(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	at := s.start("&name=d%2Fx", "X-Upload-Content-Length", "10")
	for _, step := range []struct {
		span, body string
		status     int
		got        string
	}{
		{"bytes */10", "", 308, ""},
		{"bytes 0-3/10", "0123", 308, "bytes=0-3"},
		{"bytes */*", "", 308, "bytes=0-3"},
		{"bytes 2-5/*", "2345", 308, "bytes=0-5"}, // overlaps what is known
		{"bytes 9-9/10", "9", 400, ""},            // a gap
		{"bytes 6-7/10", "678", 400, ""},          // longer than it says
		{"bytes */10", "", 308, "bytes=0-7"},
		{"bytes 8-9/10", "8", 400, ""}, // shorter than it says: what came is kept
		{"bytes */10", "", 308, "bytes=0-8"},
		{"bytes 9-9/11", "9", 400, ""},   // another total
		{"bytes 9-10/10", "9a", 400, ""}, // beyond the total
		{"bytes x", "", 400, ""},
		{"bytes 9-9/10", "9", 200, ""},
		{"bytes */10", "", 200, ""}, // finished stays finished
	} {
		// Each step meets a new handler, as after a restart.
		s.h = as("operator", gcs.New(s.blobs, allow{}, slog.New(slog.DiscardHandler), time.Now))
		w := s.do("PUT", at, strings.NewReader(step.body), "Content-Range", step.span)
		if w.Code != step.status || w.Header().Get("Range") != step.got {
			t.Errorf("%s = %d %q %s, want %d %q", step.span, w.Code, w.Header().Get("Range"), w.Body, step.status, step.got)
		}
	}
	s.checkData("d/x", "0123456789")

	at = s.start("&name=go")
	w := s.do("POST", at, strings.NewReader("0123"), "Content-Range", "bytes 0-3/*", "X-GUploader-No-308", "yes")
	check(t, w, 200)
	if w.Header().Get("X-Http-Status-Code-Override") != "308" || w.Header().Get("Range") != "bytes=0-3" {
		t.Errorf("for Go's client: %v", w.Header())
	}
	check(t, s.do("POST", at, nil, "Content-Range", "bytes */4", "X-Goog-Hash", "crc32c=AAAAAA=="), 400)
	s.checkMissing("go")

	at = s.start("&name=whole")
	check(t, s.do("PUT", at, strings.NewReader("all")), 200, `"size":"3"`, `"contentType":"a/b"`)
	at = s.start("&name=empty")
	check(t, s.do("PUT", at, nil, "Content-Range", "bytes */0"), 200, `"size":"0"`)
	at = s.start("&name=gone")
	check(t, s.do("DELETE", at, nil), 499)
	check(t, s.do("PUT", at, nil, "Content-Range", "bytes */1"), 404)
	other := strings.Replace(s.start("&name=y"), "/b/bucket/", "/b/bucket-2/", 1)
	if err := s.blobs.EnsureBucket(t.Context(), "q", "bucket-2"); err != nil {
		t.Fatal(err)
	}
	check(t, s.do("PUT", other, strings.NewReader("x")), 404)
}

func TestGunzip(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	var z bytes.Buffer
	w := gzip.NewWriter(&z)
	_, _ = w.Write([]byte("hello"))
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	check(t, s.do("POST", uploads+"media&name=z&contentEncoding=gzip", bytes.NewReader(z.Bytes())), 200)
	check(t, s.do("POST", uploads+"media&name=lie&contentEncoding=gzip", strings.NewReader("plain")), 200)
	got := s.do("GET", "/bucket/z", nil)
	if got.Body.String() != "hello" || got.Header().Get("Content-Encoding") != "" || got.Header().Get("X-Goog-Stored-Content-Encoding") != "gzip" {
		t.Errorf("unzipped: %q %v", got.Body, got.Header())
	}
	got = s.do("GET", "/bucket/z", nil, "Accept-Encoding", "gzip")
	if !bytes.Equal(got.Body.Bytes(), z.Bytes()) || got.Header().Get("Content-Encoding") != "gzip" {
		t.Errorf("as stored: %q %v", got.Body, got.Header())
	}
	check(t, s.do("GET", "/bucket/lie", nil), 400, "is not")
	check(t, s.do("PATCH", objects+"z", strings.NewReader(`{"cacheControl":"no-transform"}`)), 200)
	if got := s.do("GET", "/bucket/z", nil); !bytes.Equal(got.Body.Bytes(), z.Bytes()) {
		t.Errorf("no-transform: %q", got.Body)
	}
}

func TestBatch(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	s.put("a", "1")
	s.put("b", "2")
	call := func(id, text string) string {
		return "Content-Type: application/http\r\nContent-ID: <" + id + ">\r\n\r\n" + text
	}
	body, contentType := related(
		call("1", "DELETE /storage/v1/b/bucket/o/a HTTP/1.1\r\n\r\n"),
		call("2", "DELETE http://x/storage/v1/b/bucket/o/none HTTP/1.1\r\n\r\n"),
		call("3", "PATCH /storage/v1/b/bucket/o/b HTTP/1.1\r\nContent-Type: application/json\r\n\r\n{\"metadata\":{\"k\":\"v\"}}"),
		call("4", "GET /storage/v1/b/bucket/o/b?alt=media HTTP/1.1\r\n\r\n"),
		call("5", "POST /batch/storage/v1 HTTP/1.1\r\n\r\n"),
	)
	w := s.do("POST", "/batch/storage/v1", strings.NewReader(body), "Content-Type", contentType)
	check(t, w, 200, "HTTP/1.1 204 No Content", "HTTP/1.1 404 Not Found", `"k":"v"`, "a batch holds no downloads", "a batch holds JSON calls", "<response-5>")
	s.checkMissing("a")

	cut, contentType := related(call("1", "DELETE /storage/v1/b/bucket/o/b HTTP/1.1\r\n\r\n"))
	cut = cut[:len(cut)-4] // within the last boundary
	check(t, s.do("POST", "/batch/storage/v1", strings.NewReader(cut), "Content-Type", contentType), 400)
	s.checkData("b", "2")

	many := make([]string, 101)
	for i := range many {
		many[i] = call("x", "DELETE /storage/v1/b/bucket/o/b HTTP/1.1\r\n\r\n")
	}
	for _, parts := range [][]string{many, {call("1", "nonsense")}, nil} {
		body, contentType := related(parts...)
		check(t, s.do("POST", "/batch/storage/v1", strings.NewReader(body), "Content-Type", contentType), 400)
	}
	s.checkData("b", "2")
}

func TestListPages(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	for i := range 5 {
		s.put(fmt.Sprintf("日/%d", i), "")
	}
	w := s.do("GET", "/storage/v1/b/bucket/o?prefix=none", nil)
	if check(t, w, 200); strings.Contains(w.Body.String(), "items") {
		t.Errorf("an empty list: %s", w.Body)
	}
	var names []string
	for token := ""; ; {
		var page struct {
			Items         []struct{ Name string }
			NextPageToken string
		}
		w := s.do("GET", "/storage/v1/b/bucket/o?maxResults=2&pageToken="+token, nil)
		if err := json.Unmarshal(w.Body.Bytes(), &page); err != nil {
			t.Fatal(err)
		}
		for _, item := range page.Items {
			names = append(names, item.Name)
		}
		if token = page.NextPageToken; token == "" {
			break
		}
	}
	if fmt.Sprint(names) != "[日/0 日/1 日/2 日/3 日/4]" {
		t.Errorf("%v", names)
	}
}

// TestDownloadsThroughASocket: a real server and client, and a client that leaves.
func TestDownloadsThroughASocket(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	s.put("big", strings.Repeat("x", 4<<20))
	srv := httptest.NewServer(s.h)
	defer srv.Close()
	leaving, cancel := context.WithCancel(t.Context())
	defer cancel()
	ctx := leaving
	for _, leave := range []bool{true, false} {
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, srv.URL+"/bucket/big", nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := srv.Client().Do(r)
		if err != nil {
			t.Fatal(err)
		}
		if leave {
			cancel()
			ctx = t.Context()
		}
		n, err := io.Copy(io.Discard, resp.Body)
		if !leave && (err != nil || n != 4<<20) {
			t.Errorf("%d bytes, %v", n, err)
		}
		if err := resp.Body.Close(); err != nil {
			t.Error(err)
		}
	}
}
