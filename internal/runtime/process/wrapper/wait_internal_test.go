package wrapper

import (
	"bytes"
	"errors"
	"os"
	"syscall"
	"testing"
)

// pass sends a text, with the descriptors beside its first bytes, and reads it as a request.
func pass(t *testing.T, text []byte, fds ...int) (dir string, got []int, err error) {
	t.Helper()
	ends, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	if len(text) > 0 {
		head := min(len(text), headSize)
		err = syscall.Sendmsg(ends[0], text[:head], syscall.UnixRights(fds...), nil, 0)
		if err == nil && len(text) > head {
			_, err = syscall.Write(ends[0], text[head:])
		}
	}
	if err := errors.Join(err, syscall.Close(ends[0])); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := syscall.Close(ends[1]); err != nil {
			t.Fatal(err)
		}
	}()
	return receive(ends[1])
}

// FuzzRequests: whatever comes to a wrapper that waits is a whole request or none, and
// a whole one comes with its descriptors.
func FuzzRequests(f *testing.F) {
	frame, err := Frame(Request{Dir: "/w/a"})
	if err != nil {
		f.Fatal(err)
	}
	for _, seed := range [][]byte{frame, frame[:9], []byte("ffffffff{}"), []byte("00000002{}"), []byte("0000000x"), nil, bytes.Repeat([]byte("0"), 100)} {
		f.Add(seed)
	}
	null, err := os.Open(os.DevNull)
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { _ = null.Close() }) // opened for reading
	f.Fuzz(func(t *testing.T, text []byte) {
		dir, got, err := pass(t, text, int(null.Fd()), int(null.Fd()))
		for _, fd := range got {
			if err := syscall.Close(fd); err != nil {
				t.Fatal(err)
			}
		}
		if (err == nil) != (dir != "") {
			t.Fatalf("%q, %v", dir, err)
		}
		if err != nil {
			return
		}
		if len(got) != 2 {
			t.Errorf("%d descriptors", len(got))
		}
		again, err := Frame(Request{Dir: dir})
		if err != nil {
			t.Fatal(err)
		}
		if back, _, err := pass(t, again); err != nil || back != dir {
			t.Fatalf("%q, %q, %v", dir, back, err)
		}
	})
}
