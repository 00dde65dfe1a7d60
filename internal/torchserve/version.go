package torchserve

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"tategu/internal/mar"
	"tategu/internal/torchserve/worker"
)

// settings of a model version, from its archive, the configuration and its registration.
type settings struct {
	BatchSize       int
	MaxBatchDelay   time.Duration
	ResponseTimeout time.Duration
	StartupTimeout  time.Duration
	MaxRetryTimeout time.Duration
	ClientTimeout   time.Duration
	QueueSize       int
	Ticket          bool
	Async           bool
	Continuous      bool
	UseVenv         bool
	Handler         string
	Runtime         string
}

// version is one version of a model, with its queue and workers.
type version struct {
	srv       *Server
	name, id  string
	archive   *mar.Archive
	set       settings
	python    interpreter
	startup   bool      // it was loaded when the server started
	workflow  *workflow // that it belongs to; nil = none
	queue     *queue
	log       *slog.Logger
	requests  atomic.Int64
	rejected  atomic.Int64
	running   atomic.Int64 // requests that wait or are run
	lastEnd   atomic.Int64 // when the last one ended, in nanoseconds of the Unix time
	active    atomic.Bool  // it had requests of late: it shares the cores
	tally     tally
	size      sizing
	directory []string // what goes before the model's folder on Python's path

	mu       sync.Mutex
	min, max int
	slots    []*slot
	threads  int // of each worker
	lastErr  string
	nextGPU  int
	removed  bool
}

// fault keeps why a worker ended, for descriptions.
func (v *version) fault(err error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.lastErr = err.Error()
}

// flushWithout fails what waits when no worker is there for it.
func (v *version) flushWithout(err error) {
	v.mu.Lock()
	ready := slices.ContainsFunc(v.slots, func(w *slot) bool { return w.describe().State == WorkerReady })
	v.mu.Unlock()
	if ready {
		return
	}
	code := http.StatusServiceUnavailable
	if dead := (*deadError)(nil); errors.As(err, &dead) && dead.status == statusWorkerOutMemory {
		code = dead.status
	}
	v.queue.flush(&Error{Code: code, Type: InternalServer, Message: fmt.Sprintf("no worker of the model %s, version %s, starts: %s", v.name, v.id, err), Err: err}, false)
}

// abandoned is the error of a version that has no worker and starts none.
func (v *version) abandoned() error {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.hasWorker() {
		return nil
	}
	e := errorf(http.StatusServiceUnavailable, ServiceUnavailable, "Model %q Version %s has no worker to serve inference request. Please use scale workers API to add workers.", v.name, v.id)
	if v.lastErr != "" {
		e.Message += " The last one ended: " + v.lastErr
	}
	return e
}

// flushAbandoned fails what waits for workers that there are none of.
func (v *version) flushAbandoned() {
	if err := v.abandoned(); err != nil {
		v.queue.flush(err, false)
	}
}

// load is what a worker is told of the model.
func (v *version) load(gpu int) worker.Load {
	return worker.Load{
		Name: v.name, Dir: v.archive.Dir, Batch: v.set.BatchSize, Handler: v.set.Handler, GPU: gpu,
		Envelope: v.envelope(), LimitPixels: v.srv.cfg.LimitPixels, // a manifest's own is nothing to TorchServe either
	}
}

// program is the next process of a worker.
func (v *version) program(ctx context.Context, id string) (worker.Program, worker.Launcher, error) {
	launcher, err := v.srv.launcher(ctx, v.python)
	if err != nil {
		return worker.Program{}, nil, err
	}
	threads := v.srv.threadsFor(v)
	v.mu.Lock()
	if v.threads == 0 {
		v.threads = threads
	}
	v.mu.Unlock()
	path := slices.Clone(v.directory)
	path = append(path, v.archive.Dir)
	return worker.Program{
		ID: newID(), Python: v.python.path, Home: v.python.home, Dir: v.archive.Dir, Path: path,
		Socket: filepath.Join(v.srv.sockets, "w."+id), Env: v.srv.workerEnv(),
		Metrics: cmp.Or(v.srv.cfg.MetricsConfig, v.python.home+"/configs/metrics.yaml"),
		Async:   v.set.Async, Threads: threads, Output: v.output(id),
	}, launcher, nil
}

