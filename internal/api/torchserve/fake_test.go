package torchserve_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	api "tategu/internal/api/torchserve"
	engine "tategu/internal/torchserve"
)

// fake is an engine with two models: echo, whose handler says what it was given, and
// idle, which has no worker.
type fake struct {
	registered  []engine.Registration
	scaled      []engine.Scaling
	unregister  []string
	failure     error // of Register
	customized  []byte
	workflows   []engine.Workflow
	forWorkflow engine.Request
}

func notFound(kind, format string, args ...any) error {
	return &engine.Error{Code: http.StatusNotFound, Type: kind, Message: fmt.Sprintf(format, args...)}
}

func (f *fake) find(model, version string) error {
	if model != "echo" && model != "idle" {
		return notFound(engine.ModelNotFound, "Model not found: %s", model)
	}
	if version != "" && version != "1.0" && version != "all" {
		return notFound(engine.ModelVersionNotFound, "Model version: %s does not exist for model: %s", version, model)
	}
	return nil
}

func (f *fake) Register(_ context.Context, r engine.Registration) (engine.Registered, error) {
	f.registered = append(f.registered, r)
	out := engine.Registered{Model: r.ModelName, Version: "1.0"}
	if r.InitialWorkers != nil {
		out.Workers = *r.InitialWorkers
	}
	return out, f.failure
}

func (f *fake) Unregister(_ context.Context, model, version string) error {
	f.unregister = append(f.unregister, model+"/"+version)
	return f.find(model, version)
}

func (f *fake) Scale(_ context.Context, s engine.Scaling) error {
	f.scaled = append(f.scaled, s)
	return f.find(s.Model, s.Version)
}

func (f *fake) SetDefault(_ context.Context, model, version string) error {
	return f.find(model, version)
}

func (f *fake) Models() []engine.Model {
	return []engine.Model{{Name: "idle", Version: "1.0", URL: "idle.mar"}, echo()}
}

func echo() engine.Model {
	return engine.Model{
		Name: "echo", Version: "1.0", URL: "echo.mar", Runtime: "python", MinWorkers: 1, MaxWorkers: 2, BatchSize: 4, MaxBatchDelay: 100 * time.Millisecond,
		ResponseTimeout: 120 * time.Second, StartupTimeout: 90 * time.Second, MaxRetryTimeout: 300 * time.Second, QueueSize: 100, Waiting: 1, LoadedAtStartup: true,
		Workers: []engine.Worker{{ID: "9000", Started: time.Date(2026, 11, 27, 6, 39, 38, 140e6, time.UTC), State: engine.WorkerReady, PID: 31435, MemoryBytes: 243912704, GPU: -1}},
	}
}

func (f *fake) Describe(_ context.Context, model, version string, _ bool) ([]engine.Model, error) {
	if err := f.find(model, version); err != nil {
		return nil, err
	}
	m := echo()
	if model == "idle" {
		m = engine.Model{Name: "idle", Version: "1.0", URL: "idle.mar", MinWorkers: 1}
	}
	m.CustomizedMetadata = f.customized
	return []engine.Model{m}, nil
}

// Predict answers with what the handler was given, or as the body asks.
func (f *fake) Predict(ctx context.Context, model, version string, r engine.Request, emit func(engine.Frame) error) error {
	if err := f.find(model, version); err != nil {
		return err
	}
	if model == "idle" {
		return &engine.Error{Code: http.StatusServiceUnavailable, Type: engine.ServiceUnavailable, Message: "no worker"}
	}
	var body []byte
	for _, p := range r.Parts {
		if p.Name == "body" {
			body = p.Value
		}
	}
	switch string(body) {
	case "stream", "break":
		for i := range 3 {
			if err := emit(engine.Frame{Status: http.StatusOK, Headers: []engine.Pair{{Name: "ts_stream_next", Value: "true"}}, Body: fmt.Appendf(nil, "s%d ", i), More: true}); err != nil {
				return err
			}
		}
		if string(body) == "break" {
			return &engine.Error{Code: http.StatusInternalServerError, Type: engine.InternalServer, Message: "Worker died."}
		}
		return emit(engine.Frame{Body: []byte("end")})
	case "teapot":
		return emit(engine.Frame{Status: http.StatusTeapot, ContentType: "text/plain", Headers: []engine.Pair{{Name: "X-A", Value: "b"}, {Name: "content-type", Value: "text/plain"}, {Name: "Content-Length", Value: "999"}}, Body: []byte("x")})
	case "wait":
		<-ctx.Done()
		return ctx.Err()
	case "nothing":
		return nil
	}
	return emit(engine.Frame{Status: http.StatusOK, Body: []byte(told(r))})
}

