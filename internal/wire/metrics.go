package wire

import (
	"fmt"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc/codes"
)

// metrics of the port. Method labels come from the descriptors and the routes,
// never from what a client sent, so their number is bounded.
type metrics struct {
	requests    *prometheus.CounterVec
	seconds     *prometheus.HistogramVec
	inFlight    prometheus.Gauge
	streams     prometheus.Gauge
	connections prometheus.Gauge
	proxied     *prometheus.CounterVec
}

func newMetrics(registry *prometheus.Registry) (*metrics, error) {
	m := &metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "tategu_requests_total", Help: "Requests answered, by method, transport and gRPC code.",
		}, []string{"method", "transport", "code"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "tategu_request_duration_seconds", Help: "Time from the request to the end of its answer.",
			Buckets: []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 60},
		}, []string{"method"}),
		inFlight: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "tategu_requests_in_flight", Help: "Requests being answered.",
		}),
		streams: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "tategu_streams", Help: "Answers being streamed.",
		}),
		connections: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "tategu_connections", Help: "Open connections, both ends of tunnels included.",
		}),
		proxied: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "tategu_connect_total", Help: "CONNECT requests, by what became of them: here, refused, tunnelled.",
		}, []string{"result"}),
	}
	for _, c := range []prometheus.Collector{m.requests, m.seconds, m.inFlight, m.streams, m.connections, m.proxied} {
		if err := registry.Register(c); err != nil {
			return nil, fmt.Errorf("wire metrics: %w", err)
		}
	}
	return m, nil
}

// wellMetrics are those of the answers of one method and transport that are well. They
// are looked up once, since predictions are many; the first answer makes them, as it
// makes those of all other methods.
type wellMetrics struct {
	once     sync.Once
	requests prometheus.Counter
	seconds  prometheus.Observer
}

func (w *wellMetrics) count(m *metrics, c *call, took time.Duration) {
	w.once.Do(func() {
		w.requests = m.requests.WithLabelValues(c.method, c.transport, codeName(codes.OK))
		w.seconds = m.seconds.WithLabelValues(c.method)
	})
	w.requests.Inc()
	w.seconds.Observe(took.Seconds())
}
