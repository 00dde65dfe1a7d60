package frame

import (
	"io"
	"sync"
)

// memory of answers, used again.
type memory struct{ free sync.Pool } // of *[]byte

func (m *memory) get() *[]byte {
	if b, ok := m.free.Get().(*[]byte); ok {
		return b
	}
	return new([]byte)
}

func (m *memory) put(b *[]byte) {
	if cap(*b) <= mostKept {
		m.free.Put(b)
	}
}

// answer is a body whose memory is used again once it is closed.
type answer struct {
	mu    sync.Mutex
	left  []byte
	whole *[]byte // nil once it was closed
	back  *memory
}

// Read implements io.Reader.
func (a *answer) Read(p []byte) (int, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	switch {
	case a.whole == nil:
		return 0, io.ErrClosedPipe
	case len(a.left) == 0:
		return 0, io.EOF
	}
	n := copy(p, a.left)
	a.left = a.left[n:]
	if len(a.left) == 0 {
		return n, io.EOF
	}
	return n, nil
}

// Close implements io.Closer.
func (a *answer) Close() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.whole != nil {
		a.back.put(a.whole)
		a.left, a.whole = nil, nil
	}
	return nil
}
