package disk_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"tategu/internal/blob"
	"tategu/internal/blob/blobtest"
	"tategu/internal/blob/disk"
)

func open(tb testing.TB, dir string) *disk.Content {
	tb.Helper()
	c, err := disk.Open(dir)
	if err != nil {
		tb.Fatal(err)
	}
	return c
}

func TestContract(t *testing.T) {
	t.Parallel()
	blobtest.Run(t, func(t *testing.T) blob.Content {
		t.Helper()
		return open(t, filepath.Join(t.TempDir(), "content"))
	})
}

func TestOpenRemovesWhatAKillLeft(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	c := open(t, dir)
	id, _, err := c.Create(t.Context(), strings.NewReader("kept"))
	if err != nil {
		t.Fatal(err)
	}
	torn := filepath.Join(dir, "tmp", "new-1")
	if err := os.WriteFile(torn, []byte("torn"), 0o600); err != nil {
		t.Fatal(err)
	}
	c = open(t, dir)
	if _, err := os.Stat(torn); !os.IsNotExist(err) {
		t.Errorf("the torn file is still there: %v", err)
	}
	if size, err := c.Size(t.Context(), id); err != nil || size != 4 {
		t.Errorf("Size = %d, %v", size, err)
	}
}

// zeros is an endless file.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

// TestMemoryIsBounded: a large content costs a buffer and not its size.
func TestMemoryIsBounded(t *testing.T) {
	c := open(t, t.TempDir())
	const size = 64 << 20
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	id, d, err := c.Create(t.Context(), io.LimitReader(zeros{}, size))
	if err != nil || d.Size != size {
		t.Fatalf("%+v, %v", d, err)
	}
	r, err := c.Open(t.Context(), id, 0, -1)
	if err != nil {
		t.Fatal(err)
	}
	if n, err := io.Copy(io.Discard, r); err != nil || n != size {
		t.Fatalf("%d, %v", n, err)
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	runtime.ReadMemStats(&after)
	if used := after.TotalAlloc - before.TotalAlloc; used > 8<<20 {
		t.Errorf("%d bytes up and down allocated %d bytes", size, used)
	}
}

func BenchmarkCreate(b *testing.B) {
	for _, size := range []int{1 << 10, 8 << 20} {
		b.Run(fmt.Sprintf("size=%d", size), func(b *testing.B) {
			c := open(b, b.TempDir())
			data := make([]byte, size)
			b.SetBytes(int64(size))
			for b.Loop() {
				if _, _, err := c.Create(context.Background(), bytes.NewReader(data)); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
