package wire

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"
)

const dialTimeout = 15 * time.Second

// connect is the proxy for processes that run with `tategu env --intercept`:
// hosts that we implement end here, with our certificate; other hosts of the
// cloud are refused, since requests to them would carry our tokens out.
func (p *port) connect(ctx context.Context, c *peekConn, proxied bool) {
	target, err := readConnect(c.r)
	if err != nil {
		refuse(c, http.StatusBadRequest, "not a CONNECT request")
		return
	}
	host := canonicalHost(target)
	here := implemented(host) || p.isSelf(target)
	switch {
	case !bothLoopback(c):
		refuse(c, http.StatusForbidden, "the proxy serves this machine only")
	case proxied:
		refuse(c, http.StatusForbidden, "a CONNECT inside a CONNECT is refused")
	case here:
		p.server.metrics.proxied.WithLabelValues("here").Inc()
		if _, err := io.WriteString(c, "HTTP/1.1 200 Connection established\r\n\r\n"); err != nil {
			_ = c.Close() // the client is gone
			return
		}
		c.ack = quickAck(c.Conn)
		p.sniff(ctx, c, true)
	case ofTheCloud(host):
		p.server.metrics.proxied.WithLabelValues("refused").Inc()
		p.server.cfg.Log.WarnContext(ctx, "proxy refused a host of the cloud", slog.String("host", host))
		refuse(c, http.StatusForbidden, host+" is not implemented by tategu; see docs/compat.md")
	case !p.server.cfg.Tunnel:
		p.server.metrics.proxied.WithLabelValues("refused").Inc()
		refuse(c, http.StatusForbidden, host+" is not reachable through this proxy; set tunnel: true to allow it")
	default:
		p.server.metrics.proxied.WithLabelValues("tunnelled").Inc()
		p.tunnel(ctx, c, target)
	}
}

// readConnect reads the request and leaves what follows in r.
func readConnect(r *bufio.Reader) (target string, err error) {
	limited := &io.LimitedReader{R: r, N: headerBytes}
	// Byte by byte, since what follows the empty line belongs to the tunnel.
	var head strings.Builder
	for !strings.HasSuffix(head.String(), "\r\n\r\n") {
		var b [1]byte
		if _, err := io.ReadFull(limited, b[:]); err != nil {
			return "", err
		}
		head.WriteByte(b[0])
	}
	req, err := http.ReadRequest(bufio.NewReader(strings.NewReader(head.String())))
	if err != nil {
		return "", err
	}
	if _, _, err := net.SplitHostPort(req.Host); err != nil || req.Method != http.MethodConnect {
		return "", fmt.Errorf("%q is not host:port", req.Host)
	}
	return req.Host, nil
}

// isSelf reports our own host:port; other ports of this machine are other servers.
func (p *port) isSelf(target string) bool {
	host, port, err := net.SplitHostPort(target)
	own, ok := p.ln.Addr().(*net.TCPAddr)
	return err == nil && ok && p.server.hosts.isOwn(canonicalHost(host)) && port == strconv.Itoa(own.Port)
}

// isOurs reports an address of this machine at our own port.
func (p *port) isOurs(addr net.Addr) bool {
	to, ok1 := addr.(*net.TCPAddr)
	own, ok2 := p.ln.Addr().(*net.TCPAddr)
	return ok1 && ok2 && to.Port == own.Port && (to.IP.IsLoopback() || to.IP.Equal(own.IP))
}

// refuse says why in the reason phrase, which is what clients print.
func refuse(c *peekConn, status int, why string) {
	_, _ = fmt.Fprintf(c, "HTTP/1.1 %d %s: %s\r\nContent-Type: text/plain\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s\n",
		status, http.StatusText(status), why, len(why)+1, why) // the connection ends anyway
	_ = c.Close()
}

func (p *port) tunnel(ctx context.Context, c *peekConn, target string) {
	defer func() { _ = c.Close() }() // copying has ended
	dialer := net.Dialer{Timeout: dialTimeout}
	out, err := dialer.DialContext(ctx, "tcp", target)
	if err != nil {
		refuse(c, http.StatusBadGateway, "cannot reach "+target)
		return
	}
	far := p.track(out)
	defer func() { _ = far.Close() }() // copying has ended
	// Under another name it would come back to us as a program of the machine's own.
	if p.outsider(c) && p.isOurs(out.RemoteAddr()) {
		refuse(c, http.StatusForbidden, target+" is this server; call it directly")
		return
	}
	_ = c.SetReadDeadline(time.Time{})
	if _, err := io.WriteString(c, "HTTP/1.1 200 Connection established\r\n\r\n"); err != nil {
		return
	}
	var wg sync.WaitGroup
	for _, way := range [][2]*peekConn{{far, c}, {c, far}} {
		wg.Go(func() {
			_, err := io.Copy(struct{ io.Writer }{way[0].Conn}, way[1])
			if err == nil {
				err = way[0].CloseWrite()
			}
			if err != nil { // one way broke: the other will not be used
				_, _ = way[0].Conn.Close(), way[1].Conn.Close()
			}
		})
	}
	wg.Wait()
}
