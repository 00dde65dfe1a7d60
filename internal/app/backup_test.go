package app

import (
	"bytes"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"tategu/internal/backup"
	"tategu/internal/blob"
	"tategu/internal/store/sqlite"
)

// kept opens the rows and contents of a data directory.
func kept(t *testing.T, cfg Config) *Main {
	t.Helper()
	m := &Main{cfg: cfg, log: slog.New(slog.NewTextHandler(t.Output(), nil)), now: time.Now, version: "test"}
	for _, dir := range []string{"ca", "identity"} {
		if err := os.MkdirAll(filepath.Join(cfg.Data, dir), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	content, err := m.openContent(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = m.content.Close() })
	if m.store, err = sqlite.Open(t.Context(), filepath.Join(cfg.Data, "state.db")); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = m.store.Close() })
	m.blobs = blob.New(m.store, content, time.Now)
	return m
}

// TestBackupBetweenBuckets: what is in one bucket is backed up and restored into
// another one, which must be unused and is as before when that fails.
func TestBackupBetweenBuckets(t *testing.T) {
	t.Parallel()
	quiet := func(backup.Progress) {}
	in := func(dir string) Config {
		cfg := Config{Data: filepath.Join(t.TempDir(), "data")}
		cfg.Storage.Objects = "file://" + dir
		return cfg
	}
	source := kept(t, in(t.TempDir()))
	if err := source.blobs.EnsureBucket(t.Context(), "p", "bucket"); err != nil {
		t.Fatal(err)
	}
	data := bytes.Repeat([]byte("content"), 100_000)
	if _, err := source.blobs.Put(t.Context(), blob.Object{Bucket: "bucket", Name: "large"}, bytes.NewReader(data), blob.Conditions{}); err != nil {
		t.Fatal(err)
	}
	dir, other := filepath.Join(t.TempDir(), "backup"), t.TempDir()
	manifest, err := source.backup(t.Context(), dir, quiet)
	if err != nil || manifest.Contents != 1 {
		t.Fatalf("%d contents, %v", manifest.Contents, err)
	}

	restored := in(other)
	if _, err := Restore(t.Context(), restored, dir, quiet); err != nil {
		t.Fatal(err)
	}
	_, r, err := kept(t, restored).blobs.OpenLive(t.Context(), "bucket", "large")
	if err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(r)
	if err != nil || r.Close() != nil || !bytes.Equal(got, data) {
		t.Errorf("%d bytes, %v", len(got), err)
	}

	if _, err := Restore(t.Context(), in(other), dir, quiet); err == nil || !strings.Contains(err.Error(), "another data directory") {
		t.Errorf("a used bucket: %v", err)
	}
	damage(t, filepath.Join(dir, "objects"))
	unused := t.TempDir()
	if _, err := Restore(t.Context(), in(unused), dir, quiet); err == nil {
		t.Error("a damaged backup is restored")
	}
	if files := filesBelow(t, unused); len(files) > 0 {
		t.Errorf("the bucket holds %q", files)
	}
}

func filesBelow(t *testing.T, dir string) (files []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, entry os.DirEntry, err error) error {
		if err == nil && entry.Type().IsRegular() {
			files = append(files, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// damage changes the bytes of a backup's contents.
func damage(t *testing.T, dir string) {
	t.Helper()
	for _, file := range filesBelow(t, dir) {
		info, err := os.Stat(file)
		if err == nil {
			err = os.Chmod(file, 0o600)
		}
		if err == nil {
			err = os.WriteFile(file, make([]byte, info.Size()), 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}
