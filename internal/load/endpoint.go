package load

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strconv"
	"time"

	"tategu/internal/replica/http1"
)

// Endpoint is a Target over HTTP/1.1: a route that takes POST.
type Endpoint struct {
	address     string
	path        string
	contentType string
	bodies      [][]byte
	token       func(ctx context.Context) (string, error)
	client      *http1.Client
}

// EndpointConfig names an endpoint and what it is sent.
type EndpointConfig struct {
	Address     string // host:port
	Path        string // of the route, with its query
	ContentType string // "" = JSON
	Bodies      [][]byte
	TLS         *tls.Config // nil = plain
	// Token gives the bearer token of the next request; nil = none is sent.
	Token func(ctx context.Context) (string, error)
}

// NewEndpoint makes a target that sends the bodies in turn.
func NewEndpoint(c EndpointConfig) (*Endpoint, error) {
	if len(c.Bodies) == 0 {
		return nil, errors.New("load: there is nothing to send")
	}
	const idle = 4096
	e := &Endpoint{
		address: c.Address, path: c.Path, contentType: or(c.ContentType, "application/json"), bodies: c.Bodies, token: c.Token,
		client: &http1.Client{MaxIdle: idle, Dial: dialer(c.TLS)},
	}
	return e, nil
}

func dialer(config *tls.Config) func(ctx context.Context, address string) (net.Conn, error) {
	const limit = 10 * time.Second
	plain := &net.Dialer{Timeout: limit}
	if config == nil {
		return func(ctx context.Context, address string) (net.Conn, error) {
			return plain.DialContext(ctx, "tcp", address)
		}
	}
	config = config.Clone()
	config.NextProtos = []string{"http/1.1"}
	secure := &tls.Dialer{NetDialer: plain, Config: config}
	return func(ctx context.Context, address string) (net.Conn, error) {
		return secure.DialContext(ctx, "tcp", address)
	}
}

// Close ends the connections that wait.
func (e *Endpoint) Close() { e.client.CloseIdle("") }

// mostDetail bounds what is read of the text of a failure.
const mostDetail = 4 << 10

// Do implements Target.
func (e *Endpoint) Do(ctx context.Context, n int) (failure, detail string) {
	return e.Send(ctx, e.bodies[n%len(e.bodies)])
}

// Send sends a body and waits for the whole answer.
func (e *Endpoint) Send(ctx context.Context, body []byte) (failure, detail string) {
	header := http.Header{"Content-Type": {e.contentType}}
	if e.token != nil {
		token, err := e.token(ctx)
		if err != nil {
			return "token", err.Error()
		}
		header.Set("Authorization", "Bearer "+token)
	}
	resp, err := e.client.Do(ctx, e.address, &http1.Request{Method: http.MethodPost, Path: e.path, Header: header, Body: body})
	if err != nil {
		return "connection", err.Error()
	}
	if resp.Status < http.StatusMultipleChoices {
		if _, err = io.Copy(io.Discard, resp.Body); err != nil {
			return "connection", err.Error()
		}
		_ = resp.Body.Close() // read in full
		return "", ""
	}
	text, err := io.ReadAll(io.LimitReader(resp.Body, mostDetail))
	_ = resp.Body.Close() // its text only explains
	if err != nil {
		text = []byte(err.Error())
	}
	return strconv.Itoa(resp.Status), words(text)
}

// words gives the message of an error of the API, or the text as it is.
func words(text []byte) string {
	var envelope struct {
		Error struct {
			Message string `json:"message"`
		} `json:"error"`
	}
	if json.Unmarshal(text, &envelope) == nil && envelope.Error.Message != "" {
		return envelope.Error.Message
	}
	const most = 300
	return string(text[:min(len(text), most)])
}

// Sizes measures requests of more and more instances, each from a caller who is
// alone, until one takes longer than limit or is refused. send asks with so many.
func Sizes(ctx context.Context, limit time.Duration, most int, send func(ctx context.Context, instances int) (failure, detail string)) ([]Size, error) {
	const repeats = 5
	var out []Size
	for n := 1; n <= most; n *= 2 {
		took := make([]time.Duration, 0, repeats)
		for range repeats + 1 { // the first may find a new size
			sent := time.Now()
			failure, detail := send(ctx, n)
			if ctx.Err() != nil {
				return out, ctx.Err()
			}
			if failure != "" {
				return append(out, Size{Instances: n, Failure: fmt.Sprintf("%s: %s", failure, detail)}), nil
			}
			took = append(took, time.Since(sent))
		}
		took = took[1:]
		slices.Sort(took)
		out = append(out, Size{Instances: n, Median: took[len(took)/2]})
		if took[len(took)/2] > limit {
			break
		}
	}
	return out, nil
}
