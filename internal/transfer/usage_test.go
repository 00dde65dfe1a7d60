package transfer

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"tategu/internal/blob"
)

// TestVersions: noncurrent generations are counted apart, selected when asked for,
// and can be named.
func TestVersions(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	if _, err := w.blobs.UpdateBucket(t.Context(), "bucket", blob.Conditions{}, func(b *blob.Bucket) error { b.Versioning = true; return nil }); err != nil {
		t.Fatal(err)
	}
	w.put(t, "a/x", []byte("1"))
	first, err := w.Stat(t.Context(), URL{Bucket: "bucket", Name: "a/x"})
	if err != nil {
		t.Fatal(err)
	}
	w.put(t, "a/x", []byte("22"))
	w.put(t, "a/xy", []byte("333"))
	w.put(t, "top", []byte("4444"))
	var lines []string
	err = w.Usage(t.Context(), URL{Bucket: "bucket"}, func(u Usage) error {
		lines = append(lines, fmt.Sprintf("%s %d/%d %d/%d", u.URL, u.Bytes, u.Objects, u.OldBytes, u.Old))
		return nil
	})
	if want := []string{"gs://bucket/a/ 5/2 1/1", "gs://bucket/ 9/3 1/1"}; err != nil || !slices.Equal(lines, want) {
		t.Errorf("usage %q, %v, want %q", lines, err, want)
	}
	count := func(u URL, recursive, versions bool) (n int) {
		for _, err := range w.Select(t.Context(), u, recursive, versions) {
			if err != nil {
				t.Errorf("%s: %v", u, err)
			}
			n++
		}
		return n
	}
	for _, tt := range []struct {
		name                string
		recursive, versions bool
		want                int
	}{{"a/x", false, false, 1}, {"a/x", false, true, 2}, {"a", true, false, 2}, {"a", true, true, 3}, {"a/*", false, false, 2}, {"**", false, true, 4}, {"", true, false, 3}} {
		if got := count(URL{Bucket: "bucket", Name: tt.name}, tt.recursive, tt.versions); got != tt.want {
			t.Errorf("%q, recursive %v, versions %v: %d, want %d", tt.name, tt.recursive, tt.versions, got, tt.want)
		}
	}
	var b strings.Builder
	if err := w.Download(t.Context(), first, &b, nil); err != nil || b.String() != "1" {
		t.Errorf("the first generation: %q, %v", b.String(), err)
	}
	at := URL{Bucket: "bucket", Name: "a/x", Generation: first.Generation}
	if err := w.Remove(t.Context(), at, 0); err != nil {
		t.Error(err)
	}
	if n := count(URL{Bucket: "bucket", Name: "a/x"}, false, true); n != 1 {
		t.Errorf("%d generations after one was removed", n)
	}
}

// TestComplete gives what a name may go on with.
func TestComplete(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for _, name := range []string{"a/x", "a/y", "ab", "b"} {
		w.put(t, name, nil)
	}
	for typed, want := range map[string][]string{
		"g": {"gs://"}, "gs://": {"gs://bucket/"}, "gs://bu": {"gs://bucket/"}, "gs://bucket/a": {"gs://bucket/a/", "gs://bucket/ab"},
		"gs://bucket/a/": {"gs://bucket/a/x", "gs://bucket/a/y"}, "gs://other": nil, "file": nil,
	} {
		if got, err := w.Complete(t.Context(), "p", typed); err != nil || !slices.Equal(got, want) {
			t.Errorf("Complete(%q) = %q, %v, want %q", typed, got, err, want)
		}
	}
}
