package replica

import (
	"cmp"
	"container/list"
	"context"
	"errors"
	"log/slog"
	goruntime "runtime"
	"sync"
	"time"

	"tategu/internal/replica/frame"
	"tategu/internal/replica/http1"
	"tategu/internal/resource"
	"tategu/internal/runtime"
)

// Set is a number of replicas of one server behind one queue.
type Set struct {
	cfg    Config
	client Client

	mu       sync.Mutex
	want     int
	room     int // requests in flight in one replica at most
	stopping bool
	drain    time.Duration // of the end of the set
	members  []*member
	attempts map[int]int // the last one in each place
	queue    list.List   // of *waiter
	queued   int64       // bytes in queue
	wary     time.Time   // until then bodies are read before they are sent on
	changed  chan struct{}
}

// New makes a set; nothing starts before Run.
func New(cfg Config) *Set {
	cfg = cfg.withDefaults()
	s := &Set{cfg: cfg, want: cfg.Count, room: cfg.Concurrency, attempts: map[int]int{}, changed: make(chan struct{})}
	if cfg.Local != nil {
		s.want = 0
		s.room = goruntime.GOMAXPROCS(0)
		s.members = []*member{{set: s, state: Ready, backend: cfg.Local}}
		return s
	}
	if s.client = cfg.Client; s.client == nil {
		plain := &http1.Client{MaxIdle: max(cfg.Concurrency, idleConnections)}
		s.client = plain
		if cfg.Frames != "" {
			s.client = &frame.Client{HTTP: plain, Route: cfg.Frames}
		}
	}
	return s
}

// Run keeps the wanted number of replicas until ctx ends, which leaves them
// running for the next set of the same name, or until Stop has ended them.
func (s *Set) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	defer func() {
		wg.Wait()
		s.mu.Lock()
		defer s.mu.Unlock()
		s.stopping = true // nobody keeps the replicas any more: answer who still waits
		s.pump()
		if s.client != nil {
			s.client.CloseIdle("")
		}
	}()
	s.find(ctx, &wg)
	for {
		s.mu.Lock()
		changed := s.changed
		s.adjust(ctx, &wg)
		done := s.stopping && len(s.members) == 0
		s.mu.Unlock()
		if done {
			return nil
		}
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		}
	}
}

// adjust starts missing members and asks surplus ones to leave. The caller holds
// the lock.
func (s *Set) adjust(ctx context.Context, wg *sync.WaitGroup) {
	if s.cfg.Local != nil {
		if m := s.members; s.stopping && len(m) > 0 && m[0].inFlight == 0 {
			s.members = nil
			s.signal()
		}
		return
	}
	kept := s.members[:0]
	for _, m := range s.members {
		if !m.gone {
			kept = append(kept, m)
		}
	}
	if len(kept) < len(s.members) {
		s.members = kept
		s.signal() // Stop waits for this
	}
	taken, staying := map[int]bool{}, 0
	for _, m := range s.members {
		taken[m.index] = true
		if !m.leaving {
			staying++
		}
	}
	for ; staying > s.want; staying-- {
		m := s.surplus()
		m.leaving = true
		close(m.leave)
	}
	for i := 0; staying < s.want; i++ {
		if !taken[i] {
			s.add(ctx, wg, i)
			staying++
		}
	}
}

// surplus picks who goes: one that cannot serve, else the one with the fewest
// requests, of these the youngest place. The caller holds the lock.
func (s *Set) surplus() *member {
	var worst *member
	for _, m := range s.members {
		if !m.leaving && (worst == nil || cmp.Or(compareReady(m, worst), cmp.Compare(m.inFlight, worst.inFlight), cmp.Compare(worst.index, m.index)) < 0) {
			worst = m
		}
	}
	return worst
}

// compareReady puts those that cannot serve first.
func compareReady(a, b *member) int {
	rank := func(m *member) int {
		if m.state == Ready {
			return 1
		}
		return 0
	}
	return cmp.Compare(rank(a), rank(b))
}

// add makes a member and lets it run. The caller holds the lock.
func (s *Set) add(ctx context.Context, wg *sync.WaitGroup, index int) {
	m := &member{set: s, index: index, state: Starting, leave: make(chan struct{}), poke: make(chan struct{}, 1)}
	s.members = append(s.members, m)
	wg.Go(func() {
		m.run(ctx)
		s.mu.Lock()
		defer s.mu.Unlock()
		m.gone = true
		s.signal()
	})
}

