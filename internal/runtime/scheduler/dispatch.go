package scheduler

import (
	"cmp"
	"container/heap"
	"slices"
	"time"

	"tategu/internal/runtime"
)

// overdue is the level of what has waited so long that only age counts.
const overdue = int(runtime.PriorityOnline) + 1

// level is the priority with its age.
func (s *Scheduler) level(e *entry, now time.Time) int {
	return min(overdue, int(e.Priority)+int(max(0, now.Sub(e.Created))/s.opt.Age))
}

// unit is what starts at once: a gang, or one ask.
type unit struct {
	members []*entry // by arrival
	need    amount
	level   int
	size    int // of the gang
	// resumed says that members of the gang run: they were granted together by an
	// earlier server, so the others fit too, provided that they go first.
	resumed bool
}

func (u *unit) first() *entry { return u.members[0] }

// units groups what waits, and leaves out gangs whose members have not all asked.
func (s *Scheduler) units(now time.Time) []*unit {
	var out []*unit
	gangs := map[string]*unit{}
	for _, e := range s.waiting {
		if e.err != nil {
			continue
		}
		u := &unit{}
		if e.Gang != "" {
			if known, ok := gangs[e.Gang]; ok {
				u = known
			} else {
				gangs[e.Gang] = u
			}
		}
		if len(u.members) == 0 {
			out = append(out, u)
		}
		u.members, u.size = append(u.members, e), max(u.size, e.GangSize)
		u.need = u.need.plus(e.need)
	}
	for _, e := range s.holding {
		if u := gangs[e.Gang]; e.Gang != "" && u != nil {
			u.resumed = true
		}
	}
	out = slices.DeleteFunc(out, func(u *unit) bool { return !u.resumed && len(u.members) < u.size })
	for _, u := range out {
		slices.SortFunc(u.members, older)
		u.level = s.level(u.first(), now)
		if u.resumed {
			u.level = overdue + 1
		}
	}
	slices.SortFunc(out, func(a, b *unit) int {
		return cmp.Or(cmp.Compare(b.level, a.level), older(a.first(), b.first()))
	})
	return out
}

func older(a, b *entry) int {
	return cmp.Or(a.Created.Compare(b.Created), cmp.Compare(a.seq, b.seq))
}

// turn gives units in the order in which they are served, until visit says stop.
// shares change while it runs: the caller counts what it gives.
func (s *Scheduler) turn(units []*unit, shares map[string]amount, visit func(*unit) (more bool)) {
	for len(units) > 0 {
		n := slices.IndexFunc(units, func(u *unit) bool { return u.level != units[0].level })
		if n < 0 {
			n = len(units)
		}
		same := units[:n]
		units = units[n:]
		if same[0].level < overdue {
			if !s.fair(same, shares, visit) {
				return
			}
			continue
		}
		for _, u := range same {
			if !visit(u) {
				return
			}
		}
	}
}

// line is what waits of one project.
type line struct {
	project string
	units   []*unit // by age
	share   float64
}

// lines is a heap (container/heap) of which the first is served next.
type lines []*line

func (l lines) Len() int      { return len(l) }
func (l lines) Swap(i, j int) { l[i], l[j] = l[j], l[i] }
func (l lines) Less(i, j int) bool {
	return cmp.Or(cmp.Compare(l[i].share, l[j].share), older(l[i].units[0].first(), l[j].units[0].first())) < 0
}

// Push is never called: lines only go.
func (l *lines) Push(any) {}

func (l *lines) Pop() any {
	last := (*l)[len(*l)-1]
	*l = (*l)[:len(*l)-1]
	return last
}

