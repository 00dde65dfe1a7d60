package http1

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
)

// listen serves connections by hand: serve gets each with the number of those before.
func listen(t *testing.T, serve func(n int, c net.Conn)) string {
	t.Helper()
	ln, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for n := 0; ; n++ {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			serve(n, c)
			_ = c.Close()
		}
	}()
	t.Cleanup(func() {
		_ = ln.Close()
		<-done
	})
	return ln.Addr().String()
}

// serve runs a real server and counts its connections.
func serve(t *testing.T, h http.HandlerFunc) (address string, conns *atomic.Int32) {
	t.Helper()
	conns = new(atomic.Int32)
	s := httptest.NewUnstartedServer(h)
	s.Config.ConnState = func(_ net.Conn, st http.ConnState) {
		if st == http.StateNew {
			conns.Add(1)
		}
	}
	s.Start()
	t.Cleanup(s.Close)
	return s.Listener.Addr().String(), conns
}

func ask(ctx context.Context, c *Client, address, body string) (int, string, error) {
	resp, err := c.Do(ctx, address, &Request{Method: http.MethodPost, Path: "/p?q=1", Header: http.Header{"X-A": {"1", "2"}}, Body: []byte(body)})
	if err != nil {
		return 0, "", err
	}
	text, err := io.ReadAll(resp.Body)
	return resp.Status, string(text), errors.Join(err, resp.Body.Close())
}

func client(t *testing.T) *Client {
	t.Helper()
	c := &Client{}
	t.Cleanup(func() { c.CloseIdle("") })
	return c
}

func TestExchange(t *testing.T) {
	t.Parallel()
	address, conns := serve(t, func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		_, _ = fmt.Fprintf(w, "%s %s %v %d", r.Method, r.URL, r.Header["X-A"], len(b))
	})
	c := client(t)
	for _, size := range []int{0, 10, 100_000, 3_000_000, 5} {
		status, text, err := ask(t.Context(), c, address, strings.Repeat("x", size))
		if want := fmt.Sprintf("POST /p?q=1 [1 2] %d", size); err != nil || status != 200 || text != want {
			t.Errorf("got %d %q, %v; want %q", status, text, err, want)
		}
	}
	if n := conns.Load(); n != 1 {
		t.Errorf("%d connections for five requests", n)
	}
}

// TestSameHead: what is kept of a head is not taken for another one's.
func TestSameHead(t *testing.T) {
	t.Parallel()
	answers := []string{
		"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nX-N: 1\r\n\r\na",
		"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nX-N: 1\r\n\r\nb",
		"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX-N: 2\r\n\r\ncc",
		"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nX-N: 1\r\n\r\nd",
		"HTTP/1.1 404 NO\r\nContent-Length: 1\r\nX-N: 1\r\n\r\ne",
		"HTTP/1.1 204 NO\r\nX-Long: " + strings.Repeat("x", 2*keptHead) + "\r\n\r\n",
		"HTTP/1.1 204 NO\r\nX-Long: " + strings.Repeat("x", 2*keptHead) + "\r\n\r\n",
		"HTTP/1.1 404 NO\r\nContent-Length: 1\r\nX-N: 1\r\n\r\nf",
	}
	address := listen(t, func(_ int, conn net.Conn) {
		in := bufio.NewReader(conn)
		for _, a := range answers {
			r, err := http.ReadRequest(in)
			if err != nil {
				return
			}
			_, _ = io.Copy(io.Discard, r.Body)
			_, _ = io.WriteString(conn, a)
		}
	})
	c := client(t)
	for i, a := range answers {
		resp, err := c.Do(t.Context(), address, &Request{Method: http.MethodPost, Path: "/"})
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(resp.Body)
		want, err2 := http.ReadResponse(bufio.NewReader(strings.NewReader(a)), nil)
		if err := errors.Join(err, err2, resp.Body.Close()); err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(want.Body)
		_ = want.Body.Close()
		if resp.Status != want.StatusCode || !maps.EqualFunc(resp.Header, want.Header, slices.Equal) || !bytes.Equal(text, body) {
			t.Errorf("answer %d: %d %v %q, want %q", i, resp.Status, resp.Header, text, a)
		}
	}
}

