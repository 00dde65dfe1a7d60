package serving_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	pb "cloud.google.com/go/aiplatform/apiv1beta1/aiplatformpb"

	"tategu/internal/blob"
	"tategu/internal/resource"
	"tategu/internal/serving"
	"tategu/internal/store"
)

// reportBecomes waits for a shadow's report that is as wanted.
func (w *world) reportBecomes(ok func(serving.ShadowReport) bool) serving.ShadowReport {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), time.Minute)
	defer cancel()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	var r serving.ShadowReport
	for {
		if data, err := w.engine.ShadowReport(endpoint); err == nil {
			r = serving.ShadowReport{}
			if err := json.Unmarshal(data, &r); err != nil {
				w.t.Fatal(err)
			}
			if ok(r) {
				return r
			}
		}
		select {
		case <-ctx.Done():
			w.t.Fatalf("the report is %+v", r)
		case <-tick.C:
		}
	}
}

func (w *world) ask(n int) {
	w.t.Helper()
	for i := range n {
		resp, err := w.engine.Predict(w.t.Context(), endpoint, serving.Request{Body: fmt.Appendf(nil, `{"instances": [%d]}`, i), Again: true})
		if err != nil {
			w.t.Fatal(err)
		}
		text, err := io.ReadAll(resp.Body)
		if err = errors.Join(err, resp.Body.Close()); err != nil || string(text) != fmt.Sprintf(`{"predictions": [%d]}`, i) || resp.DeployedModel != "1" {
			w.t.Fatalf("%s %s, %v", text, resp.DeployedModel, err)
		}
	}
}

// TestShadow: copies go to a model without traffic, and how its answers differ is told,
// also after a restart; the callers see nothing of it.
func TestShadow(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.withProcesses()
	echoModel(t, w)
	canaryModel(t, w, "differs")
	w.deploy("1", "echo", dedicated(&pb.DedicatedResources{MinReplicaCount: 1, MaxReplicaCount: 1}))
	w.deploy("2", "canary", dedicated(&pb.DedicatedResources{MinReplicaCount: 1, MaxReplicaCount: 1}))
	w.label(map[string]string{serving.ShadowLabel: "1"})
	w.ask(5)
	w.label(map[string]string{serving.ShadowLabel: "2"})
	for range 100 { // until the engine has seen the label
		w.ask(1)
	}
	r := w.reportBecomes(func(r serving.ShadowReport) bool { return strings.HasSuffix(r.Model, "/2") && r.Requests > 0 })
	w.ask(20)
	r = w.reportBecomes(func(n serving.ShadowReport) bool { return n.Requests >= r.Requests+20 })
	if r.Equal != 0 || r.Failed != 0 || len(r.Fields) != 1 || r.Fields[0].Path != "predictions[]" || r.Fields[0].Count != r.Requests ||
		r.Fields[0].Ours != "0" || r.Fields[0].Theirs != "1" || r.Theirs.N != r.Requests {
		t.Errorf("report %+v", r)
	}
	w.stop()
	w.open()
	w.reportBecomes(func(n serving.ShadowReport) bool { // some more may have been under way
		return n.Requests >= r.Requests && len(n.Fields) == 1 && n.Fields[0].Count == n.Requests && n.Since.Equal(r.Since)
	})
	w.undeploy("2")
	w.ask(3)
	w.reportBecomes(func(r serving.ShadowReport) bool {
		return r.Failed >= 3 && strings.Contains(r.Reason, "is not running")
	})
	w.undeploy("1")
	w.noReport()
}

// noReport deletes the endpoint and waits until nothing of its report is left.
func (w *world) noReport() {
	w.t.Helper()
	err := w.store.Update(w.t.Context(), func(tx store.Tx) error {
		return tx.Delete(w.t.Context(), resource.KindEndpoints, endpoint)
	})
	if err != nil {
		w.t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(w.t.Context(), time.Minute)
	defer cancel()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		if _, err := w.engine.ShadowReport(endpoint); resource.IsNotFound(err) {
			break
		}
		select {
		case <-ctx.Done():
			w.t.Fatal("the report of a deleted endpoint is still told")
		case <-tick.C:
		}
	}
	w.stop()
	w.open()
	if rows, err := w.store.List(w.t.Context(), store.Query{Kind: resource.KindShadowReports}); err != nil || len(rows) > 0 {
		w.t.Errorf("reports of a deleted endpoint: %v, %v", rows, err)
	}
}

// TestShadowThatHangs: callers do not wait for it, and what there is no room for is
// counted.
func TestShadowThatHangs(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.withProcesses()
	echoModel(t, w)
	canaryModel(t, w, "hangs")
	w.deploy("1", "echo", dedicated(&pb.DedicatedResources{MinReplicaCount: 1, MaxReplicaCount: 1}))
	w.deploy("2", "canary", dedicated(&pb.DedicatedResources{MinReplicaCount: 1, MaxReplicaCount: 1}))
	w.label(map[string]string{serving.ShadowLabel: "2"})
	w.ask(1500) // more than the line takes
	w.reportBecomes(func(r serving.ShadowReport) bool { return r.Dropped > 0 })
}

