package worker

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"
)

// Conn is the one connection of a worker.
type Conn struct {
	c     net.Conn
	dec   *Decoder
	buf   []byte
	leash *leash // nil = what is sent is run

	mu          sync.Mutex // of deadlines
	interrupted bool
}

// Dial connects to a worker that is ready.
func Dial(ctx context.Context, socket string, bodyLimit int64) (*Conn, error) {
	var d net.Dialer
	c, err := d.DialContext(ctx, "unix", socket)
	if err != nil {
		return nil, err
	}
	return NewConn(c, bodyLimit), nil
}

// NewConn speaks the protocol over c.
func NewConn(c net.Conn, bodyLimit int64) *Conn {
	return &Conn{c: c, dec: NewDecoder(c, bodyLimit)}
}

// Close ends the worker as well: it lives for its connection.
func (c *Conn) Close() error { return c.c.Close() }

// Load has the worker load a model and gives what it says to that. Where p, its process,
// was forked and the package lets it, what is sent from then on can be withdrawn: the
// worker shows that by taking the permit of the load.
func (c *Conn) Load(p *Process, l Load, patience time.Duration) (Answer, error) {
	held := p.leash != nil && p.leash.permit(1) == nil
	if err := c.write(AppendLoad(c.buf[:0], l), patience); err != nil {
		return Answer{}, err
	}
	a, err := c.Receive(patience)
	if held && err == nil && p.leash.withdraw(1) == 0 {
		c.leash = p.leash
	}
	return a, err
}

// Held says that requests can be withdrawn.
func (c *Conn) Held() bool { return c.leash != nil }

// Withdraw has the worker not run up to n of the requests that were sent last, and says
// how many it has not begun with and will not. Each is answered with PassedOver, in its
// turn; until then nothing more may be sent.
func (c *Conn) Withdraw(n int) int {
	if c.leash == nil {
		return 0
	}
	return c.leash.withdraw(n)
}

// allow gives permits for what is sent next.
func (c *Conn) allow(n int) error {
	if c.leash == nil {
		return nil
	}
	return c.leash.permit(n)
}

// Send has it run a batch.
func (c *Conn) Send(batch []Request, patience time.Duration) error {
	if err := c.allow(1); err != nil {
		return err
	}
	return c.write(AppendBatch(c.buf[:0], batch), patience)
}

// SendEach has it run requests one after the other, each as a batch of its own.
func (c *Conn) SendEach(reqs []Request, patience time.Duration) error {
	if err := c.allow(len(reqs)); err != nil {
		return err
	}
	b := c.buf[:0]
	for i := range reqs {
		b = AppendBatch(b, reqs[i:i+1])
	}
	return c.write(b, patience)
}

// Silent ends what the worker can send, and says that it has sent nothing since the
// last answer. The connection is of no use then.
func (c *Conn) Silent() bool {
	half, ok := c.c.(interface{ CloseRead() error })
	if !ok || half.CloseRead() != nil || c.dec.begun {
		return false
	}
	if c.c.SetReadDeadline(time.Time{}) != nil { // an end that was set is not the worker's
		return false
	}
	n, err := c.dec.r.Read(make([]byte, 1)) // what has come, or the end, at once
	return n == 0 && (errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET))
}

func (c *Conn) write(b []byte, patience time.Duration) error {
	if cap(b) <= 1<<20 {
		c.buf = b
	}
	if err := c.limit(c.c.SetWriteDeadline, patience); err != nil {
		return err
	}
	_, err := c.c.Write(b)
	return err
}

// Receive gives the next answer. A worker that takes longer than patience (0 = any
// time) gives an error that IsTimeout knows; the connection is of no use then.
func (c *Conn) Receive(patience time.Duration) (Answer, error) {
	if err := c.limit(c.c.SetReadDeadline, patience); err != nil {
		return Answer{}, err
	}
	a, err := c.dec.Read()
	if errors.Is(err, syscall.ECONNRESET) { // it ended with requests that it had not read
		err = io.ErrUnexpectedEOF
	}
	return a, err
}

// Late waits until an answer begins to come, and says that none has at a time.
func (c *Conn) Late(at time.Time) bool {
	if c.dec.r.Buffered() > 0 || c.limit(c.c.SetReadDeadline, max(time.Until(at), 1)) != nil {
		return false
	}
	_, err := c.dec.r.Peek(1)
	return IsTimeout(err)
}

// limit sets a deadline, which an interrupt has passed for good.
func (c *Conn) limit(set func(time.Time) error, patience time.Duration) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.interrupted {
		return set(time.Unix(1, 0))
	}
	return set(deadline(patience))
}

// Interrupt has a Receive or Send that waits return, and all that come: the
// connection is of no use any more.
func (c *Conn) Interrupt() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.interrupted = true
	return c.c.SetDeadline(time.Unix(1, 0))
}

func deadline(patience time.Duration) time.Time {
	if patience <= 0 {
		return time.Time{}
	}
	return time.Now().Add(patience)
}

// IsTimeout says that a worker took too long.
func IsTimeout(err error) bool { return errors.Is(err, os.ErrDeadlineExceeded) }

// Await waits until a worker listens.
func (p *Process) Await(ctx context.Context, patience time.Duration) error {
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case <-p.ready:
		return nil
	case <-p.done:
		return fmt.Errorf("the worker ended before it was ready: %s", p.Exit())
	case <-timer.C:
		return fmt.Errorf("the worker was not ready within %s", patience)
	case <-ctx.Done():
		return ctx.Err()
	}
}
