package http1

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"time"
)

// together is how large a request may be that is written at once: the kernel takes
// so much, so that an answer that comes early is read after it.
const together = 64 << 10

// writeRest is how long the rest of a request may take once its answer is over.
const writeRest = 20 * time.Millisecond

// keptHead bounds the head that a connection remembers.
const keptHead = 4 << 10

// conn is one connection; one exchange uses it at a time.
type conn struct {
	net.Conn

	client  *Client
	address string
	in      *bufio.Reader
	begin   func() // of an exchange, for what in reads from
	out     []byte // of the request's head, kept
	head    []byte // of the answer, kept
	last    []byte // the one before
	parsed  head   // what that said
	peek    func() bool
	since   time.Time // waits since then

	// Of the exchange under way.
	sent   bool
	stop   func() bool   // ends the watch over the context
	writer chan struct{} // closed when a body that is written beside is out, or is not
	failed error         // of that body
	upload *Upload       // that body, when it is still coming; nil = it is in memory
}

func newConn(c *Client, nc net.Conn, address string) *conn {
	in, begin := acknowledging(nc)
	return &conn{Conn: nc, client: c, address: address, in: bufio.NewReaderSize(in, 16<<10), begin: begin, peek: peeker(nc)}
}

// open reports that the server has not closed a waiting connection, nor said
// anything on it.
func (c *conn) open() bool {
	return time.Since(c.since) < or(c.client.IdleTimeout, idleTimeout) && c.in.Buffered() == 0 && c.peek()
}

// exchange writes the request and reads the head of the answer.
func (c *conn) exchange(ctx context.Context, r *Request) (*Response, error) {
	c.sent, c.writer, c.stop, c.upload = false, nil, nil, r.Upload
	c.begin()
	if ctx.Done() != nil {
		c.stop = context.AfterFunc(ctx, c.interrupt)
	}
	wrote := c.write(r)
	h, err := c.readHead(r.Method)
	if err != nil {
		// A server that refuses the request may close before it has read all.
		if wrote != nil {
			return nil, wrote
		}
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return nil, err
	}
	resp := &Response{Status: h.status, Header: h.header}
	b := &body{conn: c, reuse: h.keep && wrote == nil}
	switch {
	case r.Method == http.MethodHead || h.status == http.StatusNoContent || h.status == http.StatusNotModified:
		b.finish(nil)
	case h.chunked:
		b.from = &chunks{in: c.in}
	case h.length >= 0:
		b.from = &fixed{in: c.in, left: h.length}
		if h.length == 0 {
			b.finish(nil)
		}
	default:
		b.from, b.reuse = c.in, false
	}
	resp.Body = b
	return resp, nil
}

// interrupt ends what reads or writes. The server is told at once that an upload is over:
// whoever has the answer to it may be waiting for the caller.
func (c *conn) interrupt() {
	_ = c.SetDeadline(time.Unix(1, 0))
	if c.upload != nil {
		_ = c.Close() // what it was about is over
	}
}

// write sends the request. A large body is sent beside the reading of the answer.
func (c *conn) write(r *Request) error {
	c.out = appendHead(c.out[:0], r, c.address)
	if r.Upload == nil && len(c.out)+len(r.Body) <= together {
		c.out = append(c.out, r.Body...)
		return c.send(c.out)
	}
	if err := c.send(c.out); err != nil {
		return err
	}
	c.writer = make(chan struct{})
	if u := r.Upload; u != nil {
		u.users.Go(func() {
			defer close(c.writer)
			c.failed = c.sendUpload(u)
		})
		return nil
	}
	go func() {
		defer close(c.writer)
		c.failed = c.writeBody(r.Body)
	}()
	return nil
}

// stretch is how much of a large body is one system call: a kernel that does not preempt
// itself leaves the core to nobody meanwhile, and the runtime a thread's place. An image
// goes at once.
const stretch = 1 << 20

func (c *conn) writeBody(body []byte) error {
	for len(body) > 0 {
		n, err := c.Write(body[:min(len(body), stretch)])
		if err != nil {
			return err
		}
		body = body[n:]
	}
	return nil
}

func (c *conn) send(p []byte) error {
	n, err := c.Write(p)
	c.sent = c.sent || n > 0
	return err
}

// readHead reads the head of the answer, and passes over those of 1xx.
func (c *conn) readHead(method string) (head, error) {
	for range interim {
		var err error
		if c.head, err = readHead(c.in, c.head[:0], or(c.client.HeaderBytes, headerBytes)); err != nil {
			return head{}, err
		}
		h, err := c.parse()
		if err != nil {
			return head{}, err
		}
		switch {
		case h.status == http.StatusSwitchingProtocols:
			return head{}, malformed("the server wants to switch protocols, which nobody asked for")
		case h.status < http.StatusOK:
			continue
		}
		if method == http.MethodHead {
			h.length, h.chunked = 0, false
		}
		return h, nil
	}
	return head{}, malformed("the server sends one interim answer after the other")
}

// parse reads the head. Servers mostly say the same again, the second of their date
// included: then so does what was read of it.
func (c *conn) parse() (head, error) {
	if bytes.Equal(c.head, c.last) && len(c.last) > 0 {
		return c.parsed, nil
	}
	h, err := parseHead(c.head)
	if err != nil {
		return head{}, err
	}
	if len(c.head) <= keptHead {
		c.last, c.parsed = append(c.last[:0], c.head...), h
	}
	return h, nil
}

// end closes the connection or keeps it. It waits for the writer of the body, which
// a closed connection ends; that of an upload may still wait for the caller, and ends after.
func (c *conn) end(keep bool) {
	if c.stop != nil && !c.stop() {
		keep = false // the context ended: its watch sets a deadline
	}
	if c.writer != nil {
		keep = c.written(keep)
	}
	if !keep || c.in.Buffered() > 0 {
		_ = c.Close() // what it failed with is known or does not matter
		return
	}
	c.client.put(c)
}

// written waits for the writer of the body. An answer that was over before its
// request leaves the rest of no use, unless that is gone in a moment.
func (c *conn) written(keep bool) bool {
	if !keep || c.SetWriteDeadline(time.Now().Add(writeRest)) != nil || c.upload != nil && !c.uploaded() {
		_ = c.Close()
		if c.upload == nil {
			<-c.writer
		}
		return false
	}
	<-c.writer
	return c.failed == nil && c.SetWriteDeadline(time.Time{}) == nil
}

func (c *conn) abort() { c.end(false) }
