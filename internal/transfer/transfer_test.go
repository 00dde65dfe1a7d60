package transfer

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	"tategu/internal/resource"
)

// run copies with a Copier and gives what it said and what failed.
func (w *world) run(ctx context.Context, c Copier, sources []string, dst string) (said, failed []string, err error) {
	var mu sync.Mutex
	c.Client, c.Progress = w.Client, NewProgress(time.Now())
	c.Say = func(line string) { mu.Lock(); defer mu.Unlock(); said = append(said, line) }
	c.Fail = func(what string, err error) {
		mu.Lock()
		defer mu.Unlock()
		failed = append(failed, what+": "+err.Error())
	}
	err = c.Copy(ctx, sources, dst)
	slices.Sort(said)
	slices.Sort(failed)
	return said, failed, err
}

func write(t *testing.T, data []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestUploadGoesOn: connections break amid the body, the server restarts in
// between, and the object is right; no byte that arrived is sent again.
func TestUploadGoesOn(t *testing.T) {
	t.Parallel()
	for _, stream := range []bool{false, true} {
		t.Run(fmt.Sprintf("stream=%v", stream), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			data := randomBytes(20 << 20)
			b := &breaking{after: []int{3 << 20, 5<<20 + 17, 0}}
			restarts := 0
			w.fault = func(out http.ResponseWriter, r *http.Request) (http.ResponseWriter, *http.Request) {
				if r.Header.Get("Content-Range") != "" && strings.HasPrefix(r.Header.Get("Content-Range"), "bytes */") && restarts < 2 {
					restarts++
					w.restart(t)
					http.Error(out, "starting", http.StatusServiceUnavailable)
					return nil, nil
				}
				return b.fault(out, r)
			}
			c, source := Copier{Stdin: bytes.NewReader(data)}, "-"
			if !stream {
				source = write(t, data)
			}
			if _, failed, err := w.run(t.Context(), c, []string{source}, "gs://bucket/big"); err != nil {
				t.Fatal(err, failed)
			}
			w.want(t, "big", data)
			if restarts != 2 || len(b.after) != 0 {
				t.Errorf("%d restarts, %d breaks left: the faults did not come", restarts, len(b.after))
			}
		})
	}
}

// TestDownloadGoesOn: what came before a break is not asked for again.
func TestDownloadGoesOn(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	data := randomBytes(8 << 20)
	w.put(t, "big", data)
	b := &breaking{after: []int{1 << 20, 2<<20 + 3, 0, 1}}
	var ranges []string
	w.fault = func(out http.ResponseWriter, r *http.Request) (http.ResponseWriter, *http.Request) {
		if v := r.Header.Get("Range"); v != "" {
			w.mu.Lock()
			ranges = append(ranges, v)
			w.mu.Unlock()
		}
		return b.fault(out, r)
	}
	dst := filepath.Join(t.TempDir(), "out")
	if _, failed, err := w.run(t.Context(), Copier{}, []string{"gs://bucket/big"}, dst); err != nil {
		t.Fatal(err, failed)
	}
	if got, err := os.ReadFile(dst); err != nil || !bytes.Equal(got, data) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	if len(ranges) == 0 {
		t.Error("no range was asked for")
	}
}

// TestDamageOnTheWay: a flipped bit is found, in either direction; nothing is kept.
func TestDamageOnTheWay(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	data := randomBytes(6 << 20)
	w.put(t, "down", data)
	small := randomBytes(1000)
	w.put(t, "small", small)
	w.fault = func(out http.ResponseWriter, r *http.Request) (http.ResponseWriter, *http.Request) {
		switch {
		case r.URL.Query().Get("alt") == "media":
			return &flip{ResponseWriter: out}, r
		case r.ContentLength > 500 && r.Header.Get("Content-Type") != "application/json":
			body, err := io.ReadAll(r.Body)
			if err != nil {
				t.Error(err)
			}
			body[len(body)/2] ^= 1
			r.Body = io.NopCloser(bytes.NewReader(body))
		}
		return out, r
	}
	dir := t.TempDir()
	for _, name := range []string{"down", "small"} {
		_, failed, err := w.run(t.Context(), Copier{}, []string{"gs://bucket/" + name}, dir)
		if err == nil || len(failed) != 1 || !strings.Contains(failed[0], "CRC32C") {
			t.Errorf("download of %s: %v, %v", name, err, failed)
		}
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
		t.Errorf("left: %v, %v", left, err)
	}
	for name, source := range map[string]string{"up": write(t, data), "up-small": write(t, small), "up-stream": "-"} {
		_, failed, err := w.run(t.Context(), Copier{Stdin: bytes.NewReader(data)}, []string{source}, "gs://bucket/"+name)
		if err == nil || len(failed) != 1 || !strings.Contains(strings.ToLower(failed[0]), "crc32c") {
			t.Errorf("upload of %s: %v, %v", name, err, failed)
		}
		if _, err := w.Stat(t.Context(), URL{Bucket: "bucket", Name: name}); !resource.IsNotFound(err) {
			t.Errorf("%s is there: %v", name, err)
		}
	}
}

