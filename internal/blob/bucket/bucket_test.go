package bucket

import (
	"errors"
	"io"
	"log/slog"
	"runtime"
	"testing"
	"time"

	"gocloud.dev/blob/memblob"

	"tategu/internal/blob"
	"tategu/internal/blob/blobtest"
)

func logger(t *testing.T) *slog.Logger {
	t.Helper()
	return slog.New(slog.NewTextHandler(t.Output(), nil))
}

// small makes limits that tests reach: contents become many objects, and merges
// happen after a few appends.
func small(c *Content) *Content {
	c.splitSize, c.fan, c.maxMerged = 300_000, 3, 100_000
	return c
}

func memory(t *testing.T) *Content {
	t.Helper()
	c := New(memblob.OpenBucket(nil), Address{Scheme: "mem", Host: "test"}, logger(t), time.Now)
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return c
}

// opened opens a URL and claims it.
func opened(t *testing.T, url string) *Content {
	t.Helper()
	c, err := Open(t.Context(), url, logger(t), time.Now)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	if err := c.Claim(t.Context(), "test-installation", true); err != nil {
		t.Fatal(err)
	}
	return c
}

// TestMemoryIsBounded: a large content costs buffers and not its size.
func TestMemoryIsBounded(t *testing.T) {
	c := opened(t, "file://"+t.TempDir())
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
	n, err := io.Copy(io.Discard, r)
	if err = errors.Join(err, r.Close()); err != nil || n != size {
		t.Fatalf("%d, %v", n, err)
	}
	runtime.ReadMemStats(&after)
	if used := after.TotalAlloc - before.TotalAlloc; used > 8<<20 {
		t.Errorf("%d bytes up and down allocated %d bytes", size, used)
	}
}

func TestContract(t *testing.T) {
	t.Parallel()
	for name, open := range map[string]func(*testing.T) *Content{
		"memory": memory,
		"file":   func(t *testing.T) *Content { t.Helper(); return opened(t, "file://"+t.TempDir()) },
		"file with a prefix": func(t *testing.T) *Content {
			t.Helper()
			return opened(t, "file://"+t.TempDir()+"?prefix=a/b")
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			blobtest.Run(t, func(t *testing.T) blob.Content { t.Helper(); return open(t) })
		})
		t.Run(name+", small limits", func(t *testing.T) {
			t.Parallel()
			blobtest.Run(t, func(t *testing.T) blob.Content { t.Helper(); return small(open(t)) })
		})
	}
}
