package replica

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"time"
)

// newTransport makes the pool of connections of one set: plain HTTP/1.1 over
// loopback or a private network, so no proxy and no compression.
func newTransport(concurrency int) *http.Transport {
	dialer := &net.Dialer{Timeout: 5 * time.Second}
	return &http.Transport{
		DialContext: dialer.DialContext, DisableCompression: true,
		MaxIdleConnsPerHost: concurrency, IdleConnTimeout: 90 * time.Second,
		WriteBufferSize: 32 << 10, ReadBufferSize: 32 << 10,
	}
}

// remote is a replica behind an address.
type remote struct {
	transport http.RoundTripper
	address   string
}

// Do sends the bytes as they are and gives the answer's as they come.
func (b *remote) Do(ctx context.Context, r *Request) (*Response, error) {
	req, err := http.NewRequestWithContext(ctx, r.Method, "http://"+b.address+r.Path, bytes.NewReader(r.Body))
	if err != nil {
		return nil, fmt.Errorf("request %s: %w", r.Path, err)
	}
	if r.Header != nil {
		req.Header = r.Header
	}
	resp, err := b.transport.RoundTrip(req) //nolint:bodyclose // the caller closes Response.Body
	if err != nil {
		return nil, fmt.Errorf("dial replica %s: %w", b.address, err)
	}
	return &Response{Status: resp.StatusCode, Header: resp.Header, Body: resp.Body}, nil
}

// leased gives the replica's place back when the answer has been read.
type leased struct {
	io.ReadCloser

	once    sync.Once
	release func()
}

func (l *leased) Close() error {
	err := l.ReadCloser.Close()
	l.once.Do(l.release)
	return err
}

// Bytes is a backend inside this process: a function from body to body.
type Bytes func(ctx context.Context, body []byte) ([]byte, error)

// Do answers 200 with JSON; errors are the caller's to map.
func (f Bytes) Do(ctx context.Context, r *Request) (*Response, error) {
	out, err := f(ctx, r.Body)
	if err != nil {
		return nil, err
	}
	return &Response{
		Status: http.StatusOK, Header: http.Header{"Content-Type": {"application/json"}},
		Body: io.NopCloser(bytes.NewReader(out)),
	}, nil
}
