package gcs_test

import (
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
	"time"

	"tategu/internal/api/gcs"
	"tategu/internal/blob"
	"tategu/internal/blob/disk"
	"tategu/internal/store/sqlite"
)

// TestDamagedDownload: of stored bytes that have changed no client gets a whole
// answer, neither as they are nor unzipped.
func TestDamagedDownload(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	rows, err := sqlite.Open(t.Context(), filepath.Join(dir, "state.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = rows.Close() })
	content, err := disk.Open(filepath.Join(dir, "content"))
	if err != nil {
		t.Fatal(err)
	}
	blobs := blob.New(rows, content, time.Now)
	if err := blobs.EnsureBucket(t.Context(), "p", "bucket"); err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewServer(as("operator", gcs.New(blobs, allow{}, slog.New(slog.DiscardHandler), time.Now)))
	t.Cleanup(srv.Close)

	random := rand.NewChaCha8([32]byte{1})
	data := make([]byte, 1<<20)
	_, _ = random.Read(data)
	var zipped bytes.Buffer
	z := gzip.NewWriter(&zipped)
	_, _ = z.Write(data)
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	for name, o := range map[string]struct {
		encoding string
		bytes    []byte
	}{"plain": {"", data}, "zipped": {"gzip", zipped.Bytes()}, "small": {"", data[:100<<10]}} {
		if _, err := blobs.Put(t.Context(), blob.Object{Bucket: "bucket", Name: name, ContentEncoding: o.encoding}, bytes.NewReader(o.bytes), blob.Conditions{}); err != nil {
			t.Fatal(err)
		}
	}
	whole := func(name string) error {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, srv.URL+"/bucket/"+name, nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Accept-Encoding", "identity")
		resp, err := srv.Client().Do(r)
		if err != nil {
			return err
		}
		got, err := io.ReadAll(resp.Body)
		if err == nil && resp.StatusCode == http.StatusOK && !bytes.Equal(got, data) {
			t.Errorf("%s: a whole answer of other bytes", name)
		}
		if cerr := resp.Body.Close(); cerr != nil {
			t.Error(cerr)
		}
		return err
	}
	for _, name := range []string{"plain", "zipped"} {
		if err := whole(name); err != nil {
			t.Fatalf("%s before the damage: %v", name, err)
		}
	}
	damaged := 0
	if err := filepath.WalkDir(filepath.Join(dir, "content"), func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		damaged++
		f, err := os.OpenFile(path, os.O_RDWR, 0)
		if err != nil {
			return err
		}
		info, err := f.Stat()
		if err != nil {
			return err
		}
		at := []byte{0}
		if _, err := f.ReadAt(at, info.Size()-5); err != nil { // in the last block, which ends what a client gets
			return err
		}
		at[0] ^= 1
		if _, err := f.WriteAt(at, info.Size()-5); err != nil {
			return err
		}
		return f.Close()
	}); err != nil || damaged != 3 {
		t.Fatalf("%d files damaged, %v", damaged, err)
	}
	for _, name := range []string{"plain", "zipped"} {
		if err := whole(name); err == nil {
			t.Errorf("%s: damaged, and the answer ended well", name)
		}
	}
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, srv.URL+"/bucket/small", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := srv.Client().Do(r)
	if err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(resp.Body)
	if err = errors.Join(err, resp.Body.Close()); err != nil || resp.StatusCode != http.StatusInternalServerError || !bytes.Contains(text, []byte("damaged")) {
		t.Errorf("a small object that is damaged: %d %s, %v", resp.StatusCode, text, err)
	}
}
