package frame_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"tategu/internal/replica/frame"
	"tategu/internal/replica/http1"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const route = "/predict"

// answerer says what it was asked, after a word before it: "wait" until release is
// closed, "hang" until nobody wants the answer any more, "huge" with a megabyte more.
type answerer struct {
	release chan struct{}
	hanging chan string // tells of questions that hang, then that they were taken back
}

func (a *answerer) Body(n int) *[]byte {
	b := make([]byte, 0, n)
	return &b
}

func (a *answerer) Answer(ctx context.Context, body *[]byte) (int, []byte) {
	text := string(*body)
	switch word, _, _ := strings.Cut(text, " "); word {
	case "wait":
		a.hanging <- "waits"
		<-a.release
	case "hang":
		a.hanging <- "hangs"
		<-ctx.Done()
		a.hanging <- "taken back"
	case "huge":
		text += strings.Repeat("x", 3<<20)
	case "bad":
		return http.StatusBadRequest, []byte(text)
	}
	return http.StatusOK, []byte(text)
}

// server answers by frames, unless plain, and by HTTP.
type server struct {
	*answerer

	address string
	opened  atomic.Int32 // connections of frames
	asked   atomic.Int32 // by HTTP
	stop    func()
	cut     func() // ends the connections of frames
}

func serve(t *testing.T, plain bool) *server {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	s := &server{answerer: &answerer{release: make(chan struct{}), hanging: make(chan string, 10)}}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s.address = l.Addr().String()
	var mu sync.Mutex
	var conns []net.Conn
	var frames, served sync.WaitGroup
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if plain || !frame.Asked(r) {
			s.asked.Add(1)
			body, _ := io.ReadAll(r.Body)
			w.WriteHeader(http.StatusAccepted)
			_, _ = fmt.Fprintf(w, "http %s %d", r.Method, len(body))
			return
		}
		conn, in, err := frame.Accept(w)
		if err != nil {
			t.Error(err)
			return
		}
		s.opened.Add(1)
		mu.Lock()
		conns = append(conns, conn)
		mu.Unlock()
		frames.Add(1)
		defer frames.Done()
		_ = frame.Serve(ctx, conn, in, s)
	})}
	served.Go(func() { _ = srv.Serve(l) })
	s.cut = func() {
		mu.Lock()
		defer mu.Unlock()
		for _, c := range conns {
			_ = c.Close()
		}
	}
	s.stop = sync.OnceFunc(func() {
		cancel()
		_ = srv.Close()
		served.Wait()
		frames.Wait()
	})
	t.Cleanup(s.stop)
	return s
}

func client(t *testing.T) *frame.Client {
	t.Helper()
	c := &frame.Client{HTTP: &http1.Client{}, Route: route}
	t.Cleanup(func() { c.CloseIdle("") })
	return c
}

func ask(ctx context.Context, c *frame.Client, address, text string) (int, string, error) {
	resp, err := c.Do(ctx, address, &http1.Request{Method: http.MethodPost, Path: route, Header: json(), Body: []byte(text)})
	if err != nil {
		return 0, "", err
	}
	body, err := io.ReadAll(resp.Body)
	return resp.Status, string(body), errors.Join(err, resp.Body.Close())
}

// TestMany: all share a connection, and each gets its own answer.
func TestMany(t *testing.T) {
	t.Parallel()
	s, c := serve(t, false), client(t)
	var all sync.WaitGroup
	for i := range 300 {
		all.Go(func() {
			text := fmt.Sprintf("n %d", i)
			switch i % 50 {
			case 1:
				text = fmt.Sprintf("huge %d", i)
			case 2:
				text = "bad"
			}
			status, got, err := ask(t.Context(), c, s.address, text)
			want := http.StatusOK
			if text == "bad" {
				want = http.StatusBadRequest
			}
			if err != nil || status != want || strings.TrimRight(got, "x") != text {
				t.Errorf("%s: %d, %.20q, %v", text, status, got, err)
			}
		})
	}
	all.Wait()
	if s.opened.Load() != 1 || s.asked.Load() != 0 {
		t.Errorf("%d connections, %d requests by HTTP", s.opened.Load(), s.asked.Load())
	}
}

