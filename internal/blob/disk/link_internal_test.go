package disk

import (
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// TestLinkCopiesWhereThereIsNone: file systems without links, and files that have
// as many as they may.
func TestLinkCopiesWhereThereIsNone(t *testing.T) {
	t.Parallel()
	for _, errno := range []syscall.Errno{syscall.EMLINK, syscall.EPERM, syscall.ENOTSUP} {
		c, err := Open(filepath.Join(t.TempDir(), "content"))
		if err != nil {
			t.Fatal(err)
		}
		c.link = func(from, to string) error { return &os.LinkError{Op: "link", Old: from, New: to, Err: errno} }
		id, _, err := c.Create(t.Context(), strings.NewReader("data"))
		if err != nil {
			t.Fatal(err)
		}
		second, err := c.Link(t.Context(), id)
		if err != nil || second == id {
			t.Fatalf("%v: Link = %q, %v", errno, second, err)
		}
		if err := c.Remove(t.Context(), id); err != nil {
			t.Fatal(err)
		}
		r, err := c.Open(t.Context(), second, 0, -1)
		if err != nil {
			t.Fatal(err)
		}
		data, err := io.ReadAll(r)
		if err != nil || string(data) != "data" {
			t.Errorf("%v: the copy is %q, %v", errno, data, err)
		}
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	}
}
