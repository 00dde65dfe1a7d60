package http1

import (
	"io"
	"slices"
	"sync"
	"time"
)

// Upload is the body of a request that is still coming from its caller while it is sent
// on. All that came is kept, so that it can be sent once more. Whoever needs more of it
// than there is reads the next part; the others wait for that.
type Upload struct {
	size  int
	read  func(p []byte) (int, error)
	users sync.WaitGroup // those that send it

	mu      sync.Mutex
	more    sync.Cond
	got     []byte
	reading bool
	since   time.Time     // the present reading
	waited  time.Duration // of those before
	err     error
}

// NewUpload makes one of size bytes, of which got has come already, in whose memory the
// rest may go; read gives the rest.
func NewUpload(got []byte, size int, read func(p []byte) (int, error)) *Upload {
	u := &Upload{size: size, read: read, got: got}
	u.more.L = &u.mu
	return u
}

// Size is how many bytes there will be.
func (u *Upload) Size() int { return u.size }

// Arrived reports that all of it has come.
func (u *Upload) Arrived() bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	return len(u.got) == u.size
}

// Waited is how long the caller was waited for, so far. The time that the server takes to
// read what has come is not in it.
func (u *Upload) Waited() time.Duration {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.reading {
		return u.waited + time.Since(u.since)
	}
	return u.waited
}

// Broken reports that the rest will not come.
func (u *Upload) Broken() bool { return u.broken() != nil }

// Whole waits for the end and gives all of it. A body that breaks off is an error, which is
// the caller's.
func (u *Upload) Whole() ([]byte, error) { return u.atLeast(u.size) }

// Close waits until nobody reads or sends it any more, which is when it has come or broken
// off and the exchanges over it have ended. It gives its memory back.
func (u *Upload) Close() []byte {
	_, _ = u.Whole() // what broke it off is known to who needed it
	u.users.Wait()
	return u.got
}

// atLeast waits for n bytes or an error and gives all that has come.
func (u *Upload) atLeast(n int) ([]byte, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for len(u.got) < n && u.err == nil {
		if u.reading {
			u.more.Wait()
			continue
		}
		u.next()
	}
	if len(u.got) < n {
		return u.got, u.err
	}
	return u.got, nil
}

// next reads a part. The caller holds the lock, which is free while it waits.
func (u *Upload) next() {
	if len(u.got) == cap(u.got) { // double it: what has been promised may never come
		u.got = slices.Grow(u.got, min(max(len(u.got), 1), u.size-len(u.got)))
	}
	free := u.got[len(u.got):min(cap(u.got), u.size)]
	u.reading, u.since = true, time.Now()
	u.mu.Unlock()
	n, err := u.read(free)
	u.mu.Lock()
	u.reading = false
	u.waited += time.Since(u.since)
	u.got = u.got[:len(u.got)+n]
	if err == nil && n == 0 {
		err = io.ErrNoProgress
	}
	if len(u.got) < u.size {
		if err == io.EOF { //nolint:errorlint // readers give it bare
			err = io.ErrUnexpectedEOF
		}
		u.err = err
	}
	u.more.Broadcast()
}

// broken is why the rest will not come; nil = it may.
func (u *Upload) broken() error {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.err
}

// piece is what of an upload is worth a system call.
const piece = 64 << 10

// sendUpload sends an upload as it comes. One that breaks off closes the connection: the
// server must not take a part for the whole, nor wait for more.
func (c *conn) sendUpload(u *Upload) error {
	for sent := 0; sent < u.size; {
		b, err := u.atLeast(min(sent+piece, u.size))
		if err != nil {
			_ = c.Close() // whoever waits for the answer sees it
			return err
		}
		if err := c.writeBody(b[sent:]); err != nil {
			return err
		}
		sent = len(b)
	}
	return nil
}

// uploaded waits until the sender is done, for a moment at most: it may wait for the caller.
func (c *conn) uploaded() bool {
	timer := time.NewTimer(writeRest)
	defer timer.Stop()
	select {
	case <-c.writer:
		return true
	case <-timer.C:
		return false
	}
}
