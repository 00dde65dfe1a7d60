package torchserve

import (
	"context"
	"slices"
	"sync"
	"time"
)

// queue holds the requests of a model until a worker takes them, first come first served.
type queue struct {
	limit int

	mu      sync.Mutex
	jobs    []*job
	waiters []chan struct{} // workers that wait; each of one place
	idle    int             // workers that wait for a batch's first job
	closed  error           // why no job is taken any more
}

func newQueue(limit int) *queue { return &queue{limit: limit} }

// put adds a job. It is refused when the queue is full, or, with ticket, when no
// worker is free for it.
func (q *queue) put(j *job, ticket bool) (ok bool, err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed != nil {
		return false, q.closed
	}
	if len(q.jobs) >= q.limit || (ticket && q.idle <= len(q.jobs)) {
		return false, nil
	}
	q.jobs = append(q.jobs, j)
	q.wakeOne()
	return true, nil
}

func (q *queue) wakeOne() {
	if len(q.waiters) > 0 {
		q.waiters[0] <- struct{}{}
		q.waiters = slices.Delete(q.waiters, 0, 1)
	}
}

// remove takes a job out whose client has gone.
func (q *queue) remove(j *job) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if i := slices.Index(q.jobs, j); i >= 0 {
		q.jobs = slices.Delete(q.jobs, i, i+1)
	}
}

// pop takes up to limit jobs that still have somebody waiting; one that is alone
// ends a batch, or is one.
func (q *queue) pop(batch []*job, limit int) []*job {
	now := time.Now()
	for len(q.jobs) > 0 && len(batch) < limit {
		if q.jobs[0].alone && len(batch) > 0 {
			break
		}
		j := q.popOne(now)
		if j == nil {
			continue
		}
		batch = append(batch, j)
		if j.alone {
			break
		}
	}
	return batch
}

// popOne takes the first job; nil = nobody waits for it any more.
func (q *queue) popOne(now time.Time) *job {
	j := q.jobs[0]
	q.jobs[0] = nil
	if q.jobs = q.jobs[1:]; len(q.jobs) == 0 {
		q.jobs = nil
	}
	if !j.begin(now) {
		return nil
	}
	return j
}

// now takes what is there, without waiting, to join a batch: none that is alone.
func (q *queue) now(limit int) []*job {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.jobs) > 0 && q.jobs[0].alone {
		return nil
	}
	return q.pop(nil, limit)
}

// ahead takes what no worker waits for, at most limit jobs of room bytes together.
func (q *queue) ahead(limit, room int) (jobs []*job) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.idle > 0 {
		return nil
	}
	for len(jobs) < limit && len(q.jobs) > 0 {
		n := q.jobs[0].size()
		if n > room {
			break
		}
		if j := q.popOne(time.Now()); j != nil { // else nobody waits for it any more
			jobs, room = append(jobs, j), room-n
		}
	}
	return jobs
}

// back has jobs wait again, before the others, where somebody still wants their answers.
func (q *queue) back(jobs []*job) {
	q.mu.Lock()
	closed := q.closed
	if closed == nil {
		jobs = slices.DeleteFunc(jobs, (*job).hasLeft) // remove did not find them
		q.jobs = slices.Concat(jobs, q.jobs)
		for range jobs {
			q.wakeOne()
		}
	}
	q.mu.Unlock()
	if closed == nil {
		return
	}
	for _, j := range jobs {
		j.fail(closed)
	}
}

// take waits for the first job, then takes what has come meanwhile, and waits up to
// delay for more until limit. None = stop, dead or ctx came first: a worker that is to
// stop takes nothing more, however much waits.
func (q *queue) take(ctx context.Context, stop, dead <-chan struct{}, limit int, delay time.Duration) []*job {
	if isClosed(stop) {
		return nil
	}
	var batch []*job
	var timer *time.Timer
	var late <-chan time.Time
	wait := make(chan struct{}, 1)
	for {
		q.mu.Lock()
		batch = q.pop(batch, limit)
		full := len(batch) >= limit || (len(batch) > 0 && (delay <= 0 || batch[0].alone || (len(q.jobs) > 0 && q.jobs[0].alone)))
		if full {
			if len(q.jobs) > 0 {
				q.wakeOne() // there is more than we take
			}
			q.mu.Unlock()
			return batch
		}
		first := len(batch) == 0
		q.waiters = append(q.waiters, wait)
		if first {
			q.idle++
		}
		q.mu.Unlock()
		if !first && timer == nil {
			timer = time.NewTimer(delay)
			defer timer.Stop()
			late = timer.C
		}
		var end bool
		select {
		case <-wait:
		case <-late:
			end = true
		case <-stop:
			end = true
		case <-dead:
			end = true
		case <-ctx.Done():
			end = true
		}
		q.mu.Lock()
		if first {
			q.idle--
		}
		if end {
			q.leave(wait)
			q.mu.Unlock()
			return batch
		}
		q.mu.Unlock()
	}
}

// leave gives up waiting; a wake that came at the same moment goes to another.
func (q *queue) leave(wait chan struct{}) {
	if i := slices.Index(q.waiters, wait); i >= 0 {
		q.waiters = slices.Delete(q.waiters, i, i+1)
		return
	}
	select {
	case <-wait:
		if len(q.jobs) > 0 {
			q.wakeOne()
		}
	default:
	}
}

// length is how many wait.
func (q *queue) length() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.jobs)
}

// flush fails all that wait, and with end all that come.
func (q *queue) flush(err error, end bool) {
	q.mu.Lock()
	jobs := q.jobs
	q.jobs = nil
	if end {
		q.closed = err
	}
	q.mu.Unlock()
	for _, j := range jobs {
		j.fail(err)
	}
}