// TestTakenBack: who leaves is heard of at the other side, and nobody else is disturbed.
func TestTakenBack(t *testing.T) {
	t.Parallel()
	s, c := serve(t, false), client(t)
	ctx, leave := context.WithCancel(t.Context())
	left := make(chan error, 1)
	go func() {
		_, _, err := ask(ctx, c, s.address, "hang")
		left <- err
	}()
	<-s.hanging
	leave()
	if err := <-left; !errors.Is(err, context.Canceled) {
		t.Errorf("who left got %v", err)
	}
	if said := <-s.hanging; said != "taken back" {
		t.Errorf("the server says %q", said)
	}
	if _, got, err := ask(t.Context(), c, s.address, "next"); err != nil || got != "next" || s.opened.Load() != 1 {
		t.Errorf("%q, %v, %d connections", got, err, s.opened.Load())
	}
	if _, _, err := ask(ctx, c, s.address, "late"); !errors.Is(err, context.Canceled) {
		t.Errorf("who had left before got %v", err)
	}
}

func json() http.Header { return http.Header{"Content-Type": {"application/json"}} }

// TestByHTTP: what is no prediction, no JSON, or large, or asked of a server without frames.
func TestByHTTP(t *testing.T) {
	t.Parallel()
	s, c := serve(t, false), client(t)
	for want, r := range map[string]*http1.Request{
		"http GET 0":      {Method: http.MethodGet, Path: route},
		"http POST 1":     {Method: http.MethodPost, Path: "/other", Body: []byte("x")},
		"http POST 65537": {Method: http.MethodPost, Path: route, Header: json(), Body: make([]byte, 1+64<<10)},
		"http POST 2":     {Method: http.MethodPost, Path: route, Body: make([]byte, 2)},
		"http POST 3":     {Method: http.MethodPost, Path: route, Header: http.Header{"Content-Type": {"text/csv"}}, Body: make([]byte, 3)},
		"http POST 4":     {Method: http.MethodPost, Path: route, Header: http.Header{"Content-Type": {"application/json"}, "Accept": {"text/csv"}}, Body: make([]byte, 4)},
	} {
		resp, err := c.Do(t.Context(), s.address, r)
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(resp.Body)
		if err != nil || string(got) != want || resp.Body.Close() != nil {
			t.Errorf("%q, %v; want %q", got, err, want)
		}
	}
	old := serve(t, true)
	for range 2 {
		if status, got, err := ask(t.Context(), c, old.address, "x"); err != nil || status != http.StatusAccepted || got != "http POST 1" {
			t.Errorf("%d, %q, %v", status, got, err)
		}
	}
	if n := old.asked.Load(); n != 3 { // once for frames
		t.Errorf("%d requests", n)
	}
}

// TestBroken: those that wait hear that their question may have arrived; the next one
// opens another connection, and where there is no server nothing was sent.
func TestBroken(t *testing.T) {
	t.Parallel()
	s, c := serve(t, false), client(t)
	lost := make(chan error, 1)
	go func() {
		_, _, err := ask(t.Context(), c, s.address, "hang")
		lost <- err
	}()
	<-s.hanging
	s.cut()
	e, ok := errors.AsType[*http1.Error](<-lost)
	if !ok || !e.Sent || e.Malformed {
		t.Errorf("%+v", e)
	}
	<-s.hanging
	if _, got, err := ask(t.Context(), c, s.address, "again"); err != nil || got != "again" || s.opened.Load() != 2 {
		t.Errorf("%q, %v, %d connections", got, err, s.opened.Load())
	}
	s.stop()
	for { // until the end has come through
		_, _, err := ask(t.Context(), c, s.address, "gone")
		e, ok := errors.AsType[*http1.Error](err)
		if !ok {
			t.Fatalf("%v", err)
		}
		if !e.Sent {
			break
		}
	}
}

