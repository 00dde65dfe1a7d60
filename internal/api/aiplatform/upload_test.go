package aiplatform

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	"tategu/internal/resource"
	"tategu/internal/serving"
)

// plane answers as its function does.
type plane func(ctx context.Context, r serving.Request) (*serving.Response, error)

func (f plane) Predict(ctx context.Context, _ string, r serving.Request) (*serving.Response, error) {
	return f(ctx, r)
}

// raw serves rawPredict on a real port; failed gets the errors of requests.
func raw(t *testing.T, p plane) (address string, failed chan error) {
	t.Helper()
	failed = make(chan error, 2)
	prediction := NewPrediction(p)
	prediction.bodies.Within = time.Hour // on a busy machine too
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := prediction.rawPredictHTTP(r.Context(), w, r, "e"); err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			failed <- err
		}
	}))
	t.Cleanup(server.Close)
	return server.Listener.Addr().String(), failed
}

const picture = 1 << 20

// begin sends the head and a part of a picture.
func begin(t *testing.T, address string, part int) (net.Conn, *bufio.Reader) {
	t.Helper()
	c, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	more(t, c, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: "+strconv.Itoa(picture)+"\r\n\r\n"+strings.Repeat("p", part))
	return c, bufio.NewReader(c)
}

func more(t *testing.T, c net.Conn, text string) {
	t.Helper()
	if _, err := io.WriteString(c, text); err != nil {
		t.Fatal(err)
	}
}

func answered(status int, text string) *serving.Response {
	return &serving.Response{Status: status, Header: http.Header{"Content-Length": {strconv.Itoa(len(text))}}, Body: io.NopCloser(strings.NewReader(text))}
}

// TestUploadIsReadFirst: whatever comes of a request, its connection serves the next one,
// for all of its body has been read, and its answer comes after that.
func TestUploadIsReadFirst(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		status int
		err    error
		want   int
	}{
		"a model that refuses early": {413, nil, 413},
		"a model that is gone":       {0, resource.Errorf(codes.Unavailable, "it is gone"), 503},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			asked := make(chan bool, 2)
			address, _ := raw(t, func(_ context.Context, r serving.Request) (*serving.Response, error) {
				early := r.Upload != nil && !r.Upload.Arrived()
				if !early {
					t.Logf("an upload: %v, %d bytes", r.Upload != nil, len(r.Body))
				}
				asked <- early
				if tc.err != nil {
					return nil, tc.err
				}
				return answered(tc.status, "text"), nil
			})
			c, in := begin(t, address, picture/2)
			for i := range 2 {
				if !<-asked {
					t.Errorf("request %d: the model was asked when all had come", i)
				}
				more(t, c, strings.Repeat("q", picture-picture/2))
				resp, err := http.ReadResponse(in, nil)
				if err != nil {
					t.Fatal(err)
				}
				_, err = io.Copy(io.Discard, resp.Body)
				if err = errors.Join(err, resp.Body.Close()); err != nil || resp.StatusCode != tc.want || resp.Close {
					t.Fatalf("%d, closed: %v, %v", resp.StatusCode, resp.Close, err)
				}
				if i == 0 {
					more(t, c, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: "+strconv.Itoa(picture)+"\r\n\r\n"+strings.Repeat("p", picture/2))
				}
			}
		})
	}
}

// TestUploadReaches: the model gets each byte, of which the first while the last are on
// their way.
func TestUploadReaches(t *testing.T) {
	t.Parallel()
	asked := make(chan struct{})
	address, _ := raw(t, func(_ context.Context, r serving.Request) (*serving.Response, error) {
		close(asked)
		body, err := r.Upload.Whole()
		if err != nil {
			return nil, err
		}
		return answered(http.StatusOK, strconv.Itoa(bytes.Count(body, []byte("p")))+" "+strconv.Itoa(bytes.Count(body, []byte("q")))), nil
	})
	c, in := begin(t, address, picture/2)
	<-asked
	more(t, c, strings.Repeat("q", picture-picture/2))
	resp, err := http.ReadResponse(in, nil)
	if err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(resp.Body)
	if err = errors.Join(err, resp.Body.Close()); err != nil || string(text) != "524288 524288" {
		t.Errorf("got %q, %v", text, err)
	}
}

// TestUploadCallerLeaves half-way: an answer that came early is closed, so that its replica
// is free.
func TestUploadCallerLeaves(t *testing.T) {
	t.Parallel()
	asked, closed := make(chan struct{}), make(chan struct{})
	address, failed := raw(t, func(context.Context, serving.Request) (*serving.Response, error) {
		close(asked)
		early := answered(http.StatusOK, "text")
		early.Body = closing{early.Body, closed}
		return early, nil
	})
	c, _ := begin(t, address, picture/2)
	<-asked
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	<-closed
	if err := <-failed; err == nil {
		t.Error("it was answered")
	}
}

type closing struct {
	io.ReadCloser

	closed chan struct{}
}

func (c closing) Close() error {
	close(c.closed)
	return c.ReadCloser.Close()
}
