package gcs

import (
	"io"
	"net/url"
	"strings"
	"testing"
)

func FuzzParseTarget(f *testing.F) {
	for _, s := range []string{
		"/storage/v1/b/bucket/o/a%2Fb", "/storage/v1/b/x/o/y/rewriteTo/b/z/o/w", "/upload/storage/v1/b/x/o", "/bucket/a/b", "/", "//", "/storage/v1/b//o",
		"/storage/v1/b/x/o/%zz", "/batch", "/%2e%2e/x",
	} {
		f.Add("127.0.0.1", s)
	}
	f.Add("b.storage.googleapis.com:443", "/x/y")
	f.Fuzz(func(t *testing.T, host, escaped string) {
		got, err := parseTarget(host, escaped)
		if err != nil {
			return
		}
		if want := strings.Count(got.pattern, "*"); !strings.Contains(escaped, "*") && got.service != serviceXML && len(got.names) != want {
			t.Errorf("%q: %d names for the pattern %q", escaped, len(got.names), got.pattern)
		}
		// A name that is escaped as a client does it comes back as it was.
		again, err := parseTarget("", "/storage/v1/b/x/o/"+url.PathEscape(escaped))
		if escaped != "" && (err != nil || len(again.names) != 2 || again.names[1] != escaped) {
			t.Errorf("name %q came back as %q, %v", escaped, again.names, err)
		}
	})
}

func FuzzParseRange(f *testing.F) {
	for _, s := range []string{"", "bytes=0-1", "bytes=-5", "bytes=5-", "bytes=-", "bytes=1-0", "bytes=0-1,2-3", "bytes=99999999999999999999-", "x=1-2"} {
		f.Add(s, int64(10))
	}
	f.Fuzz(func(t *testing.T, header string, size int64) {
		if size < 0 {
			return
		}
		offset, length, ok, err := parseRange(header, size)
		if err != nil {
			return
		}
		if offset < 0 || length < 0 || offset+length > size || ok && length == 0 || !ok && length != size {
			t.Errorf("parseRange(%q, %d) = %d+%d, %t", header, size, offset, length, ok)
		}
	})
}

func FuzzParseContentRange(f *testing.F) {
	for _, s := range []string{"", "bytes 0-1/2", "bytes */*", "bytes */0", "bytes 0-0/0", "bytes 0-1/*", "bytes 0-*/*", "bytes 2-1/5", "bytes 0-9/5", "bytes -1-2/3"} {
		f.Add(s, int64(10))
	}
	f.Fuzz(func(t *testing.T, header string, length int64) {
		got, err := parseContentRange(header, length)
		if err != nil || header == "" {
			return
		}
		if got.first < 0 || got.total < -1 || !got.query && (got.last < got.first && got.last != -1 || got.total >= 0 && got.last >= got.total) {
			t.Errorf("parseContentRange(%q) = %+v", header, got)
		}
	})
}

func FuzzPageToken(f *testing.F) {
	for _, s := range []string{"", "a", "日/本", "\x00", "1"} {
		f.Add(s)
		f.Add(pageToken(s))
	}
	f.Fuzz(func(t *testing.T, s string) {
		if last, err := parsePageToken(s); err == nil && s != "" && last == "" {
			t.Errorf("token %q starts from nowhere", s)
		}
		if strings.ToValidUTF8(s, "") != s {
			return
		}
		if last, err := parsePageToken(pageToken(s)); err != nil || last != s {
			t.Errorf("%q came back as %q, %v", s, last, err)
		}
	})
}

func FuzzETag(f *testing.F) {
	f.Add("AAAAAAAAAAEB")
	f.Add(`"x"`)
	f.Fuzz(func(t *testing.T, s string) {
		if g, m, ok := parseETag(s); ok {
			g2, m2, ok := parseETag(etag(g, m))
			if !ok || g != g2 || m != m2 {
				t.Errorf("etag %q: %d/%d came back as %d/%d", s, g, m, g2, m2)
			}
		}
	})
}

// FuzzRelated reads any body as an upload of two parts: it must end, and end well
// only with the closing boundary.
func FuzzRelated(f *testing.F) {
	f.Add("--cut\r\n\r\n{}\r\n--cut\r\n\r\ndata\r\n--cut--\r\n")
	f.Add("--cut\n\n{}\n--cut\n\ndata\n--cut--")
	f.Add("--cut\r\n\r\n{}\r\n--cut\r\n\r\ndata")
	f.Add("")
	f.Fuzz(func(t *testing.T, text string) {
		parts, err := relatedParts(`multipart/related; boundary="cut"`, body{strings.NewReader(text)})
		if err != nil {
			t.Fatal(err)
		}
		meta, err := parts.must()
		if err != nil {
			return
		}
		var fs fields
		if readJSON(meta, &fs) != nil {
			return
		}
		media, err := parts.must()
		if err != nil {
			return
		}
		if _, err := io.Copy(io.Discard, &lastPart{part: media, parts: parts}); err == nil && !strings.Contains(text, "--cut--") {
			t.Errorf("a body without its end was taken: %q", text)
		}
	})
}

// FuzzEndWatch: however a body is cut into reads, its end is seen when it is there.
func FuzzEndWatch(f *testing.F) {
	f.Add("--cut\r\n\r\nx\r\n--cut--\r\n", 3)
	f.Add("--cut--", 1)
	f.Add("x--cut--\n--cut-", 5)
	f.Fuzz(func(t *testing.T, text string, size int) {
		if size <= 0 || size > 1000 {
			return
		}
		w := &endWatch{r: strings.NewReader(text), end: []byte("\n--cut--"), tail: []byte("\n")}
		for buf := make([]byte, size); ; {
			if _, err := w.Read(buf); err != nil {
				break
			}
		}
		if want := strings.Contains("\n"+text, "\n--cut--"); w.seen != want {
			t.Errorf("%q by %d: seen %t, want %t", text, size, w.seen, want)
		}
	})
}
