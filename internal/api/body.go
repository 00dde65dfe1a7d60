package api

import (
	"errors"
	"io"
	"net/http"
	"sync"

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
	return readBody(r, make([]byte, 0, firstSize(r)))
}

// firstSize is what a body gets at first.
func firstSize(r *http.Request) int {
	const unknown = 512
	if r.ContentLength < 0 {
		return unknown
	}
	return int(min(r.ContentLength, ahead))
}

func readBody(r *http.Request, b []byte) ([]byte, error) {
	for {
		if r.ContentLength >= 0 && int64(len(b)) == r.ContentLength {
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
type Bodies struct{ free sync.Pool }

// keptBody bounds the memory that one body leaves for the next.
const keptBody = 4 << 20

// Read is ReadBody; done gives the memory back, when nobody has the body any more.
func (p *Bodies) Read(r *http.Request) (body []byte, done func(), err error) {
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
	body, err = readBody(r, (*box)[:0])
	if cap(body) <= keptBody {
		*box = body[:0]
	}
	return body, func() { p.free.Put(box) }, err
}