func TestNoBody(t *testing.T) {
	t.Parallel()
	address, conns := serve(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Method", r.Method)
		if r.Method == http.MethodPost {
			w.WriteHeader(http.StatusNoContent)
			return
		}
		_, _ = io.WriteString(w, "text")
	})
	c := client(t)
	for _, method := range []string{"HEAD", "POST", "GET", "HEAD"} {
		resp, err := c.Do(t.Context(), address, &Request{Method: method, Path: "/"})
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(resp.Body)
		if want := map[string]string{"GET": "text"}[method]; err != nil || string(text) != want || resp.Header.Get("X-Method") != method {
			t.Errorf("%s: %q, %v, %v", method, text, resp.Header, err)
		}
	}
	if conns.Load() != 1 {
		t.Errorf("%d connections", conns.Load())
	}
}

// TestStream: what a server has flushed is there before it sends more.
func TestStream(t *testing.T) {
	t.Parallel()
	next := make(chan string)
	address, _ := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		for part := range next {
			_, _ = io.WriteString(w, part)
			w.(http.Flusher).Flush() //nolint:forcetypeassert // net/http's own
		}
	})
	c := client(t)
	go func() { next <- "data: 1\n\n" }()
	resp, err := c.Do(t.Context(), address, &Request{Method: "POST", Path: "/"})
	if err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 100)
	for _, want := range []string{"data: 1\n\n", "data: 2\n\n"} {
		n, err := resp.Body.Read(buf)
		if err != nil || string(buf[:n]) != want {
			t.Fatalf("got %q, %v", buf[:n], err)
		}
		if want == "data: 1\n\n" {
			next <- "data: 2\n\n"
		}
	}
	close(next)
	if rest, err := io.ReadAll(resp.Body); err != nil || len(rest) > 0 {
		t.Fatalf("rest %q, %v", rest, err)
	}
}

// TestLeaver: the end of the context ends the exchange, before the answer and in it.
func TestLeaver(t *testing.T) {
	t.Parallel()
	seen, gone := make(chan struct{}, 2), make(chan struct{}, 2)
	address, _ := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/begun" {
			w.(http.Flusher).Flush() //nolint:forcetypeassert // net/http's own
		}
		seen <- struct{}{}
		<-r.Context().Done()
		gone <- struct{}{}
	})
	c := client(t)
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		<-seen
		cancel()
	}()
	_, err := c.Do(ctx, address, &Request{Method: "POST", Path: "/"})
	e, ok := errors.AsType[*Error](err)
	if !errors.Is(err, context.Canceled) || !ok || !e.Sent {
		t.Fatalf("got %v", err)
	}
	<-gone
	ctx, cancel = context.WithCancel(t.Context())
	resp, err := c.Do(ctx, address, &Request{Method: "POST", Path: "/begun"})
	if err != nil {
		t.Fatal(err)
	}
	cancel()
	if _, err := io.ReadAll(resp.Body); err == nil {
		t.Error("a body that was cut off looks whole")
	}
	<-gone
	if err := resp.Body.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Do(ctx, address, &Request{Method: "POST", Path: "/"}); !errors.Is(err, context.Canceled) {
		t.Errorf("with a context that is over: %v", err)
	}
}

// TestClosedWhileIdle: a server that closes a waiting connection costs no request.
func TestClosedWhileIdle(t *testing.T) {
	t.Parallel()
	closed := make(chan struct{})
	address := listen(t, func(_ int, c net.Conn) {
		if _, err := http.ReadRequest(bufio.NewReader(c)); err == nil {
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
		}
		_ = c.Close()
		closed <- struct{}{}
	})
	c := client(t)
	for i := range 3 {
		if _, text, err := ask(t.Context(), c, address, ""); err != nil || text != "ok" {
			t.Fatalf("request %d: %q, %v", i, text, err)
		}
		<-closed
	}
}

