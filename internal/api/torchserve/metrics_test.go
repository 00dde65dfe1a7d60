package torchserve_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"

	api "tategu/internal/api/torchserve"
	engine "tategu/internal/torchserve"
)

func pair(name, value string) engine.Pair { return engine.Pair{Name: name, Value: value} }

func observe(m *api.Metrics) {
	for _, x := range []engine.Metric{
		{Name: "QueueTime", Value: 0, Dimensions: []engine.Pair{pair("Level", "Host")}, Host: "vm"},
		{Name: "WorkerLoadTime", Value: 1721, Dimensions: []engine.Pair{pair("WorkerName", "W-9002-echo_1.0"), pair("Level", "Host")}, Host: "vm"},
		{Name: "PredictionTime", Unit: "ms", Value: 0.01, Dimensions: []engine.Pair{pair("ModelName", `a"b\c`), pair("Level", "Model")}, Host: "vm"},
		{Name: "PredictionTime", Unit: "ms", Value: 1.5e7, Dimensions: []engine.Pair{pair("ModelName", "b"), pair("Level", "Model")}, Host: "vm"},
		{Name: "ts_inference_latency_microseconds", Value: 22881.345, Dimensions: []engine.Pair{pair("model_name", "echo"), pair("model_version", "1.0")}, Host: "vm"},
		{Name: "ts_inference_latency_microseconds", Value: 1, Dimensions: []engine.Pair{pair("model_name", "echo"), pair("model_version", "1.0")}, Host: "vm"},
		{Name: "Mine", Unit: "count", Kind: "COUNTER", Value: 2, Dimensions: []engine.Pair{pair("ModelName", "echo")}, Host: "vm"},
		{Name: "Mine", Unit: "count", Kind: "COUNTER", Value: -5, Dimensions: []engine.Pair{pair("ModelName", "echo")}, Host: "vm"},
		{Name: "Sizes", Unit: "bytes", Kind: "HISTOGRAM", Value: .3, Dimensions: []engine.Pair{pair("ModelName", "echo")}, Host: "vm"},
		{Name: "Sizes", Unit: "bytes", Kind: "HISTOGRAM", Value: 99, Dimensions: []engine.Pair{pair("ModelName", "echo")}, Host: "vm"},
		{Name: "HandlerTime", Value: 1, Dimensions: nil, Host: "vm"}, // lacks dimensions
	} {
		m.Observe(x)
	}
}

// TestMetricsText: the text that Prometheus reads, with the commas that TorchServe's
// clients look for.
func TestMetricsText(t *testing.T) {
	t.Parallel()
	for name, detect := range map[string]bool{"metrics.txt": false, "detected.txt": true} {
		m := api.NewMetrics(api.MetricsConfig{Mode: api.ModePrometheus, Definitions: api.Definitions(), Detect: detect})
		observe(m)
		s := serve(t, func(_ *engine.Listen, d *api.Deps) { d.Metrics = m })
		got := ask(t, http.MethodGet, s.metric.URL+"/metrics", "", "")
		golden(t, name, got.body)
		if got.Header.Get("Content-Type") != "text/plain; version=0.0.4; charset=utf-8" {
			t.Errorf("the type is %s", got.Header.Get("Content-Type"))
		}
		one := ask(t, http.MethodGet, s.metric.URL+"/metrics?name[]=QueueTime&name[]=HandlerTime&name[]=nothing", "", "").body
		if want := "# HELP QueueTime Torchserve prometheus gauge metric with unit: Milliseconds\n# TYPE QueueTime gauge\nQueueTime{Level=\"Host\",Hostname=\"vm\",} 0.0\n"; one != want {
			t.Errorf("by name: %q, want %q", one, want)
		}
	}
}

func TestRequestsAreCounted(t *testing.T) {
	t.Parallel()
	s := serve(t, nil)
	ask(t, http.MethodPost, s.inference.URL+"/predictions/echo", "", "x")
	ask(t, http.MethodPost, s.inference.URL+"/predictions/echo/1.0", "", "x")
	ask(t, http.MethodPost, s.inference.URL+"/predictions/idle", "", "x")
	ask(t, http.MethodPost, s.inference.URL+"/predictions/nope", "", "x")
	got := ask(t, http.MethodGet, s.metric.URL+"/metrics", "", "").body
	for _, want := range []string{
		`(?m)^Requests2XX{Level="Host",Hostname="[^"]+",} 2\.0$`, `(?m)^Requests4XX{Level="Host",Hostname="[^"]+",} 1\.0$`, `(?m)^Requests5XX{Level="Host",Hostname="[^"]+",} 1\.0$`,
	} {
		if !regexp.MustCompile(want).MatchString(got) {
			t.Errorf("no line %s in\n%s", want, got)
		}
	}
}

