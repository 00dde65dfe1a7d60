package http1

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
)

// coming is the far side of an upload: a caller who sends parts when the test says so.
type coming struct {
	*Upload

	parts chan []byte // closed = the caller has gone
	asked chan struct{}
}

var errGone = errors.New("the caller has gone")

func upload(first []byte, size int) *coming {
	c := &coming{parts: make(chan []byte), asked: make(chan struct{}, 1)}
	var rest []byte
	c.Upload = NewUpload(first, size, func(p []byte) (int, error) {
		if len(rest) == 0 {
			select {
			case c.asked <- struct{}{}:
			default:
			}
			part, ok := <-c.parts
			if !ok {
				return 0, errGone
			}
			rest = part
		}
		n := copy(p, rest)
		rest = rest[n:]
		return n, nil
	})
	return c
}

func numbers(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i * 7919 >> 5)
	}
	return b
}

// TestUploadReaders has many wait for one body at the same time.
func TestUploadReaders(t *testing.T) {
	t.Parallel()
	want := numbers(300_001)
	u := upload(bytes.Clone(want[:3]), len(want))
	go func() {
		for at := 3; at < len(want); at += 7001 {
			u.parts <- want[at:min(at+7001, len(want))]
		}
	}()
	var all sync.WaitGroup
	for i := range 8 {
		all.Go(func() {
			if b, err := u.atLeast(i * 40_000); err != nil || len(b) < i*40_000 || !bytes.Equal(b, want[:len(b)]) {
				t.Errorf("%d bytes, %v", len(b), err)
			}
			if b, err := u.Whole(); err != nil || !bytes.Equal(b, want) {
				t.Errorf("%d bytes, %v", len(b), err)
			}
		})
	}
	all.Wait()
	if !u.Arrived() || u.Broken() || !bytes.Equal(u.Close(), want) {
		t.Error("it is not whole")
	}
}

func TestUploadReadErrors(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		read func(p []byte) (int, error)
		err  error
	}{
		"ends early":            {func([]byte) (int, error) { return 0, io.EOF }, io.ErrUnexpectedEOF},
		"ends with a part":      {func([]byte) (int, error) { return 1, io.EOF }, io.ErrUnexpectedEOF},
		"breaks":                {func([]byte) (int, error) { return 0, errGone }, errGone},
		"gives nothing":         {func([]byte) (int, error) { return 0, nil }, io.ErrNoProgress},
		"whole with an error":   {func(p []byte) (int, error) { return len(p), errGone }, nil},
		"whole with its end":    {func(p []byte) (int, error) { return len(p), io.EOF }, nil},
		"whole without any end": {func(p []byte) (int, error) { return len(p), nil }, nil},
	} {
		u := NewUpload(make([]byte, 2, 10), 10, tc.read)
		if _, err := u.Whole(); !errors.Is(err, tc.err) || u.Broken() != (tc.err != nil) || u.Arrived() != (tc.err == nil) {
			t.Errorf("%s: %v", name, err)
		}
		u.Close()
	}
}

func (c *coming) request() *Request {
	return &Request{Method: http.MethodPost, Path: "/p", Upload: c.Upload}
}

// TestUploadPasses sends a body on before it is there: the server has seen its beginning
// when the caller sends the rest. The connection serves the next request.
func TestUploadPasses(t *testing.T) {
	t.Parallel()
	seen := make(chan string, 2)
	address, conns := serve(t, func(w http.ResponseWriter, r *http.Request) {
		first := make([]byte, 10)
		_, _ = io.ReadFull(r.Body, first)
		seen <- string(first)
		rest, err := io.ReadAll(r.Body)
		if err != nil || r.ContentLength != int64(10+len(rest)) {
			t.Errorf("%d of %d bytes, %v", len(rest), r.ContentLength, err)
		}
		_, _ = w.Write(append(first, rest...))
	})
	c := client(t)
	for range 2 {
		want := numbers(3*piece + 1)
		u := upload(bytes.Clone(want[:piece]), len(want))
		go func() {
			<-seen
			u.parts <- want[piece : piece+100]
			u.parts <- want[piece+100:]
		}()
		resp, err := c.Do(t.Context(), address, u.request())
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(resp.Body)
		if err = errors.Join(err, resp.Body.Close()); err != nil || !bytes.Equal(got, want) {
			t.Fatalf("%d bytes, %v", len(got), err)
		}
		u.Close()
	}
	if n := conns.Load(); n != 1 {
		t.Errorf("%d connections", n)
	}
}

// TestUploadBreaksOff: a server never takes a part for the whole, and it is not blamed.
func TestUploadBreaksOff(t *testing.T) {
	t.Parallel()
	ends := make(chan error, 1)
	address, conns := serve(t, func(_ http.ResponseWriter, r *http.Request) {
		_, err := io.Copy(io.Discard, r.Body)
		ends <- err
	})
	c := client(t)
	u := upload(numbers(piece), 2*piece)
	go func() {
		<-u.asked
		close(u.parts)
	}()
	_, err := c.Do(t.Context(), address, u.request())
	if _, ours := errors.AsType[*Error](err); ours || !errors.Is(err, errGone) {
		t.Errorf("got %v", err)
	}
	if err := <-ends; err == nil {
		t.Error("the server saw a whole body")
	}
	u.Close()
	if status, _, err := ask(t.Context(), c, address, ""); err != nil || status != http.StatusOK || conns.Load() != 2 {
		t.Errorf("then %d, %v by %d connections", status, err, conns.Load())
	}
}

