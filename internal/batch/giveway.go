package batch

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// asking is how long after a request an endpoint counts as being asked.
const asking = time.Second

// way is what the workers of all jobs do for those who ask endpoints meanwhile: they
// leave a core free, where there is another one to work with. Requests that find it do
// not wait for the kernel to set a worker aside, which it does at its next tick only.
type way struct {
	asked func() time.Time // when an endpoint was asked last; nil = none ever is
	now   func() time.Time
	cores int
	log   *slog.Logger
	gauge prometheus.Gauge

	mu   sync.Mutex
	last int // what was left when it was looked at last
}

func newWay(cfg Config, cores int) *way {
	return &way{asked: cfg.Asked, now: cfg.Now, cores: cores, log: cfg.Log, gauge: prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "tategu_batch_cores_left", Help: "Cores that workers of batch prediction left to requests to endpoints when the last section was begun.",
	})}
}

// left is how many cores workers leave to others now.
func (w *way) left(ctx context.Context) int {
	n := 0
	if w.asked != nil && w.cores > 1 && w.now().Sub(w.asked()) < asking {
		n = 1
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case n > w.last:
		w.log.InfoContext(ctx, "batch prediction leaves a core to requests to endpoints", slog.Int("cores", w.cores), slog.Int("left", n))
	case n < w.last:
		w.log.InfoContext(ctx, "batch prediction takes all cores: no endpoint is asked", slog.Int("cores", w.cores))
	}
	w.last = n
	w.gauge.Set(float64(n))
	return n
}

// Metrics are what a registry collects.
func (e *Engine) Metrics() []prometheus.Collector { return []prometheus.Collector{e.way.gauge} }