// TestEarlyAnswer: a server may refuse a request that it does not read.
func TestEarlyAnswer(t *testing.T) {
	t.Parallel()
	address := listen(t, func(_ int, c net.Conn) {
		in := bufio.NewReader(c)
		if _, err := http.ReadRequest(in); err != nil {
			return
		}
		_, _ = io.WriteString(c, "HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\n\r\nbig")
		_, _ = io.Copy(io.Discard, in) // or the kernel resets the connection and drops the answer
	})
	status, text, err := ask(t.Context(), client(t), address, strings.Repeat("x", 50<<20))
	if status != 413 || text != "big" || err != nil {
		t.Fatalf("got %d %q, %v", status, text, err)
	}
}

func TestAnswers(t *testing.T) {
	t.Parallel()
	const ok = "HTTP/1.1 200 OK\r\n"
	tests := map[string]struct {
		answer string
		status int
		body   string
		fails  string // in the error of Do, or of reading
	}{
		"by length":          {ok + "Content-Length: 3\r\n\r\nabc", 200, "abc", ""},
		"same length twice":  {ok + "Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc", 200, "abc", ""},
		"until the end":      {ok + "\r\nabc", 200, "abc", ""},
		"HTTP/1.0":           {"HTTP/1.0 200 OK\r\n\r\nabc", 200, "abc", ""},
		"no words":           {"HTTP/1.1 204\r\n\r\n", 204, "", ""},
		"chunked":            {ok + "Transfer-Encoding: chunked\r\n\r\n2\r\nab\r\n1;x=y\r\nc\r\n0\r\nT: 1\r\n\r\n", 200, "abc", ""},
		"LF alone":           {"HTTP/1.1 200 OK\nContent-Length: 1\n\na", 200, "a", ""},
		"interim":            {"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Hints\r\nLink: x\r\n\r\n" + ok + "Content-Length: 1\r\n\r\na", 200, "a", ""},
		"too many interim":   {strings.Repeat("HTTP/1.1 100 Continue\r\n\r\n", 20), 0, "", "interim"},
		"upgrade":            {"HTTP/1.1 101 Switching\r\nUpgrade: x\r\n\r\n", 0, "", "switch protocols"},
		"cut off":            {ok + "Content-Length: 5\r\n\r\nabc", 200, "abc", "unexpected EOF"},
		"cut off in a chunk": {ok + "Transfer-Encoding: chunked\r\n\r\n5\r\nab", 200, "ab", "unexpected EOF"},
		"no last chunk":      {ok + "Transfer-Encoding: chunked\r\n\r\n2\r\nab\r\n", 200, "ab", "unexpected EOF"},
		"long chunk":         {ok + "Transfer-Encoding: chunked\r\n\r\n2\r\nabc\r\n0\r\n\r\n", 200, "ab", "line is longer"},
		"bad chunk":          {ok + "Transfer-Encoding: chunked\r\n\r\nxx\r\n", 200, "", "no size of a chunk"},
		"huge chunk":         {ok + "Transfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n", 200, "", "too large"},
		"nothing":            {"", 0, "", "EOF"},
		"half a head":        {ok + "A: 1\r\n", 0, "", "unexpected EOF"},
		"not HTTP":           {"SSH-2.0-x\r\n\r\n", 0, "", "no status line"},
		"HTTP/2":             {"HTTP/2.0 200 OK\r\n\r\n", 0, "", "no status line"},
		"status 42":          {"HTTP/1.1 042 X\r\n\r\n", 0, "", "no status line"},
		"both lengths":       {ok + "Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 0, "", "both"},
		"two lengths":        {ok + "Content-Length: 1\r\nContent-Length: 2\r\n\r\nab", 0, "", "two lengths"},
		"negative length":    {ok + "Content-Length: -1\r\n\r\n", 0, "", "no Content-Length"},
		"signed length":      {ok + "Content-Length: +1\r\n\r\na", 0, "", "no Content-Length"},
		"list of lengths":    {ok + "Content-Length: 1, 1\r\n\r\na", 0, "", "no Content-Length"},
		"gzip, chunked":      {ok + "Transfer-Encoding: gzip, chunked\r\n\r\n", 0, "", "transfer encoding"},
		"folded":             {ok + "A: 1\r\n b\r\n\r\n", 0, "", "no field"},
		"blank before colon": {ok + "A : 1\r\n\r\n", 0, "", "no field"},
		"bare CR":            {ok + "A: 1\rB: 2\r\n\r\n", 0, "", "bare CR"},
		"NUL":                {ok + "A: \x00\r\n\r\n", 0, "", "control character"},
		"endless head":       {ok + strings.Repeat("A: "+strings.Repeat("x", 1000)+"\r\n", 500) + "\r\n", 0, "", "longer than"},
		"many fields":        {ok + strings.Repeat("A: 1\r\n", 2000) + "\r\n", 0, "", "more than 1000 fields"},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			address := listen(t, func(_ int, c net.Conn) {
				if _, err := http.ReadRequest(bufio.NewReader(c)); err == nil {
					_, _ = io.WriteString(c, tc.answer)
				}
			})
			status, text, err := ask(t.Context(), client(t), address, "")
			if status != tc.status || text != tc.body || (err != nil) != (tc.fails != "") || err != nil && !strings.Contains(err.Error(), tc.fails) {
				t.Errorf("got %d %q, %v", status, text, err)
			}
		})
	}
}

