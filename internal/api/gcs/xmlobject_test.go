package gcs_test

import (
	"bytes"
	"encoding/base64"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// TestXMLObject goes through an object's life by headers alone.
func TestXMLObject(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	for _, name := range []string{"plain", "d/e//f", "%2Flead", "..%2Fup", "q%3Fx%23y", "日本 語", "a+b", "%25", "dots/../x", "x/"} {
		url := "/bucket/" + strings.ReplaceAll(name, " ", "%20")
		w := s.do("PUT", url, strings.NewReader("0123456789"),
			"Content-Type", "text/x", "Cache-Control", "no-store", "Content-Language", "ja", "Content-Disposition", "inline",
			"X-Goog-Meta-Some-Key", "v 1", "X-Goog-Storage-Class", "NEARLINE", "X-Goog-Custom-Time", "2026-01-02T03:04:05Z", "X-Goog-If-Generation-Match", "0",
			"Content-MD5", "eB5eJF1ptWaXm4bijSPyxw==", "X-Goog-Hash", "crc32c=KAwGng==", "X-Goog-Content-Length-Range", "0,10")
		check(t, w, 200)
		if h := w.Header(); h.Get("ETag") != `"781e5e245d69b566979b86e28d23f2c7"` || h.Get("X-Goog-Generation") == "" || h.Get("X-Goog-Metageneration") != "1" ||
			h.Get("X-Goog-Hash") != "crc32c=KAwGng==,md5=eB5eJF1ptWaXm4bijSPyxw==" || h.Get("Content-Length") != "0" {
			t.Errorf("%s: %v", name, h)
		}
		for _, method := range []string{"GET", "HEAD"} {
			got := s.do(method, url, nil, "If-Match", w.Header().Get("ETag"))
			check(t, got, 200)
			for key, want := range map[string]string{
				"Content-Type": "text/x", "Cache-Control": "no-store", "Content-Language": "ja", "Content-Disposition": "inline", "Content-Length": "10",
				"X-Goog-Meta-some-key": "v 1", "X-Goog-Storage-Class": "NEARLINE", "X-Goog-Custom-Time": "2026-01-02T03:04:05Z", "ETag": w.Header().Get("ETag"),
			} {
				if values := slices.Concat(got.Header()[key], got.Header().Values(key)); len(values) == 0 || values[0] != want {
					t.Errorf("%s %s: %s = %q, want %q", method, name, key, values, want)
				}
			}
		}
		check(t, s.do("GET", url, nil, "If-None-Match", w.Header().Get("ETag")), 304)
		check(t, s.do("GET", url, nil, "If-Modified-Since", time.Now().Add(time.Hour).UTC().Format(http.TimeFormat)), 304)
		check(t, s.do("GET", url, nil, "If-Modified-Since", "Mon, 02 Jan 2006 15:04:05 GMT"), 200)
		got := s.do("GET", url+"?response-content-type=a%2Fb&response-content-disposition=attachment", nil)
		if got.Header().Get("Content-Type") != "a/b" || got.Header().Get("Content-Disposition") != "attachment" {
			t.Errorf("response-*: %v", got.Header())
		}
		check(t, s.do("PUT", url, strings.NewReader("second"), "If-Match", w.Header().Get("ETag")), 200)
		check(t, s.do("GET", url, nil), 200, "second")
		check(t, s.do("DELETE", url+"?generation="+s.do("HEAD", url, nil).Header().Get("X-Goog-Generation"), nil), 204)
		check(t, s.do("HEAD", url, nil), 404)
	}
	check(t, s.do("PUT", "/bucket/broken", io.MultiReader(strings.NewReader("half"), failing{})), 400, "IncompleteBody")
	s.checkMissing("broken")
	check(t, s.do("PUT", "http://bucket.storage.googleapis.com/storage/v1/b", strings.NewReader("1")), 200)
	s.checkData("storage/v1/b", "1")
}

func TestXMLCopyAndCompose(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	check(t, s.do("PUT", "/bucket/a%2Fb", strings.NewReader("data"), "Content-Type", "text/x", "X-Goog-Meta-K", "v"), 200)
	w := s.do("PUT", "/bucket/copy", nil, "X-Goog-Copy-Source", "/bucket/a%2Fb")
	check(t, w, 200, "<CopyObjectResult>", "<LastModified>", "<ETag>&#34;8d777f385d3dfec8815d20f7496026dc&#34;</ETag>")
	if got := s.do("GET", "/bucket/copy", nil); got.Body.String() != "data" || metaOf(got, "k") != "v" || got.Header().Get("Content-Type") != "text/x" {
		t.Errorf("copy: %v %s", got.Header(), got.Body)
	}
	check(t, s.do("PUT", "/bucket/copy", nil, "X-Goog-Copy-Source", "bucket/copy", "X-Goog-Metadata-Directive", "REPLACE", "X-Goog-Meta-New", "1"), 200)
	if got := s.do("GET", "/bucket/copy", nil); metaOf(got, "k") != "" || metaOf(got, "new") != "1" {
		t.Errorf("replaced: %v", got.Header())
	}
	check(t, s.do("PUT", "/bucket/copy", nil, "X-Goog-Copy-Source", "bucket/copy", "X-Goog-Storage-Class", "COLDLINE"), 200)
	body := "<ComposeRequest><Component><Name>a/b</Name></Component><Component><Name>copy</Name></Component></ComposeRequest>"
	w = s.do("PUT", "/bucket/both?compose", strings.NewReader(body), "Content-Type", "text/both", "X-Goog-If-Generation-Match", "0")
	check(t, w, 200)
	if w.Header().Get("X-Goog-Generation") == "" || !strings.HasPrefix(w.Header().Get("ETag"), `"-`) {
		t.Errorf("compose: %v", w.Header())
	}
	got := s.do("GET", "/bucket/both", nil)
	check(t, got, 200, "datadata")
	if got.Header().Get("X-Goog-Component-Count") != "2" || got.Header().Get("Content-Type") != "text/both" {
		t.Errorf("composed: %v", got.Header())
	}
}

func TestManyRanges(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	o := s.put("x", "0123456789")
	tag := strconv.FormatInt(o.Generation, 10)
	for _, url := range []string{"/bucket/x", objects + "x?alt=media", "/download" + objects + "x?alt=media"} {
		w := s.do("GET", url, nil, "Range", "bytes=0-1, 4-5,-1,50-60")
		check(t, w, 206, "Content-Range: bytes 0-1/10\r\n", "\r\n\r\n01\r\n", "bytes 4-5/10", "\r\n\r\n45\r\n", "bytes 9-9/10", "\r\n\r\n9\r\n")
		if w.Header().Get("Content-Length") != strconv.Itoa(w.Body.Len()) || !strings.HasPrefix(w.Header().Get("Content-Type"), "multipart/byteranges; boundary=") {
			t.Errorf("%v for %d bytes", w.Header(), w.Body.Len())
		}
		head := s.do("HEAD", url, nil, "Range", "bytes=0-1,4-5")
		if check(t, head, 206); head.Body.Len() > 0 || head.Header().Get("Content-Length") == "" {
			t.Errorf("HEAD: %v %s", head.Header(), head.Body)
		}
		for header, body := range map[string]string{
			"bytes=0-9,0-9": "0123456789", "bytes=0-1,x": "0123456789", "bytes=0-1,20-30": "01", "bytes=1-1,,": "1",
			"bytes=" + strings.Repeat("0-0,", 60) + "1-1": "0123456789",
		} {
			if got := s.do("GET", url, nil, "Range", header).Body.String(); got != body {
				t.Errorf("%.20s: %q, want %q", header, got, body)
			}
		}
		check(t, s.do("GET", url, nil, "Range", "bytes=10-,20-30"), 416)
		etag := s.do("GET", url, nil).Header().Get("ETag")
		check(t, s.do("GET", url, nil, "Range", "bytes=0-1", "If-Range", etag), 206)
		check(t, s.do("GET", url, nil, "Range", "bytes=0-1", "If-Range", `"`+tag+`"`), 200)
	}
}

// TestGunzipDetails: what is unzipped on the way is other bytes of the object, of
// a length nobody knows.
func TestGunzipDetails(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	z, err := base64.StdEncoding.DecodeString("H4sIAAAAAAACA8tIzcnJBwCGphA2BQAAAA==") // "hello"
	if err != nil {
		t.Fatal(err)
	}
	check(t, s.do("PUT", "/bucket/z", bytes.NewReader(z), "Content-Encoding", "gzip", "Content-Type", "text/plain"), 200)
	w := s.do("GET", "/bucket/z", nil, "Range", "bytes=1-2")
	if check(t, w, 200); w.Body.String() != "hello" || !strings.HasPrefix(w.Header().Get("ETag"), `W/"`) || w.Header().Get("Content-Length") != "" ||
		w.Header().Get("X-Goog-Stored-Content-Length") != strconv.Itoa(len(z)) || w.Header().Get("X-Goog-Stored-Content-Encoding") != "gzip" {
		t.Errorf("unzipped: %v %q", w.Header(), w.Body)
	}
	check(t, s.do("GET", "/bucket/z", nil, "If-None-Match", w.Header().Get("ETag")), 304)
	if w := s.do("HEAD", "/bucket/z", nil); w.Header().Get("Content-Length") != "" || w.Header().Get("Content-Encoding") != "" {
		t.Errorf("HEAD: %v", w.Header())
	}
	for accept, zipped := range map[string]bool{"gzip": true, "br, gzip;q=0.5": true, "gzip;q=0": false, "x-gzip": false, "*": false, "": false} {
		w := s.do("GET", "/bucket/z", nil, "Accept-Encoding", accept, "Range", "bytes=0-1")
		if got := w.Code == 206 && bytes.Equal(w.Body.Bytes(), z[:2]); got != zipped {
			t.Errorf("Accept-Encoding %q: %d %q", accept, w.Code, w.Body)
		}
	}
	w = s.do("HEAD", "/bucket/z", nil, "Accept-Encoding", "gzip")
	if w.Header().Get("Content-Length") != strconv.Itoa(len(z)) || w.Header().Get("Content-Encoding") != "gzip" {
		t.Errorf("HEAD as stored: %v", w.Header())
	}
}