// find takes over the places in which replicas of an earlier server run. Run keeps
// as many as are wanted.
func (s *Set) find(ctx context.Context, wg *sync.WaitGroup) {
	if s.cfg.Local != nil {
		return
	}
	places, err := running(ctx, s.cfg.Runtime, s.cfg.Name)
	if err != nil {
		s.warn(ctx, "cannot look for replicas of an earlier run", slog.Any("error", err))
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, index := range places {
		s.add(ctx, wg, index)
	}
}

// Resize sets the number of replicas. Those that go are drained first.
func (s *Set) Resize(n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cfg.Local == nil && !s.stopping && s.want != n {
		s.want = n
		s.signal()
	}
}

// Limit sets how many requests a replica is given at a time.
func (s *Set) Limit(n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cfg.Local == nil {
		s.room = max(1, n)
		s.pump()
	}
}

// Ready is the number of replicas that can serve.
func (s *Set) Ready() (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, m := range s.members {
		if m.state == Ready && !m.leaving {
			n++
		}
	}
	return n
}

// Stop takes no more requests, lets those in flight end for at most drain, and
// ends all replicas. Run returns when that is done; ctx bounds only the wait.
func (s *Set) Stop(ctx context.Context, drain time.Duration) error {
	s.mu.Lock()
	s.stopping, s.want, s.drain = true, 0, drain
	s.pump()
	s.signal()
	s.mu.Unlock()
	return s.wait(ctx, func() (bool, error) { return len(s.members) == 0, nil })
}

// instances are those of ready replicas.
func (s *Set) instances() (ready []runtime.Instance) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, m := range s.members {
		if m.state == Ready && m.inst != nil {
			ready = append(ready, m.inst)
		}
	}
	return ready
}

// Used gives the CPU time that each ready replica has used so far, by the id of its
// workload. Those of which it is not known are missing.
func (s *Set) Used() map[string]time.Duration {
	used := map[string]time.Duration{}
	for _, inst := range s.instances() {
		if m, ok := inst.(runtime.Metered); ok {
			if d, ok := m.CPUTime(); ok {
				used[inst.ID()] = d
			}
		}
	}
	return used
}

// GPUs gives the ids of those that each ready replica was handed.
func (s *Set) GPUs() (all [][]string) {
	for _, inst := range s.instances() {
		gpus := inst.Status().GPUs
		ids := make([]string, 0, len(gpus))
		for _, g := range gpus {
			ids = append(ids, g.ID)
		}
		all = append(all, ids)
	}
	return all
}

// WaitReady waits until all wanted replicas, or those that are required, have been
// healthy at the same time. When too few are left that can start, the wait ends with
// the reason, which holds the exit code and the last lines of its output.
func (s *Set) WaitReady(ctx context.Context) error {
	return s.wait(ctx, func() (bool, error) {
		ready, broken, need := 0, 0, s.want
		if s.cfg.Required > 0 {
			need = min(need, s.cfg.Required)
		}
		var err error
		for _, m := range s.members {
			switch {
			case m.leaving:
			case m.state == Ready:
				ready++
			case m.state == Failed || m.failures >= giveUpAfter:
				broken, err = broken+1, m.err
			}
		}
		if broken > s.want-need {
			return false, err
		}
		return s.cfg.Local != nil || ready >= need, nil
	})
}

// wait calls done under the lock after each change until it is satisfied.
func (s *Set) wait(ctx context.Context, done func() (bool, error)) error {
	for {
		s.mu.Lock()
		changed := s.changed
		ok, err := done()
		s.mu.Unlock()
		if ok || err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-changed:
		}
	}
}

// Status gives the replicas in order.
func (s *Set) Status() []Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make([]Status, 0, len(s.members))
	for _, m := range s.members {
		st := Status{Index: m.index, State: m.state, InFlight: m.inFlight, Failures: m.failures, Message: m.message}
		if b, ok := m.backend.(*remote); ok {
			st.Address = b.address
		}
		all = append(all, st)
	}
	return all
}

// Waiting is the number of requests in the queue.
func (s *Set) Waiting() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.queue.Len()
}

// signal wakes everyone who waits for a change. The caller holds the lock.
func (s *Set) signal() {
	close(s.changed)
	s.changed = make(chan struct{})
}

func (s *Set) warn(ctx context.Context, msg string, attrs ...slog.Attr) {
	s.cfg.Log.LogAttrs(ctx, slog.LevelWarn, msg, append([]slog.Attr{slog.String("set", s.cfg.Name)}, attrs...)...)
}

// permanent reports a failure that another start cannot cure.
func permanent(err error) bool {
	e, ok := errors.AsType[*resource.Error](err)
	return ok && e.Op == opStart
}

const opStart = "start replica"