// objects is a bucket in memory.
type objects struct {
	mu      sync.Mutex
	project string
	byName  map[string]string
}

func (o *objects) EnsureBucket(_ context.Context, project, name string) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if name != serving.JournalBucket("p") {
		return fmt.Errorf("bucket %s", name)
	}
	if o.project == "" {
		o.project = project
	}
	return nil
}

func (o *objects) GetBucket(_ context.Context, name string) (blob.Bucket, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return blob.Bucket{Name: name, Project: o.project}, nil
}

func (o *objects) Put(_ context.Context, attrs blob.Object, r io.Reader, _ blob.Conditions) (blob.Object, error) {
	data, err := io.ReadAll(r)
	o.mu.Lock()
	defer o.mu.Unlock()
	o.byName[attrs.Name] = string(data)
	return attrs, err
}

func (o *objects) lines() (names []string, lines []map[string]any) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, name := range slices.Sorted(maps.Keys(o.byName)) {
		names = append(names, name)
		dec := json.NewDecoder(strings.NewReader(o.byName[name]))
		for {
			var line map[string]any
			if dec.Decode(&line) != nil {
				break
			}
			lines = append(lines, line)
		}
	}
	return names, lines
}

// TestLogging: what is asked and answered is in the table when the server has ended;
// credentials are not.
func TestLogging(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	kept := &objects{byName: map[string]string{}}
	w.journal = kept
	w.withProcesses()
	echoModel(t, w)
	w.deploy("1", "echo", dedicated(&pb.DedicatedResources{MinReplicaCount: 1, MaxReplicaCount: 1}))
	e := w.endpoint()
	e.PredictRequestResponseLoggingConfig = &pb.PredictRequestResponseLoggingConfig{
		Enabled: true, SamplingRate: 0.5, BigqueryDestination: &pb.BigQueryDestination{OutputUri: "bq://p.data"},
	}
	if err := serving.CheckLogging(e); err != nil || e.PredictRequestResponseLoggingConfig.BigqueryDestination.OutputUri != "bq://p.data.request_response_logging" {
		t.Fatal(e, err)
	}
	w.put("endpoints", endpoint, e)
	for _, body := range []string{`{"instances": ["a"]}`, "\xff\x00"} {
		resp, err := w.engine.Predict(t.Context(), endpoint, serving.Request{Body: []byte(body), Header: http.Header{"Authorization": {"Bearer secret"}}})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.Copy(io.Discard, resp.Body); err != nil {
			t.Fatal(err)
		}
		if err := resp.Body.Close(); err != nil {
			t.Fatal(err)
		}
	}
	w.random = 600_000 // above the rate
	w.ask(3)
	w.stop()
	names, lines := kept.lines()
	if len(lines) != 2 || !strings.HasPrefix(names[0], "data/request_response_logging/20") {
		t.Fatalf("%v: %v", names, lines)
	}
	for i, want := range []map[string]any{
		{
			"endpoint": "7", "deployed_model_id": "1", "status": 200.0,
			"request_payload": []any{`{"instances": ["a"]}`}, "response_payload": []any{`{"predictions": ["a"]}`},
		},
		{"endpoint": "7", "deployed_model_id": "1", "status": 400.0, "base64": true, "request_payload": []any{"/wA="}},
	} {
		for key, value := range want {
			if fmt.Sprint(lines[i][key]) != fmt.Sprint(value) {
				t.Errorf("%s of line %d is %v, want %v", key, i, lines[i][key], value)
			}
		}
		if lines[i]["request_id"] == "" || lines[i]["logging_time"] == "" {
			t.Errorf("line %v", lines[i])
		}
	}
	for _, text := range kept.byName {
		if bytes.Contains([]byte(text), []byte("secret")) {
			t.Error("a credential was logged")
		}
	}
}

func TestLoggingIsChecked(t *testing.T) {
	t.Parallel()
	for uri, want := range map[string]string{
		"": "bq://p.logging_my_model_7.request_response_logging", "bq://p": "bq://p.logging_my_model_7.request_response_logging",
		"bq://p.d.t": "bq://p.d.t", "bq://q.d.t": "", "gs://b/x": "", "bq://p.d/../x.t": "", "bq://p..t": "",
	} {
		e := &pb.Endpoint{Name: endpoint, DisplayName: "my model", PredictRequestResponseLoggingConfig: &pb.PredictRequestResponseLoggingConfig{
			Enabled: true, SamplingRate: 1, BigqueryDestination: &pb.BigQueryDestination{OutputUri: uri},
		}}
		err := serving.CheckLogging(e)
		if got := e.PredictRequestResponseLoggingConfig.BigqueryDestination.OutputUri; want == "" && err == nil || want != "" && (err != nil || got != want) {
			t.Errorf("%q: %q, %v", uri, got, err)
		}
		e.PredictRequestResponseLoggingConfig.SamplingRate = 2
		if serving.CheckLogging(e) == nil {
			t.Error("a rate of 2 is taken")
		}
	}
}
