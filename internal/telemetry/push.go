package telemetry

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	bridge "go.opentelemetry.io/contrib/bridges/prometheus"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlpmetric/otlpmetricgrpc"
	"go.opentelemetry.io/otel/exporters/otlp/otlpmetric/otlpmetrichttp"
	"go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	"go.opentelemetry.io/otel/sdk/resource"
)

// Push sends a registry's metrics to a collector by OTLP.
type Push struct {
	exporter metric.Exporter
	reader   *metric.ManualReader
	provider *metric.MeterProvider
	interval time.Duration
	timeout  time.Duration
	log      *slog.Logger
}

// NewPush reads the variables of the OpenTelemetry specification ("Environment
// Variable Specification", "OTLP Exporter"); nil means that they ask for nothing.
// getenv is os.Getenv: the exporter reads its endpoint, headers, certificates,
// compression and time-out from the process's environment itself.
func NewPush(ctx context.Context, registry prometheus.Gatherer, version string, getenv func(string) string, log *slog.Logger) (*Push, error) {
	wanted, err := asked(getenv)
	if err != nil || !wanted {
		return nil, err
	}
	p := &Push{log: log}
	if p.interval, err = milliseconds(getenv, "OTEL_METRIC_EXPORT_INTERVAL", time.Minute); err != nil {
		return nil, err
	}
	if p.timeout, err = milliseconds(getenv, "OTEL_METRIC_EXPORT_TIMEOUT", 30*time.Second); err != nil {
		return nil, err
	}
	if p.exporter, err = newExporter(ctx, getenv); err != nil {
		return nil, err
	}
	about, err := resource.New(ctx,
		resource.WithAttributes(attribute.String("service.name", "tategu"), attribute.String("service.version", version)),
		resource.WithTelemetrySDK(), resource.WithHost(), resource.WithFromEnv())
	if err != nil {
		return nil, fmt.Errorf("OTEL_RESOURCE_ATTRIBUTES: %w", err)
	}
	p.reader = metric.NewManualReader(metric.WithProducer(bridge.NewMetricProducer(bridge.WithGatherer(registry))))
	p.provider = metric.NewMeterProvider(metric.WithReader(p.reader), metric.WithResource(about))
	return p, nil
}

// asked reports that there is somewhere to send metrics to.
func asked(getenv func(string) string) (bool, error) {
	if strings.EqualFold(getenv("OTEL_SDK_DISABLED"), "true") {
		return false, nil
	}
	switch exporter := getenv("OTEL_METRICS_EXPORTER"); exporter {
	case "none":
		return false, nil
	case "otlp":
		return true, nil
	case "":
		return getenv("OTEL_EXPORTER_OTLP_ENDPOINT") != "" || getenv("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT") != "", nil
	default:
		return false, fmt.Errorf("OTEL_METRICS_EXPORTER=%s is not supported: want otlp or none; /metrics is there for Prometheus", exporter)
	}
}

func newExporter(ctx context.Context, getenv func(string) string) (metric.Exporter, error) {
	protocol := getenv("OTEL_EXPORTER_OTLP_METRICS_PROTOCOL")
	if protocol == "" {
		protocol = getenv("OTEL_EXPORTER_OTLP_PROTOCOL")
	}
	switch protocol {
	case "", "http/protobuf":
		return otlpmetrichttp.New(ctx)
	case "grpc":
		return otlpmetricgrpc.New(ctx)
	default:
		return nil, fmt.Errorf("OTEL_EXPORTER_OTLP_PROTOCOL=%s is not supported: want http/protobuf or grpc", protocol)
	}
}

func milliseconds(getenv func(string) string, name string, usual time.Duration) (time.Duration, error) {
	text := getenv(name)
	if text == "" {
		return usual, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 || n > int((24*time.Hour).Milliseconds()) {
		return 0, fmt.Errorf("%s=%s is not a number of milliseconds from 1 to a day", name, text)
	}
	return time.Duration(n) * time.Millisecond, nil
}

// Run sends the metrics once an interval until ctx ends, and then once more. What
// cannot be sent is logged when it begins and when it is over: metrics are totals,
// so that the next ones make up for it.
func (p *Push) Run(ctx context.Context) error {
	tick := time.NewTicker(p.interval)
	defer tick.Stop()
	failing := false
	for {
		select {
		case <-tick.C:
			failing = p.report(ctx, p.send(ctx), failing)
		case <-ctx.Done():
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), min(p.timeout, 5*time.Second))
			defer cancel()
			p.report(last, p.send(last), failing)
			if err := errors.Join(p.exporter.Shutdown(last), p.provider.Shutdown(last)); err != nil {
				p.log.WarnContext(last, "the exporter of metrics did not end", slog.Any("error", err))
			}
			return nil
		}
	}
}

func (p *Push) send(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, p.timeout)
	defer cancel()
	var all metricdata.ResourceMetrics
	if err := p.reader.Collect(ctx, &all); err != nil {
		return err
	}
	return p.exporter.Export(ctx, &all)
}

func (p *Push) report(ctx context.Context, err error, failing bool) bool {
	switch {
	case err != nil && !failing:
		p.log.WarnContext(ctx, "metrics cannot be sent to the collector of OTEL_EXPORTER_OTLP_ENDPOINT", slog.Any("error", err))
	case err == nil && failing:
		p.log.InfoContext(ctx, "metrics are sent to the collector again")
	}
	return err != nil
}
