package modelcache

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// served runs a route over a world.
type served struct {
	*Route
	w   *world
	end context.CancelFunc
}

func serve(t *testing.T, dir string) *served {
	t.Helper()
	w := newWorld()
	w.put(1, map[string]string{"model.onnx": "one"})
	ctx, cancel := context.WithCancel(t.Context())
	s := &served{Route: NewRoute(w.loader(t, dir), []string{"loader.internal"}, slog.New(slog.DiscardHandler)), w: w, end: cancel}
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return s
}

// get asks, with headers as name, value, name, value.
func (s *served) get(ctx context.Context, path string, headers ...string) *httptest.ResponseRecorder {
	req := httptest.NewRequestWithContext(ctx, http.MethodGet, path, nil)
	req.Host = "127.0.0.1:8095"
	for h := range slices.Chunk(headers, 2) {
		if h[0] == "Host" {
			req.Host = h[1]
		}
		req.Header.Set(h[0], h[1])
	}
	out := httptest.NewRecorder()
	s.ServeHTTP(out, req)
	return out
}

// view is what a program reads.
type view struct {
	Model, Version, Digest, Path, Stale string
	Aliases                             []string
	Files                               []File
	Error                               struct {
		Code      int
		Status    string
		Message   string
		Next_step string //nolint:revive // as it is written
	}
}

func read(t *testing.T, r *httptest.ResponseRecorder) (v view) {
	t.Helper()
	if err := json.Unmarshal(r.Body.Bytes(), &v); err != nil {
		t.Errorf("%d %q: %v", r.Code, r.Body, err)
	}
	return v
}

func TestRoute(t *testing.T) {
	t.Parallel()
	dir := tempDir(t)
	synctest.Test(t, func(t *testing.T) {
		s := serve(t, dir)
		r := s.get(t.Context(), "/models/m@champion")
		v := read(t, r)
		if r.Code != http.StatusOK || v.Version != "1" || v.Model != "projects/p/locations/l/models/m" || !slices.Equal(v.Aliases, []string{"champion"}) || len(v.Files) != 1 || v.Stale != "" {
			t.Fatalf("%d %+v", r.Code, v)
		}
		want(t, v.Path, map[string]string{"model.onnx": "one"})
		etag := r.Header().Get("ETag")
		if etag != fmt.Sprintf("%q", "1-"+strings.TrimPrefix(v.Digest, "sha256:")) {
			t.Errorf("the etag is %s", etag)
		}
		if r = s.get(t.Context(), "/models/m@champion", "If-None-Match", `"x", W/`+etag); r.Code != http.StatusNotModified || r.Body.Len() != 0 {
			t.Errorf("known already: %d %q", r.Code, r.Body)
		}
		if r = s.get(t.Context(), "/models/m@champion?wait=30s"); r.Code != http.StatusOK {
			t.Errorf("waiting for nothing known: %d", r.Code)
		}
		// Held until the time is over, or the alias moves.
		began := time.Now()
		if r = s.get(t.Context(), "/models/m@champion?wait=30s", "If-None-Match", etag); r.Code != http.StatusNotModified || time.Since(began) != 30*time.Second {
			t.Errorf("%d after %v", r.Code, time.Since(began))
		}
		time.AfterFunc(10*time.Second, func() { s.w.put(2, map[string]string{"model.onnx": "two"}) })
		began = time.Now()
		r = s.get(t.Context(), "/models/m@champion?wait=30", "If-None-Match", etag)
		if v = read(t, r); r.Code != http.StatusOK || v.Version != "2" || time.Since(began) > 12*time.Second {
			t.Errorf("%d %+v after %v", r.Code, v, time.Since(began))
		}
		want(t, v.Path, map[string]string{"model.onnx": "two"})
		// While the server is away the last one is told, and that it may be old.
		s.w.set(func() { s.w.away = true })
		later(time.Minute)
		r = s.get(t.Context(), "/models/m@champion")
		if v = read(t, r); r.Code != http.StatusOK || v.Version != "2" || !strings.Contains(v.Stale, "no answer") {
			t.Errorf("%d %+v", r.Code, v)
		}
		s.w.set(func() { s.w.away = false })
		later(time.Minute)
		if v = read(t, s.get(t.Context(), "/models/m@champion")); v.Stale != "" {
			t.Errorf("still stale: %+v", v)
		}
		var all struct{ Models map[string]view }
		if err := json.Unmarshal(s.get(t.Context(), "/models").Body.Bytes(), &all); err != nil || all.Models["m@champion"].Version != "2" {
			t.Errorf("all are %+v, %v", all, err)
		}
	})
}

