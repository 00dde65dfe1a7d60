package torchserve

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"

	"tategu/internal/torchserve/worker"
)

// errTimeout says that a worker was given up.
var errTimeout = errors.New("the worker did not answer within the model's responseTimeout")

// serveBatches runs batches, one at a time, until the worker is told to stop (nil) or
// is of no use any more.
func (w *slot) serveBatches(ctx context.Context, conn *worker.Conn, dead <-chan struct{}) error {
	var reqs []worker.Request
	for {
		batch := w.v.queue.take(ctx, w.stop, dead, w.v.set.BatchSize, w.v.set.MaxBatchDelay)
		if len(batch) == 0 {
			return w.why(ctx, dead)
		}
		reqs = requests(reqs[:0], batch)
		if err := w.runBatch(conn, batch, reqs); err != nil {
			return &deathError{err: err, jobs: batch}
		}
	}
}

// deathError is an end of a worker with requests in its hands.
type deathError struct {
	err  error
	jobs []*job
}

func (e *deathError) Error() string { return e.err.Error() }
func (e *deathError) Unwrap() error { return e.err }

// why says why a worker got no batch: it is to stop, or has died idle.
func (w *slot) why(ctx context.Context, dead <-chan struct{}) error {
	select {
	case <-w.stop:
		return nil
	case <-ctx.Done():
		return nil
	default:
	}
	<-dead
	return errors.New("the worker ended while it was idle")
}

func requests(reqs []worker.Request, batch []*job) []worker.Request {
	for _, j := range batch {
		reqs = append(reqs, j.req)
	}
	return reqs
}

// runBatch sends a batch and hands its answers out until all have one.
func (w *slot) runBatch(conn *worker.Conn, batch []*job, reqs []worker.Request) error {
	begun := time.Now()
	if err := conn.Send(reqs, w.v.set.ResponseTimeout); err != nil {
		return timely(err)
	}
	if err := w.awaitAnswer(conn, batch); err != nil {
		return err
	}
	w.v.measure(batch, begun)
	return nil
}

func timely(err error) error {
	if worker.IsTimeout(err) {
		return errTimeout
	}
	return err
}

// deliver gives an answer to those it is for, and says whether another one follows.
func (w *slot) deliver(a worker.Answer, batch []*job) (more bool, err error) {
	if a.Code != http.StatusOK {
		for _, j := range batch {
			j.fail(errorf(a.Code, InternalServer, "%s", a.Message))
		}
		return false, nil
	}
	for i := range a.Items {
		it := &a.Items[i]
		j := find(batch, it.ID, i)
		if j == nil {
			return false, fmt.Errorf("%w: it answers the request %.100q, which it was not given", worker.ErrProtocol, it.ID)
		}
		next := streams(it)
		more = more || next
		w.hand(j, it, next)
	}
	return more, nil
}

func (w *slot) hand(j *job, it *worker.Item, more bool) {
	if it.TooLarge > 0 {
		j.fail(errorf(http.StatusInternalServerError, InternalServer, "the answer has %d bytes; max_response_size allows %d", it.TooLarge, w.v.srv.cfg.MaxResponse))
		return
	}
	j.frame(frameOf(it, more))
}

// find looks where answers usually are, then everywhere.
func find(batch []*job, id string, i int) *job {
	if i < len(batch) && batch[i].req.ID == id {
		return batch[i]
	}
	for _, j := range batch {
		if j.req.ID == id {
			return j
		}
	}
	return nil
}

// serveContinuous keeps a batch that requests join and leave while it runs: each step
// sends all that go on, by their ids, and the new ones.
func (w *slot) serveContinuous(ctx context.Context, conn *worker.Conn, dead <-chan struct{}) error {
	var live []*job
	var reqs []worker.Request
	for {
		if len(live) == 0 {
			if live = w.v.queue.take(ctx, w.stop, dead, w.v.set.BatchSize, w.v.set.MaxBatchDelay); len(live) == 0 {
				return w.why(ctx, dead)
			}
		} else if room := w.v.set.BatchSize - len(live); room > 0 && !live[0].alone {
			live = append(live, w.v.queue.now(room)...)
		}
		reqs = requests(reqs[:0], live)
		begun := time.Now()
		if err := conn.Send(reqs, w.v.set.ResponseTimeout); err != nil {
			return &deathError{err: timely(err), jobs: live}
		}
		a, err := conn.Receive(w.v.set.ResponseTimeout)
		if err == nil {
			_, err = w.deliver(a, live)
		}
		if err != nil {
			return &deathError{err: timely(err), jobs: live}
		}
		live = w.step(a, live, begun)
	}
}

