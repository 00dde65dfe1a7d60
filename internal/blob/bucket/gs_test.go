package bucket

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	gcblob "gocloud.dev/blob"
	"gocloud.dev/blob/driver"
	"gocloud.dev/blob/drivertest"
	"gocloud.dev/gcerrors"
)

func gsDriver(t *testing.T, raw string) *gsBucket {
	t.Helper()
	u, err := url.Parse(raw)
	if err != nil {
		t.Fatal(err)
	}
	b, err := openGS(t.Context(), u)
	if err != nil {
		t.Fatal(err)
	}
	b.pause = 2 // nanoseconds: how often is tested, not how long
	return b
}

// gsHarness gives the driver to the tests that gocloud has for all drivers.
type gsHarness struct {
	t   *testing.T
	url string
}

func (h gsHarness) MakeDriver(context.Context) (driver.Bucket, error) {
	return gsDriver(h.t, h.url), nil
}

func (h gsHarness) MakeDriverForNonexistentBucket(context.Context) (driver.Bucket, error) {
	return gsDriver(h.t, strings.Replace(h.url, "//objects", "//no-such-bucket", 1)), nil
}
func (gsHarness) HTTPClient() *http.Client         { return http.DefaultClient }
func (gsHarness) SupportsCopy() bool               { return true }
func (gsHarness) SupportsNonSlashDelimiters() bool { return true }
func (gsHarness) Close()                           {}

func TestDriverOfGS(t *testing.T) {
	server := gsServer(t)
	drivertest.RunConformanceTests(t, func(_ context.Context, t *testing.T) (drivertest.Harness, error) {
		t.Helper()
		if strings.HasSuffix(t.Name(), "/TestListWeirdKeys") || strings.HasSuffix(t.Name(), "/ascii-1") {
			t.Skip("keys with line breaks, which the service refuses and we do not have")
		}
		return gsHarness{t: t, url: server}, nil
	}, nil)
}

// shaky is a service of one object that fails as services do.
type shaky struct {
	mu       sync.Mutex
	failures []int // statuses of the next requests; 0 = do it, and lose the answer
	half     int   // this many of the next parts are kept to one half
	kept     []byte
	object   []byte
	crc      string // what it says of the object
	calls    map[string]int
}

func (s *shaky) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	body, _ := io.ReadAll(r.Body)
	s.calls[r.Method]++
	if len(s.failures) > 0 {
		status := s.failures[0]
		s.failures = s.failures[1:]
		if status == 0 {
			s.answer(httptest.NewRecorder(), r, body)
			panic(http.ErrAbortHandler)
		}
		w.WriteHeader(status)
		return
	}
	s.answer(w, r, body)
}

func (s *shaky) answer(w http.ResponseWriter, r *http.Request, body []byte) {
	switch r.Method {
	case http.MethodPost:
		w.Header().Set("Location", "http://"+r.Host+"/session?upload_id=secret")
	case http.MethodDelete:
		s.kept = nil
		w.WriteHeader(499)
	case http.MethodPut:
		var first, last, total int
		if _, err := fmt.Sscanf(r.Header.Get("Content-Range"), "bytes %d-%d/", &first, &last); err == nil {
			if s.half > 0 {
				s.half--
				body = body[:len(body)/2]
			}
			s.kept = append(s.kept[:first], body...)
		}
		_, after, _ := strings.Cut(r.Header.Get("Content-Range"), "/")
		if _, err := fmt.Sscan(after, &total); err == nil && total == len(s.kept) {
			s.object = s.kept
			_ = json.NewEncoder(w).Encode(gsObject{CRC32C: s.crc})
			return
		}
		if len(s.kept) > 0 {
			w.Header().Set("Range", fmt.Sprintf("bytes=0-%d", len(s.kept)-1))
		}
		w.WriteHeader(http.StatusPermanentRedirect)
	}
}

