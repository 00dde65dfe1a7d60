package serving_test

import (
	"io"
	"log/slog"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	pb "cloud.google.com/go/aiplatform/apiv1beta1/aiplatformpb"
	"github.com/prometheus/client_golang/prometheus"

	"tategu/internal/modelformat"
	"tategu/internal/serving"
)

// TestExplanationIsOneRequest: a request for explanations is counted, and logged in each
// way, once, whether its predictions are asked for or not, and is no prediction.
func TestExplanationIsOneRequest(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.stop()
	var mu sync.Mutex
	var text strings.Builder
	w.logs = slog.NewTextHandler(locked{&mu, &text}, nil)
	kept := &objects{byName: map[string]string{}}
	w.journal = kept
	w.open()
	w.withProcesses()
	echoModel(t, w)
	script, err := filepath.Abs("testdata/canary.py")
	if err != nil {
		t.Fatal(err)
	}
	w.model("explains", &pb.Model{ContainerSpec: &pb.ModelContainerSpec{
		ImageUri: "echo", Args: []string{script, "as it should"}, HealthRoute: "/health", PredictRoute: "/predict", Env: []*pb.EnvVar{{Name: modelformat.ExplainVariable, Value: "/why"}},
	}})
	w.deploy("1", "explains", func(r *pb.DeployModelRequest) {
		dedicated(&pb.DedicatedResources{MinReplicaCount: 1, MaxReplicaCount: 1})(r)
		r.DeployedModel.EnableAccessLogging = true
	})
	e := w.endpoint()
	e.PredictRequestResponseLoggingConfig = &pb.PredictRequestResponseLoggingConfig{Enabled: true, SamplingRate: 1, BigqueryDestination: &pb.BigQueryDestination{OutputUri: "bq://p.data.t"}}
	w.put("endpoints", endpoint, e)
	registry := prometheus.NewPedanticRegistry()
	for _, c := range w.engine.Metrics() {
		if err := registry.Register(c); err != nil {
			t.Fatal(err)
		}
	}
	ask := func(r serving.Request) {
		t.Helper()
		resp, err := w.engine.Predict(t.Context(), endpoint, r)
		if err != nil {
			if !strings.Contains(string(r.Body), "fails") {
				t.Fatal(err)
			}
			return
		}
		if _, err := io.Copy(io.Discard, resp.Body); err != nil {
			t.Fatal(err)
		}
		if err := resp.Body.Close(); err != nil {
			t.Fatal(err)
		}
	}
	body := []byte(`{"instances":[1]}`)
	alone, both, broken, none := &serving.Explaining{}, &serving.Explaining{}, &serving.Explaining{}, &serving.Explaining{}
	ask(serving.Request{Body: body, Explain: true, Part: alone})
	ask(serving.Request{Body: body, Explain: true, Part: both})
	ask(serving.Request{Body: body, Part: both, DeployedModel: "1"})
	ask(serving.Request{Body: body, Explain: true, Part: broken})
	ask(serving.Request{Body: []byte(`{"instances":["fails"]}`), Part: broken, DeployedModel: "1"})
	for _, x := range []*serving.Explaining{alone, both, broken, none, alone} {
		x.Done(t.Context())
	}
	ask(serving.Request{Body: body})
	ask(serving.Request{Body: body, Explain: true})
	got := exposition(t, registry)
	const labels = `deployed_model:1 endpoint:7 project:p `
	for _, want := range []string{
		"tategu_predictions_total " + labels + "status:200 = 1", "tategu_prediction_duration_seconds " + labels + "= 1",
		"tategu_explanations_total " + labels + "status:200 = 3", "tategu_explanation_duration_seconds " + labels + "= 4",
	} {
		if !strings.Contains(got, want+"\n") {
			t.Errorf("no %q in\n%s", want, got)
		}
	}
	if strings.Count(got, "tategu_explanations_total") != 2 || strings.Count(got, "tategu_predictions_total") != 1 {
		t.Errorf("what failed is told wrongly:\n%s", got)
	}
	w.stop()
	if _, lines := kept.lines(); len(lines) != 5 || lines[0]["explain"] != true || lines[3]["explain"] != nil && lines[4]["explain"] != nil {
		t.Errorf("logged are %v", lines)
	}
	mu.Lock()
	defer mu.Unlock()
	if n := strings.Count(text.String(), "msg=access"); n != 5 || strings.Count(text.String(), "route=/why") != 4 {
		t.Errorf("%d accesses are logged:\n%s", n, text.String())
	}
}

// TestManagementIsNoPrediction: what is asked of TorchServe's management is counted by
// itself.
func TestManagementIsNoPrediction(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.withTorch()
	if op := w.deploy("5", "torch", nil); op.GetError() != nil {
		t.Fatal(op.GetError())
	}
	registry := prometheus.NewPedanticRegistry()
	for _, c := range w.engine.Metrics() {
		if err := registry.Register(c); err != nil {
			t.Fatal(err)
		}
	}
	for _, url := range []string{"a", "bad"} {
		if _, err := w.post(url); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := w.engine.Manage(t.Context(), endpoint, serving.Request{Method: http.MethodGet, Route: "/models", DeployedModel: "5"}); err != nil {
		t.Fatal(err)
	}
	got := exposition(t, registry)
	const labels = `deployed_model:5 endpoint:7 project:p status:`
	for _, want := range []string{"tategu_predictions_total " + labels + "200 = 0", "tategu_torchserve_management_total " + labels + "200 = 2", "tategu_torchserve_management_total " + labels + "400 = 1"} {
		if !strings.Contains(got, want+"\n") {
			t.Errorf("no %q in\n%s", want, got)
		}
	}
	w.undeploy("5")
	if got := exposition(t, registry); got != "" {
		t.Errorf("after undeploy there is\n%s", got)
	}
}
