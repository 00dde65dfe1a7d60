package api

import (
	"cmp"
	"errors"
	"io"
	"net/http"
	"sync"
	"time"

	"tategu/internal/replica"
	"tategu/internal/resource"
)

// ahead is how much memory a request gets before its bytes have come.
const ahead = 1 << 20

// ReadBody reads the whole body of a request, which the wire has bounded. What is
// allocated follows what has come, not what Content-Length promises, and for a
// body that comes as promised it is not more than that. A body that breaks off is
// the caller's fault.
func ReadBody(r *http.Request) ([]byte, error) {
	if r.Body == nil {
		return nil, nil
	}
	return readBody(r, make([]byte, 0, firstSize(r)), nil)
}

// firstSize is what a body gets at first.
func firstSize(r *http.Request) int {
	const unknown = 512
	if r.ContentLength < 0 {
		return unknown
	}
	return int(min(r.ContentLength, ahead))
}

// readBody appends the body to b, all of it or, where enough is given, until that says so.
func readBody(r *http.Request, b []byte, enough func(have int) bool) ([]byte, error) {
	for {
		if r.ContentLength >= 0 && int64(len(b)) == r.ContentLength || enough != nil && enough(len(b)) {
			return b, nil
		}
		if len(b) == cap(b) {
			b = grow(b, r.ContentLength)
		}
		n, err := r.Body.Read(b[len(b):cap(b)])
		b = b[:len(b)+n]
		switch {
		case errors.Is(err, io.EOF):
			return b, nil
		case err != nil:
			return nil, bodyError(r, err)
		}
	}
}

// grow doubles b, but not beyond the length that is known.
func grow(b []byte, length int64) []byte {
	size := int64(2 * cap(b))
	if length >= 0 {
		size = min(size, length)
	}
	more := make([]byte, len(b), max(size, int64(len(b))+1))
	copy(more, b)
	return more
}

func bodyError(r *http.Request, err error) error {
	_, ours := errors.AsType[*resource.Error](err)
	_, tooLarge := errors.AsType[*http.MaxBytesError](err)
	if ours || tooLarge || r.Context().Err() != nil {
		return err
	}
	return resource.Invalid("body", "the body ended early")
}

// Bodies reads bodies into memory that is used again: an image of a megabyte costs
// more to clear and to collect than to pass on. The zero value is ready.
type Bodies struct {
	// Within is how soon the rest of a body is to be here for Receive to leave it; 0 = 20 ms.
	Within time.Duration

	free sync.Pool
}

// keptBody bounds the memory that one body leaves for the next.
const keptBody = 4 << 20

// Read is ReadBody; done gives the memory back, when nobody has the body any more.
func (p *Bodies) Read(r *http.Request) (body []byte, done func(), err error) {
	return p.read(r, nil)
}

// Receive is Read, but for a large body that comes fast and is about to be here: the rest of
// it is in upload then, and body is nil. done waits until nobody reads or sends it.
func (p *Bodies) Receive(r *http.Request) (body []byte, upload *replica.Upload, done func(), err error) {
	if r.ProtoMajor != 1 || r.ContentLength < receiveFrom {
		body, done, err = p.Read(r)
		return body, nil, done, err
	}
	size, began := int(r.ContentLength), time.Now()
	within := cmp.Or(p.Within, receiveWithin)
	body, done, err = p.read(r, func(have int) bool { return have >= receivePart && left(have, size, time.Since(began)) <= within })
	if err != nil || len(body) == size {
		return body, nil, done, err
	}
	upload = replica.NewUpload(body, size, func(b []byte) (int, error) {
		n, err := r.Body.Read(b)
		if err != nil && !errors.Is(err, io.EOF) {
			err = bodyError(r, err)
		}
		return n, err
	})
	return nil, upload, func() { p.keep(upload.Close()) }, nil
}

// What is received as it comes: less is here at once or not worth it. A part of receiveFrom
// tells how fast a caller is; who needs longer than receiveWithin for the rest would hold a
// replica meanwhile that others could have.
const (
	receiveFrom   = 128 << 10
	receivePart   = 64 << 10
	receiveWithin = 20 * time.Millisecond
)

// left is how long the rest of a body takes at the pace of the part that came.
func left(have, size int, took time.Duration) time.Duration {
	return time.Duration(float64(took) * float64(size-have) / float64(have))
}

func (p *Bodies) read(r *http.Request, enough func(have int) bool) (body []byte, done func(), err error) {
	if r.Body == nil {
		return nil, func() {}, nil
	}
	box, _ := p.free.Get().(*[]byte)
	if box == nil {
		box = new([]byte)
	}
	if n := firstSize(r); cap(*box) < n {
		*box = make([]byte, 0, n)
	}
	body, err = readBody(r, (*box)[:0], enough)
	if cap(body) <= keptBody {
		*box = body[:0]
	}
	return body, func() { p.free.Put(box) }, err
}

// keep takes memory back.
func (p *Bodies) keep(b []byte) {
	if cap(b) <= keptBody {
		b = b[:0]
		p.free.Put(&b)
	}
}