// TestUploadServerGone: the request may have been seen, and all of it can be had for the
// next server.
func TestUploadServerGone(t *testing.T) {
	t.Parallel()
	address := listen(t, func(_ int, c net.Conn) {
		_, _ = http.ReadRequest(bufio.NewReader(c)) // the rest stays unread: the connection is reset
	})
	want := numbers(2 * piece)
	u := upload(bytes.Clone(want[:piece]), len(want))
	_, err := client(t).Do(t.Context(), address, u.request())
	if e, ok := errors.AsType[*Error](err); !ok || !e.Sent || e.Malformed {
		t.Errorf("got %v", err)
	}
	go func() { u.parts <- want[piece:] }()
	if got, err := u.Whole(); err != nil || !bytes.Equal(got, want) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	u.Close()
}

// TestUploadAnsweredEarly: an answer comes before the request is there, and its connection
// is not used again.
func TestUploadAnsweredEarly(t *testing.T) {
	t.Parallel()
	for name, text := range map[string]string{"with a body": "big", "without": ""} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			address := listen(t, func(_ int, c net.Conn) {
				in := bufio.NewReader(c)
				if _, err := http.ReadRequest(in); err != nil {
					return
				}
				_, _ = io.WriteString(c, "HTTP/1.1 413 Too Large\r\nContent-Length: "+string(rune('0'+len(text)))+"\r\n\r\n"+text)
				_, _ = io.Copy(io.Discard, in)
			})
			c := client(t)
			u := upload(numbers(piece), 3*piece)
			resp, err := c.Do(t.Context(), address, u.request())
			if err != nil {
				t.Fatal(err)
			}
			got, err := io.ReadAll(resp.Body)
			if err = errors.Join(err, resp.Body.Close()); err != nil || resp.Status != 413 || string(got) != text {
				t.Errorf("got %d %q, %v", resp.Status, got, err)
			}
			if c.take(address) != nil {
				t.Error("the connection waits for the next request, in the middle of this one")
			}
			go func() { u.parts <- numbers(2 * piece) }()
			u.Close()
		})
	}
}

// TestUploadGivenUp: a server that has answered is left alone when the exchange is ended,
// also while whoever has its answer waits for the caller.
func TestUploadGivenUp(t *testing.T) {
	t.Parallel()
	left := make(chan struct{})
	address := listen(t, func(_ int, c net.Conn) {
		in := bufio.NewReader(c)
		if _, err := http.ReadRequest(in); err != nil {
			return
		}
		_, _ = io.WriteString(c, "HTTP/1.1 404 Not Found\r\nContent-Length: 3\r\n\r\nbig")
		_, _ = io.Copy(io.Discard, in)
		close(left)
	})
	ctx, cancel := context.WithCancel(t.Context())
	u := upload(numbers(piece), 3*piece)
	resp, err := client(t).Do(ctx, address, u.request())
	if err != nil {
		t.Fatal(err)
	}
	cancel()
	<-left
	if err := resp.Body.Close(); err != nil {
		t.Error(err)
	}
	go func() { u.parts <- numbers(2 * piece) }()
	u.Close()
}

// TestUploadBothWays: a server may begin to answer while it reads.
func TestUploadBothWays(t *testing.T) {
	t.Parallel()
	address, _ := serve(t, func(w http.ResponseWriter, r *http.Request) {
		_ = http.NewResponseController(w).EnableFullDuplex()
		_ = http.NewResponseController(w).Flush()
		_, _ = io.Copy(w, r.Body)
	})
	want := numbers(20 * piece)
	u := upload(bytes.Clone(want[:piece]), len(want))
	resp, err := client(t).Do(t.Context(), address, u.request())
	if err != nil {
		t.Fatal(err)
	}
	go func() { u.parts <- want[piece:] }()
	if _, err := u.Whole(); err != nil { // not held up by what the server has not read
		t.Fatal(err)
	}
	got, err := io.ReadAll(resp.Body)
	if err = errors.Join(err, resp.Body.Close()); err != nil || !bytes.Equal(got, want) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	u.Close()
}

// TestUploadUnsent: nothing of a request is sent to a server that is not there.
func TestUploadUnsent(t *testing.T) {
	t.Parallel()
	u := upload([]byte("a"), 1)
	_, err := client(t).Do(t.Context(), "127.0.0.1:1", u.request())
	if e, ok := errors.AsType[*Error](err); !ok || e.Sent || !strings.Contains(err.Error(), "127.0.0.1:1") {
		t.Errorf("got %v", err)
	}
	u.Close()
}
