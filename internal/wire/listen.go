package wire

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"
)

const (
	sniffTimeout  = 10 * time.Second // a client that says nothing is let go
	headerTimeout = 20 * time.Second
	idleTimeout   = 3 * time.Minute
	headerBytes   = 64 << 10
	recordTLS     = 0x16 // first byte of a TLS handshake record, RFC 8446 section 5.1
)

// connInfo is what a request knows of the connection it came by.
type connInfo struct {
	loopback bool // both ends are on this machine
	outsider bool // though it is of a program that must say who it is
	tls      bool
}

type connKey struct{}

func connOf(ctx context.Context) connInfo {
	info, _ := ctx.Value(connKey{}).(connInfo)
	return info
}

// port is one listener and the HTTP server behind it.
type port struct {
	server *Server
	ln     net.Listener
	http   *http.Server
	tls    *tls.Config
	ready  chan net.Conn // sniffed connections, for http
	done   chan struct{} // closed when no more connections are taken
	stop   func()

	mu    sync.Mutex
	early map[net.Conn]struct{} // not yet with http: being sniffed, or tunnelled
	wg    sync.WaitGroup
}

func newPort(s *Server, ln net.Listener) *port {
	p := &port{
		server: s, ln: ln, tls: s.tlsConfig(),
		ready: make(chan net.Conn), done: make(chan struct{}), early: map[net.Conn]struct{}{},
	}
	p.stop = sync.OnceFunc(func() { close(p.done) })
	var protocols http.Protocols
	protocols.SetHTTP1(true)
	protocols.SetHTTP2(true)
	protocols.SetUnencryptedHTTP2(true)
	p.http = &http.Server{
		Handler: s.http, Protocols: &protocols, TLSConfig: p.tls,
		ReadHeaderTimeout: headerTimeout, IdleTimeout: idleTimeout, MaxHeaderBytes: headerBytes,
		ErrorLog:    slog.NewLogLogger(s.cfg.Log.Handler(), slog.LevelDebug), // bad handshakes and the like
		ConnContext: p.connContext,
	}
	return p
}

func (p *port) connContext(ctx context.Context, c net.Conn) context.Context {
	_, encrypted := c.(*tls.Conn)
	info := connInfo{loopback: bothLoopback(c), tls: encrypted}
	info.outsider = info.loopback && p.outsider(c)
	return context.WithValue(ctx, connKey{}, info)
}

func (p *port) outsider(c net.Conn) bool {
	local, ok1 := c.LocalAddr().(*net.TCPAddr)
	remote, ok2 := c.RemoteAddr().(*net.TCPAddr)
	return ok1 && ok2 && p.server.cfg.Outsider != nil && p.server.cfg.Outsider(local, remote)
}

func bothLoopback(c net.Conn) bool {
	local, ok1 := c.LocalAddr().(*net.TCPAddr)
	remote, ok2 := c.RemoteAddr().(*net.TCPAddr)
	return ok1 && ok2 && local.IP.IsLoopback() && remote.IP.IsLoopback()
}

func (p *port) run(ctx context.Context) error {
	served := make(chan error, 1)
	p.wg.Go(func() { served <- p.http.Serve(sniffed{p}) })
	accepted := make(chan struct{})
	p.wg.Go(func() { defer close(accepted); p.accept(ctx) })
	var err error
	select {
	case <-ctx.Done():
	case <-accepted: // somebody closed the listener
	case err = <-served:
	}
	return errors.Join(err, p.shutdown(ctx))
}

// shutdown ends new connections at once, requests within the drain time, and
// waits for every goroutine.
func (p *port) shutdown(ctx context.Context) error {
	_ = p.ln.Close() // closing twice is no error worth telling
	p.stop()
	p.mu.Lock()
	for c := range p.early {
		_ = c.Close() // whoever reads it sees the end
	}
	p.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), p.server.cfg.Drain)
	defer cancel()
	err := p.http.Shutdown(ctx)
	if errors.Is(err, context.DeadlineExceeded) {
		p.server.cfg.Log.WarnContext(ctx, "requests were cut off at shutdown", slog.Duration("after", p.server.cfg.Drain))
		err = p.http.Close()
	}
	p.wg.Wait()
	return err
}

func (p *port) accept(ctx context.Context) {
	for {
		c, err := p.ln.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			// Out of file descriptors, say: the next one may work.
			p.server.cfg.Log.WarnContext(ctx, "accept", slog.Any("error", err))
			select {
			case <-p.done:
				return
			case <-time.After(50 * time.Millisecond):
			}
			continue
		}
		conn := p.track(c)
		p.wg.Go(func() { p.sniff(ctx, conn, false) })
	}
}

// track counts a connection and makes sure that shutdown finds it.
func (p *port) track(c net.Conn) *peekConn {
	p.mu.Lock()
	p.early[c] = struct{}{}
	select {
	case <-p.done: // came while shutdown was closing the others
		_ = c.Close()
	default:
	}
	p.mu.Unlock()
	p.server.metrics.connections.Inc()
	return &peekConn{Conn: c, r: bufio.NewReader(c), closed: sync.OnceFunc(func() {
		p.release(c)
		p.server.metrics.connections.Dec()
	})}
}

func (p *port) release(c net.Conn) {
	p.mu.Lock()
	delete(p.early, c)
	p.mu.Unlock()
}

// sniff looks at the first bytes and sends the connection where it belongs.
// proxied is set once a CONNECT led here.
func (p *port) sniff(ctx context.Context, c *peekConn, proxied bool) {
	_ = c.SetReadDeadline(time.Now().Add(sniffTimeout)) // a dead connection fails at the read
	first, err := c.r.Peek(1)
	if err != nil {
		_ = c.Close() // gone or silent
		return
	}
	if first[0] == 'C' {
		if head, err := c.r.Peek(len("CONNECT ")); err == nil && bytes.Equal(head, []byte("CONNECT ")) {
			p.connect(ctx, c, proxied)
			return
		}
	}
	_ = c.SetReadDeadline(time.Time{})
	var out net.Conn = c
	if first[0] == recordTLS {
		out = tls.Server(c, p.tls)
	}
	select {
	case p.ready <- out:
		p.release(c.Conn)
	case <-p.done:
		_ = c.Close()
	}
}

// sniffed is the listener that http.Server sees.
type sniffed struct{ p *port }

func (l sniffed) Accept() (net.Conn, error) {
	select {
	case c := <-l.p.ready:
		return c, nil
	case <-l.p.done:
		return nil, http.ErrServerClosed
	}
}

func (l sniffed) Close() error   { l.p.stop(); return nil }
func (l sniffed) Addr() net.Addr { return l.p.ln.Addr() }

// peekConn gives back what was peeked.
type peekConn struct {
	net.Conn
	r      *bufio.Reader
	ack    func() // set for clients of the proxy
	closed func()
}

// Read implements net.Conn.
func (c *peekConn) Read(b []byte) (int, error) {
	n, err := c.r.Read(b)
	if c.ack != nil {
		c.ack()
	}
	return n, err
}

// Close implements net.Conn.
func (c *peekConn) Close() error {
	c.closed()
	return c.Conn.Close()
}

// ReadFrom keeps sendfile for object downloads.
func (c *peekConn) ReadFrom(r io.Reader) (int64, error) {
	if to, ok := c.Conn.(io.ReaderFrom); ok {
		return to.ReadFrom(r)
	}
	return io.Copy(struct{ io.Writer }{c.Conn}, r)
}

// CloseWrite ends our half of a tunnel.
func (c *peekConn) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return fmt.Errorf("%T cannot close one half", c.Conn)
}
