package frame

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"tategu/internal/replica/http1"
)

const dialLimit = 5 * time.Second

// Client asks servers of frames, one connection each. What is no prediction, is not JSON
// or is large goes by HTTP, and so does all to a server that knows no frames.
type Client struct {
	HTTP  *http1.Client
	Route string // of predictions

	memory memory

	mu    sync.Mutex
	links map[string]*link // by address
	plain map[string]bool  // addresses of servers without frames
}

// Do sends r to the server at address and gives its answer. When ctx ends, the server
// is told that nobody waits any more.
func (c *Client) Do(ctx context.Context, address string, r *http1.Request) (*http1.Response, error) {
	if r.Method != http.MethodPost || r.Path != c.Route || r.Upload != nil || len(r.Body) > mostAsked || !plainJSON(r.Header) {
		return c.HTTP.Do(ctx, address, r)
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	l, err := c.link(ctx, address)
	if err != nil {
		return nil, &http1.Error{Err: err}
	}
	if l == nil {
		return c.HTTP.Do(ctx, address, r)
	}
	return l.ask(ctx, r.Body)
}

// plainJSON reports headers that say no more than what every frame is: JSON, and an
// answer in JSON.
func plainJSON(h http.Header) bool {
	kind, accept := h["Content-Type"], h["Accept"]
	return len(kind) == 1 && kind[0] == "application/json" &&
		(len(accept) == 0 || len(accept) == 1 && (accept[0] == "*/*" || accept[0] == "application/json"))
}

// CloseIdle ends the connections to address, "" = to all: at once where nobody waits for
// an answer, else after that.
func (c *Client) CloseIdle(address string) {
	c.HTTP.CloseIdle(address)
	c.mu.Lock()
	var ending []*link
	for at, l := range c.links {
		if address == "" || at == address {
			ending = append(ending, l)
			delete(c.links, at)
		}
	}
	if address == "" {
		c.plain = nil
	} else {
		delete(c.plain, address)
	}
	c.mu.Unlock()
	for _, l := range ending {
		l.leave()
	}
}

// link gives the connection to a server, nil where it knows no frames.
func (c *Client) link(ctx context.Context, address string) (*link, error) {
	c.mu.Lock()
	if c.plain[address] {
		c.mu.Unlock()
		return nil, nil
	}
	l := c.links[address]
	if l == nil {
		l = &link{client: c, address: address, opened: make(chan struct{}), calls: map[uint32]*call{}}
		if c.links == nil {
			c.links = map[string]*link{}
		}
		c.links[address] = l
		c.mu.Unlock()
		l.open(ctx)
	} else {
		c.mu.Unlock()
	}
	select {
	case <-l.opened:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if l.plain {
		return nil, nil
	}
	return l, l.failed
}

// forget takes a link out that is of no use any more.
func (c *Client) forget(l *link) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.links[l.address] == l {
		delete(c.links, l.address)
	}
	if l.plain {
		if c.plain == nil {
			c.plain = map[string]bool{}
		}
		c.plain[l.address] = true
	}
}

// link is a connection to a server.
type link struct {
	client  *Client
	address string
	opened  chan struct{} // closed once it can be used, or cannot
	plain   bool          // the server knows no frames
	failed  error         // why it could not be opened

	conn net.Conn
	in   *bufio.Reader
	out  *out
	done sync.WaitGroup // its reader and its writer

	// Guarded by out.mu.
	calls   map[uint32]*call // that wait for an answer
	unsent  []*call          // of these, those that are not being written yet
	next    uint32
	over    error // nothing can be asked any more
	leaving bool
}

// call is one question.
type call struct {
	sent bool
	got  chan result // one value
}

type result struct {
	status int
	body   *[]byte
	err    error
}

// open connects. Others wait for the outcome too, so it does not hang on one caller.
func (l *link) open(ctx context.Context) {
	defer close(l.opened)
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), dialLimit)
	defer cancel()
	if l.failed = l.connect(ctx); l.failed != nil || l.plain {
		l.client.forget(l)
		return
	}
	l.out = newOut(l.conn, func() {
		for i, c := range l.unsent {
			c.sent = true
			l.unsent[i] = nil
		}
		l.unsent = l.unsent[:0]
	})
	l.done.Go(func() {
		if err := l.out.run(); err != nil {
			l.fail(err)
		}
	})
	l.done.Go(func() { l.fail(l.read()) })
}

