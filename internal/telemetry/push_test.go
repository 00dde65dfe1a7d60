package telemetry_test

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"

	collector "go.opentelemetry.io/proto/otlp/collector/metrics/v1"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"tategu/internal/telemetry"
)

// told is what a collector was sent, by name; and who sent it.
func told(req *collector.ExportMetricsServiceRequest) (names map[string]bool, from map[string]string) {
	names, from = map[string]bool{}, map[string]string{}
	for _, r := range req.GetResourceMetrics() {
		for _, a := range r.GetResource().GetAttributes() {
			from[a.GetKey()] = a.GetValue().GetStringValue()
		}
		for _, s := range r.GetScopeMetrics() {
			for _, m := range s.GetMetrics() {
				names[m.GetName()] = true
			}
		}
	}
	return names, from
}

func check(t *testing.T, req *collector.ExportMetricsServiceRequest) {
	t.Helper()
	names, from := told(req)
	if !names["tategu_build_info"] || !names["go_goroutines"] {
		t.Errorf("sent are %v", names)
	}
	if from["service.name"] != "shop" || from["service.version"] != "1.2.3" || from["deployment.environment.name"] != "test" {
		t.Errorf("they are from %v", from)
	}
}

// run pushes until a request has come, and gives the one that is sent at the end.
func run(t *testing.T, requests <-chan *collector.ExportMetricsServiceRequest) (first, last *collector.ExportMetricsServiceRequest) {
	t.Helper()
	t.Setenv("OTEL_METRIC_EXPORT_INTERVAL", "20")
	t.Setenv("OTEL_RESOURCE_ATTRIBUTES", "service.name=shop,deployment.environment.name=test")
	p, err := telemetry.NewPush(t.Context(), telemetry.NewRegistry("1.2.3"), "1.2.3", os.Getenv, slog.New(slog.DiscardHandler))
	if err != nil || p == nil {
		t.Fatalf("push %v: %v", p, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- p.Run(ctx) }()
	first = <-requests
	cancel()
	for {
		select {
		case last = <-requests:
		case err := <-ended:
			if err != nil {
				t.Error(err)
			}
			for len(requests) > 0 {
				last = <-requests
			}
			return first, last
		}
	}
}

func TestPushHTTP(t *testing.T) {
	requests := make(chan *collector.ExportMetricsServiceRequest, 1000)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		req := &collector.ExportMetricsServiceRequest{}
		if err != nil || r.URL.Path != "/v1/metrics" || r.Header.Get("X-Key") != "secret" || proto.Unmarshal(body, req) != nil {
			http.Error(w, "no", http.StatusBadRequest)
			return
		}
		w.Header().Set("Content-Type", "application/x-protobuf")
		requests <- req
	}))
	defer server.Close()
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", server.URL)
	t.Setenv("OTEL_EXPORTER_OTLP_HEADERS", "X-Key=secret")
	first, last := run(t, requests)
	check(t, first)
	if last == nil {
		t.Fatal("nothing was sent at the end")
	}
	check(t, last)
}

type grpcCollector struct {
	collector.UnimplementedMetricsServiceServer
	requests chan *collector.ExportMetricsServiceRequest
}

// Export implements the collector's service.
func (c grpcCollector) Export(_ context.Context, req *collector.ExportMetricsServiceRequest) (*collector.ExportMetricsServiceResponse, error) {
	c.requests <- req
	return &collector.ExportMetricsServiceResponse{}, nil
}

func TestPushGRPC(t *testing.T) {
	ln, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c := grpcCollector{requests: make(chan *collector.ExportMetricsServiceRequest, 1000)}
	server := grpc.NewServer()
	collector.RegisterMetricsServiceServer(server, c)
	served := make(chan error, 1)
	go func() { served <- server.Serve(ln) }()
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://"+ln.Addr().String())
	t.Setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")
	first, _ := run(t, c.requests)
	check(t, first)
	server.Stop()
	if err := <-served; err != nil {
		t.Error(err)
	}
}

// TestPushFails: a collector that is not there is told of once, without what is secret.
func TestPushFails(t *testing.T) {
	asked := make(chan struct{}, 1000)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		asked <- struct{}{}
		http.Error(w, "no", http.StatusBadRequest)
	}))
	defer server.Close()
	t.Setenv("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", server.URL+"/v1/metrics")
	t.Setenv("OTEL_EXPORTER_OTLP_HEADERS", "X-Key=secret")
	t.Setenv("OTEL_METRIC_EXPORT_INTERVAL", "10")
	var text bytes.Buffer
	p, err := telemetry.NewPush(t.Context(), telemetry.NewRegistry("v"), "v", os.Getenv, slog.New(slog.NewTextHandler(&text, nil)))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- p.Run(ctx) }()
	for range 5 {
		<-asked
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if n := strings.Count(text.String(), "metrics cannot be sent"); n != 1 || strings.Contains(text.String(), "secret") {
		t.Errorf("%d lines, want one without the header:\n%s", n, text.String())
	}
}

func TestPushAsked(t *testing.T) {
	for _, tt := range []struct {
		env     map[string]string
		want    bool
		wantErr string
	}{
		{nil, false, ""},
		{map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"}, true, ""},
		{map[string]string{"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": "http://127.0.0.1:1"}, true, ""},
		{map[string]string{"OTEL_METRICS_EXPORTER": "otlp"}, true, ""},
		{map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", "OTEL_METRICS_EXPORTER": "none"}, false, ""},
		{map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", "OTEL_SDK_DISABLED": "true"}, false, ""},
		{map[string]string{"OTEL_METRICS_EXPORTER": "prometheus"}, false, "OTEL_METRICS_EXPORTER=prometheus is not supported"},
		{map[string]string{"OTEL_METRICS_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_PROTOCOL": "http/json"}, false, "http/json is not supported"},
		{map[string]string{"OTEL_METRICS_EXPORTER": "otlp", "OTEL_METRIC_EXPORT_INTERVAL": "1m"}, false, "OTEL_METRIC_EXPORT_INTERVAL=1m"},
	} {
		p, err := telemetry.NewPush(t.Context(), telemetry.NewRegistry("v"), "v", func(name string) string { return tt.env[name] }, slog.New(slog.DiscardHandler))
		if tt.wantErr != "" {
			if err == nil || !strings.Contains(err.Error(), tt.wantErr) {
				t.Errorf("%v: error %v, want %q", tt.env, err, tt.wantErr)
			}
			continue
		}
		if err != nil || (p != nil) != tt.want {
			t.Errorf("%v: push %v, error %v", tt.env, p != nil, err)
		}
	}
}
