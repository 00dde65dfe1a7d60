package blob_test

import (
	"io"
	"os"
	"strings"
	"testing"

	"tategu/internal/blob"
)

// TestPlace: large contents are in files, which have the bytes from an offset on; small
// ones are in none.
func TestPlace(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	data := strings.Repeat("0123456789", 4000)
	o := f.put(t, "large", data)
	f.put(t, "small", "x")
	check := func(r io.ReadCloser, err error, want string) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		path, offset, ok := blob.Place(r)
		text, err := os.ReadFile(path)
		if err != nil || !ok || string(text[offset:][:len(want)]) != want {
			t.Errorf("%q from %d, %t, %v", path, offset, ok, err)
		}
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	}
	_, r, err := f.OpenLive(t.Context(), "bucket", "large")
	check(r, err, data)
	r, err = f.Open(t.Context(), o, 5, 10)
	check(r, err, data[5:15])
	if _, r, err = f.OpenLive(t.Context(), "bucket", "small"); err != nil {
		t.Fatal(err)
	}
	if path, _, ok := blob.Place(r); ok {
		t.Errorf("a small object is in %s", path)
	}
	if err := r.Close(); err != nil {
		t.Error(err)
	}
}