// output takes what workers print: metrics, and the rest as the model's log.
func (v *version) output(id string) func(string) {
	log := v.log.With(slog.String("worker", id))
	return func(line string) {
		if m, ok := worker.ParseMetric(line); ok {
			v.srv.observe(m)
			return
		}
		log.Debug("MODEL_LOG", slog.String("line", line))
	}
}

// loaded notes how long a worker took to be ready.
func (v *version) loaded(id string, took time.Duration) {
	v.srv.observe(Metric{
		Name: "WorkerLoadTime", Unit: "Milliseconds", Kind: "GAUGE", Value: float64(took.Milliseconds()),
		Dimensions: []Pair{{Name: "WorkerName", Value: "W-" + id + "-" + v.name + "_" + v.id}, {Name: "Level", Value: "Host"}},
	})
	v.log.Info("A worker is ready", slog.String("worker", id), slog.Duration("took", took))
}

// measure notes how long requests waited and were worked on.
func (v *version) measure(batch []*job, begun time.Time) {
	now := time.Now()
	v.tally.add(batch, now)
	if v.srv.deps.Metrics == nil {
		return
	}
	host := []Pair{{Name: "Level", Value: "Host"}}
	for _, j := range batch {
		model := []Pair{{Name: "model_name", Value: v.name}, {Name: "model_version", Value: j.label}, {Name: "hostname", Value: v.srv.host}}
		queued, total := j.started.Sub(j.arrived), now.Sub(j.arrived)
		v.srv.observe(Metric{Name: "ts_inference_latency_microseconds", Unit: "Microseconds", Kind: "COUNTER", Value: float64(total.Microseconds()), Dimensions: model, RequestIDs: j.req.ID})
		v.srv.observe(Metric{Name: "ts_queue_latency_microseconds", Unit: "Microseconds", Kind: "COUNTER", Value: float64(queued.Microseconds()), Dimensions: model, RequestIDs: j.req.ID})
		v.srv.observe(Metric{Name: "QueueTime", Unit: "Milliseconds", Kind: "GAUGE", Value: float64(queued.Milliseconds()), Dimensions: host, RequestIDs: j.req.ID})
	}
	v.srv.observe(Metric{Name: "WorkerThreadTime", Unit: "Milliseconds", Kind: "GAUGE", Value: float64(now.Sub(begun).Milliseconds()), Dimensions: host})
}

// scale makes the number of workers what is wanted and gives those that must start
// for it, and those that end. v.mu is held.
func (v *version) scale(least, most int) (starts, ends []*slot) {
	v.min, v.max, v.size.reason, v.size.anew = least, most, "", true
	return v.fit(least, most)
}

// fit has at least and at most so many slots, and gives those as scale does. v.mu is held.
func (v *version) fit(least, most int) (starts, ends []*slot) {
	kept := v.slots[:0:0]
	for _, w := range v.slots {
		w.mu.Lock()
		over := w.over
		w.mu.Unlock()
		if !over {
			kept = append(kept, w)
		}
	}
	v.slots = kept
	for len(v.slots) < least {
		w := &slot{
			v: v, id: v.srv.nextWorker(), gpu: v.gpu(), state: WorkerLoading,
			stop: make(chan struct{}), hard: make(chan struct{}), gone: make(chan struct{}), first: make(chan struct{}),
		}
		v.slots, starts = append(v.slots, w), append(starts, w)
	}
	for len(v.slots) > most {
		w := v.slots[len(v.slots)-1] // the youngest: it may not be ready yet
		v.slots, ends = v.slots[:len(v.slots)-1], append(ends, w)
	}
	return starts, ends
}