// TestEnd: what was asked before the end of a server is answered, and who closes waits
// for the last answer.
func TestEnd(t *testing.T) {
	t.Parallel()
	s, c := serve(t, false), client(t)
	answers := make(chan error, 1)
	go func() {
		_, got, err := ask(t.Context(), c, s.address, "wait for it")
		if got != "wait for it" {
			err = fmt.Errorf("%q: %w", got, err)
		}
		answers <- err
	}()
	<-s.hanging
	c.CloseIdle(s.address) // returns, as nobody is cut off
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		s.stop()
	}()
	close(s.release)
	if err := <-answers; err != nil {
		t.Error(err)
	}
	<-ended
}

// TestMalformed: a server that lives and talks nonsense is told from one that is gone.
func TestMalformed(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var served sync.WaitGroup
	served.Go(func() {
		conn, err := l.Accept()
		if err != nil {
			t.Error(err)
			return
		}
		_, _ = http.ReadRequest(bufio.NewReader(conn))
		_, _ = io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: "+frame.Protocol+"\r\n\r\n")
		_, _ = io.ReadFull(conn, make([]byte, 11)) // the question
		_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\n\r\n")
		_, _ = io.Copy(io.Discard, conn)
		_ = conn.Close()
	})
	c := client(t)
	_, _, err = ask(t.Context(), c, l.Addr().String(), "x")
	if e, ok := errors.AsType[*http1.Error](err); !ok || !e.Malformed || !e.Sent {
		t.Errorf("%v", err)
	}
	served.Wait()
	if err := l.Close(); err != nil {
		t.Error(err)
	}
}

// pipe is a connection of which one direction is given, the other thrown away.
type pipe struct {
	net.Conn

	in io.Reader
}

func (p *pipe) Read(b []byte) (int, error)       { return p.in.Read(b) }
func (p *pipe) Write(b []byte) (int, error)      { return len(b), nil }
func (p *pipe) Close() error                     { return nil }
func (p *pipe) SetReadDeadline(time.Time) error  { return nil }
func (p *pipe) SetWriteDeadline(time.Time) error { return nil }
func (p *pipe) SetDeadline(time.Time) error      { return nil }

func FuzzServe(f *testing.F) {
	f.Add([]byte("\x00\x00\x00\x02\x00\x00\x00\x01\x00\x01hi\x00\x00\x00\x00\x00\x00\x00\x01\x00\x00"))
	f.Add([]byte("\xff\xff\xff\xff\x00\x00\x00\x01\x00\x01"))
	f.Add([]byte("GET / HTTP/1.1\r\n\r\n"))
	f.Fuzz(func(_ *testing.T, text []byte) {
		a := &answerer{release: make(chan struct{}), hanging: make(chan string, 1<<10)}
		close(a.release)
		p := &pipe{in: strings.NewReader(string(text))}
		_ = frame.Serve(context.Background(), p, bufio.NewReader(p), a)
	})
}

func FuzzAnswers(f *testing.F) {
	up := "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: " + frame.Protocol + "\r\n\r\n"
	f.Add([]byte(up + "\x00\x00\x00\x02\x00\x00\x00\x00\x00\xc8hi"))
	f.Add([]byte(up + "\xff\xff\xff\xff\x00\x00\x00\x00\x00\xc8"))
	f.Add([]byte("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		dials := 0
		c := &frame.Client{Route: route, HTTP: &http1.Client{Dial: func(context.Context, string) (net.Conn, error) {
			if dials++; dials > 1 {
				return nil, io.ErrClosedPipe
			}
			return &pipe{in: strings.NewReader(string(text))}, nil
		}}}
		status, _, err := ask(t.Context(), c, "x", "q")
		if err == nil && (status < 100 || status > 599) {
			t.Errorf("status %d", status)
		}
		c.CloseIdle("")
	})
}
