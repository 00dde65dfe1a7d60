package app

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"
)

// TestBodyThatStops: a client that sends half a body hears of it; one that sends all of
// it may then wait for as long as its answer takes.
func TestBodyThatStops(t *testing.T) {
	t.Parallel()
	const pause = 200 * time.Millisecond
	s := httptest.NewServer(impatient(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		text, err := io.ReadAll(r.Body)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			http.Error(w, "too slow", http.StatusRequestTimeout)
			return
		}
		select {
		case <-r.Context().Done(): // the client would be taken for gone
			t.Error("a request ended while it was worked on")
		case <-time.After(2 * pause):
		}
		_, _ = w.Write(text)
	}), pause))
	defer s.Close()
	for _, c := range []struct{ sent, want string }{{"half", "408"}, {"whole of it", "200"}} {
		conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", strings.TrimPrefix(s.URL, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := fmt.Fprintf(conn, "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 11\r\n\r\n%s", c.sent); err != nil {
			t.Fatal(err)
		}
		line, err := bufio.NewReader(conn).ReadString('\n')
		if err != nil || !strings.Contains(line, c.want) {
			t.Errorf("%q: %q, %v", c.sent, line, err)
		}
		if err := conn.Close(); err != nil {
			t.Error(err)
		}
	}
}
