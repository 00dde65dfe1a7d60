package api_test

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"

	"tategu/internal/api"
	"tategu/internal/resource"
)

// paced gives parts of a size, with a pause before each.
type paced struct {
	in    io.Reader
	part  int
	pause time.Duration
}

func (p paced) Read(b []byte) (int, error) {
	<-time.After(p.pause)
	return p.in.Read(b[:min(p.part, len(b))])
}

// TestReceive passes on what comes fast, and waits for what does not.
func TestReceive(t *testing.T) {
	t.Parallel()
	const size = 1 << 20
	for name, tc := range map[string]struct {
		size, length int
		major        int
		pause        time.Duration // for 32 KiB
		whole        bool
	}{
		"fast":               {size, size, 1, time.Microsecond, false},
		"20 ms are left":     {size, size, 1, 600 * time.Microsecond, false},
		"a slow caller":      {size, size, 1, 30 * time.Millisecond, true},
		"small":              {100 << 10, 100 << 10, 1, time.Microsecond, true},
		"of unknown length":  {size, -1, 1, time.Microsecond, true},
		"by HTTP/2":          {size, size, 2, time.Microsecond, true},
		"larger than memory": {6 << 20, 6 << 20, 1, time.Microsecond, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				want := bytes.Repeat([]byte("0123456789abcdef"), tc.size/16)
				r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://localhost/", http.NoBody)
				if err != nil {
					t.Fatal(err)
				}
				r.Body, r.ContentLength, r.ProtoMajor = io.NopCloser(paced{bytes.NewReader(want), 32 << 10, tc.pause}), int64(tc.length), tc.major
				var bodies api.Bodies
				for range 2 { // the second in the memory of the first
					r.Body = io.NopCloser(paced{bytes.NewReader(want), 32 << 10, tc.pause})
					body, upload, done, err := bodies.Receive(r)
					if err != nil || (upload == nil) != tc.whole {
						t.Fatalf("whole: %v, %v", upload == nil, err)
					}
					if upload != nil {
						if upload.Arrived() || upload.Size() != tc.size {
							t.Errorf("%d bytes, arrived: %v", upload.Size(), upload.Arrived())
						}
						if body, err = upload.Whole(); err != nil {
							t.Fatal(err)
						}
					}
					if !bytes.Equal(body, want) {
						t.Errorf("%d bytes", len(body))
					}
					done()
				}
			})
		})
	}
}

// TestReceiveBreaksOff: as of one that is read, it is the caller's fault.
func TestReceiveBreaksOff(t *testing.T) {
	t.Parallel()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://localhost/", http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	half := bytes.NewReader(make([]byte, 200<<10))
	r.Body, r.ContentLength = io.NopCloser(paced{io.MultiReader(half, failing{}), 64 << 10, 0}), 400<<10
	bodies := api.Bodies{Within: time.Hour} // on a busy machine too
	_, upload, done, err := bodies.Receive(r)
	if err != nil || upload == nil {
		t.Fatalf("%v, %v", upload, err)
	}
	if _, err := upload.Whole(); resource.CodeOf(err) != codes.InvalidArgument {
		t.Errorf("got %v", err)
	}
	done()
}

type failing struct{}

func (failing) Read([]byte) (int, error) { return 0, errors.New("connection reset") }
