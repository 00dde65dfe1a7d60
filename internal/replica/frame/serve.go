package frame

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"
)

// Answerer answers questions, many at a time.
type Answerer interface {
	// Body gives memory for a question of n bytes.
	Body(n int) *[]byte
	// Answer takes the memory over. When ctx ends nobody wants the answer any more.
	Answer(ctx context.Context, body *[]byte) (status int, answer []byte)
}

// Asked reports a request that wants to go over to frames.
func Asked(r *http.Request) bool {
	return r.URL.Path == Route && r.Method == http.MethodGet && strings.EqualFold(r.Header.Get("Upgrade"), Protocol)
}

// Accept takes the connection of such a request over. Frames is to be called with it.
func Accept(w http.ResponseWriter) (net.Conn, *bufio.Reader, error) {
	conn, rw, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return nil, nil, err
	}
	_, err = io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: "+Protocol+"\r\n\r\n")
	if err == nil {
		err = conn.SetDeadline(time.Time{})
	}
	if err != nil {
		return nil, nil, errors.Join(err, conn.Close())
	}
	return conn, bufio.NewReaderSize(io.MultiReader(&rest{rw.Reader}, conn), buffer), nil
}

// rest gives what is buffered and no more.
type rest struct{ in *bufio.Reader }

func (r *rest) Read(p []byte) (int, error) {
	if r.in.Buffered() == 0 {
		return 0, io.EOF
	}
	return r.in.Read(p[:min(len(p), r.in.Buffered())])
}

// writeLimit is how long the last answers may take to be written once ctx has ended.
const writeLimit = 10 * time.Second

// mostAtOnce bounds the questions of one connection that are being answered.
const mostAtOnce = 4096

// Serve answers the questions that come on conn until the other side ends it, or ctx ends and those that have come are answered. It closes
// conn.
func Serve(ctx context.Context, conn net.Conn, in *bufio.Reader, a Answerer) error {
	s := &serving{out: newOut(conn, nil), cancel: map[uint32]context.CancelFunc{}, slots: make(chan struct{}, mostAtOnce)}
	stop := context.AfterFunc(ctx, func() {
		_ = conn.SetReadDeadline(time.Unix(1, 0)) // a closed connection has ended already
		_ = conn.SetWriteDeadline(time.Now().Add(writeLimit))
	})
	defer stop()
	asked, gone := context.WithCancel(context.WithoutCancel(ctx))
	defer gone()
	var wrote error
	var writer, answers sync.WaitGroup
	writer.Go(func() {
		if wrote = s.out.run(); wrote != nil {
			gone() // nobody hears the answers
			_ = conn.SetReadDeadline(time.Unix(1, 0))
		}
	})
	err := s.read(asked, in, a, &answers)
	if ctx.Err() != nil && errors.Is(err, os.ErrDeadlineExceeded) {
		err = nil
	} else {
		gone()
	}
	answers.Wait()
	s.out.close()
	writer.Wait()
	return errors.Join(err, wrote, conn.Close())
}

type serving struct {
	out   *out
	slots chan struct{}

	mu     sync.Mutex
	cancel map[uint32]context.CancelFunc
}

// read takes questions until there is no more; nil is the end of the other side.
func (s *serving) read(ctx context.Context, in *bufio.Reader, a Answerer, answers *sync.WaitGroup) error {
	for {
		h, err := readHead(in)
		if err == io.EOF { //nolint:errorlint // readHead gives it bare
			return nil
		}
		if err == nil {
			err = h.asks()
		}
		if err != nil {
			return err
		}
		if h.code == codeCancel {
			s.end(h.id)
			continue
		}
		body := a.Body(int(h.length))
		if *body, err = readBody(in, *body, int(h.length)); err != nil {
			return err
		}
		one, cancel := context.WithCancel(ctx)
		s.mu.Lock()
		if s.cancel[h.id] != nil {
			s.mu.Unlock()
			cancel()
			return &formatError{"a number is used twice at a time"}
		}
		s.cancel[h.id] = cancel
		s.mu.Unlock()
		s.out.await()
		s.slots <- struct{}{}
		answers.Go(func() {
			defer func() { <-s.slots }()
			status, answer := a.Answer(one, body)
			over := one.Err() != nil
			s.end(h.id)
			if over {
				return
			}
			s.out.mu.Lock()
			s.out.add(head{uint32(len(answer)), h.id, uint16(status)}, answer)
			s.out.mu.Unlock()
		})
	}
}

// end forgets a question, and lets who works on it know.
func (s *serving) end(id uint32) {
	s.mu.Lock()
	cancel := s.cancel[id]
	delete(s.cancel, id)
	s.mu.Unlock()
	if cancel != nil {
		cancel()
	}
}
