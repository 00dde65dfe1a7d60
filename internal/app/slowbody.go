package app

import (
	"errors"
	"io"
	"net/http"
	"time"
)

// bodyPause is how long a client may send nothing in the middle of a request.
const bodyPause = time.Minute

// impatient ends requests whose body stops coming: the connection would be held for ever.
func impatient(h http.Handler, pause time.Duration) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Body != nil && r.Body != http.NoBody {
			r.Body = &timedBody{ReadCloser: r.Body, conn: http.NewResponseController(w), pause: pause}
		}
		h.ServeHTTP(w, r)
	})
}

// timedBody gives each read of a body a time of its own.
type timedBody struct {
	io.ReadCloser

	conn  *http.ResponseController
	pause time.Duration
}

func (b *timedBody) Read(p []byte) (int, error) {
	if err := b.conn.SetReadDeadline(time.Now().Add(b.pause)); err != nil {
		return 0, err
	}
	n, err := b.ReadCloser.Read(p)
	if errors.Is(err, io.EOF) {
		// What is read from now on is whether the client is still there.
		if bad := b.conn.SetReadDeadline(time.Time{}); bad != nil {
			return n, bad
		}
	}
	return n, err
}
