package builder

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"testing"

	"tategu/internal/vector/ann"
)

// TestOrphan: a build whose server ends while it is at work ends too.
func TestOrphan(t *testing.T) {
	t.Parallel()
	in, from := io.Pipe()
	done := make(chan error, 1)
	var out bytes.Buffer
	go func() {
		done <- serve(t.Context(), in, &out, func(n int) error { return fmt.Errorf("niceness %d is not for us", n) })
	}()
	o := options()
	o.Threads = 1
	if err := feed(from, order{Path: filepath.Join(t.TempDir(), "s"), Awaited: true, Options: o}, some(100_000)); err != nil {
		t.Fatal(err)
	}
	if err := from.Close(); err != nil { // as the system does for who is killed
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	var a answer
	if err := json.Unmarshal(out.Bytes(), &a); err != nil || a.Error != errOrphan.Error() || a.Priority != "niceness 5 is not for us" {
		t.Errorf("it said %s, %v", out.Bytes(), err)
	}
}

func willing(int) error { return nil }

// TestCut: rows that end early are no segment.
func TestCut(t *testing.T) {
	t.Parallel()
	var all bytes.Buffer
	if err := feed(&all, order{Path: filepath.Join(t.TempDir(), "s"), Options: options()}, some(100)); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := serve(t.Context(), bytes.NewReader(all.Bytes()[:all.Len()-1]), &out, willing); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(out.String(), "end before their end") {
		t.Errorf("it said %s", out.String())
	}
	if err := serve(t.Context(), strings.NewReader("{"), &out, willing); err == nil {
		t.Error("it took half an order")
	}
}

// FuzzRows: whatever a build is sent, it gives rows or an error; rows that are whole are the
// same when they are sent on.
func FuzzRows(f *testing.F) {
	var all bytes.Buffer
	if err := ann.WriteRows(&all, some(3), 8); err != nil {
		f.Fatal(err)
	}
	f.Add(all.Bytes())
	f.Add([]byte{1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1})
	f.Fuzz(func(t *testing.T, b []byte) {
		var once, twice bytes.Buffer
		if err := ann.WriteRows(&once, ann.ReadRows(bufio.NewReader(bytes.NewReader(b)), 8), 8); err != nil {
			if !errors.Is(err, ann.ErrDamaged) {
				t.Fatal(err)
			}
			return
		}
		if err := ann.WriteRows(&twice, ann.ReadRows(bufio.NewReader(bytes.NewReader(once.Bytes())), 8), 8); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(once.Bytes(), twice.Bytes()) {
			t.Errorf("%x was sent on as %x", once.Bytes(), twice.Bytes())
		}
	})
}
