package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"
)

// gate is open while the load may ask the server. It shuts before the kill, so
// that a broken connection is the kill's doing if the gate is shut, and a bug if
// it is open.
type gate struct {
	mu   sync.Mutex
	up   chan struct{} // closed while the gate is open
	down chan struct{} // closed when it shuts
}

func (g *gate) open() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.init()
	g.down = make(chan struct{})
	close(g.up)
}

func (g *gate) shut() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.init()
	select {
	case <-g.up:
		g.up = make(chan struct{})
		close(g.down)
	default: // it is shut
	}
}

func (g *gate) init() {
	if g.up == nil {
		g.up = make(chan struct{})
	}
}

// wait waits for the gate to open and gives what tells when it shuts again.
func (g *gate) wait(ctx context.Context) (<-chan struct{}, error) {
	for {
		g.mu.Lock()
		g.init()
		up, down := g.up, g.down
		g.mu.Unlock()
		select {
		case <-up:
			select {
			case <-down: // shut meanwhile
			default:
				return down, nil
			}
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// errKilled says that the server was killed before the answer was read in full:
// whether the write was done is not known.
var errKilled = errors.New("the server was killed")

// client asks the server. Every call waits for the gate.
type client struct {
	server *server
	book   *book
	http   *http.Client
}

func newClient(s *server, b *book) *client {
	return &client{server: s, book: b, http: &http.Client{
		Timeout:       time.Minute,
		Transport:     &http.Transport{MaxIdleConnsPerHost: 32, DisableCompression: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

type answer struct {
	status int
	header http.Header
	body   []byte
}

func (a answer) String() string {
	return fmt.Sprintf("%d %.600s", a.status, a.body)
}

// into reads a JSON answer.
func (a answer) into(v any) error {
	if err := json.Unmarshal(a.body, v); err != nil {
		return fmt.Errorf("answer %s: %w", a, err)
	}
	return nil
}

type request struct {
	method, path string
	header       map[string]string
	body         []byte
	value        any // instead of body: sent as JSON
}

// do gives an answer that was read in full; errKilled if there is none.
func (c *client) do(ctx context.Context, r request) (answer, error) {
	down, err := c.server.gate.wait(ctx)
	if err != nil {
		return answer{}, err
	}
	if r.value != nil {
		if r.body, err = json.Marshal(r.value); err != nil {
			return answer{}, err
		}
	}
	url := r.path
	if strings.HasPrefix(url, "/") {
		url = "http://" + c.server.address + url
	}
	req, err := http.NewRequestWithContext(ctx, r.method, url, bytes.NewReader(r.body))
	if err != nil {
		return answer{}, err
	}
	req.GetBody = nil // what was cut off is never sent again behind our back
	if r.value != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	for name, value := range r.header {
		req.Header.Set(name, value)
	}
	a, err := c.send(req)
	if err == nil || ctx.Err() != nil {
		return a, err
	}
	select {
	case <-down:
		c.http.CloseIdleConnections()
		return answer{}, errKilled
	default:
		return answer{}, fmt.Errorf("%s %s: the connection broke although the server was not killed: %w", r.method, r.path, err)
	}
}

func (c *client) send(req *http.Request) (answer, error) {
	resp, err := c.http.Do(req)
	if err != nil {
		return answer{}, err
	}
	body, err := io.ReadAll(resp.Body)
	return answer{resp.StatusCode, resp.Header, body}, errors.Join(err, resp.Body.Close())
}

// api is where the resources of the loop lie.
const api = "/v1/projects/kill/locations/us-central1/"

// call asks the aiplatform API and reads the answer into out; anything but the
// status 200 and what is allowed is an error.
func (c *client) call(ctx context.Context, method, path string, in, out any, allowed ...int) (int, error) {
	a, err := c.do(ctx, request{method: method, path: path, value: in})
	if err != nil {
		return 0, err
	}
	if a.status == http.StatusOK {
		if out == nil {
			return a.status, nil
		}
		return a.status, a.into(out)
	}
	for _, status := range allowed {
		if a.status == status {
			return status, nil
		}
	}
	return a.status, fmt.Errorf("%s %s: %s", method, path, a)
}

// get reads, as often as it takes until no kill comes between.
func (c *client) get(ctx context.Context, path string, out any, allowed ...int) (int, error) {
	for {
		status, err := c.call(ctx, http.MethodGet, path, nil, out, allowed...)
		if !errors.Is(err, errKilled) {
			return status, err
		}
	}
}

// metric reads one number of /metrics; the gate does not matter.
func (c *client) metric(ctx context.Context, name string) (int, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+c.server.address+"/metrics", nil)
	if err != nil {
		return 0, err
	}
	a, err := c.send(req)
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(a.body)) {
		if value, ok := strings.CutPrefix(line, name+" "); ok {
			return strconv.Atoi(strings.TrimSpace(value))
		}
	}
	return 0, fmt.Errorf("/metrics has no %s", name)
}
