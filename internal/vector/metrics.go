package vector

import (
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"tategu/internal/resource"
	"tategu/internal/store"
)

// metrics are of the indexes that are there; label index is the full name.
type metrics struct {
	queries, changes          *prometheus.CounterVec
	seconds                   *prometheus.HistogramVec
	recall, generation, bytes *prometheus.GaugeVec
	points, unmerged          *prometheus.GaugeVec
}

func newMetrics() *metrics {
	gauge := func(name, help string) *prometheus.GaugeVec {
		return prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "tategu_index_" + name, Help: help}, []string{"index"})
	}
	return &metrics{
		queries: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "tategu_index_queries_total", Help: "Queries of deployed indexes, by the code of their request."}, []string{"index", "code"}),
		changes: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "tategu_index_streamed_total", Help: "Datapoints upserted and removed."}, []string{"index", "kind", "code"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "tategu_index_find_seconds", Help: "Time of a FindNeighbors request without the way to it.",
			Buckets: []float64{0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1, 5},
		}, []string{"index"}),
		recall:     gauge("recall", "Share of true neighbours among ten that the generation found when it was checked."),
		generation: gauge("generation", "Number of the generation that answers."),
		bytes:      gauge("memory_bytes", "Memory and mapped files; 0 while the index is not in memory."),
		points:     gauge("datapoints", "Datapoints that a query would see."),
		unmerged:   gauge("unmerged_datapoints", "Datapoints streamed and not yet merged into a segment."),
	}
}

// Metrics are what a registry collects.
func (e *Engine) Metrics() []prometheus.Collector {
	m := e.metrics
	return []prometheus.Collector{m.queries, m.changes, m.seconds, m.recall, m.generation, m.bytes, m.points, m.unmerged}
}

func (m *metrics) observe(index string, queries int, took time.Duration, err error) {
	m.queries.WithLabelValues(index, resource.CodeOf(err).String()).Add(float64(queries))
	m.seconds.WithLabelValues(index).Observe(took.Seconds())
}

func (m *metrics) changed(index, kind string, n int, err error) {
	m.changes.WithLabelValues(index, kind, resource.CodeOf(err).String()).Add(float64(n))
}

// measureEvery is how old the gauges may become.
const measureEvery = 15 * time.Second

// measure keeps the gauges. It wakes no index that is not in memory.
func (e *Engine) measure(ctx context.Context) {
	tick := time.NewTicker(measureEvery)
	defer tick.Stop()
	known := map[string]bool{}
	for {
		known = e.gauge(ctx, known)
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

func (e *Engine) gauge(ctx context.Context, known map[string]bool) map[string]bool {
	rows, err := e.cfg.Store.List(ctx, store.Query{Kind: resource.KindIndexes})
	if err != nil {
		return known // the next round tells again
	}
	now := make(map[string]bool, len(rows))
	for _, row := range rows {
		stats, err := e.Stats(ctx, row.Key)
		if err != nil {
			continue
		}
		now[row.Key] = true
		m := e.metrics
		m.recall.WithLabelValues(row.Key).Set(stats.Recall)
		m.generation.WithLabelValues(row.Key).Set(float64(stats.Generation))
		m.bytes.WithLabelValues(row.Key).Set(float64(stats.Bytes))
		m.points.WithLabelValues(row.Key).Set(float64(stats.Count))
		m.unmerged.WithLabelValues(row.Key).Set(float64(stats.Unmerged))
	}
	for name := range known {
		if !now[name] {
			e.metrics.forget(name)
		}
	}
	return now
}

func (m *metrics) forget(index string) {
	labels := prometheus.Labels{"index": index}
	m.queries.DeletePartialMatch(labels)
	m.changes.DeletePartialMatch(labels)
	m.seconds.DeletePartialMatch(labels)
	for _, g := range []*prometheus.GaugeVec{m.recall, m.generation, m.bytes, m.points, m.unmerged} {
		g.DeletePartialMatch(labels)
	}
}
