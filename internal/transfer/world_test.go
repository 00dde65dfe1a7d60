package transfer

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"sync"
	"testing"
	"testing/iotest"
	"time"

	"tategu/internal/api/gcs"
	"tategu/internal/blob"
	"tategu/internal/blob/disk"
	"tategu/internal/identity"
	"tategu/internal/store/sqlite"
)

// allow lets everyone do everything.
type allow struct{}

func (allow) ProjectNumber(context.Context, string) (string, error) { return "1", nil }
func (allow) Authorize(context.Context, identity.Principal, string, string) error {
	return nil
}

func (allow) AuthorizeBucket(context.Context, identity.Principal, identity.Bucket, string) error {
	return nil
}
func (allow) AuthorizeMissing(identity.Principal, string, string) error { return nil }
func (allow) CheckBucketPolicy(context.Context, identity.Bucket) error  { return nil }
func (allow) VerifySignature(context.Context, string, []byte, []byte) (identity.Principal, error) {
	return identity.Principal{}, errors.New("nothing is signed here")
}

// world is the real storage API over HTTP, with a bucket, and faults in between.
type world struct {
	*Client
	dir   string
	blobs *blob.Store
	rows  *sqlite.Store

	mu    sync.Mutex
	api   http.Handler
	fault func(w http.ResponseWriter, r *http.Request) (http.ResponseWriter, *http.Request)
	seen  []string // methods and paths
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{dir: t.TempDir()}
	w.start(t)
	t.Cleanup(func() {
		if err := w.rows.Close(); err != nil {
			t.Error(err)
		}
	})
	if err := w.blobs.EnsureBucket(t.Context(), "p", "bucket"); err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(http.HandlerFunc(w.serve))
	t.Cleanup(server.Close)
	w.Client = &Client{Base: server.URL, HTTP: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 16}}, Patience: 20 * time.Second}
	t.Cleanup(w.HTTP.CloseIdleConnections)
	return w
}

// start opens the data directory, as a server does that is started on it again.
func (w *world) start(t *testing.T) {
	t.Helper()
	var err error
	if w.rows, err = sqlite.Open(t.Context(), filepath.Join(w.dir, "state.db")); err != nil {
		t.Fatal(err)
	}
	content, err := disk.Open(filepath.Join(w.dir, "content"))
	if err != nil {
		t.Fatal(err)
	}
	w.blobs = blob.New(w.rows, content, time.Now)
	api := gcs.New(w.blobs, allow{}, slog.New(slog.DiscardHandler), time.Now)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.api = http.HandlerFunc(func(out http.ResponseWriter, r *http.Request) {
		api.ServeHTTP(out, r.WithContext(identity.NewContext(r.Context(), identity.Principal{Email: "someone"})))
	})
}

// restart ends the server's state and opens it again.
func (w *world) restart(t *testing.T) {
	t.Helper()
	if err := w.rows.Close(); err != nil {
		t.Error(err)
	}
	w.start(t)
}

func (w *world) serve(out http.ResponseWriter, r *http.Request) {
	w.mu.Lock()
	api, fault := w.api, w.fault
	w.seen = append(w.seen, r.Method+" "+r.URL.Path)
	w.mu.Unlock()
	if fault != nil {
		if out, r = fault(out, r); r == nil {
			return
		}
	}
	api.ServeHTTP(out, r)
}

func (w *world) put(t *testing.T, name string, data []byte) {
	t.Helper()
	if _, err := w.blobs.Put(t.Context(), blob.Object{Bucket: "bucket", Name: name}, bytes.NewReader(data), blob.Conditions{}); err != nil {
		t.Fatal(err)
	}
}

// want checks the object's bytes where they are.
func (w *world) want(t *testing.T, name string, data []byte) {
	t.Helper()
	_, r, err := w.blobs.OpenLive(t.Context(), "bucket", name)
	if err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(r)
	_ = r.Close()
	if err != nil || !bytes.Equal(got, data) {
		t.Errorf("%s: %d bytes, want %d; %v", name, len(got), len(data), err)
	}
}

func randomBytes(n int) []byte {
	data := make([]byte, n)
	random := rand.NewChaCha8([32]byte{7})
	_, _ = random.Read(data)
	return data
}

// breaking cuts connections: a body that comes in or goes out ends after some
// bytes, as long as there are any in the list.
type breaking struct {
	mu    sync.Mutex
	after []int
}

func (b *breaking) next() (int, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.after) == 0 {
		return 0, false
	}
	n := b.after[0]
	b.after = b.after[1:]
	return n, true
}

func (b *breaking) fault(out http.ResponseWriter, r *http.Request) (http.ResponseWriter, *http.Request) {
	large := r.ContentLength > 1<<20 || r.URL.Query().Get("alt") == "media"
	if !large {
		return out, r
	}
	n, ok := b.next()
	if !ok {
		return out, r
	}
	if r.Method == http.MethodGet {
		return &cut{ResponseWriter: out, left: n}, r
	}
	r.Body = struct {
		io.Reader
		io.Closer
	}{io.MultiReader(io.LimitReader(r.Body, int64(n)), iotest.ErrReader(io.ErrUnexpectedEOF)), r.Body}
	return unanswered{out}, r
}

// unanswered ends the connection instead of an answer.
type unanswered struct{ http.ResponseWriter }

func (unanswered) WriteHeader(int) { panic(http.ErrAbortHandler) }

// cut ends the connection of an answer after some bytes.
type cut struct {
	http.ResponseWriter
	left int
}

func (c *cut) Write(p []byte) (int, error) {
	if len(p) > c.left {
		n, _ := c.ResponseWriter.Write(p[:c.left])
		c.left -= n
		panic(http.ErrAbortHandler)
	}
	n, err := c.ResponseWriter.Write(p)
	c.left -= n
	return n, err
}