func TestUploadInParts(t *testing.T) {
	t.Parallel()
	data := bytes.Repeat([]byte("0123456789abcdef"), 3*gsQuantum/16) // as many parts
	data = append(data, "the end"...)
	for name, s := range map[string]*shaky{
		"nothing fails":                {},
		"busy at the start":            {failures: []int{503, 429}},
		"busy amid it":                 {failures: []int{-1, 500, 502}},
		"a part and its answer":        {failures: []int{-1, 0}},
		"the end's answer is lost":     {failures: []int{-1, -1, -1, -1, 0}},
		"parts are kept to a half":     {half: 3},
		"all of it, one after another": {failures: []int{503, -1, 503, 503, -1, 0, 408}, half: 2},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s.calls = map[string]int{}
			handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				s.mu.Lock()
				pass := len(s.failures) > 0 && s.failures[0] == -1
				if pass {
					s.failures = s.failures[1:]
					defer s.mu.Unlock()
					body, _ := io.ReadAll(r.Body)
					s.answer(w, r, body)
					return
				}
				s.mu.Unlock()
				s.ServeHTTP(w, r)
			})
			server := httptest.NewServer(handler)
			t.Cleanup(server.Close)
			b := gsDriver(t, "gs://box?anonymous=true&endpoint="+server.URL)
			w, err := b.NewTypedWriter(t.Context(), "key", "text/plain", &driver.WriterOptions{BufferSize: gsQuantum})
			if err != nil {
				t.Fatal(err)
			}
			_, err = io.Copy(w, bytes.NewReader(data))
			if err = errors.Join(err, w.Close()); err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(s.object, data) || len(s.failures) > 0 || s.half > 0 {
				t.Errorf("stored %d bytes of %d; %v, %d did not happen", len(s.object), len(data), s.failures, s.half)
			}
		})
	}
}

func TestUploadsThatFail(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]*struct {
		shaky  shaky
		cancel bool
		parts  []string
	}{
		"for good":      {shaky: shaky{failures: slices.Repeat([]int{503}, attempts)}, parts: []string{"503"}},
		"not allowed":   {shaky: shaky{failures: []int{403}}, parts: []string{"403"}},
		"other bytes":   {shaky: shaky{crc: "AAAAAA=="}, parts: []string{"other bytes"}},
		"was given up":  {cancel: true, parts: []string{"context canceled"}},
		"was forgotten": {shaky: shaky{failures: []int{-1, 410}}, parts: []string{"forgotten"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := &test.shaky
			s.calls = map[string]int{}
			forgets := len(s.failures) > 0 && s.failures[0] == -1
			if forgets {
				s.failures = nil
			}
			server := httptest.NewServer(s)
			t.Cleanup(server.Close)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			b := gsDriver(t, "gs://box?anonymous=true&endpoint="+server.URL)
			w, err := b.NewTypedWriter(ctx, "key", "text/plain", &driver.WriterOptions{BufferSize: gsQuantum})
			if err != nil {
				t.Fatal(err)
			}
			_, err = w.Write(make([]byte, 2*gsQuantum))
			if test.cancel {
				cancel()
			}
			if forgets {
				s.mu.Lock()
				s.failures = []int{410}
				s.mu.Unlock()
			}
			if err == nil {
				err = w.Close()
			}
			refused(t, err, test.parts...)
			if err != nil && strings.Contains(err.Error(), "secret") {
				t.Errorf("tells where an upload goes: %v", err)
			}
			if want := test.cancel || s.crc != ""; (s.calls[http.MethodDelete] == 1) != want {
				t.Errorf("%v, want a DELETE: %v", s.calls, want)
			}
			if test.cancel && (s.object != nil || s.kept != nil) {
				t.Error("something is left")
			}
		})
	}
}

// TestDownloadGoesOn: a connection that breaks is taken up again, of the same generation.
func TestDownloadGoesOn(t *testing.T) {
	t.Parallel()
	data := bytes.Repeat([]byte("0123456789"), 1000)
	var asked []string
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked = append(asked, r.Header.Get("Range")+" of "+r.URL.Query().Get("generation"))
		w.Header().Set("X-Goog-Generation", "7")
		var buf bytes.Buffer
		part := httptest.NewRecorder()
		http.ServeContent(part, r, "", time.Unix(1e9, 0), bytes.NewReader(data))
		maps.Copy(w.Header(), part.Header())
		w.WriteHeader(part.Code)
		buf.Write(part.Body.Bytes())
		_, _ = w.Write(buf.Bytes()[:min(buf.Len(), 4000)])
		if buf.Len() > 4000 {
			_ = http.NewResponseController(w).Flush()
			panic(http.ErrAbortHandler)
		}
	}))
	t.Cleanup(server.Close)
	r, err := gsDriver(t, "gs://box?anonymous=true&endpoint="+server.URL).NewRangeReader(t.Context(), "key", 100, -1, &driver.ReaderOptions{})
	if err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(r)
	if err = errors.Join(err, r.Close()); err != nil || !bytes.Equal(got, data[100:]) || r.Attributes().Size != int64(len(data)) {
		t.Errorf("%d bytes of %d, %v", len(got), r.Attributes().Size, err)
	}
	if want := []string{"bytes=100- of ", "bytes=4100-9999 of 7", "bytes=8100-9999 of 7"}; !slices.Equal(asked, want) {
		t.Errorf("asked %q, want %q", asked, want)
	}
}