// gpu hands GPUs out in turn; -1 = the CPU.
func (v *version) gpu() int {
	c := v.archive.Config
	if c.DeviceType == "cpu" {
		return -1
	}
	ids := c.DeviceIDs
	if len(ids) == 0 || slices.Max(ids) >= v.srv.gpus {
		return v.srv.nextGPU()
	}
	v.nextGPU++
	return ids[(v.nextGPU-1)%len(ids)]
}

// start runs slots, under the server's Run.
func (v *version) start(ctx context.Context, slots []*slot) error {
	for i, w := range slots {
		if err := v.srv.spawn(ctx, w.run); err != nil {
			for _, w := range slots[i:] {
				w.never(err)
			}
			return err
		}
	}
	return nil
}

// awaitFirst waits for the first start of slots.
func (v *version) awaitFirst(ctx context.Context, slots []*slot) error {
	for _, w := range slots {
		select {
		case <-w.first:
		case <-ctx.Done():
			return ctx.Err()
		}
		w.mu.Lock()
		err := w.failed
		w.mu.Unlock()
		if err != nil {
			return v.startError(err)
		}
	}
	return nil
}

func (v *version) startError(err error) error {
	code := http.StatusInternalServerError
	if dead := (*deadError)(nil); errors.As(err, &dead) && dead.status == statusWorkerOutMemory {
		code = dead.status
	}
	return &Error{Code: code, Type: InternalServer, Message: fmt.Sprintf("Failed to start workers for model %s version: %s: %s", v.name, v.id, err), Err: err}
}

// finish ends slots; those that do not within patience are killed.
func finish(ctx context.Context, slots []*slot, patience time.Duration) error {
	for _, w := range slots {
		w.end()
	}
	timer := time.NewTimer(patience)
	defer timer.Stop()
	for _, w := range slots {
		select {
		case <-w.gone:
			continue
		case <-timer.C:
		case <-ctx.Done():
		}
		for _, w := range slots {
			w.endNow()
		}
		break
	}
	for _, w := range slots {
		select {
		case <-w.gone:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// describe gives the version as it is now.
func (v *version) describe() Model {
	v.mu.Lock()
	defer v.mu.Unlock()
	c := v.archive.Config
	m := Model{
		Name: v.name, Version: v.id, URL: v.archive.URL, Engine: "Torch", Runtime: v.set.Runtime, Handler: v.set.Handler,
		MinWorkers: v.min, MaxWorkers: v.max, BatchSize: v.set.BatchSize, MaxBatchDelay: v.set.MaxBatchDelay,
		ResponseTimeout: v.set.ResponseTimeout, StartupTimeout: v.set.StartupTimeout, MaxRetryTimeout: v.set.MaxRetryTimeout, ClientTimeout: v.set.ClientTimeout,
		ParallelType: c.ParallelType, ParallelLevel: c.ParallelLevel, DeviceType: c.DeviceType, DeviceIDs: c.DeviceIDs,
		ContinuousBatching: v.set.Continuous, UseJobTicket: v.set.Ticket, UseVenv: v.set.UseVenv,
		LoadedAtStartup: v.startup, Workflow: v.workflow != nil, QueueSize: v.set.QueueSize, Waiting: v.queue.length(),
		Requests: v.requests.Load(), Rejected: v.rejected.Load(), LastError: v.lastErr, Trying: v.hasWorker(), Scaling: v.scaling(),
	}
	for _, w := range v.slots {
		m.Workers = append(m.Workers, w.describe())
	}
	slices.SortFunc(m.Workers, func(a, b Worker) int { return cmp.Or(cmp.Compare(len(a.ID), len(b.ID)), strings.Compare(a.ID, b.ID)) })
	return m
}

// hasWorker says that a worker is there, or is being started. v.mu is held.
func (v *version) hasWorker() bool {
	return slices.ContainsFunc(v.slots, func(w *slot) bool {
		w.mu.Lock()
		defer w.mu.Unlock()
		return !w.over
	})
}
