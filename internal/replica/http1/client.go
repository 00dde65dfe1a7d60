// Package http1 is a pooled HTTP/1.1 client for servers that are near: replicas
// over loopback or a private network. Requests are bytes in memory, answers are
// streams. It does a fraction of what net/http does for a request, since there is
// no proxy, no TLS, no redirect, no cookie and no compression in between, and it
// tells what net/http does not: whether anything of a request was sent.
//
// The parser is strict (RFC 9112): what is ambiguous about where an answer ends is
// an error. It never upgrades a connection.
package http1

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"time"
)

// Request is what a server is asked. Path holds the query too. Header must not
// change meanwhile; what is about the connection and the length is left out of it.
type Request struct {
	Method string
	Path   string
	Header http.Header
	Body   []byte
	Upload *Upload // in place of Body, one that is still coming
}

// Response is an answer. Body must be closed; reading it gives what has come so
// far without waiting for more. Header must not be changed: a later answer with the same
// head has the same.
type Response struct {
	Status int
	Header http.Header
	Body   io.ReadCloser
}

// Error is an exchange that failed before there was an answer.
type Error struct {
	// Sent says that the server may have seen the request, or a part of it.
	Sent bool
	// Malformed says that the server lives, but that what it sent is no HTTP/1.1.
	Malformed bool
	Err       error
}

func (e *Error) Error() string { return e.Err.Error() }

// Unwrap gives what went wrong.
func (e *Error) Unwrap() error { return e.Err }

// requestError is a request that cannot be written as one.
type requestError struct{ what string }

func (e *requestError) Error() string { return "the request cannot be sent: " + e.what }

// Unsendable reports that err is about the request itself: no server can get it.
func Unsendable(err error) bool {
	_, ok := errors.AsType[*requestError](err)
	return ok
}

// Client keeps connections to many servers. The zero value is ready; its fields
// must not change once it is used.
type Client struct {
	// Dial opens a connection; nil = TCP, within five seconds.
	Dial func(ctx context.Context, address string) (net.Conn, error)
	// MaxIdle bounds the connections to one address that wait to be used again; 0 = 64.
	MaxIdle int
	// IdleTimeout ends them; 0 = 90 s.
	IdleTimeout time.Duration
	// HeaderBytes bounds the head of an answer; 0 = 256 KiB.
	HeaderBytes int

	mu   sync.Mutex
	idle map[string][]*conn // by address, the one used last at the end
}

const (
	dialLimit   = 5 * time.Second
	maxIdle     = 64
	idleTimeout = 90 * time.Second
	headerBytes = 256 << 10
	interim     = 16 // answers of 1xx before the real one
)

func or[T comparable](v, otherwise T) T {
	var zero T
	if v == zero {
		return otherwise
	}
	return v
}

// Do sends r to the server at address, host:port, and gives its answer once the
// head is there. When ctx ends, so do the exchange and the reading of the body. The error
// of an upload that broke off is the upload's own.
func (c *Client) Do(ctx context.Context, address string, r *Request) (*Response, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if err := check(r); err != nil {
		return nil, err
	}
	cn, err := c.connect(ctx, address)
	if err != nil {
		return nil, &Error{Err: err}
	}
	resp, err := cn.exchange(ctx, r)
	if err == nil {
		return resp, nil
	}
	cn.abort()
	if ctx.Err() != nil {
		return nil, &Error{Sent: cn.sent, Err: ctx.Err()}
	}
	if r.Upload != nil && r.Upload.Broken() {
		return nil, r.Upload.broken() // the server is not to blame
	}
	_, malformed := errors.AsType[*parseError](err)
	return nil, &Error{Sent: cn.sent, Malformed: malformed, Err: fmt.Errorf("%s: %w", address, err)}
}

// CloseIdle ends the connections to address that wait; "" = to all.
func (c *Client) CloseIdle(address string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for at, list := range c.idle {
		if address != "" && at != address {
			continue
		}
		for _, cn := range list {
			_ = cn.Close() // nothing is under way on it
		}
		delete(c.idle, at)
	}
}

// connect takes a waiting connection that is still open, or makes one.
func (c *Client) connect(ctx context.Context, address string) (*conn, error) {
	for cn := c.take(address); cn != nil; cn = c.take(address) {
		if cn.open() {
			return cn, nil
		}
		_ = cn.Close() // the server has closed it already
	}
	dial := c.Dial
	if dial == nil {
		dial = func(ctx context.Context, address string) (net.Conn, error) {
			d := net.Dialer{Timeout: dialLimit}
			return d.DialContext(ctx, "tcp", address)
		}
	}
	nc, err := dial(ctx, address)
	if err != nil {
		return nil, err
	}
	return newConn(c, nc, address), nil
}

func (c *Client) take(address string) *conn {
	c.mu.Lock()
	defer c.mu.Unlock()
	list := c.idle[address]
	if len(list) == 0 {
		return nil
	}
	cn := list[len(list)-1]
	list[len(list)-1] = nil
	c.idle[address] = list[:len(list)-1]
	return cn
}

// put keeps a connection for the next request, and drops what has waited too long.
func (c *Client) put(cn *conn) {
	cn.since = time.Now()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.idle == nil {
		c.idle = map[string][]*conn{}
	}
	list := c.idle[cn.address]
	list = append(list, cn)
	drop := 0
	for drop < len(list) && (len(list)-drop > or(c.MaxIdle, maxIdle) || cn.since.Sub(list[drop].since) > or(c.IdleTimeout, idleTimeout)) {
		_ = list[drop].Close() // nothing is under way on it
		drop++
	}
	c.idle[cn.address] = append(list[:0], list[drop:]...)
}
