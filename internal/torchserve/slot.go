package torchserve

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"tategu/internal/torchserve/worker"
)

// slot is a place for a worker of a model: when its process ends, another is started.
type slot struct {
	v    *version
	id   string
	gpu  int           // -1 = the CPU
	stop chan struct{} // closed to have it end after what it does now
	hard chan struct{} // closed to have it end now
	gone chan struct{} // closed when it has

	stopOnce, hardOnce sync.Once

	mu      sync.Mutex
	state   WorkerState
	process *worker.Process // that serves; nil = none does
	pid     int
	started time.Time
	ready   time.Time     // when the last process had loaded the model
	first   chan struct{} // closed once the first start has come to something
	failed  error         // what that was, if no worker
	over    bool          // it gave up
}

func (w *slot) end() { w.stopOnce.Do(func() { close(w.stop) }) }

func (w *slot) endNow() {
	w.end()
	w.hardOnce.Do(func() { close(w.hard) })
}

// fibonacci gives the seconds before a restart: 0, 1, 1, 2, 3, 5 ...
func fibonacci(fails int) time.Duration {
	a, b := 0, 1
	for range min(fails, 17) {
		a, b = b, a+b
	}
	return time.Duration(a) * time.Second
}

// run keeps a worker until the slot is ended.
func (w *slot) run(ctx context.Context) {
	defer close(w.gone)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() { // until run ends
		select {
		case <-w.hard:
			cancel()
		case <-ctx.Done():
		}
	}()
	defer w.settle(errors.New("it was stopped before it had started"))
	fails, since := 0, time.Time{}
	for {
		loaded, err := w.life(ctx)
		if w.ending(ctx) {
			return
		}
		if loaded {
			since = time.Time{}
			if !w.idler(err) {
				fails = 0
			}
		}
		w.v.fault(err)
		if !loaded {
			w.settle(err)
			w.v.flushWithout(err)
		}
		if since.IsZero() {
			since = time.Now()
		}
		if limit := w.v.set.MaxRetryTimeout; !loaded && time.Since(since) >= limit {
			w.giveUp(err, limit)
			return
		}
		pause := fibonacci(fails)
		w.v.log.WarnContext(ctx, "A worker has ended and is started again", slog.String("worker", w.id), slog.Duration("after", pause), slog.Any("error", err))
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-w.stop:
		case <-ctx.Done():
		}
		timer.Stop()
		if w.ending(ctx) {
			return
		}
		fails++
	}
}

// shortLife of a worker that died idle: such are not started again without a pause.
const shortLife = 10 * time.Second

// idler says that a worker that had loaded its model ended soon, and without a request
// in its hands: the next one may do the same.
func (w *slot) idler(err error) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	_, busy := errors.AsType[*deathError](err)
	return !busy && time.Since(w.ready) < shortLife
}

// never is for a slot that run is not called for.
func (w *slot) never(err error) {
	w.mu.Lock()
	w.over = true
	w.mu.Unlock()
	w.settle(err)
	close(w.gone)
}

func (w *slot) ending(ctx context.Context) bool {
	select {
	case <-w.stop:
		return true
	default:
		return ctx.Err() != nil
	}
}

func (w *slot) giveUp(err error, after time.Duration) {
	w.v.log.Error("A worker does not start and is given up; scale the model to try again", slog.String("worker", w.id), slog.Duration("tried", after), slog.Any("error", err))
	w.mu.Lock()
	w.over = true
	w.mu.Unlock()
	w.v.flushWithout(err)
}

// settle tells those who wait for the start what came of it.
func (w *slot) settle(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	select {
	case <-w.first:
	default:
		w.failed = err
		close(w.first)
	}
}

func (w *slot) set(state WorkerState, pid int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.state, w.pid, w.process = state, pid, nil
}

// serves notes that a process has loaded the model.
func (w *slot) serves(p *worker.Process) {
	w.set(WorkerReady, p.PID())
	w.mu.Lock()
	w.process, w.ready = p, time.Now()
	w.failed = nil // what kept it from starting before is over
	w.mu.Unlock()
	w.v.srv.share()
}

// life is one process, from its start to its end. loaded says that it has served.
// The error is nil when it was told to end.
func (w *slot) life(ctx context.Context) (loaded bool, err error) {
	begun := time.Now()
	defer func() {
		w.set(WorkerLoading, 0)
		if loaded {
			w.v.srv.share()
		}
	}()
	w.mu.Lock()
	w.started = begun
	w.mu.Unlock()
	g, launcher, err := w.v.program(ctx, w.id)
	if err != nil {
		return false, err
	}
	defer func() { _ = os.Remove(g.Socket) }() // the worker removes it, unless it is killed
	p, err := launcher.Start(ctx, g)
	if err != nil {
		return false, err
	}
	defer func() {
		killed := w.bury(p, err == nil)
		err = w.autopsy(p, err, killed)
	}()
	conn, err := w.connect(ctx, p, g.Socket, begun)
	if err != nil {
		return false, err
	}
	defer func() { _ = conn.Close() }() // its end is the worker's
	w.serves(p)
	w.v.loaded(w.id, time.Since(begun))
	w.settle(nil)
	interrupt := context.AfterFunc(ctx, func() { _ = conn.Interrupt() }) // a closed one says so itself
	defer interrupt()
	err = w.serve(ctx, conn, p.Done())
	if mid := (*deathError)(nil); ctx.Err() != nil && errors.As(err, &mid) {
		for _, j := range mid.jobs {
			j.fail(errorf(http.StatusServiceUnavailable, ServiceUnavailable, "the model's workers are stopped"))
		}
		err = nil
	}
	return true, err
}

