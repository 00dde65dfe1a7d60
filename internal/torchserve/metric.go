package torchserve

import "time"

// Metric is one measurement, of a handler or the engine.
type Metric struct {
	Name       string
	Unit       string
	Kind       string // "COUNTER", "GAUGE", "HISTOGRAM"
	Value      float64
	Dimensions []Pair // Level, ModelName, ...
	Host       string
	At         time.Time
	RequestIDs string
}

// Metrics takes what is measured; the API keeps it for GET /metrics. Calls are
// concurrent and must not block.
type Metrics interface {
	Observe(m Metric)
}
