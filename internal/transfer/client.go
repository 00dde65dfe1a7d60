// Package transfer is the client side of storage: it lists, copies and removes
// objects of a running server through its GCS API, for the command line. Names of
// objects and files are checked here; what an object is, the server decides.
package transfer

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"strings"
	"time"

	"google.golang.org/grpc/codes"

	"tategu/internal/resource"
)

// Client talks to one server.
type Client struct {
	Base  string       // http://HOST:PORT
	HTTP  *http.Client // without a timeout of its own: bodies may be large
	Token func(ctx context.Context) (string, error)
	// Patience bounds how long a request is tried again while the server does not
	// answer or is at its limits; 2 minutes if zero.
	Patience time.Duration
}

const (
	defaultPatience = 2 * time.Minute
	firstPause      = 100 * time.Millisecond
	longestPause    = 5 * time.Second
)

// request is one call; body is asked for anew at each try.
type request struct {
	method, path string
	query        url.Values
	header       http.Header
	body         func() (io.Reader, int64, error) // nil = none
	accept       func(status int) bool            // beyond 2xx
}

func jsonBody(v any) func() (io.Reader, int64, error) {
	return func() (io.Reader, int64, error) {
		b, err := json.Marshal(v)
		return bytes.NewReader(b), int64(len(b)), err
	}
}

// once sends a request. An answer of the server that is an error becomes a
// resource.Error with the server's words.
func (c *Client) once(ctx context.Context, r request) (*http.Response, error) {
	var body io.Reader
	length := int64(0)
	if r.body != nil {
		var err error
		if body, length, err = r.body(); err != nil {
			return nil, err
		}
	}
	u := r.path
	if !strings.HasPrefix(u, "http") {
		u = c.Base + u
	}
	if len(r.query) > 0 {
		u += "?" + r.query.Encode()
	}
	req, err := http.NewRequestWithContext(ctx, r.method, u, body)
	if err != nil {
		return nil, err
	}
	req.ContentLength = length
	if length == 0 {
		req.Body = http.NoBody
	}
	maps.Copy(req.Header, r.header)
	if c.Token != nil {
		token, err := c.Token(ctx)
		if err != nil {
			return nil, err
		}
		req.Header.Set("Authorization", "Bearer "+token)
	}
	resp, err := c.HTTP.Do(req)
	if err != nil {
		return nil, resource.Errorf(codes.Unavailable, "no answer from %s: %w", c.Base, err).WithHint("is the server running? start it with `tategu serve`")
	}
	if resp.StatusCode < 300 || r.accept != nil && r.accept(resp.StatusCode) {
		return resp, nil
	}
	return nil, answerError(resp)
}

// retry sends a request until it is answered, with growing pauses, as long as the
// server is away, restarting or at its limits and patience lasts.
func (c *Client) retry(ctx context.Context, r request) (resp *http.Response, err error) {
	err = c.patiently(ctx, func() error {
		resp, err = c.once(ctx, r) //nolint:bodyclose // the caller's to close
		return err
	})
	return resp, err
}

// patiently repeats f while its error says that another try may succeed.
func (c *Client) patiently(ctx context.Context, f func() error) error {
	patience := c.Patience
	if patience == 0 {
		patience = defaultPatience
	}
	end := time.Now().Add(patience)
	for pause := firstPause; ; pause = min(2*pause, longestPause) {
		err := f()
		if err == nil || !transient(err) || ctx.Err() != nil || time.Now().Add(pause).After(end) {
			return err
		}
		timer := time.NewTimer(pause)
		select {
		case <-ctx.Done():
			timer.Stop()
			return ctx.Err()
		case <-timer.C:
		}
	}
}

// transient tells errors that may go away.
func transient(err error) bool {
	if e, ok := errors.AsType[*statusError](err); ok {
		switch e.status {
		case http.StatusRequestTimeout, http.StatusTooManyRequests, http.StatusInternalServerError,
			http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
			return true
		}
		return false
	}
	return resource.CodeOf(err) == codes.Unavailable || errors.Is(err, io.ErrUnexpectedEOF)
}

// statusError keeps an answer's HTTP status beneath its words.
type statusError struct {
	status int
	text   string
}

func (e *statusError) Error() string { return e.text }

// answerError reads the error that the server sent.
func answerError(resp *http.Response) error {
	defer func() { _ = resp.Body.Close() }() // read below
	text, _ := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
	var envelope struct {
		Error struct {
			Message string `json:"message"`
		} `json:"error"`
	}
	message := string(bytes.TrimSpace(text))
	if json.Unmarshal(text, &envelope) == nil && envelope.Error.Message != "" {
		message = envelope.Error.Message
	}
	if message == "" {
		message = resp.Status
	}
	code, ok := map[int]codes.Code{
		http.StatusBadRequest: codes.InvalidArgument, http.StatusUnauthorized: codes.Unauthenticated, http.StatusForbidden: codes.PermissionDenied,
		http.StatusNotFound: codes.NotFound, http.StatusConflict: codes.AlreadyExists, http.StatusPreconditionFailed: codes.FailedPrecondition,
		http.StatusTooManyRequests: codes.ResourceExhausted, http.StatusInsufficientStorage: codes.ResourceExhausted, http.StatusNotImplemented: codes.Unimplemented,
		http.StatusRequestedRangeNotSatisfiable: codes.OutOfRange, http.StatusServiceUnavailable: codes.Unavailable,
	}[resp.StatusCode]
	if !ok {
		code = codes.Unknown
	}
	return resource.Errorf(code, "%w", &statusError{status: resp.StatusCode, text: message})
}

// call sends a request and decodes its JSON answer into out (nil = none wanted).
func (c *Client) call(ctx context.Context, r request, out any) error {
	resp, err := c.retry(ctx, r)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }() // read in full below
	if out == nil {
		_, err = io.Copy(io.Discard, resp.Body)
		return err
	}
	if err := json.NewDecoder(resp.Body).Decode(out); err != nil {
		return fmt.Errorf("%s %s: read the answer: %w", r.method, r.path, err)
	}
	return nil
}