// TestSent: a request that nobody got says so, and one that somebody may have too.
func TestSent(t *testing.T) {
	t.Parallel()
	ln, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	nobody := ln.Addr().String()
	_ = ln.Close()
	dies := listen(t, func(_ int, c net.Conn) { _, _ = http.ReadRequest(bufio.NewReader(c)) })
	babbles := listen(t, func(_ int, c net.Conn) {
		_, _ = http.ReadRequest(bufio.NewReader(c))
		_, _ = io.WriteString(c, "hello\r\n")
	})
	for address, want := range map[string]Error{nobody: {}, dies: {Sent: true}, babbles: {Sent: true, Malformed: true}} {
		_, _, err := ask(t.Context(), client(t), address, "x")
		e, ok := errors.AsType[*Error](err)
		if !ok || e.Sent != want.Sent || e.Malformed != want.Malformed {
			t.Errorf("%+v, want %+v", err, want)
		}
	}
}

func TestUnsendable(t *testing.T) {
	t.Parallel()
	c := &Client{Dial: func(context.Context, string) (net.Conn, error) {
		t.Error("a request that cannot be written was to be sent")
		return nil, io.EOF
	}}
	for _, r := range []Request{
		{Method: "GET /x", Path: "/"},
		{Method: "GET", Path: "x"},
		{Method: "GET", Path: "/a b"},
		{Method: "GET", Path: "/a\r\nX: 1"},
		{Method: "GET", Path: "/", Header: http.Header{"A b": {"1"}}},
		{Method: "GET", Path: "/", Header: http.Header{"A": {"1\r\nB: 2"}}},
	} {
		if _, err := c.Do(t.Context(), "x", &r); !Unsendable(err) {
			t.Errorf("%+v: %v", r, err)
		}
	}
}

// memory is a connection whose other side has said everything already.
type memory struct {
	net.Conn

	in io.Reader
}

func (m memory) Read(p []byte) (int, error)  { return m.in.Read(p) }
func (m memory) Write(p []byte) (int, error) { return len(p), nil }
func (m memory) Close() error                { return nil }

