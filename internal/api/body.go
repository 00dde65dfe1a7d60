package api

import (
	"errors"
	"io"
	"net/http"

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
	size := int64(512)
	if r.ContentLength >= 0 {
		size = min(r.ContentLength, ahead)
	}
	b := make([]byte, 0, size)
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