// step gives those that take part in the next step.
func (w *slot) step(a worker.Answer, live []*job, begun time.Time) []*job {
	var next, done []*job
	for _, j := range live {
		answered := false
		for i := range a.Items {
			answered = answered || a.Items[i].ID == j.req.ID
		}
		if !answered {
			j.fail(errorf(http.StatusServiceUnavailable, InternalServer, "number of batch response mismatched"))
		}
		if j.isEnded() || j.hasLeft() {
			done = append(done, j)
			continue
		}
		j.req.Known = true
		next = append(next, j)
	}
	w.v.measure(done, begun)
	return next
}

// asyncLimit is how many requests a worker with asyncCommunication has at once, at
// least: the handler schedules them itself.
const asyncLimit = 100

// crowd is the requests that a worker with asyncCommunication has.
type crowd struct {
	mu       sync.Mutex
	jobs     map[string]*job
	room     chan struct{} // a place of it is taken by each
	watch    *time.Timer
	patience time.Duration
	timedOut bool
}

// serveAsync sends requests as they come and matches answers by their ids.
func (w *slot) serveAsync(ctx context.Context, conn *worker.Conn, dead <-chan struct{}) error {
	f := &crowd{jobs: map[string]*job{}, room: make(chan struct{}, max(asyncLimit, w.v.set.BatchSize)), patience: w.v.set.ResponseTimeout}
	if f.patience <= 0 {
		f.patience = time.Duration(1<<62 - 1)
	}
	f.watch = time.AfterFunc(f.patience, func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		if f.timedOut = len(f.jobs) > 0; f.timedOut {
			_ = conn.Interrupt() // a closed connection says so itself
		}
	})
	defer f.watch.Stop()
	broken := make(chan struct{})
	var readErr error
	var wg sync.WaitGroup
	wg.Go(func() {
		defer close(broken)
		readErr = w.receiveAsync(conn, f)
	})
	sendErr := w.sendAsync(ctx, conn, f, broken)
	if sendErr == nil {
		f.drain(broken) // what it has it may finish
	}
	_ = conn.Interrupt() // a closed connection says so itself
	wg.Wait()
	f.mu.Lock()
	defer f.mu.Unlock()
	left := make([]*job, 0, len(f.jobs))
	for _, j := range f.jobs {
		left = append(left, j)
	}
	switch {
	case f.timedOut:
		return &deathError{err: errTimeout, jobs: left}
	case sendErr == nil && len(left) == 0:
		return nil
	}
	select {
	case <-dead:
	default:
		if worker.IsTimeout(readErr) {
			readErr = nil // that was us
		}
	}
	return &deathError{err: errors.Join(sendErr, readErr), jobs: left}
}

// drain waits until all have their answers, or none can come.
func (f *crowd) drain(broken <-chan struct{}) {
	for range cap(f.room) {
		select {
		case f.room <- struct{}{}:
		case <-broken:
			return
		}
	}
}

func (w *slot) sendAsync(ctx context.Context, conn *worker.Conn, f *crowd, broken <-chan struct{}) error {
	for {
		select {
		case f.room <- struct{}{}:
		case <-w.stop:
			return nil
		case <-ctx.Done():
			return nil
		case <-broken:
			return errors.New("the worker's connection ended")
		}
		batch := w.v.queue.take(ctx, w.stop, broken, 1, 0)
		if len(batch) == 0 {
			<-f.room
			select {
			case <-broken:
				return errors.New("the worker's connection ended")
			default:
				return nil
			}
		}
		f.mu.Lock()
		if len(f.jobs) == 0 {
			f.watch.Reset(f.patience)
		}
		f.jobs[batch[0].req.ID] = batch[0]
		f.mu.Unlock()
		if err := conn.Send(requests(nil, batch), w.v.set.ResponseTimeout); err != nil {
			return timely(err)
		}
	}
}

func (w *slot) receiveAsync(conn *worker.Conn, f *crowd) error {
	for {
		a, err := conn.Receive(0)
		if err != nil {
			return err
		}
		f.mu.Lock()
		f.watch.Reset(f.patience)
		for i := range a.Items {
			it := &a.Items[i]
			j := f.jobs[it.ID]
			if j == nil {
				f.mu.Unlock()
				return fmt.Errorf("%w: it answers the request %.100q, which it does not have", worker.ErrProtocol, it.ID)
			}
			more := a.Code == http.StatusOK && streams(it)
			if a.Code != http.StatusOK {
				j.fail(errorf(a.Code, InternalServer, "%s", a.Message))
			} else {
				w.hand(j, it, more)
			}
			if !more {
				delete(f.jobs, it.ID)
				<-f.room
				w.v.measure([]*job{j}, j.started)
			}
		}
		f.mu.Unlock()
	}
}