// TestClientsThatGo are no errors of the server.
func TestClientsThatGo(t *testing.T) {
	t.Parallel()
	m := api.NewMetrics(api.MetricsConfig{Mode: api.ModePrometheus, Definitions: api.Definitions()})
	h := api.New(listen(), api.Deps{Engine: &fake{}, Metrics: m}).Inference()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	r := httptest.NewRequestWithContext(ctx, http.MethodPost, "/predictions/echo", strings.NewReader("wait"))
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	if w.Code != 499 {
		t.Errorf("status %d", w.Code)
	}
	s := serve(t, func(_ *engine.Listen, d *api.Deps) { d.Metrics = m })
	if got := ask(t, http.MethodGet, s.metric.URL+"/metrics?name[]=Requests4XX&name[]=Requests5XX", "", "").body; strings.Contains(got, "Requests5XX{") || !strings.Contains(got, "Requests4XX{") {
		t.Errorf("metrics\n%s", got)
	}
}

func TestModes(t *testing.T) {
	t.Parallel()
	for mode, want := range map[api.Mode]struct {
		shown, hidden string
		logged        bool
	}{
		api.ModeLog:        {"", "QueueTime", true},
		api.ModePrometheus: {"QueueTime{", "\x00", false},
		api.ModeLegacy:     {"ts_inference_latency_microseconds{", "QueueTime", true},
	} {
		var server, models bytes.Buffer
		m := api.NewMetrics(api.MetricsConfig{Mode: mode, Definitions: api.Definitions(), Server: &server, Models: &models})
		observe(m)
		s := serve(t, func(_ *engine.Listen, d *api.Deps) { d.Metrics = m })
		got := ask(t, http.MethodGet, s.metric.URL+"/metrics", "", "").body
		if !strings.Contains(got, want.shown) || strings.Contains(got, want.hidden) {
			t.Errorf("mode %s shows\n%s", mode, got)
		}
		line := regexp.MustCompile(`(?m)^\S+ - PredictionTime\.ms:0\.01\|#ModelName:a"b\\c,Level:Model\|#hostname:vm,timestamp:\d+$`)
		if line.MatchString(models.String()) != want.logged || strings.Contains(server.String(), "QueueTime.Milliseconds:0.0|#Level:Host|#hostname:vm") != want.logged {
			t.Errorf("mode %s logs\n%s%s", mode, server.String(), models.String())
		}
	}
}

