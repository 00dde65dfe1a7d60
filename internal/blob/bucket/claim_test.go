package bucket

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	"tategu/internal/resource"
)

func testClaim(t *testing.T, url string) {
	t.Helper()
	open := func() *Content {
		t.Helper()
		c, err := Open(t.Context(), url, logger(t), time.Now)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		return c
	}
	refused(t, open().Claim(t.Context(), "first", false), "has lost its tategu.json")
	for _, isNew := range []bool{true, false, true} {
		if err := open().Claim(t.Context(), "first", isNew); err != nil {
			t.Fatal(err)
		}
	}
	for _, isNew := range []bool{true, false} {
		refused(t, open().Claim(t.Context(), "second", isNew), "another data directory", "installation first", "?prefix= of its own")
	}
	c := open()
	if _, _, err := c.Create(t.Context(), strings.NewReader("x")); err != nil {
		t.Fatal(err)
	}
	if err := c.remove(t.Context(), markerKey); err != nil {
		t.Fatal(err)
	}
	refused(t, open().Claim(t.Context(), "first", true), "without a tategu.json", "choose another ?prefix=")
	if err := c.bucket.WriteAll(t.Context(), markerKey, []byte("{}"), nil); err != nil {
		t.Fatal(err)
	}
	refused(t, open().Claim(t.Context(), "first", true), "was not written by tategu")
}

func TestClaim(t *testing.T) {
	t.Parallel()
	testClaim(t, "file://"+t.TempDir())
}

// TestClaimFinishesRemovals: a removal that waited for a reader when the process was
// killed is done by the next one.
func TestClaimFinishesRemovals(t *testing.T) {
	t.Parallel()
	url := "file://" + t.TempDir()
	c := opened(t, url)
	if _, err := c.Append(t.Context(), id, 0, strings.NewReader("x")); err != nil {
		t.Fatal(err)
	}
	r, err := c.Open(t.Context(), id, 0, -1)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Remove(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	_ = r // never closed: the process is gone
	next := opened(t, url)
	if n := count(t, next); n != 0 {
		t.Errorf("%d contents are left", n)
	}
}

func count(t *testing.T, c *Content) (n int) {
	t.Helper()
	if err := c.Walk(t.Context(), func(string, time.Time) error { n++; return nil }); err != nil {
		t.Fatal(err)
	}
	return n
}

// TestUnmounted: a directory that lost its file system is not taken for an empty store.
func TestUnmounted(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "mount")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	c := opened(t, "file://"+dir)
	if err := os.Rename(dir, dir+"-away"); err != nil {
		t.Fatal(err)
	}
	for range 2 { // without the mount point, and with an empty one
		_, err := c.Append(t.Context(), id, 0, strings.NewReader("x"))
		refused(t, err, "does not exist")
		if _, err := c.Size(t.Context(), id); resource.CodeOf(err) != codes.Unavailable || errors.Is(err, fs.ErrNotExist) {
			t.Errorf("Size = %v", err)
		}
		if err := os.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
	}
}

// TestReadersOutliveChanges: what was opened is read to its end though the content is
// removed, and though its segments are merged.
func TestReadersOutliveChanges(t *testing.T) {
	t.Parallel()
	c := memory(t)
	c.splitSize, c.fan, c.maxMerged = 40, 3, 30
	first := bytes.Repeat([]byte("a"), 100)
	if _, err := c.Append(t.Context(), id, 0, bytes.NewReader(first)); err != nil {
		t.Fatal(err)
	}
	want := bytes.Clone(first)
	add := func() {
		t.Helper()
		data := []byte{byte('0' + len(want)%10)}
		if _, err := c.Append(t.Context(), id, int64(len(want)), bytes.NewReader(data)); err != nil {
			t.Fatal(err)
		}
		want = append(want, data...)
	}
	add()
	add()
	r, err := c.Open(t.Context(), id, 0, -1)
	if err != nil {
		t.Fatal(err)
	}
	wantThen := bytes.Clone(want)
	for range 30 { // merges what r has not opened yet
		add()
	}
	if err := c.Remove(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	if n := count(t, c); n != 0 {
		t.Errorf("Walk gives %d removed contents", n)
	}
	got := make([]byte, 0, len(wantThen))
	buf := make([]byte, 7)
	for {
		n, err := r.Read(buf)
		got = append(got, buf[:n]...)
		if err != nil {
			break
		}
	}
	if !bytes.Equal(got, wantThen) {
		t.Errorf("read %q, want %q", got, wantThen)
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	if live, stale, err := c.list(t.Context(), id); err != nil || len(live)+len(stale) > 0 {
		t.Errorf("%d segments are left after the last reader, %v", len(live)+len(stale), err)
	}
}

// TestRemovedAndNamedAnew: a content made again while the removed one is still read
// is the new one alone.
func TestRemovedAndNamedAnew(t *testing.T) {
	t.Parallel()
	c := memory(t)
	if _, err := c.Append(t.Context(), id, 0, strings.NewReader("old and long")); err != nil {
		t.Fatal(err)
	}
	r, err := c.Open(t.Context(), id, 0, -1)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Remove(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Append(t.Context(), id, 0, strings.NewReader("new")); err != nil {
		t.Fatal(err)
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	if got, err := readAll(t, c, id); err != nil || string(got) != "new" {
		t.Errorf("read %q, %v", got, err)
	}
}

// TestSmallAppendsAreMerged: a log of thousands of lines stays a few dozen objects, and
// what a merge writes again stays bounded too.
func TestSmallAppendsAreMerged(t *testing.T) {
	t.Parallel()
	c := memory(t)
	size := int64(0)
	const lines = 5000
	for range lines {
		n, err := c.Append(t.Context(), id, size, strings.NewReader("a line of a log\n"))
		if err != nil {
			t.Fatal(err)
		}
		size += n
	}
	live, stale, err := c.list(t.Context(), id)
	if err != nil || len(stale) > 0 || live.size() != size {
		t.Fatalf("%d of %d bytes, %d stale, %v", live.size(), size, len(stale), err)
	}
	if len(live) > 4*16 {
		t.Errorf("%d appends are %d segments", lines, len(live))
	}
	c.ids.forget(id)
	if got, err := readAll(t, c, id); err != nil || int64(len(got)) != size {
		t.Errorf("read %d bytes, %v", len(got), err)
	}
}
