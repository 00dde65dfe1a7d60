// Package scheduler decides which workloads of a machine may run. It hands out
// cores, memory and GPUs in the order below, and does nothing else: it reads no
// files, starts no programs and keeps nothing over a restart. Runtime adapters
// share one Scheduler and tell it what they find running (Adopt).
//
// The order of those that wait:
//
//   - Priority first: online, batch, jobs. Every Options.Age of waiting counts as
//     one priority more, so that none waits for ever; who has passed the highest
//     one that way is overdue, and overdue work goes strictly by age.
//   - Among equals the project with the least dominant share in use goes first
//     (Ghodsi et al., "Dominant Resource Fairness", NSDI 2011: the share of the
//     machine that a project holds in the dimension in which it holds most).
//   - In a project, first come, first served.
//
// Who does not fit lets others pass (back-fill): those of its own priority freely
// while it has waited less than Options.Patience. From then on, and for lower
// priorities at once, it reserves: nobody behind it takes of the dimensions that
// it lacks, or so much of the others that it would not fit. A task that waits
// for a GPU therefore lets tasks without GPUs pass.
//
// A gang starts when all its members have asked and all fit at once. One that has
// not holds nothing, so that two gangs never wait for each other.
package scheduler

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	"tategu/internal/resource"
	"tategu/internal/runtime"

	"google.golang.org/grpc/codes"
)

// Options tune the order; zero values are the defaults.
type Options struct {
	Patience time.Duration // a waiting ask lets its equals pass for so long; 0 = DefaultPatience
	Age      time.Duration // so much waiting is worth one priority; 0 = DefaultAge

	// What an ask counts that names no cores or no memory; 0 = DefaultCores, DefaultMemory.
	Cores       float64
	MemoryBytes int64
}

// Defaults of Options. Twenty programs that say nothing about themselves run at
// the same time on a laptop with two cores.
const (
	DefaultPatience = time.Minute
	DefaultAge      = 10 * time.Minute
	DefaultCores    = 0.1
	DefaultMemory   = 128 << 20
)

// Ask is what a workload needs to run.
type Ask struct {
	ID        string
	Owner     string // full resource name, for people
	Project   string
	Priority  runtime.Priority
	Resources runtime.Resources
	Gang      string
	GangSize  int
	Created   time.Time // since when it waits, over restarts
}

// For gives the ask of a workload that was accepted at created.
func For(w runtime.Workload, created time.Time) Ask {
	return Ask{
		ID: w.ID, Owner: w.Owner, Project: w.Project, Priority: w.Priority, Resources: w.Resources,
		Gang: w.Gang, GangSize: w.GangSize, Created: created,
	}
}

// Grant is what a workload was given.
type Grant struct {
	GPUs   []runtime.GPU
	Waited time.Duration // 0 = there was room at once
	Reason string        // what it lacked when it came
}

// Scheduler hands out one machine. It is safe for concurrent use.
type Scheduler struct {
	total runtime.Inventory
	all   amount
	now   func() time.Time
	opt   Options

	mu      sync.Mutex
	held    bool // nothing is granted
	seq     int
	waiting map[string]*entry   // refused ones too, until they are released
	lines   map[class][]*entry  // what waits and is of no gang, by age
	gangs   map[string][]*entry // what waits of each gang
	silent  map[*entry]struct{} // what waits and has no reason yet
	holding map[string]*entry
	shares  map[string]amount // held by projects
	free    amount

	granted, waited int // since New: grants, and those that did not come at once
	order           []*entry
	orderAt         time.Time // zero = order has to be made anew
}

// entry is an ask with what became of it.
type entry struct {
	Ask
	need   amount
	seq    int           // of arrival, for asks of the same moment
	done   chan struct{} // closed once grant or err is set
	grant  Grant
	err    error
	since  time.Time // that it holds
	reason string
}

// New makes a scheduler of a machine on which nothing runs.
func New(inv runtime.Inventory, now func() time.Time, o Options) *Scheduler {
	if o.Patience == 0 {
		o.Patience = DefaultPatience
	}
	if o.Age == 0 {
		o.Age = DefaultAge
	}
	if o.Cores == 0 {
		o.Cores = DefaultCores
	}
	if o.MemoryBytes == 0 {
		o.MemoryBytes = DefaultMemory
	}
	all := amount{cores: milli(inv.Cores), memory: inv.MemoryBytes, gpus: int64(len(inv.GPUs))}
	return &Scheduler{
		total: inv, all: all, free: all, now: now, opt: o,
		waiting: map[string]*entry{}, lines: map[class][]*entry{}, gangs: map[string][]*entry{}, silent: map[*entry]struct{}{},
		holding: map[string]*entry{}, shares: map[string]amount{},
	}
}

// Inventory is what the machine has in all.
func (s *Scheduler) Inventory() runtime.Inventory { return s.total }

// Fits refuses by name (FAILED_PRECONDITION) what can never run here at the same
// time: the members of a gang, or one ask.
func (s *Scheduler) Fits(asks ...Ask) error {
	var need amount
	what := ""
	for _, a := range asks {
		if what = s.all.never(s.need(a)); what != "" {
			break
		}
		need = need.plus(s.need(a))
	}
	if what == "" {
		if what = s.all.never(need); what == "" {
			return nil
		}
		what = fmt.Sprintf("%d programs start together, for which %s", len(asks), what)
	}
	hint := "ask for less, or run tategu on a larger machine; `tategu queue` shows what this one has"
	if strings.Contains(what, "GPU") {
		hint += ", and resources: of tategu.yaml declares GPUs that are not found"
	}
	return resource.Errorf(codes.FailedPrecondition, "%s", what).WithCause(resource.CauseResource).WithHint("%s", hint)
}

