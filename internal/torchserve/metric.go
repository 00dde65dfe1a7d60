package torchserve

import "tategu/internal/torchserve/worker"

// Metric is one measurement, of a handler or the engine.
type Metric = worker.Metric

// Metrics takes what is measured; the API keeps it for GET /metrics. Calls are
// concurrent and must not block.
type Metrics interface {
	Observe(m Metric)
}