// fair serves equals: the project that has least next, each by age.
func (s *Scheduler) fair(units []*unit, shares map[string]amount, visit func(*unit) bool) (more bool) {
	known := map[string]*line{}
	var all lines
	for _, u := range units {
		p := u.first().Project
		if known[p] == nil {
			known[p] = &line{project: p, share: shares[p].share(s.all)}
			all = append(all, known[p])
		}
		known[p].units = append(known[p].units, u)
	}
	heap.Init(&all)
	for len(all) > 0 {
		next := all[0]
		if !visit(next.units[0]) {
			return false
		}
		if len(next.units) == 1 {
			heap.Pop(&all)
			continue
		}
		next.units = next.units[1:]
		next.share = shares[next.project].share(s.all)
		heap.Fix(&all, 0)
	}
	return true
}

// kept is what those that wait have reserved.
type kept struct {
	closed dimensions // nothing of these is given to those behind
	amount amount     // of the others
}

// dispatch grants what can be granted.
func (s *Scheduler) dispatch() {
	now := s.now()
	s.orderAt = time.Time{}
	if s.held {
		return
	}
	s.failGangs()
	var k kept
	var young []*unit // reserve for lower levels only
	level := 0
	s.serve(now, func(u *unit) (granted, more bool) {
		if u.level != level {
			for _, y := range young {
				s.reserve(&k, y)
			}
			young, level = nil, u.level
		}
		blocked := s.free.short(u.need)
		behind := k.closed.and(u.need.takes()).any() || s.free.minus(k.amount).short(u.need).any()
		switch {
		case !blocked.any() && !behind:
			for _, e := range u.members {
				s.give(e, now)
			}
			granted = true
		case !blocked.any():
		case now.Sub(u.first().Created) < s.opt.Patience:
			young = append(young, u)
		default:
			s.reserve(&k, u)
		}
		// Everything takes cores and memory: without them the rest need not be looked at.
		left := s.free.minus(k.amount)
		return granted, !k.closed.cores && !k.closed.memory && left.cores > 0 && left.memory > 0
	})
}

// reserve keeps for u what it lacks, unless it waits behind another for that. Who
// lacks GPUs gets them when a holder of some ends, and then gets the cores and the
// memory of that one too: so much need not be kept.
func (s *Scheduler) reserve(k *kept, u *unit) {
	need := u.need
	if s.free.short(need).gpus {
		released, found := amount{}, false
		for _, e := range s.holding {
			switch {
			case e.need.gpus == 0:
			case !found:
				released, found = e.need, true
			default:
				released = released.least(e.need)
			}
		}
		need.cores, need.memory = max(0, need.cores-released.cores), max(0, need.memory-released.memory)
	}
	lacks := s.free.short(need)
	if lacks.and(k.closed).any() {
		return
	}
	k.closed = k.closed.or(lacks)
	if !lacks.cores {
		k.amount.cores += need.cores
	}
	if !lacks.memory {
		k.amount.memory += need.memory
	}
	if !lacks.gpus {
		k.amount.gpus += need.gpus
	}
}

func (s *Scheduler) give(e *entry, now time.Time) {
	s.unline(e)
	delete(s.waiting, e.ID)
	g := Grant{GPUs: s.pick(e.need.gpus), Reason: e.reason}
	s.granted++
	if e.reason != "" {
		g.Waited = now.Sub(e.Created)
		s.waited++
	}
	s.hold(e, g)
	close(e.done)
}

// failGangs refuses gangs that can never run.
func (s *Scheduler) failGangs() {
	if len(s.gangs) == 0 {
		return
	}
	gangs := map[string][]Ask{}
	for name, members := range s.gangs {
		for _, e := range members {
			gangs[name] = append(gangs[name], e.Ask)
		}
	}
	for _, e := range s.holding {
		if asks := gangs[e.Gang]; asks != nil {
			gangs[e.Gang] = append(asks, e.Ask)
		}
	}
	for _, asks := range gangs {
		err := s.Fits(asks...)
		if err == nil {
			continue
		}
		for _, a := range asks {
			if e := s.waiting[a.ID]; e != nil {
				s.refuse(e, err)
			}
		}
	}
}
