package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"time"
)

// patience is how long any answer may take. It says that a server hangs, not how
// fast it has to be.
const patience = 60 * time.Second

// maxAnswer bounds what is kept of an answer.
const maxAnswer = 1 << 20

// client sends requests that no HTTP library would.
type client struct {
	address string
	h2      *http.Client
}

func newClient(address string) *client {
	var protocols http.Protocols
	protocols.SetUnencryptedHTTP2(true)
	return &client{address: address, h2: &http.Client{Timeout: patience, Transport: &http.Transport{Protocols: &protocols}}}
}

// answer is what came back. code is the status of a gRPC call, -1 without one.
type answer struct {
	status  int
	header  http.Header
	body    []byte
	code    int
	message string
	cut     bool // the body has not come whole
}

func (c *client) send(ctx context.Context, q *request) (*answer, error) {
	if q.grpc {
		return c.sendGRPC(ctx, q)
	}
	conn, err := (&net.Dialer{Timeout: patience}).DialContext(ctx, "tcp", c.address)
	if err != nil {
		return nil, fmt.Errorf("connect: %w", err)
	}
	defer func() { _ = conn.Close() }() // one request a connection
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		return nil, err
	}
	written := make(chan struct{})
	go func() {
		defer close(written)
		_ = write(conn, c.address, q) // a server that answered early reads no more, and the answer is what counts
	}()
	defer func() {
		_ = conn.Close() // ends a write that nobody reads
		<-written
	}()
	in := bufio.NewReader(conn)
	resp, err := http.ReadResponse(in, &http.Request{Method: q.method})
	for err == nil && resp.StatusCode < 200 { // 100 Continue
		resp, err = http.ReadResponse(in, &http.Request{Method: q.method})
	}
	if err != nil {
		return nil, fmt.Errorf("read the answer: %w", err)
	}
	defer func() { _ = resp.Body.Close() }() // the connection ends
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	cut := err != nil
	if cut && resp.StatusCode/100 != 4 { // a refusal may come before all was read, and the rest of it be lost
		return nil, fmt.Errorf("read the answer's body after status %d: %w", resp.StatusCode, err)
	}
	return &answer{status: resp.StatusCode, header: resp.Header, body: body, code: -1, cut: cut}, nil
}

// write sends the request as it is, and then ends our half of the connection
// when the server can wait for no more.
func write(conn net.Conn, address string, q *request) error {
	if _, err := conn.Write(wireForm(q, address)); err != nil {
		return err
	}
	if half, ok := conn.(*net.TCPConn); ok && q.loose {
		return half.CloseWrite()
	}
	return nil
}

// wireForm is the text of a request.
func wireForm(q *request, address string) []byte {
	if q.proto == "raw" {
		return q.body
	}
	var b bytes.Buffer
	b.WriteString(q.method + " " + q.target + " " + q.proto + "\r\n")
	if q.get("Host") == "" {
		b.WriteString("Host: " + address + "\r\n")
	}
	for _, h := range q.header {
		if h[0] != "Content-Length" || q.loose {
			b.WriteString(h[0] + ": " + h[1] + "\r\n")
		}
	}
	length := len(q.body)
	if q.length >= 0 {
		length = q.length
	}
	if q.get("Transfer-Encoding") == "" && q.get("Content-Length") == "" || !q.loose && q.get("Transfer-Encoding") == "" {
		b.WriteString("Content-Length: " + strconv.Itoa(length) + "\r\n")
	}
	b.WriteString("Connection: close\r\n\r\n")
	b.Write(q.body)
	return b.Bytes()
}