func TestCopyGoesOn(t *testing.T) {
	t.Parallel()
	var tokens []string
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		tokens = append(tokens, r.URL.Query().Get("rewriteToken"))
		if r.URL.EscapedPath() != "/storage/v1/b/box/o/a%2Fb/rewriteTo/b/box/o/c%2Fd" {
			w.WriteHeader(http.StatusNotFound)
		}
		if len(tokens) < 3 {
			_, _ = fmt.Fprintf(w, `{"done": false, "rewriteToken": "t%d"}`, len(tokens))
			return
		}
		_, _ = io.WriteString(w, `{"done": true}`)
	}))
	t.Cleanup(server.Close)
	err := gsDriver(t, "gs://box?anonymous=true&endpoint="+server.URL).Copy(t.Context(), "c/d", "a/b", &driver.CopyOptions{})
	if err != nil || !slices.Equal(tokens, []string{"", "t1", "t2"}) {
		t.Errorf("%v, tokens %q", err, tokens)
	}
}

// TestRefusalsOfGS: what is worth another try, and what a caller is told.
func TestRefusalsOfGS(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		status    int
		reason    string
		tries     int
		code      gcerrors.ErrorCode
		forbidden bool
		full      bool
	}{
		{403, "forbidden", 1, gcerrors.PermissionDenied, true, false},
		{401, "authError", 1, gcerrors.PermissionDenied, true, false},
		{404, "notFound", 1, gcerrors.NotFound, false, false},
		{412, "conditionNotMet", 1, gcerrors.FailedPrecondition, false, false},
		{403, "quotaExceeded", 1, gcerrors.PermissionDenied, true, true},
		{507, "", 1, gcerrors.ResourceExhausted, false, true},
		{403, "userRateLimitExceeded", attempts, gcerrors.PermissionDenied, false, false},
		{429, "rateLimitExceeded", attempts, gcerrors.ResourceExhausted, false, false},
		{503, "backendError", attempts, gcerrors.Unknown, false, false},
	} {
		t.Run(fmt.Sprint(test.status, test.reason), func(t *testing.T) {
			t.Parallel()
			tries := 0
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				tries++
				w.WriteHeader(test.status)
				_, _ = fmt.Fprintf(w, `{"error": {"message": "because", "errors": [{"reason": %q}]}}`, test.reason)
			}))
			t.Cleanup(server.Close)
			b := gcblob.NewBucket(gsDriver(t, "gs://box?anonymous=true&endpoint="+server.URL))
			t.Cleanup(func() { _ = b.Close() })
			err := b.Delete(t.Context(), "key")
			refused(t, err, "because", test.reason, strconv.Itoa(test.status))
			if tries != test.tries || gcerrors.Code(err) != test.code || forbidden(err) != test.forbidden || noSpace(err) != test.full {
				t.Errorf("%d tries, code %v, forbidden %v, full %v: %v", tries, gcerrors.Code(err), forbidden(err), noSpace(err), err)
			}
		})
	}
}

// TestCloseLeavesNoConnections: a server at the other end need not wait for us to end.
func TestCloseLeavesNoConnections(t *testing.T) {
	t.Parallel()
	closed := make(chan struct{}, 8)
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "{}") }))
	server.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateClosed {
			closed <- struct{}{}
		}
	}
	server.Start()
	t.Cleanup(server.Close)
	b := gsDriver(t, "gs://box?anonymous=true&endpoint="+server.URL)
	if _, err := b.ListPaged(t.Context(), &driver.ListOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	select {
	case <-closed:
	case <-t.Context().Done():
	case <-time.After(30 * time.Second): // only so that a failure ends
		t.Error("the connection stays")
	}
}
