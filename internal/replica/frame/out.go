package frame

import (
	"net"
	"runtime"
	"sync"
)

// out collects frames and writes those that there are at once: whoever adds one does
// not wait for it. The zero value is not ready: see newOut.
type out struct {
	conn net.Conn
	wake chan struct{} // holds one value: there is something to write

	mu     sync.Mutex
	buf    []byte // to be written
	spare  []byte
	busy   bool // the writer is awake
	closed bool
	broken bool
	less   sync.Cond // told when buf is about to be written, or never will be
	taken  func()    // is called under mu when what is in buf is about to be written
}

func newOut(conn net.Conn, taken func()) *out {
	o := &out{conn: conn, wake: make(chan struct{}, 1), taken: taken}
	o.less.L = &o.mu
	return o
}

// mostWaiting bounds what waits to be written, beyond what is under way.
const mostWaiting = 16 << 20

// await waits until there is room for more.
func (o *out) await() {
	o.mu.Lock()
	defer o.mu.Unlock()
	for len(o.buf) > mostWaiting && !o.broken {
		o.less.Wait()
	}
}

// add appends a frame. The caller holds mu.
func (o *out) add(h head, body []byte) {
	o.buf = append(appendHead(o.buf, h), body...)
	if !o.busy && !o.closed {
		o.busy = true
		o.wake <- struct{}{} // there is room: the writer has taken the last one before it was idle
	}
}

// run writes until close, and what is left then. Its error is that of a write.
func (o *out) run() error {
	defer func() {
		o.mu.Lock()
		defer o.mu.Unlock()
		o.broken = true
		o.less.Broadcast()
	}()
	for range o.wake {
		for {
			// Those that are about to add something do so first: on a busy core that makes
			// one write of many frames.
			runtime.Gosched()
			o.mu.Lock()
			if len(o.buf) == 0 {
				o.busy = false
				o.mu.Unlock()
				break
			}
			b := o.buf
			o.buf, o.spare = o.spare[:0], nil
			if o.taken != nil {
				o.taken()
			}
			o.less.Broadcast()
			o.mu.Unlock()
			if _, err := o.conn.Write(b); err != nil {
				return err
			}
			if cap(b) <= mostKept {
				o.mu.Lock()
				o.spare = b
				o.mu.Unlock()
			}
		}
	}
	return nil
}

// close lets run end once all is written.
func (o *out) close() {
	o.mu.Lock()
	defer o.mu.Unlock()
	if !o.closed {
		o.closed = true
		close(o.wake)
	}
}