func TestDefinitions(t *testing.T) {
	t.Parallel()
	got, err := api.ReadDefinitions([]byte("dimensions: [&n ModelName]\nts_metrics:\n  counter:\n    - {name: C, unit: Count, dimensions: [*n]}\nmodel_metrics:\n  histogram:\n    - {name: H, unit: ms, dimensions: [*n, Level]}\n"))
	if err != nil || len(got) != 2 || got[0].Kind != "counter" || got[0].Model || got[1].Kind != "histogram" || !got[1].Model || strings.Join(got[1].Dimensions, " ") != "ModelName Level" {
		t.Errorf("%+v, %v", got, err)
	}
	for _, bad := range []string{
		"ts_metrics: [", "ts_metrics: {gauge: [{name: 'a b', unit: x}]}", "ts_metrics: {gauge: [{name: a, unit: x}, {name: a, unit: x}]}",
		"ts_metrics: {gauge: [{name: a}]}", "ts_metrics: {gauge: [{name: a, unit: x, dimensions: ['b-c']}]}",
	} {
		if _, err := api.ReadDefinitions([]byte(bad)); err == nil {
			t.Errorf("%s: no error", bad)
		}
	}
	// The built-in ones are those of the package's own file.
	path := os.Getenv("TATEGU_TEST_TORCHSERVE_METRICS")
	if path == "" {
		t.Skip("TATEGU_TEST_TORCHSERVE_METRICS names no metrics.yaml of the torchserve package")
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	want, err := api.ReadDefinitions(text)
	if err != nil {
		t.Fatal(err)
	}
	if len(want) != len(api.Definitions()) {
		t.Errorf("the file has %d definitions, we %d", len(want), len(api.Definitions()))
	}
}

func TestAccessLog(t *testing.T) {
	t.Parallel()
	var log bytes.Buffer
	h := api.New(listen(), api.Deps{Engine: &fake{}, Access: &log}).Inference()
	r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/predictions/nope?a=%22%0a", http.NoBody)
	r.RemoteAddr = "192.0.2.1:5000"
	h.ServeHTTP(httptest.NewRecorder(), r)
	if !regexp.MustCompile(`^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d,\d{3} - /192\.0\.2\.1:5000 "GET /predictions/nope\?a=%22%0a HTTP/1\.1" 404 \d+\n$`).MatchString(log.String()) {
		t.Errorf("the line is %q", log.String())
	}
}

// TestDetectedMetricsAreBounded: handlers choose names and values; what is beyond the bounds
// is dropped, counted, and told once.
func TestDetectedMetricsAreBounded(t *testing.T) {
	t.Parallel()
	var log bytes.Buffer
	m := api.NewMetrics(api.MetricsConfig{Mode: api.ModePrometheus, Detect: true, Log: slog.New(slog.NewTextHandler(&log, nil))})
	see := func(name string, dimensions ...engine.Pair) {
		m.Observe(engine.Metric{Name: name, Kind: "GAUGE", Value: 1, Dimensions: dimensions})
	}
	for i := range 1500 {
		see(fmt.Sprintf("m%d", i))
	}
	for i := range 12_000 {
		see("m0", engine.Pair{Name: "id", Value: strconv.Itoa(i)}) // no dimension of the first one's
		see("m1")
	}
	s := httptest.NewServer(api.New(listen(), api.Deps{Engine: &fake{}, Metrics: m}).MetricsAPI())
	t.Cleanup(s.Close)
	text := ask(t, http.MethodGet, s.URL+"/metrics", "", "").body
	if n := strings.Count(text, "# TYPE m"); n != 1000 || !strings.Contains(text, `tategu_torchserve_metrics_dropped_total{reason="too_many_metrics",} 500.0`) || strings.Contains(text, "too_many_samples") {
		t.Errorf("%d metrics:\n%s", n, tail(text))
	}
	if n := strings.Count(log.String(), "\n"); n != 1 || !strings.Contains(log.String(), "model_metrics_auto_detect keeps 1000 metrics") {
		t.Errorf("told is %s", log.String())
	}

	log.Reset()
	m = api.NewMetrics(api.MetricsConfig{Mode: api.ModePrometheus, Detect: true, Log: slog.New(slog.NewTextHandler(&log, nil))})
	for i := range 12_000 {
		see("ids", engine.Pair{Name: "id", Value: strconv.Itoa(i)})
	}
	long := strings.Repeat("x", 1<<20)
	for i := range 40 {
		see("long", engine.Pair{Name: "text", Value: long + strconv.Itoa(i)})
	}
	see("bad name")
	see("bad_dimension", engine.Pair{Name: "a b"})
	see("twice", engine.Pair{Name: "a"}, engine.Pair{Name: "a"})
	s = httptest.NewServer(api.New(listen(), api.Deps{Engine: &fake{}, Metrics: m}).MetricsAPI())
	t.Cleanup(s.Close)
	text = ask(t, http.MethodGet, s.URL+"/metrics", "", "").body
	if n := strings.Count(text, "\nids{"); n != 10_000 || len(text) > 36<<20 || !strings.Contains(text, `{reason="bad_name",} 3.0`) || strings.Count(text, "# TYPE ") != 3 {
		t.Errorf("%d samples, %d bytes: %s", n, len(text), tail(text))
	}
	if n := strings.Count(log.String(), "keeps 10000 different values"); n != 1 {
		t.Errorf("told is %s", log.String())
	}
	if got := ask(t, http.MethodGet, s.URL+"/metrics?name[]=tategu_torchserve_metrics_dropped_total", "", "").body; strings.Count(got, "\n") != 4 {
		t.Errorf("asked for it alone: %s", got)
	}
}

// tail is the end of a text.
func tail(text string) string { return text[max(0, len(text)-400):] }
