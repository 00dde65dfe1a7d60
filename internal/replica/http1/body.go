package http1

import (
	"bufio"
	"io"
	"sync"
)

// body is an answer's, and the way of its connection back to the pool.
type body struct {
	conn  *conn
	from  io.Reader // nil once it is over
	reuse bool

	mu  sync.Mutex // Close may come while a Read waits
	err error
	end bool
}

// Read implements io.Reader. A broken answer is never taken for a whole one.
func (b *body) Read(p []byte) (int, error) {
	b.mu.Lock()
	if b.end {
		defer b.mu.Unlock()
		if b.err != nil {
			return 0, b.err
		}
		return 0, io.EOF
	}
	b.mu.Unlock()
	n, err := b.from.Read(p)
	switch err {
	case nil:
		return n, nil
	case io.EOF:
		b.finish(nil)
		return n, io.EOF
	}
	b.finish(err)
	return n, err
}

// Close ends the exchange; what was not read is not read any more.
func (b *body) Close() error {
	b.mu.Lock()
	over := b.end
	b.mu.Unlock()
	if !over {
		b.finishUnread()
	}
	return nil
}

func (b *body) finish(err error) { b.over(err, err == nil && b.reuse) }

func (b *body) finishUnread() { b.over(io.ErrClosedPipe, false) }

func (b *body) over(err error, keep bool) {
	b.mu.Lock()
	if b.end {
		b.mu.Unlock()
		return
	}
	b.end, b.err = true, err
	b.mu.Unlock()
	b.conn.end(keep)
}

// fixed reads a body of known length.
type fixed struct {
	in   *bufio.Reader
	left int64
}

// Read implements io.Reader.
func (f *fixed) Read(p []byte) (int, error) {
	if f.left == 0 {
		return 0, io.EOF
	}
	n, err := f.in.Read(p[:min(int64(len(p)), f.left)])
	f.left -= int64(n)
	switch {
	case err == nil && f.left == 0:
		return n, io.EOF
	case err == io.EOF:
		return n, io.ErrUnexpectedEOF
	}
	return n, err
}

// chunks reads a chunked body.
type chunks struct {
	in    *bufio.Reader
	left  int64 // of the chunk
	begun bool  // a chunk was read: its line end comes next
	done  bool
}

// Bounds of what carries no content.
const (
	chunkLine    = 4 << 10
	trailerBytes = 64 << 10
)

// Read implements io.Reader.
func (c *chunks) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	if c.left == 0 && !c.done {
		if err := c.next(); err != nil {
			return 0, early(err)
		}
	}
	if c.done {
		return 0, io.EOF
	}
	n, err := c.in.Read(p[:min(int64(len(p)), c.left)])
	c.left -= int64(n)
	return n, early(err)
}

// next reads the line of the next chunk; the last one has trailers.
func (c *chunks) next() error {
	if c.begun {
		end, err := c.line(2)
		if err != nil {
			return err
		}
		if len(end) > 0 {
			return malformed("a chunk is longer than it said")
		}
	}
	c.begun = true
	line, err := c.line(chunkLine)
	if err != nil {
		return err
	}
	if c.left, err = chunkSize(line); err != nil || c.left > 0 {
		return err
	}
	for left := trailerBytes; ; {
		line, err := c.line(left)
		if err != nil {
			return err
		}
		if len(line) == 0 {
			c.done = true
			return nil
		}
		if _, _, err := field(line); err != nil {
			return err
		}
		if left -= len(line) + 2; left <= 0 {
			return malformed("the trailers are larger than %d bytes", trailerBytes)
		}
	}
}

// line reads one that ends with CRLF and nothing else: how long a body is hangs on it.
func (c *chunks) line(limit int) ([]byte, error) {
	line, err := readLine(c.in, limit)
	if err != nil {
		return nil, err
	}
	if end := line[:len(line)+1]; end[len(line)] != '\r' { // what the buffer holds after it
		return nil, malformed("a line of a chunked body ends with LF alone")
	}
	return line, nil
}

// chunkSize reads the hexadecimal size; extensions after it are of no meaning here.
func chunkSize(line []byte) (int64, error) {
	var n int64
	i := 0
	for ; i < len(line); i++ {
		digit, ok := hexDigit(line[i])
		if !ok {
			break
		}
		if n > 1<<55 {
			return 0, malformed("a chunk is too large")
		}
		n = n<<4 | int64(digit)
	}
	for j := i; j < len(line); j++ {
		if line[j] == ';' {
			break
		}
		if line[j] != ' ' && line[j] != '\t' {
			i = 0
		}
	}
	if i == 0 {
		return 0, malformed("%q is no size of a chunk", clip(line))
	}
	return n, nil
}

func hexDigit(c byte) (byte, bool) {
	switch {
	case c >= '0' && c <= '9':
		return c - '0', true
	case c >= 'a' && c <= 'f':
		return c - 'a' + 10, true
	case c >= 'A' && c <= 'F':
		return c - 'A' + 10, true
	}
	return 0, false
}

// early says that a connection that ends within a message broke it off.
func early(err error) error {
	if err == io.EOF { //nolint:errorlint // bufio gives it bare
		return io.ErrUnexpectedEOF
	}
	return err
}
