package app

import (
	"context"
	"fmt"
	"log/slog"

	"github.com/prometheus/client_golang/prometheus"

	"tategu/internal/runtime"
	"tategu/internal/runtime/inventory"
	"tategu/internal/runtime/scheduler"
)

// openSchedule makes the one scheduler that all runtimes of this server share.
func (m *Main) openSchedule(ctx context.Context) error {
	inv, err := inventory.Find(ctx, m.cfg.Resources, m.log)
	if err != nil {
		return err
	}
	d := m.cfg.Resources.Default
	m.schedule = scheduler.New(inv, m.now, scheduler.Options{Cores: d.Cores, MemoryBytes: int64(d.Memory)})
	m.log.InfoContext(ctx, "what workloads share", slog.Float64("cores", inv.Cores), slog.Int64("memory_mib", inv.MemoryBytes>>20), slog.Int("gpus", len(inv.GPUs)))
	if err := m.registry.Register(newScheduleMetrics(m.schedule)); err != nil {
		return fmt.Errorf("scheduler metrics: %w", err)
	}
	return nil
}

// atOnce is how many programs of a run the machine is asked to run at a time: those
// that say nothing about themselves may fill it, and as many again wait for their end.
func (m *Main) atOnce() int {
	const least = 64
	of := m.cfg.Resources.Default.Cores
	if of <= 0 {
		of = scheduler.DefaultCores
	}
	return max(least, int(2*m.schedule.Inventory().Cores/of))
}

// fits refuses workloads that can never run here at the same time.
func (m *Main) fits(together ...runtime.Workload) error {
	asks := make([]scheduler.Ask, len(together))
	for i, w := range together {
		asks[i] = scheduler.For(w, m.now())
	}
	return m.schedule.Fits(asks...)
}

// scheduleMetrics reads the scheduler when it is asked.
type scheduleMetrics struct {
	of                                             *scheduler.Scheduler
	waiting, running, total, used, granted, waited *prometheus.Desc
}

func newScheduleMetrics(of *scheduler.Scheduler) *scheduleMetrics {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc("tategu_schedule_"+name, help, labels, nil)
	}
	return &scheduleMetrics{
		of:      of,
		waiting: desc("waiting", "Workloads that wait for room."),
		running: desc("running", "Workloads that have been given room."),
		total:   desc("capacity", "What the machine has: cores, bytes of memory, GPUs.", "resource"),
		used:    desc("in_use", "What workloads have been given of it.", "resource"),
		granted: desc("granted_total", "Workloads that were given room since the start."),
		waited:  desc("waited_total", "Of these, those that had to wait for it."),
	}
}

// Describe implements prometheus.Collector.
func (c *scheduleMetrics) Describe(out chan<- *prometheus.Desc) { prometheus.DescribeByCollect(c, out) }

// Collect implements prometheus.Collector.
func (c *scheduleMetrics) Collect(out chan<- prometheus.Metric) {
	s := c.of.Snapshot()
	send := func(d *prometheus.Desc, kind prometheus.ValueType, v float64, labels ...string) {
		out <- prometheus.MustNewConstMetric(d, kind, v, labels...)
	}
	send(c.waiting, prometheus.GaugeValue, float64(len(s.Waiters)))
	send(c.running, prometheus.GaugeValue, float64(len(s.Holders)))
	send(c.granted, prometheus.CounterValue, float64(s.Granted))
	send(c.waited, prometheus.CounterValue, float64(s.Waited))
	for name, v := range map[string][2]float64{
		"cores": {s.Total.Cores, s.Used.Cores}, "memory_bytes": {float64(s.Total.MemoryBytes), float64(s.Used.MemoryBytes)},
		"gpus": {float64(len(s.Total.GPUs)), float64(s.Used.GPUs)},
	} {
		send(c.total, prometheus.GaugeValue, v[0], name)
		send(c.used, prometheus.GaugeValue, v[1], name)
	}
}
