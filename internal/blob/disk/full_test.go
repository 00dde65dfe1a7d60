package disk_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"testing"

	"google.golang.org/grpc/codes"

	"tategu/internal/blob"
	"tategu/internal/blob/disk"
	"tategu/internal/resource"
	"tategu/internal/volume"
)

// TestFullVolume: what does not fit is refused by code and leaves nothing behind;
// logs may use a part of the reserve; what was there stays and can be removed.
func TestFullVolume(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	var free atomic.Int64
	free.Store(10 << 20)
	v := volume.New(20<<20, func() (int64, error) { return free.Load(), nil }, nil) // 1 MiB of reserve
	c, err := disk.Open(dir, disk.OnVolume(v))
	if err != nil {
		t.Fatal(err)
	}
	ctx := t.Context()
	kept, _, err := c.Create(ctx, bytes.NewReader(make([]byte, 100_000)))
	if err != nil {
		t.Fatal(err)
	}
	if n, err := c.Append(ctx, "a-draft-content", 0, bytes.NewReader(make([]byte, 1000))); n != 1000 || err != nil {
		t.Fatal(n, err)
	}
	// The disk fills while a transfer is under way.
	filling := func() *fills { return &fills{free: &free, left: 4 << 20} }
	full := func(what string, err error) {
		t.Helper()
		if resource.CodeOf(err) != codes.ResourceExhausted || !errors.Is(err, syscall.ENOSPC) {
			t.Errorf("%s on a full disk: %v", what, err)
		}
	}
	_, _, err = c.Create(ctx, filling())
	full("create", err)
	free.Store(10 << 20)
	n, err := c.Append(ctx, "a-draft-content", 1000, filling())
	full("append", err)
	if size, serr := c.Size(ctx, "a-draft-content"); n != 0 || size != 1000 || serr != nil {
		t.Errorf("%d bytes were kept, the content has %d, %v", n, size, serr)
	}
	if left, err := os.ReadDir(filepath.Join(dir, "tmp")); err != nil || len(left) != 0 {
		t.Errorf("%d temporary files are left, %v", len(left), err)
	}
	free.Store(700 << 10)
	_, err = c.Append(ctx, "a-draft-content", 1000, bytes.NewReader([]byte("x")))
	full("a small append", err)
	if _, err := c.Append(ctx, blob.LogPrefix+"content", 0, bytes.NewReader([]byte("line"))); err != nil {
		t.Errorf("a log may use of the reserve: %v", err)
	}
	free.Store(400 << 10)
	_, err = c.Append(ctx, blob.LogPrefix+"content", 4, bytes.NewReader([]byte("line")))
	full("a log", err)
	if size, err := c.Size(ctx, kept); size != 100_000 || err != nil {
		t.Error(size, err)
	}
	if err := c.Remove(ctx, kept); err != nil {
		t.Errorf("remove from a full disk: %v", err)
	}
}

// fills gives bytes and takes them from the disk.
type fills struct {
	free *atomic.Int64
	left int
}

func (f *fills) Read(p []byte) (int, error) {
	n := min(len(p), f.left)
	if f.left -= n; f.left < 2<<20 {
		f.free.Store(1 << 20)
	}
	return n, nil
}