func (l *link) connect(ctx context.Context) error {
	dial := l.client.HTTP.Dial
	if dial == nil {
		dial = func(ctx context.Context, address string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "tcp", address)
		}
	}
	conn, err := dial(ctx, l.address)
	if err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	l.conn, l.in = conn, bufio.NewReaderSize(conn, buffer)
	_, err = fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: %s\r\nConnection: Upgrade\r\nUpgrade: %s\r\n\r\n", Route, l.address, Protocol)
	var resp *http.Response
	if err == nil {
		resp, err = http.ReadResponse(l.in, nil)
	}
	if err != nil {
		_ = conn.Close() // what it failed with is known
		return err
	}
	_ = resp.Body.Close() // of 101 it is empty; any other ends the connection
	if l.plain = resp.StatusCode != http.StatusSwitchingProtocols || !strings.EqualFold(resp.Header.Get("Upgrade"), Protocol); l.plain {
		return conn.Close()
	}
	return nil
}

// ask sends one question and waits for its answer.
func (l *link) ask(ctx context.Context, body []byte) (*http1.Response, error) {
	c := &call{got: make(chan result, 1)}
	o := l.out
	o.mu.Lock()
	if err := l.over; err != nil {
		o.mu.Unlock()
		return nil, &http1.Error{Err: fmt.Errorf("%s: %w", l.address, err)}
	}
	id := l.next
	for l.calls[id] != nil { // after four thousand million others
		id++
	}
	l.next = id + 1
	l.calls[id] = c
	l.unsent = append(l.unsent, c)
	o.add(head{uint32(len(body)), id, codeQuestion}, body)
	o.mu.Unlock()
	select {
	case r := <-c.got:
		return l.response(c, r)
	case <-ctx.Done():
	}
	o.mu.Lock()
	sent := c.sent
	if l.calls[id] == c {
		o.add(head{0, id, codeCancel}, nil)
	}
	l.end(id)
	o.mu.Unlock()
	return nil, &http1.Error{Sent: sent, Err: ctx.Err()}
}

// end forgets a call; the last one of a link that is to go ends it. The caller holds
// out.mu.
func (l *link) end(id uint32) {
	delete(l.calls, id)
	if l.leaving && len(l.calls) == 0 {
		_ = l.conn.Close() // its reader sees to the rest
	}
}

func (l *link) response(c *call, r result) (*http1.Response, error) {
	if r.err != nil {
		_, malformed := r.err.(*formatError) //nolint:errorlint // ours, bare
		return nil, &http1.Error{Sent: c.sent, Malformed: malformed, Err: fmt.Errorf("%s: %w", l.address, r.err)}
	}
	return &http1.Response{Status: r.status, Header: http.Header{"Content-Type": {"application/json"}}, Body: &answer{left: *r.body, whole: r.body, back: &l.client.memory}}, nil
}

// read hands out answers until the connection ends.
func (l *link) read() error {
	for {
		h, err := readHead(l.in)
		if err == io.EOF { //nolint:errorlint // readHead gives it bare
			err = io.ErrUnexpectedEOF
		}
		if err == nil {
			err = h.answers()
		}
		if err != nil {
			return err
		}
		b := l.client.memory.get()
		if *b, err = readBody(l.in, *b, int(h.length)); err != nil {
			return err
		}
		l.out.mu.Lock()
		c := l.calls[h.id]
		if c != nil {
			l.end(h.id)
		}
		l.out.mu.Unlock()
		if c == nil { // who asked has gone
			l.client.memory.put(b)
			continue
		}
		c.got <- result{status: int(h.code), body: b}
	}
}

// fail ends the connection: all that wait hear why.
func (l *link) fail(err error) {
	l.client.forget(l)
	l.out.mu.Lock()
	if l.over != nil {
		l.out.mu.Unlock()
		return
	}
	l.over = err
	calls := l.calls
	l.calls, l.unsent = map[uint32]*call{}, nil
	l.out.mu.Unlock()
	_ = l.conn.Close() // what it failed with is known
	l.out.close()
	for _, c := range calls {
		c.got <- result{err: err}
	}
}

// leave ends a link that nobody asks any more, now or after its last answer.
func (l *link) leave() {
	<-l.opened
	if l.failed != nil || l.plain {
		return
	}
	l.out.mu.Lock()
	l.leaving = true
	idle := len(l.calls) == 0
	l.out.mu.Unlock()
	if idle {
		_ = l.conn.Close() // its reader sees to the rest
		l.done.Wait()
	}
}
