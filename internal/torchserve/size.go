package torchserve

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"
	"time"

	"tategu/internal/torchserve/sizer"
)

// tally counts what the requests of a version came to.
type tally struct {
	done, waited, took atomic.Int64 // requests; nanoseconds of all together
}

func (t *tally) add(batch []*job, now time.Time) {
	var waited, took time.Duration
	for _, j := range batch {
		waited, took = waited+j.started.Sub(j.arrived), took+now.Sub(j.arrived)
	}
	t.done.Add(int64(len(batch)))
	t.waited.Add(int64(waited))
	t.took.Add(int64(took))
}

// sizing is what is known of a version for the number of its workers. Its owner is tend;
// of what describe reads, v.mu.
type sizing struct {
	seen                    []sizer.Second
	done, waited, took, not int64 // of the tally, and refused, when the last second ended
	state                   sizer.State
	ready, others           int // workers that serve, of this model and of the others with requests

	reason string // of v.mu
	anew   bool   // of v.mu: the bounds were set, and what was tried before is over
}

// kept seconds are more than the sizer looks back.
const keptSeconds = 90

// begins notes a request, of which the first one of a while changes who shares the cores.
func (v *version) begins() {
	v.running.Add(1)
	if !v.active.Load() && v.active.CompareAndSwap(false, true) {
		v.srv.share()
		select {
		case v.srv.roused <- struct{}{}:
		default:
		}
	}
}

func (v *version) ends(now time.Time) {
	v.lastEnd.Store(now.UnixNano())
	v.running.Add(-1)
}

// tend looks at the models that have requests, once a second, and at none while none has.
func (s *Server) tend(ctx context.Context) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-s.roused:
		case <-ctx.Done():
			return
		}
		tick.Reset(time.Second)
		for goesOn := true; goesOn; {
			select {
			case now := <-tick.C:
				goesOn = s.look(ctx, now)
			case <-ctx.Done():
				return
			}
		}
	}
}

// look takes note of a second, and says that there is something to see in the next.
func (s *Server) look(ctx context.Context, now time.Time) (goesOn bool) {
	all := s.allVersions()
	models, workers, ceased := 0, 0, false
	for _, v := range all {
		if v.active.Load() && v.running.Load() == 0 && now.Sub(time.Unix(0, v.lastEnd.Load())) > activeFor {
			v.active.Store(false)
			ceased = true
		}
		if v.active.Load() {
			models, workers = models+1, workers+v.readyWorkers()
		}
	}
	if ceased {
		s.share()
	}
	for _, v := range all {
		goesOn = goesOn || v.active.Load() || v.size.state.From > 0
		if !v.active.Load() && v.size.state.From == 0 {
			v.size.seen = nil // they are no seconds one after the other
			continue
		}
		ready := v.readyWorkers()
		others, among := workers, models
		if v.active.Load() {
			others -= ready
		} else {
			among++
		}
		v.resizeByLoad(ctx, now, max(1, min(s.cores()/among, s.cores()-others)), ready, others)
	}
	return goesOn
}

// resizeByLoad has the workers that the sizer wants, where their number is open.
func (v *version) resizeByLoad(ctx context.Context, now time.Time, share, ready, others int) {
	z := &v.size
	second := z.second(v)
	disturbed := z.others != others
	if z.ready != ready || disturbed { // what was seen before is of another division
		z.seen, z.ready, z.others = nil, ready, others
	} else {
		z.seen = append(z.seen, second)
		z.seen = z.seen[max(0, len(z.seen)-keptSeconds):]
	}
	h := sizer.History{Now: now, Seen: z.seen, Active: int(v.running.Load()), Ready: ready, Disturbed: disturbed, State: z.state}
	l, open := v.limits(share, &h)
	if !open {
		z.state = sizer.State{}
		return
	}
	d := sizer.Decide(l, h)
	z.state = d.State
	v.mu.Lock()
	z.reason = d.Reason
	if v.removed || d.Workers == h.Workers || v.min != l.Min || v.max != l.Max {
		v.mu.Unlock()
		return
	}
	starts, ends := v.fit(d.Workers, d.Workers)
	v.mu.Unlock()
	v.log.InfoContext(ctx, "The number of workers of a model changes", slog.Int("from", h.Workers), slog.Int("to", d.Workers), slog.String("reason", d.Reason))
	for _, w := range ends {
		w.end()
	}
	if err := v.start(ctx, starts); err != nil && ctx.Err() == nil {
		v.log.ErrorContext(ctx, "A worker more is not started", slog.Any("error", err))
	}
}

// second is what happened since the one before.
func (z *sizing) second(v *version) sizer.Second {
	done, waited, took, not := v.tally.done.Load(), v.tally.waited.Load(), v.tally.took.Load(), v.rejected.Load()
	x := sizer.Second{Done: int(done - z.done), Refused: int(not - z.not), Queue: v.queue.length(), Waited: time.Duration(waited - z.waited), Took: time.Duration(took - z.took)}
	z.done, z.waited, z.took, z.not = done, waited, took, not
	return x
}

// limits of a version, and what of its workers the sizer is to know. open says that their
// number is not fixed: by hand, or by GPUs, whose memory nobody here can divide.
func (v *version) limits(share int, h *sizer.History) (l sizer.Limits, open bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.size.anew {
		v.size.anew, h.State = false, sizer.State{}
	}
	l = sizer.Limits{Min: v.min, Max: v.max, Share: share, Free: -1}
	if h.Workers = len(v.slots); v.min >= v.max {
		return l, false
	}
	for _, w := range v.slots {
		if w.gpu >= 0 {
			return l, false
		}
		w.mu.Lock()
		if w.failed != nil {
			h.Broken, _, _ = strings.Cut(w.failed.Error(), "\n")
		}
		if w.pid > 0 {
			l.Worker = max(l.Worker, residentBytes(w.pid))
		}
		w.mu.Unlock()
	}
	l.Free = freeMemory("/")
	return l, true
}

// scaling says why the version has its workers, where that is open. v.mu is held.
func (v *version) scaling() string {
	if v.min >= v.max {
		return ""
	}
	for _, w := range v.slots {
		if w.gpu >= 0 {
			return "on GPUs the number of workers is not changed by load: scale the model"
		}
	}
	reason := v.size.reason
	if reason == "" {
		reason = "no request came yet"
	}
	return fmt.Sprintf("%d of %d to %d workers, each with %d of %d threads: %s", len(v.slots), v.min, v.max, v.threads, v.srv.cores(), reason)
}
