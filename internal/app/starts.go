package app

import (
	"github.com/prometheus/client_golang/prometheus"

	"tategu/internal/runtime/process"
)

// startMetrics counts how Python components were started.
type startMetrics struct{ of *process.Runtime }

func (startMetrics) desc() *prometheus.Desc {
	return prometheus.NewDesc("tategu_python_starts_total",
		"Python components by how they were started: warm by a fork, cold, or failed: cold after the fork had failed.", []string{"start"}, nil)
}

// Describe implements prometheus.Collector.
func (c startMetrics) Describe(out chan<- *prometheus.Desc) { out <- c.desc() }

// Collect implements prometheus.Collector.
func (c startMetrics) Collect(out chan<- prometheus.Metric) {
	s := c.of.Starts()
	for name, n := range map[string]int{"warm": s.Warm, "cold": s.Cold, "failed": s.Failed} {
		out <- prometheus.MustNewConstMetric(c.desc(), prometheus.CounterValue, float64(n), name)
	}
}
