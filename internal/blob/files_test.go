package blob_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"

	"tategu/internal/blob"
)

func checkFile(t *testing.T, path, want string) {
	t.Helper()
	got, err := os.ReadFile(path)
	if err != nil || string(got) != want {
		t.Errorf("%s = %q, %v, want %q", path, got, err, want)
	}
}

func TestDownload(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	for _, name := range []string{"one", "dir/a", "dir/sub/b", "dir/marker/", "directory/c"} {
		f.put(t, name, name)
	}
	dir := t.TempDir()
	for _, uri := range []string{"gs://bucket/one", "gs://bucket/dir", "gs://bucket/none", "gs://no-bucket/x"} {
		if err := f.Download(t.Context(), uri, dir); err != nil {
			t.Fatalf("%s: %v", uri, err)
		}
	}
	for _, name := range []string{"one", "dir/a", "dir/sub/b"} {
		checkFile(t, filepath.Join(dir, "bucket", name), name)
	}
	if info, err := os.Stat(filepath.Join(dir, "bucket/dir/marker")); err != nil || !info.IsDir() {
		t.Errorf("the folder marker is no folder: %v", err)
	}
	if _, err := os.Stat(filepath.Join(dir, "bucket/directory")); !os.IsNotExist(err) {
		t.Errorf("a neighbour with the same start came along: %v", err)
	}
	f.put(t, "one", "new")
	if err := f.Download(t.Context(), "gs://bucket/one", dir); err != nil {
		t.Fatal(err)
	}
	checkFile(t, filepath.Join(dir, "bucket/one"), "new")
}

func TestDownloadRefusesWhatCannotBeAFile(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	for _, name := range []string{"../up", "a/../../b", "/lead", "d//e", "./x", "a/.", strings.Repeat("n", 256), "a\x00b", "//"} {
		f.put(t, name, "evil")
		dir := filepath.Join(t.TempDir(), "inner")
		err := f.Download(t.Context(), "gs://bucket/"+name, dir)
		checkCode(t, "Download of "+name, err, codes.InvalidArgument)
		if err != nil && !strings.Contains(err.Error(), "gs://bucket/"+name) {
			t.Errorf("%v does not name the object", err)
		}
		if err := f.Delete(t.Context(), "bucket", name, 0, blob.Conditions{}); err != nil {
			t.Fatal(err)
		}
	}
}

// TestDownloadStaysInside: a link that a program left in its directory leads nowhere.
func TestDownloadStaysInside(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.put(t, "out/file", "evil")
	dir, outside := t.TempDir(), t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "bucket"), 0o750); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(outside, filepath.Join(dir, "bucket", "out")); err != nil {
		t.Fatal(err)
	}
	if err := f.Download(t.Context(), "gs://bucket/out/file", dir); err == nil {
		t.Error("a link out of the directory was followed")
	}
	if entries, err := os.ReadDir(outside); err != nil || len(entries) > 0 {
		t.Errorf("outside: %v, %v", entries, err)
	}
}

func TestUploadFile(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	path := filepath.Join(t.TempDir(), "f")
	if err := os.WriteFile(path, []byte("{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := f.UploadFile(t.Context(), path, "gs://bucket/dir/x.json", blob.Conditions{}); err != nil {
		t.Fatal(err)
	}
	f.checkData(t, "dir/x.json", "{}")
	o, err := f.Stat(t.Context(), "bucket", "dir/x.json", 0, blob.Conditions{})
	if err != nil || o.ContentType != "application/json" {
		t.Errorf("%+v, %v", o, err)
	}
	if err := f.UploadFile(t.Context(), path+"none", "gs://bucket/x", blob.Conditions{}); err == nil {
		t.Error("a missing file was uploaded")
	}
	checkCode(t, "a missing bucket", f.UploadFile(t.Context(), path, "gs://no-bucket/x", blob.Conditions{}), codes.NotFound)
}

func FuzzParseURI(f *testing.F) {
	for _, s := range []string{"gs://bucket/name", "gs://bucket", "gs://", "gs:///x", "bucket/name", "gs://b%2Fc/x", "gs://bucket//x"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		bucket, name, err := blob.ParseURI(s)
		if err != nil {
			return
		}
		if blob.CheckBucketName(bucket) != nil || s != "gs://"+bucket+"/"+name && s != "gs://"+bucket {
			t.Errorf("ParseURI(%q) = %q, %q", s, bucket, name)
		}
	})
}
