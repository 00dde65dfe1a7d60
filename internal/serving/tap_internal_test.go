package serving

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
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

// TestShadowIsAskedAsTheOther: a copy says what its body is as the request did.
func TestShadowIsAskedAsTheOther(t *testing.T) {
	t.Parallel()
	e := New(Config{Now: time.Now})
	ask := Request{Header: http.Header{"Content-Type": {"text/csv"}}, Body: []byte("1,2"), Again: true}
	resp := &Response{Body: io.NopCloser(strings.NewReader("3"))}
	e.tapped(&entry{endpoint: &pb.Endpoint{}, shadow: &shadowing{rate: 1}}, ask, resp, 0)
	if _, err := io.ReadAll(resp.Body); err != nil {
		t.Fatal(err)
	}
	if err := resp.Body.Close(); err != nil {
		t.Fatal(err)
	}
	if again := (<-e.shadowed).again(); again.Header.Get("Content-Type") != "text/csv" || string(again.Body) != "1,2" || !again.Again {
		t.Errorf("the shadow is asked %+v", again)
	}
}

// fullDisk is where no bucket can be made.
type fullDisk struct{ Journal }

func (fullDisk) EnsureBucket(context.Context, string, string) error { return errors.New("no space") }

// TestJournalIsBounded: what cannot be written of all endpoints together has one bound.
func TestJournalIsBounded(t *testing.T) {
	t.Parallel()
	e := New(Config{Now: time.Now, Journal: fullDisk{}, Log: slog.New(slog.DiscardHandler)})
	p := newPages()
	for i := range 10 {
		at := &entry{endpoint: &pb.Endpoint{Name: "projects/p/locations/l/endpoints/7"}, journal: &journaling{table: "d/" + string(rune('a'+i%3))}}
		x := &exchange{at: at, request: bytes.Repeat([]byte("a"), 6<<20), budget: &e.copies}
		x.uses.Store(1)
		e.write(t.Context(), p, x)
	}
	kept := 0
	for _, page := range p.lines {
		kept += page.Len()
	}
	if kept == 0 || kept > journalMost {
		t.Errorf("%d bytes are kept", kept)
	}
}
