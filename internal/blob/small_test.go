package blob_test

import (
	"errors"
	"io"
	"io/fs"
	"strconv"
	"strings"
	"testing"
	"time"

	"tategu/internal/blob"
	"tategu/internal/store"
)

// TestSmallAndLarge: on either side of the bound an object reads, copies, composes
// and goes the same, and leaves nothing behind.
func TestSmallAndLarge(t *testing.T) {
	t.Parallel()
	for _, size := range []int{0, 1, 16 << 10, 16<<10 + 1, 1 << 20} {
		t.Run(strconv.Itoa(size), func(t *testing.T) {
			t.Parallel()
			f := newFixture(t)
			data := strings.Repeat("0123456789abcdef", size/16+1)[:size]
			o := f.put(t, "a", data)
			if o.Size != int64(size) || o.CRC32C != crcOf(data) || len(o.MD5) != 16 {
				t.Errorf("%+v", o)
			}
			wantFiles := 0
			if size > 16<<10 {
				wantFiles = 1
			}
			if n := f.files(t); n != wantFiles {
				t.Errorf("%d files, want %d", n, wantFiles)
			}
			f.reopen(t)
			f.checkData(t, "a", data)
			if _, err := f.Copy(t.Context(), o, blob.Object{Bucket: "bucket", Name: "b"}, blob.Conditions{}); err != nil {
				t.Fatal(err)
			}
			if err := f.Delete(t.Context(), "bucket", "a", 0, blob.Conditions{}); err != nil {
				t.Fatal(err)
			}
			f.checkData(t, "b", data)
			f.put(t, "b", "other")
			if err := f.Delete(t.Context(), "bucket", "b", 0, blob.Conditions{}); err != nil {
				t.Fatal(err)
			}
			if n := f.contents(t); n != 0 {
				t.Errorf("%d contents left", n)
			}
		})
	}
}

// files counts the contents that are files.
func (f *fixture) files(t *testing.T) (n int) {
	t.Helper()
	if err := f.content.Walk(t.Context(), func(string, time.Time) error { n++; return nil }); err != nil {
		t.Fatal(err)
	}
	return n
}

// TestRangesOfSmall: offsets and lengths beyond the end give what there is.
func TestRangesOfSmall(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	o := f.put(t, "a", "0123456789")
	for _, tt := range []struct {
		offset, length int64
		want           string
	}{{0, -1, "0123456789"}, {3, 4, "3456"}, {8, 10, "89"}, {10, -1, ""}, {20, 5, ""}} {
		r, err := f.Open(t.Context(), o, tt.offset, tt.length)
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(r)
		if err = errors.Join(err, r.Close()); err != nil || string(got) != tt.want {
			t.Errorf("%d+%d: %q, %v, want %q", tt.offset, tt.length, got, err, tt.want)
		}
	}
}

// TestSweepOfRows: a small content that no object names goes when it is old.
func TestSweepOfRows(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.put(t, "kept", "k")
	err := f.rows.Update(t.Context(), func(tx store.Tx) error {
		return tx.Put(t.Context(), store.Row{Kind: "content", Key: "row-0123456789", Data: []byte("orphan")})
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Sweep(t.Context(), time.Hour); err != nil || f.contents(t) != 2 {
		t.Errorf("young: %d contents, %v", f.contents(t), err)
	}
	f.clock.add(2 * time.Hour)
	if done, err := f.Sweep(t.Context(), time.Hour); err != nil || done.Contents != 1 || f.contents(t) != 1 {
		t.Errorf("old: %+v, %d contents, %v", done, f.contents(t), err)
	}
	f.checkData(t, "kept", "k")
}

// TestSmallIsGone: a row that went between Stat and Open reads as an object that
// was overwritten, like a file.
func TestSmallIsGone(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	o := f.put(t, "a", "1")
	f.put(t, "a", "2")
	if _, err := f.Open(t.Context(), o, 0, -1); err == nil || errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Open of what is gone: %v", err)
	}
}