// told is a request as text.
func told(r engine.Request) string {
	var b strings.Builder
	for _, h := range r.Headers {
		switch {
		case h.Name == "explain" && h.Value == "True":
			b.WriteString("explain ")
		case h.Name == "url_path" && h.Value != "":
			b.WriteString("path=" + h.Value + " ")
		}
	}
	for _, p := range r.Parts {
		fmt.Fprintf(&b, "%s[%s]=%s ", p.Name, p.ContentType, p.Value)
	}
	return strings.TrimSpace(b.String())
}

func (f *fake) RegisterWorkflow(_ context.Context, r engine.WorkflowRegistration) (engine.Workflow, error) {
	if r.URL != "wf.war" {
		return engine.Workflow{}, notFound(engine.WorkflowNotFound, "Workflow not found in workflow store: %s", r.URL)
	}
	w := engine.Workflow{
		Name: "wf", URL: r.URL, MinWorkers: 1, MaxWorkers: 1, BatchSize: 1, MaxDelay: 50 * time.Millisecond,
		Definition: []byte(`{"models":{"m1":{"url":"echo.mar"}},"dag":{"pre":["m1"],"m1":["post"]}}`),
	}
	f.workflows = append(f.workflows, w)
	return w, nil
}

func (f *fake) UnregisterWorkflow(_ context.Context, name string) error {
	_, err := f.DescribeWorkflow(name)
	return err
}

func (f *fake) Workflows() []engine.Workflow { return f.workflows }

func (f *fake) DescribeWorkflow(name string) (engine.Workflow, error) {
	for _, w := range f.workflows {
		if w.Name == name {
			return w, nil
		}
	}
	return engine.Workflow{}, notFound(engine.WorkflowNotFound, "Workflow not found: %s", name)
}

func (f *fake) PredictWorkflow(_ context.Context, name string, r engine.Request, emit func(engine.Frame) error) error {
	if _, err := f.DescribeWorkflow(name); err != nil {
		return err
	}
	f.forWorkflow = r
	return emit(engine.Frame{Status: http.StatusOK, Body: []byte(`{"cat": 0.5}`)})
}

func (f *fake) Health() engine.Health { return engine.PartialHealthy }

// listen is a configuration as the tests want it.
func listen() engine.Listen {
	c := engine.Defaults().Listen
	c.ModelAPI, c.MaxRequest = true, 1<<20
	return c
}

// served is an API whose three addresses are test servers.
type served struct {
	engine                        *fake
	inference, management, metric *httptest.Server
}

func serve(t *testing.T, change func(*engine.Listen, *api.Deps)) *served {
	t.Helper()
	f := &fake{}
	cfg := listen()
	deps := api.Deps{Engine: f, Metrics: api.NewMetrics(api.MetricsConfig{Mode: api.ModePrometheus, Definitions: api.Definitions()})}
	if change != nil {
		change(&cfg, &deps)
	}
	a := api.New(cfg, deps)
	s := &served{f, httptest.NewServer(a.Inference()), httptest.NewServer(a.Management()), httptest.NewServer(a.MetricsAPI())}
	t.Cleanup(func() { s.inference.Close(); s.management.Close(); s.metric.Close() })
	return s
}

// answer is one of HTTP.
type answer struct {
	*http.Response
	body string
}

func ask(t *testing.T, method, url, contentType, body string, header ...string) answer {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if contentType != "" {
		req.Header.Set("Content-Type", contentType)
	}
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(resp.Body)
	_ = resp.Body.Close()
	if err != nil {
		t.Fatal(err)
	}
	return answer{resp, string(text)}
}
