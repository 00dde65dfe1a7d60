package serving_test

import (
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"

	pb "cloud.google.com/go/aiplatform/apiv1beta1/aiplatformpb"

	"tategu/internal/replica"
	"tategu/internal/resource"
	"tategu/internal/serving"
)

// upload is a body of which a tenth is there; the rest comes when more is closed.
func upload(text string, more <-chan struct{}) *replica.Upload {
	at := len(text) / 10
	return replica.NewUpload([]byte(text[:at]), len(text), func(p []byte) (int, error) {
		<-more
		n := copy(p, text[at:])
		at += n
		return n, nil
	})
}

// large is a request that one write does not hold.
func large() string { return `{"instances": ["` + strings.Repeat("pixel", 60_000) + `"]}` }

func (w *world) send(r serving.Request) (status int, text string) {
	w.t.Helper()
	resp, err := w.engine.Predict(w.t.Context(), endpoint, r)
	if err != nil {
		w.t.Fatal(err)
	}
	b, err := io.ReadAll(resp.Body)
	if err = errors.Join(err, resp.Body.Close()); err != nil {
		w.t.Fatal(err)
	}
	r.Upload.Close()
	return resp.Status, string(b)
}

// TestUpload: a body that is still coming reaches the model's server, and the log of
// requests, as one that is there; one that stops coming for a while does too.
func TestUpload(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	kept := &objects{byName: map[string]string{}}
	w.journal = kept
	w.withProcesses()
	echoModel(t, w)
	w.deploy("1", "echo", dedicated(&pb.DedicatedResources{MinReplicaCount: 1, MaxReplicaCount: 1}))
	e := w.endpoint()
	e.PredictRequestResponseLoggingConfig = &pb.PredictRequestResponseLoggingConfig{
		Enabled: true, SamplingRate: 1, BigqueryDestination: &pb.BigQueryDestination{OutputUri: "bq://p.data.log"},
	}
	w.put("endpoints", endpoint, e)
	body := large()
	answer := strings.Replace(body, "instances", "predictions", 1)
	now := make(chan struct{})
	close(now)
	if status, text := w.send(serving.Request{Upload: upload(body, now), Again: true}); status != http.StatusOK || text != answer {
		t.Errorf("got %d and %d bytes", status, len(text))
	}
	later := make(chan struct{})
	u := upload(body, later)
	answered := make(chan string)
	go func() {
		_, text := w.send(serving.Request{Upload: u, Again: true})
		answered <- text
	}()
	// It is taken back when it stalls, and others are answered meanwhile.
	w.ask(1)
	close(later)
	if text := <-answered; text != answer {
		t.Errorf("got %d bytes", len(text))
	}
	w.stop()
	_, lines := kept.lines()
	whole := 0
	for _, line := range lines {
		if payload, ok := line["request_payload"].([]any); ok && len(payload) == 1 && payload[0] == body {
			whole++
		}
	}
	if len(lines) != 3 || whole != 2 {
		t.Errorf("%d lines, %d with all of the body", len(lines), whole)
	}
}

// TestUploadIsRead where nobody can take a part: a model in process, an endpoint with
// nothing deployed, and a body that breaks off.
func TestUploadIsRead(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	now := make(chan struct{})
	close(now)
	if _, err := w.engine.Predict(t.Context(), endpoint, serving.Request{Upload: upload(large(), now)}); resource.CodeOf(err).String() != "FailedPrecondition" {
		t.Errorf("nothing is deployed: %v", err)
	}
	w.deploy("1", "native", nil)
	one := strings.TrimSuffix(strings.TrimPrefix(row, `{"instances":[`), `]}`)
	body := `{"instances":[` + one + strings.Repeat(","+one, 99) + `]}`
	if status, text := w.send(serving.Request{Upload: upload(body, now), Again: true}); status != http.StatusOK || strings.Count(text, ",") != 99 {
		t.Errorf("got %d %s", status, text)
	}
	gone := errors.New("gone")
	broken := replica.NewUpload(make([]byte, 1), 9, func([]byte) (int, error) { return 0, gone })
	if _, err := w.engine.Predict(t.Context(), endpoint, serving.Request{Upload: broken}); !errors.Is(err, gone) {
		t.Errorf("a body that broke off: %v", err)
	}
}