// FuzzAnswer: no bytes of a server do harm, and what is accepted is what net/http
// reads too.
func FuzzAnswer(f *testing.F) {
	for _, s := range []string{
		"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nA: b\r\n\r\n",
		"HTTP/1.0 404 Not Found\r\nConnection: keep-alive\r\nContent-Length: 0\r\n\r\n", "HTTP/1.1 204\r\n\r\n", "HTTP/1.1 200 OK\r\n\r\nrest",
		"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\na", "HTTP/1.1 200 OK\r\ncontent-type: a\r\nX: 1\r\nX: 2\r\n\r\n",
		"HTTP/1.1 200 OK\nTransfer-Encoding: CHUNKED\n\n1 ;a\na\n0\n\n",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, answer []byte) {
		c := &Client{Dial: func(context.Context, string) (net.Conn, error) { return memory{in: bytes.NewReader(answer)}, nil }}
		resp, err := c.Do(t.Context(), "x", &Request{Method: http.MethodGet, Path: "/"})
		if err != nil {
			return
		}
		got, err := io.ReadAll(resp.Body)
		if err := resp.Body.Close(); err != nil {
			t.Fatal(err)
		}
		if err != nil {
			return
		}
		in := bufio.NewReader(bytes.NewReader(answer))
		for {
			want, err := http.ReadResponse(in, nil)
			if err != nil {
				t.Fatalf("net/http refuses what was read as %d %q: %v", resp.Status, got, err)
			}
			if want.StatusCode < 200 {
				_ = want.Body.Close()
				continue
			}
			text, err := io.ReadAll(want.Body)
			_ = want.Body.Close()
			if err != nil || want.StatusCode != resp.Status || !bytes.Equal(text, got) {
				t.Fatalf("got %d %q, net/http reads %d %q, %v", resp.Status, got, want.StatusCode, text, err)
			}
			for name, values := range resp.Header {
				if name != "Content-Length" && name != "Transfer-Encoding" && name != "Connection" && fmt.Sprint(want.Header[name]) != fmt.Sprint(values) {
					t.Fatalf("header %s is %q, net/http reads %q", name, values, want.Header[name])
				}
			}
			return
		}
	})
}

func BenchmarkDo(b *testing.B) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, `{"predictions":[1]}`) }))
	b.Cleanup(s.Close)
	address := s.Listener.Addr().String()
	r := &Request{Method: "POST", Path: "/predict", Header: http.Header{"Content-Type": {"application/json"}}, Body: bytes.Repeat([]byte("x"), 130)}
	b.Run("http1", func(b *testing.B) {
		c := &Client{}
		defer c.CloseIdle("")
		b.ReportAllocs()
		for b.Loop() {
			resp, err := c.Do(b.Context(), address, r)
			if err != nil {
				b.Fatal(err)
			}
			_, _ = io.Copy(io.Discard, resp.Body)
			_ = resp.Body.Close()
		}
	})
	b.Run("nethttp", func(b *testing.B) {
		tr := &http.Transport{DisableCompression: true}
		defer tr.CloseIdleConnections()
		b.ReportAllocs()
		for b.Loop() {
			req, err := http.NewRequestWithContext(b.Context(), http.MethodPost, "http://"+address+r.Path, bytes.NewReader(r.Body))
			if err != nil {
				b.Fatal(err)
			}
			req.Header = r.Header
			resp, err := tr.RoundTrip(req)
			if err != nil {
				b.Fatal(err)
			}
			_, _ = io.Copy(io.Discard, resp.Body)
			_ = resp.Body.Close()
		}
	})
}

// TestTwoWrites: an answer whose head and body come apart is read whole.
func TestTwoWrites(t *testing.T) {
	t.Parallel()
	address := listen(t, func(_ int, c net.Conn) {
		in := bufio.NewReader(c)
		for {
			if _, err := http.ReadRequest(in); err != nil {
				return
			}
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n")
			_, _ = io.WriteString(c, "body")
		}
	})
	c := client(t)
	for range 5 {
		if _, text, err := ask(t.Context(), c, address, ""); err != nil || text != "body" {
			t.Fatalf("got %q, %v", text, err)
		}
	}
	c.CloseIdle("")
}
