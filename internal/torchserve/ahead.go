package torchserve

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"tategu/internal/torchserve/worker"
)

// What is written to a worker ahead of its answers, so that it needs not wait for the
// next request: as little as it does in a moment, which is what a client that leaves
// can cost, and as few bytes as its socket takes while it reads none.
const (
	aheadTime  = 4 * time.Millisecond
	aheadJobs  = 16
	aheadBytes = 32 << 10
)

// lateTime is how long a worker may have what is ahead of it: when the request before
// takes longer, the others wait for any worker again.
const lateTime = 5 * aheadTime

// pace is how long a worker takes for a request: the longest of late, older ones
// counting less and less. budget is what may be ahead.
type pace struct{ budget, slow time.Duration }

func (p *pace) note(took time.Duration) { p.slow = max(took, p.slow-p.slow/32, 1) }

// depth is how many requests may be ahead.
func (p *pace) depth() int {
	if p.slow == 0 {
		return 0
	}
	return int(min(p.budget/p.slow, aheadJobs))
}

// flight is the requests that a worker has: it works on the first, the others are in
// its socket.
type flight struct {
	jobs  []*job
	bytes int // of the others
	begun time.Time
	reqs  []worker.Request
	owed  int // how many, behind those, were taken back, which it has yet to pass over
}

// serveSingles runs requests one at a time, of which the next ones are written before
// the answer to the first is there, where the worker is quick. They wait for any worker
// again when the first takes long, and when the worker ends and cannot have begun with
// them.
func (w *slot) serveSingles(ctx context.Context, conn *worker.Conn, dead <-chan struct{}, p pace) error {
	var f flight
	for {
		if len(f.jobs) == 0 {
			if err := w.passOver(conn, &f); err != nil {
				return err
			}
			if f.jobs = w.v.queue.take(ctx, w.stop, dead, 1, 0); len(f.jobs) == 0 {
				return w.why(ctx, dead)
			}
			f.begun, f.bytes = time.Now(), 0
			f.reqs = requests(f.reqs[:0], f.jobs)
			if err := conn.Send(f.reqs, w.v.set.ResponseTimeout); err != nil {
				return &deathError{err: timely(err), jobs: f.jobs}
			}
		}
		err := w.writeAhead(conn, &f, p.depth())
		if err == nil {
			err = w.awaitFirstOf(conn, &f)
		}
		if err != nil {
			return w.giveBack(conn, f.jobs, err)
		}
		now := time.Now()
		w.v.measure(f.jobs[:1], f.begun)
		p.note(now.Sub(f.begun))
		f.jobs, f.begun = f.jobs[1:], now
		if len(f.jobs) > 0 {
			f.bytes -= f.jobs[0].size()
			f.jobs[0].underway(now)
		}
	}
}

// awaitFirstOf hands out the answer to the first request.
func (w *slot) awaitFirstOf(conn *worker.Conn, f *flight) error {
	for {
		if len(f.jobs) > 1 && conn.Held() && conn.Late(f.begun.Add(lateTime)) {
			w.takeBack(conn, f)
		}
		more, err := w.answer(conn, f.jobs[:1])
		if err != nil || !more {
			return err
		}
	}
}

// takeBack has requests ahead wait again that the worker has not begun with. It takes
// them in their turn, so that those it has not are the last.
func (w *slot) takeBack(conn *worker.Conn, f *flight) {
	n := conn.Withdraw(len(f.jobs) - 1)
	if n == 0 {
		return
	}
	kept := len(f.jobs) - n
	for _, j := range f.jobs[kept:] {
		f.bytes -= j.size()
	}
	f.owed += n
	w.v.queue.back(f.jobs[kept:])
	f.jobs = f.jobs[:kept:kept]
}

// passOver waits until the worker has passed over what was taken back.
func (w *slot) passOver(conn *worker.Conn, f *flight) error {
	for ; f.owed > 0; f.owed-- {
		a, err := conn.Receive(w.v.set.ResponseTimeout)
		if err != nil {
			return timely(err)
		}
		if a.Code != worker.PassedOver || len(a.Items) > 0 {
			return fmt.Errorf("%w: it answers a request that it was told to pass over", worker.ErrProtocol)
		}
	}
	return nil
}

// writeAhead writes more requests once half of those ahead have been begun with. What
// fails is a worker that has not read them in the time that it has for an answer: a part
// of a request may be in its socket, behind which nothing else may come.
func (w *slot) writeAhead(conn *worker.Conn, f *flight, depth int) error {
	if len(f.jobs)-1 > depth/2 || depth == 0 || f.owed > 0 || w.v.set.Ticket || isClosed(w.stop) {
		return nil
	}
	if w.v.several() {
		if !conn.Held() {
			return nil // should this one hang, it would keep what others could take
		}
		depth = 1 // another worker may have time for the rest
	}
	more := w.v.queue.ahead(depth-(len(f.jobs)-1), aheadBytes-f.bytes)
	if len(more) == 0 {
		return nil
	}
	for _, j := range more {
		f.bytes += j.size()
	}
	f.jobs = append(f.jobs, more...)
	f.reqs = requests(f.reqs[:0], more)
	if err := conn.SendEach(f.reqs, w.v.set.ResponseTimeout); worker.IsTimeout(err) {
		return errTimeout
	}
	return nil // a worker that has ended may have answered before: what is read tells
}

// awaitAnswer hands out what a worker answers until its batch is done.
func (w *slot) awaitAnswer(conn *worker.Conn, batch []*job) error {
	for {
		if more, err := w.answer(conn, batch); err != nil || !more {
			return err
		}
	}
}

// answer hands out one of a worker's answers, and says whether more follow it.
func (w *slot) answer(conn *worker.Conn, batch []*job) (more bool, err error) {
	a, err := conn.Receive(w.v.set.ResponseTimeout)
	if err != nil {
		return false, timely(err)
	}
	if more, err = w.deliver(a, batch); err != nil || more {
		return more, err
	}
	for _, j := range batch {
		j.fail(errorf(http.StatusServiceUnavailable, InternalServer, "number of batch response mismatched"))
	}
	return false, nil
}

// giveBack has the requests ahead wait again, where it is certain that the worker has
// not begun with them: it begins with the next one when its answer to the first is
// sent, of which then no byte may have come, nor can come any more.
func (w *slot) giveBack(conn *worker.Conn, jobs []*job, err error) error {
	death := &deathError{err: err, jobs: jobs}
	if len(jobs) == 1 || errors.Is(err, worker.ErrProtocol) || !conn.Silent() {
		return death
	}
	death.jobs = jobs[:1]
	w.v.queue.back(jobs[1:])
	w.v.flushAbandoned() // this may have been the last worker
	return death
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// several says that the model has more than one worker.
func (v *version) several() bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	return len(v.slots) > 1
}