func TestRouteRefuses(t *testing.T) {
	t.Parallel()
	dir := tempDir(t)
	synctest.Test(t, func(t *testing.T) {
		s := serve(t, dir)
		s.w.versions["image"] = Version{Model: "projects/p/locations/l/models/image", ID: "1"}
		for _, c := range []struct {
			path    string
			headers []string
			code    int
			says    string
		}{
			{"/", nil, 404, "was not found"},
			{"/models/none", nil, 404, `"none" was not found`},
			{"/models/image", nil, 409, "it is an image alone"},
			{"/models/", nil, 400, "names no model"},
			{"/models/a/b", nil, 400, "is not the full name"},
			{"/models/m@champion?wait=forever", nil, 400, "is no duration"},
			{"/models/m@champion?wait=1h", nil, 400, "is no duration"},
			{"/models/m@champion?wait=-1s", nil, 400, "is no duration"},
			{"/models/m@champion", []string{"Host", "evil.example"}, 403, `does not answer for host "evil.example"`},
			{"/models/m@champion", []string{"Host", "127.0.0.1.evil.example:8095"}, 403, "does not answer for host"},
			{"/models/m@champion", []string{"Origin", "http://127.0.0.1:8095"}, 403, "a page of another site"},
			{"/models/m@champion", []string{"Sec-Fetch-Site", "cross-site"}, 403, "a page of another site"},
		} {
			r := s.get(t.Context(), c.path, c.headers...)
			if v := read(t, r); r.Code != c.code || v.Error.Code != c.code || !strings.Contains(v.Error.Message, c.says) {
				t.Errorf("%s %q: %d %+v", c.path, c.headers, r.Code, v.Error)
			}
		}
		for _, host := range []string{"localhost", "LOCALHOST:1", "[::1]:8095", "127.0.0.2", "loader.internal:80"} {
			if r := s.get(t.Context(), "/models/m@champion", "Host", host); r.Code != http.StatusOK {
				t.Errorf("host %s: %d %s", host, r.Code, r.Body)
			}
		}
		req := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/models/m@champion", nil)
		req.Host = "localhost"
		out := httptest.NewRecorder()
		if s.ServeHTTP(out, req); out.Code != http.StatusNotImplemented {
			t.Errorf("POST: %d", out.Code)
		}
		// A name that stood for nothing is asked for again.
		s.w.set(func() { s.w.versions["none"] = s.w.versions["m@champion"] })
		if r := s.get(t.Context(), "/models/none"); r.Code != http.StatusOK {
			t.Errorf("once it is there: %d %s", r.Code, r.Body)
		}
		s.w.set(func() { s.w.away = true })
		if r := s.get(t.Context(), "/models/m@1"); r.Code != http.StatusServiceUnavailable || r.Header().Get("Retry-After") == "" {
			t.Errorf("never known, and the server is away: %d %s", r.Code, r.Body)
		}
	})
}

// TestRouteEnds: requests that wait are answered when the loader ends, and callers
// that leave are let go.
func TestRouteEnds(t *testing.T) {
	t.Parallel()
	dir := tempDir(t)
	synctest.Test(t, func(t *testing.T) {
		s := serve(t, dir)
		etag := s.get(t.Context(), "/models/m@champion").Header().Get("ETag")
		ctx, leave := context.WithCancel(t.Context())
		left := make(chan *httptest.ResponseRecorder, 2)
		go func() { left <- s.get(ctx, "/models/m@champion?wait=5m", "If-None-Match", etag) }()
		synctest.Wait()
		leave()
		<-left
		go func() { left <- s.get(t.Context(), "/models/m@champion?wait=5m", "If-None-Match", etag) }()
		synctest.Wait()
		s.end()
		if r := <-left; r.Code != http.StatusServiceUnavailable {
			t.Errorf("at the end: %d %s", r.Code, r.Body)
		}
		if r := s.get(t.Context(), "/models/m@1"); r.Code != http.StatusServiceUnavailable {
			t.Errorf("after the end: %d %s", r.Code, r.Body)
		}
	})
}

func TestRouteFollowsSoManyNames(t *testing.T) {
	t.Parallel()
	s := &served{Route: NewRoute(newWorld().loader(t, tempDir(t)), nil, slog.New(slog.DiscardHandler))}
	for i := range maxFollowed {
		s.names[strconv.Itoa(i)] = &follower{}
	}
	if r := s.get(t.Context(), "/models/m"); r.Code != http.StatusTooManyRequests {
		t.Errorf("%d %s", r.Code, r.Body)
	}
}
