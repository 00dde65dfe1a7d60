package api_test

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"sync"
	"testing"
	"testing/iotest"

	"google.golang.org/grpc/codes"

	"tategu/internal/api"
	"tategu/internal/resource"
)

// FuzzReadBody: a body is read whole, however it comes, and one that is shorter
// than it said is the caller's fault.
func FuzzReadBody(f *testing.F) {
	f.Add([]byte("abc"), int64(3))
	f.Add([]byte(""), int64(0))
	f.Add([]byte("abc"), int64(-1))
	f.Add([]byte("abc"), int64(9))
	f.Add(bytes.Repeat([]byte("x"), 5000), int64(-1))
	f.Fuzz(func(t *testing.T, text []byte, length int64) {
		if length < -1 || length >= 0 && length < int64(len(text)) {
			t.Skip("net/http gives no body like that")
		}
		short := int64(len(text)) < length
		in := iotest.HalfReader(bytes.NewReader(text))
		if short {
			in = io.MultiReader(in, iotest.ErrReader(io.ErrUnexpectedEOF))
		}
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://localhost/", http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		r.Body, r.ContentLength = io.NopCloser(in), length
		got, err := api.ReadBody(r)
		switch {
		case short:
			if resource.CodeOf(err) != codes.InvalidArgument {
				t.Fatalf("a body that broke off: %v", err)
			}
		case err != nil || !bytes.Equal(got, text):
			t.Fatalf("%d bytes of %d, %v", len(got), len(text), err)
		}
	})
}

func TestBodyLargerThanAllowed(t *testing.T) {
	t.Parallel()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://localhost/", bytes.NewReader(make([]byte, 100)))
	if err != nil {
		t.Fatal(err)
	}
	r.Body = http.MaxBytesReader(nil, r.Body, 10)
	_, err = api.ReadBody(r)
	if _, ok := errors.AsType[*http.MaxBytesError](err); !ok {
		t.Errorf("got %v", err)
	}
}

// TestBodies reads several bodies at once and one after the other: none shows in
// another.
func TestBodies(t *testing.T) {
	t.Parallel()
	var bodies api.Bodies
	var all sync.WaitGroup
	for i := range 8 {
		all.Go(func() {
			for k := range 200 {
				want := bytes.Repeat([]byte{byte('a' + i)}, 1+(k*k*977)%70_000)
				r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://localhost/", bytes.NewReader(want))
				if err != nil {
					t.Error(err)
					return
				}
				got, done, err := bodies.Read(r)
				if err != nil || !bytes.Equal(got, want) {
					t.Errorf("%d bytes of %d, %v", len(got), len(want), err)
				}
				done()
			}
		})
	}
	all.Wait()
}
