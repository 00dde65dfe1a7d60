package serving

import (
	"io"
	"strings"
	"testing"
	"time"

	pb "cloud.google.com/go/aiplatform/apiv1beta1/aiplatformpb"
)

// TestCopyIsItsOwn uses the memory of a request again once it is answered, as the API
// does, before its copy is written.
func TestCopyIsItsOwn(t *testing.T) {
	t.Parallel()
	e := New(Config{Now: time.Now})
	body := []byte("the request")
	resp := &Response{Body: io.NopCloser(strings.NewReader("the answer"))}
	e.tapped(&entry{endpoint: &pb.Endpoint{}, journal: &journaling{rate: 1}}, Request{Body: body}, resp, 0)
	if _, err := io.ReadAll(resp.Body); err != nil {
		t.Fatal(err)
	}
	if err := resp.Body.Close(); err != nil {
		t.Fatal(err)
	}
	clear(body)
	if x := <-e.journaled; string(x.request) != "the request" || string(x.response) != "the answer" {
		t.Errorf("the copy is %q: %q", x.request, x.response)
	}
}