// need is what an ask counts. A hint counts as little as nothing at all.
func (s *Scheduler) need(a Ask) amount {
	n := amount{gpus: int64(max(0, a.Resources.GPUs))}
	if !a.Resources.Hint {
		n.cores, n.memory = milli(a.Resources.Cores), max(0, a.Resources.MemoryBytes)
	}
	if n.cores == 0 {
		n.cores = min(milli(s.opt.Cores), s.all.cores)
	}
	if n.memory == 0 {
		n.memory = min(s.opt.MemoryBytes, s.all.memory)
	}
	return n
}

// Enqueue lets workloads wait together: none is granted before all of them are
// seen, so that those of a restart keep their order. An ID that waits or holds is
// left as it is.
func (s *Scheduler) Enqueue(asks ...Ask) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, a := range asks {
		if s.waiting[a.ID] != nil || s.holding[a.ID] != nil {
			continue
		}
		s.seq++
		e := &entry{Ask: a, need: s.need(a), seq: s.seq, done: make(chan struct{})}
		s.enqueue(e)
		if err := s.Fits(a); err != nil { // of an earlier server on a larger machine
			s.refuse(e, err)
		}
	}
	s.dispatch()
	s.explain()
}

// explain notes of those that were not granted at once what they lacked.
func (s *Scheduler) explain() {
	if s.held {
		return
	}
	for e := range s.silent {
		if s.complete(e) {
			e.reason = s.lacks(e)
			delete(s.silent, e)
		}
	}
}

// Hold grants nothing until Open: when a server starts, all that is found running is
// counted first, whichever adapter finds it.
func (s *Scheduler) Hold() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.held = true
}

// Open ends Hold.
func (s *Scheduler) Open() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.held = false
	s.dispatch()
	s.explain()
}

// Wait returns once the workload may run, or never can. When ctx ends it keeps
// its place: Release gives it up.
func (s *Scheduler) Wait(ctx context.Context, id string) (Grant, error) {
	for {
		s.mu.Lock()
		e := s.holding[id]
		if e == nil {
			e = s.waiting[id]
		}
		var again time.Duration
		if e != nil {
			again = s.nextAge(e)
		}
		s.mu.Unlock()
		if e == nil {
			return Grant{}, resource.NotFound(id)
		}
		t := time.NewTimer(again)
		select {
		case <-e.done:
			t.Stop()
			return e.grant, e.err
		case <-ctx.Done():
			t.Stop()
			return Grant{}, ctx.Err()
		case <-t.C: // it is more urgent now
			s.mu.Lock()
			s.dispatch()
			s.mu.Unlock()
		}
	}
}

// nextAge is how long until waiting makes e more urgent.
func (s *Scheduler) nextAge(e *entry) time.Duration {
	return s.opt.Age - max(0, s.now().Sub(e.Created))%s.opt.Age
}

// Adopt counts a program that was found running, whether there is room or not: it
// reports true when more than there is has been given away by that. Nothing is
// granted in a dimension until enough has ended.
func (s *Scheduler) Adopt(a Ask, g Grant) (over bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if old := s.holding[a.ID]; old != nil {
		s.drop(old)
	}
	if old := s.waiting[a.ID]; old != nil {
		delete(s.waiting, a.ID)
		if old.err == nil {
			s.unline(old)
			old.grant = g
			close(old.done)
		}
	}
	s.seq++
	e := &entry{Ask: a, need: s.need(a), seq: s.seq, done: make(chan struct{})}
	e.need.gpus = max(e.need.gpus, int64(len(g.GPUs)))
	close(e.done)
	s.hold(e, g)
	over = s.free.cores < 0 || s.free.memory < 0 || s.free.gpus < 0
	s.dispatch()
	return over
}

// Release takes a workload out, whether it held something or waited.
func (s *Scheduler) Release(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if e := s.waiting[id]; e != nil {
		delete(s.waiting, id)
		if e.err == nil {
			s.refuse(e, resource.Errorf(codes.Canceled, "%s does not wait any more", id))
		}
	} else if e := s.holding[id]; e != nil {
		s.drop(e)
	} else {
		return
	}
	s.dispatch()
}

func (s *Scheduler) refuse(e *entry, err error) {
	s.unline(e)
	e.err = err
	close(e.done)
}

func (s *Scheduler) hold(e *entry, g Grant) {
	e.grant, e.since = g, s.now()
	s.holding[e.ID] = e
	s.free = s.free.minus(e.need)
	s.shares[e.Project] = s.shares[e.Project].plus(e.need)
}

func (s *Scheduler) drop(e *entry) {
	delete(s.holding, e.ID)
	s.free = s.free.plus(e.need)
	if left := s.shares[e.Project].minus(e.need); left == (amount{}) {
		delete(s.shares, e.Project)
	} else {
		s.shares[e.Project] = left
	}
}

// pick finds GPUs that nobody holds, in the order of the inventory.
func (s *Scheduler) pick(n int64) []runtime.GPU {
	if n == 0 {
		return nil
	}
	taken := map[string]bool{}
	for _, e := range s.holding {
		for _, g := range e.grant.GPUs {
			taken[g.ID] = true
		}
	}
	var out []runtime.GPU
	for _, g := range s.total.GPUs {
		if int64(len(out)) < n && !taken[g.ID] {
			out = append(out, g)
		}
	}
	return out
}
