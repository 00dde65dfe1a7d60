package replica

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"sync"

	"tategu/internal/replica/http1"
)

// Client reaches replicas at their addresses; http1.Client is one.
type Client interface {
	Do(ctx context.Context, address string, r *http1.Request) (*http1.Response, error)
	// CloseIdle ends connections that wait to be used again; "" = to all addresses.
	CloseIdle(address string)
}

// remote is a replica behind an address.
type remote struct {
	client  Client
	address string
}

// Do sends the bytes as they are and gives the answer's as they come.
func (b *remote) Do(ctx context.Context, r *Request) (*Response, error) {
	resp, err := b.client.Do(ctx, b.address, &http1.Request{Method: r.Method, Path: r.Path, Header: r.Header, Body: r.Body, Upload: r.Upload})
	if err != nil {
		return nil, err
	}
	return &Response{Status: resp.Status, Header: resp.Header, Body: resp.Body}, nil
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