// flip changes one bit of an answer's body.
type flip struct {
	http.ResponseWriter
	done bool
}

func (f *flip) Write(p []byte) (int, error) {
	if !f.done && len(p) > 10 {
		p = bytes.Clone(p)
		p[len(p)/2] ^= 1
		f.done = true
	}
	return f.ResponseWriter.Write(p)
}

// TestRefusalsAreNotRepeated: patience is for what may pass.
func TestRefusalsAreNotRepeated(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	_, failed, err := w.run(t.Context(), Copier{}, []string{write(t, nil)}, "gs://bucket/"+strings.Repeat("n", 1025))
	if err == nil || len(failed) != 1 {
		t.Fatalf("%v, %v", err, failed)
	}
	posts := 0
	for _, s := range w.seen {
		if strings.HasPrefix(s, "POST /upload") {
			posts++
		}
	}
	if posts != 1 {
		t.Errorf("%d uploads were tried", posts)
	}
}

// TestPatienceEnds: a server that stays away is an error that says so.
func TestPatienceEnds(t *testing.T) {
	t.Parallel()
	c := &Client{Base: "http://127.0.0.1:1", HTTP: &http.Client{}, Patience: time.Millisecond}
	_, err := c.Stat(t.Context(), URL{Bucket: "b", Name: "o"})
	if resource.CodeOf(err) != codes.Unavailable || !strings.Contains(err.Error(), "tategu serve") {
		t.Errorf("%v", err)
	}
}

// TestLinksDoNotLeadOut: a link in the destination is no way out of it.
func TestLinksDoNotLeadOut(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.put(t, "tree/link/file", []byte("x"))
	w.put(t, "tree/ok", []byte("y"))
	dir, outside := t.TempDir(), t.TempDir()
	if err := os.Symlink(outside, filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	_, failed, err := w.run(t.Context(), Copier{}, []string{"gs://bucket/tree/**"}, dir)
	if err == nil || len(failed) != 1 || !strings.HasPrefix(failed[0], "gs://bucket/tree/link/file: ") {
		t.Errorf("%v, %v", err, failed)
	}
	if left, err := os.ReadDir(outside); err != nil || len(left) != 0 {
		t.Errorf("outside: %v, %v", left, err)
	}
	if _, err := os.Stat(filepath.Join(dir, "ok")); err != nil {
		t.Error(err)
	}
}

// TestManySmallFiles go both ways and come back the same.
func TestManySmallFiles(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	dir := t.TempDir()
	for i := range 200 {
		path := filepath.Join(dir, "in", strconv.Itoa(i%7), strconv.Itoa(i))
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o750), os.WriteFile(path, bytes.Repeat([]byte{byte(i)}, i*100), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	for _, step := range [][2]string{{filepath.Join(dir, "in"), "gs://bucket/a"}, {"gs://bucket/a", "gs://bucket/b"}, {"gs://bucket/b", filepath.Join(dir, "out")}} {
		if _, failed, err := w.run(t.Context(), Copier{Recursive: true}, step[:1], step[1]); err != nil {
			t.Fatal(err, failed)
		}
	}
	for i := range 200 {
		got, err := os.ReadFile(filepath.Join(dir, "out", strconv.Itoa(i%7), strconv.Itoa(i)))
		if err != nil || !bytes.Equal(got, bytes.Repeat([]byte{byte(i)}, i*100)) {
			t.Fatalf("%d: %d bytes, %v", i, len(got), err)
		}
	}
}