func (w *slot) serve(ctx context.Context, conn *worker.Conn, dead <-chan struct{}) error {
	switch {
	case w.v.set.Async:
		return w.serveAsync(ctx, conn, dead)
	case w.v.set.Continuous:
		return w.serveContinuous(ctx, conn, dead)
	case w.v.set.BatchSize == 1:
		return w.serveSingles(ctx, conn, dead, pace{budget: aheadTime})
	default:
		return w.serveBatches(ctx, conn, dead)
	}
}

// connect has the worker load the model.
func (w *slot) connect(ctx context.Context, p *worker.Process, socket string, begun time.Time) (conn *worker.Conn, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() { // until connected, or told to stop
		select {
		case <-w.stop:
			cancel()
		case <-ctx.Done():
		}
	}()
	patience := w.v.set.StartupTimeout
	if err := p.Await(ctx, patience); err != nil {
		return nil, err
	}
	w.set(WorkerLoading, p.PID())
	if conn, err = worker.Dial(ctx, socket, w.v.srv.cfg.MaxResponse); err != nil {
		return nil, err
	}
	dialed := conn // what is returned may be none by the time that it is interrupted
	interrupt := context.AfterFunc(ctx, func() { _ = dialed.Interrupt() })
	defer interrupt()
	a, err := conn.Load(p, w.v.load(w.gpu), max(patience-time.Since(begun), time.Millisecond))
	if worker.IsTimeout(err) && ctx.Err() == nil {
		err = fmt.Errorf("the model was not loaded within its startupTimeout of %s", patience)
	}
	if err == nil && a.Code != http.StatusOK {
		err = &loadError{code: a.Code, message: a.Message}
	}
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return conn, nil
}

// loadError is a worker's refusal of its model.
type loadError struct {
	code    int
	message string
}

func (e *loadError) Error() string {
	if e.code == statusWorkerOutMemory {
		return "the model does not fit into memory: " + e.message
	}
	return "the model does not load: " + e.message
}

// bury waits for the end of a process: one that was told to end gets a moment to, and
// one that dies by itself an instant, so that it says how. killed = it was not enough.
func (w *slot) bury(p *worker.Process, gently bool) (killed bool) {
	patience := instant
	if gently {
		patience = graceful
	}
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case <-p.Done():
		return false
	case <-timer.C:
	}
	p.Kill()
	<-p.Done()
	return true
}

const (
	graceful = 3 * time.Second
	instant  = 500 * time.Millisecond
)

// deadError is the end of a worker, for people.
type deadError struct {
	status int
	exit   worker.Exit
	killed bool // by us, since it was of no use
	err    error
	tail   []string
}

func (e *deadError) Error() string {
	var b strings.Builder
	b.WriteString("Worker died.")
	if e.err != nil {
		b.WriteString(" ")
		b.WriteString(e.err.Error())
	}
	if !e.killed {
		b.WriteString("; ")
		b.WriteString(e.exit.String())
		if e.exit.Signal == syscall.SIGKILL {
			b.WriteString(", as the system does when memory runs out")
		}
	}
	if len(e.tail) > 0 {
		b.WriteString("; it last printed:\n")
		b.WriteString(strings.Join(e.tail, "\n"))
	}
	return b.String()
}

func (e *deadError) Unwrap() error { return e.err }

// autopsy says how a worker ended, and tells it to those whose requests it had.
func (w *slot) autopsy(p *worker.Process, err error, killed bool) error {
	if err == nil {
		return nil
	}
	dead := &deadError{exit: p.Exit(), tail: p.Tail(), status: http.StatusInternalServerError, err: err}
	dead.killed = killed || errors.Is(err, errTimeout) || errors.Is(err, worker.ErrProtocol)
	var refused *loadError
	switch {
	case errors.As(err, &refused):
		dead.status, dead.killed = refused.code, true
	case !dead.killed && dead.exit.Signal == syscall.SIGKILL:
		dead.status = statusWorkerOutMemory
	}
	if mid, ok := errors.AsType[*deathError](err); ok {
		for _, j := range mid.jobs {
			j.fail(&Error{Code: dead.status, Type: InternalServer, Message: dead.Error(), Err: err})
		}
	}
	return dead
}

// describe gives the worker as it is now.
func (w *slot) describe() Worker {
	w.mu.Lock()
	defer w.mu.Unlock()
	d := Worker{ID: w.id, Started: w.started, State: w.state, PID: w.pid, GPU: w.gpu, GPUUsage: "N/A"}
	if d.State == "" {
		d.State = WorkerLoading
	}
	if w.pid > 0 {
		d.MemoryBytes = residentBytes(w.pid)
	}
	return d
}

func residentBytes(pid int) int64 {
	data, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "statm"))
	if err != nil {
		return 0 // it has ended, or this is no Linux
	}
	fields := strings.Fields(string(data))
	if len(fields) < 2 {
		return 0
	}
	pages, err := strconv.ParseInt(fields[1], 10, 64)
	if err != nil {
		return 0
	}
	return pages * int64(os.Getpagesize())
}
