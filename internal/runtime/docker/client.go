package docker

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"tategu/internal/resource"

	"google.golang.org/grpc/codes"
)

const (
	oldestAPI = 40 // 1.40, Docker 19.03: the first with requests for GPUs
	newestAPI = 47 // 1.47, Docker 27: what was read when this was written

	answerBytes = 16 << 20        // of an answer that is read whole
	callLimit   = 2 * time.Minute // of a call that does not wait for a program or a registry
)

// client speaks the Docker Engine API (docs.docker.com/reference/api/engine) over
// a unix socket, as Docker and Podman serve it.
type client struct {
	socket string
	http   *http.Client

	mu     sync.Mutex
	minor  int // of the version 1.x that was agreed on; 0 = none yet
	podman bool
}

func newClient(socket string) *client {
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", socket)
	}
	return &client{socket: socket, http: &http.Client{
		Transport:     &http.Transport{DialContext: dial, MaxIdleConns: 4, IdleConnTimeout: time.Minute},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

func (c *client) close() { c.http.CloseIdleConnections() }

// engineError is an answer that the engine gave on purpose.
type engineError struct {
	Status  int
	Message string
}

func (e *engineError) Error() string { return e.Message }

// status of an engine's answer; 0 when err is something else.
func status(err error) int {
	if e, ok := errors.AsType[*engineError](err); ok {
		return e.Status
	}
	return 0
}

// ping asks whether the engine is there and agrees on a version of the API.
func (c *client) ping(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, callLimit)
	defer cancel()
	res, err := c.send(ctx, http.MethodGet, "/_ping", nil, nil)
	if err != nil {
		return err
	}
	defer func() { _ = res.Body.Close() }() // of no interest
	minor, err := agree(res.Header.Get("Api-Version"))
	if err != nil {
		return resource.Errorf(codes.FailedPrecondition, "the container engine at %s: %w", c.socket, err).
			WithCause(resource.CausePlatform).WithHint("Docker 19.03 or newer, or Podman 4 or newer, is needed")
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.minor, c.podman = minor, res.Header.Get("Libpod-Api-Version") != ""
	return nil
}

// agree chooses the newest version of the API that both sides know.
func agree(theirs string) (minor int, err error) {
	major, text, ok := strings.Cut(theirs, ".")
	minor, err = strconv.Atoi(text)
	if !ok || major != "1" || err != nil {
		return 0, fmt.Errorf("it speaks version %q of the API", theirs)
	}
	if minor < oldestAPI {
		return 0, fmt.Errorf("it speaks version %s of the API, which is older than 1.%d", theirs, oldestAPI)
	}
	return min(minor, newestAPI), nil
}

// isPodman is known after the first ping.
func (c *client) isPodman() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.podman
}

// open sends a request below the agreed version and gives the answer's body.
func (c *client) open(ctx context.Context, method, path string, query url.Values, body io.Reader) (io.ReadCloser, error) {
	c.mu.Lock()
	minor := c.minor
	c.mu.Unlock()
	if minor == 0 {
		if err := c.ping(ctx); err != nil {
			return nil, err
		}
		return c.open(ctx, method, path, query, body)
	}
	res, err := c.send(ctx, method, fmt.Sprintf("/v1.%d%s", minor, path), query, body)
	if err != nil {
		return nil, err
	}
	return res.Body, nil
}

// send gives an answer that is no error.
func (c *client) send(ctx context.Context, method, path string, query url.Values, body io.Reader) (*http.Response, error) {
	u := url.URL{Scheme: "http", Host: "engine", Path: path, RawQuery: query.Encode()}
	req, err := http.NewRequestWithContext(ctx, method, u.String(), body)
	if err != nil {
		return nil, err
	}
	if _, ok := body.(*bytes.Reader); ok {
		req.Header.Set("Content-Type", "application/json")
	} else if body != nil {
		req.Header.Set("Content-Type", "application/x-tar")
	}
	res, err := c.http.Do(req)
	if err != nil {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		return nil, resource.Errorf(codes.Unavailable, "the container engine at %s does not answer: %w", c.socket, err).WithCause(resource.CauseDependency).
			WithHint("start Docker or Podman, or name its socket with runtime: {socket: PATH} in tategu.yaml")
	}
	if res.StatusCode >= 300 && res.StatusCode != http.StatusNotModified { // which says that a container was started before
		defer func() { _ = res.Body.Close() }() // the status is the error to tell
		return nil, answerError(res)
	}
	return res, nil
}

func answerError(res *http.Response) error {
	b, err := io.ReadAll(io.LimitReader(res.Body, answerBytes))
	e := &engineError{Status: res.StatusCode, Message: strings.TrimSpace(string(b))}
	var said struct{ Message string }
	if err == nil && json.Unmarshal(b, &said) == nil && said.Message != "" {
		e.Message = said.Message
	}
	if e.Message == "" {
		e.Message = res.Status
	}
	return e
}

// call sends in as JSON, if it is not nil, and reads the answer into out, if that is not nil.
func (c *client) call(ctx context.Context, method, path string, query url.Values, in, out any) error {
	ctx, cancel := context.WithTimeout(ctx, callLimit)
	defer cancel()
	return c.callLong(ctx, method, path, query, in, out)
}

func (c *client) callLong(ctx context.Context, method, path string, query url.Values, in, out any) error {
	var body io.Reader
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			return err
		}
		body = bytes.NewReader(b)
	}
	answer, err := c.open(ctx, method, path, query, body)
	if err != nil {
		return err
	}
	defer func() { _ = answer.Close() }() // read to its end below
	if out == nil {
		_, err = io.Copy(io.Discard, io.LimitReader(answer, answerBytes))
	} else {
		err = json.NewDecoder(io.LimitReader(answer, answerBytes)).Decode(out)
	}
	if err != nil {
		return fmt.Errorf("the answer of the container engine to %s: %w", path, err)
	}
	return nil
}
