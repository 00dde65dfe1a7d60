package wire_test

import (
	"io"
	"net/http"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"

	"tategu/internal/resource"
	"tategu/internal/wire"
)

// invoke answers with the body, or fails as the body says.
type invoke struct{}

func (invoke) Owns(r *http.Request) bool { return strings.Contains(r.URL.Path, "/invoke/") }

func (invoke) Serve(w http.ResponseWriter, r *http.Request) error {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return err
	}
	switch string(body) {
	case "full":
		return resource.Errorf(codes.ResourceExhausted, "the queue is full")
	case "starting":
		return resource.Errorf(codes.Unavailable, "it starts")
	}
	_, err = w.Write(body)
	return err
}

func TestInvokeRoute(t *testing.T) {
	t.Parallel()
	f := start(t, func(c *wire.Config) {
		c.Routes = wire.InvokeRoutes(invoke{})
		c.MaxBody = 100
	})
	const path = "/v1/projects/p/locations/l/endpoints/1/invoke/x"
	for body, want := range map[string]struct {
		status int
		retry  string
		text   string
	}{
		"hello":                  {http.StatusOK, "", "hello"},
		"full":                   {http.StatusTooManyRequests, "1", "the queue is full"},
		"starting":               {http.StatusServiceUnavailable, "1", "it starts"},
		strings.Repeat("x", 101): {http.StatusRequestEntityTooLarge, "", "larger than 100 bytes"},
	} {
		resp, text := f.do(t, "POST", path, body)
		if resp.StatusCode != want.status || resp.Header.Get("Retry-After") != want.retry || !strings.Contains(text, want.text) {
			t.Errorf("%.10q: %d, retry after %q, %s", body, resp.StatusCode, resp.Header.Get("Retry-After"), text)
		}
	}
	if resp, _ := f.do(t, "POST", path, "x", "Authorization", "Bearer evil"); resp.StatusCode != http.StatusUnauthorized {
		t.Errorf("a bad token: %d", resp.StatusCode)
	}
}
