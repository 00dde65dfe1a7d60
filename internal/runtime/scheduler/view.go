package scheduler

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"tategu/internal/runtime"
)

// Snapshot is the machine as it is now.
type Snapshot struct {
	Total   runtime.Inventory
	Used    runtime.Resources // may be more than Total after Adopt
	Holders []Holder          // by the time of their grant
	Waiters []Waiter          // by position
	Granted int               // since New
	Waited  int               // of these, those that had to wait
}

// Holder has been granted what it asked for.
type Holder struct {
	Ask   Ask
	Count runtime.Resources // what it counts for, defaults included
	GPUs  []runtime.GPU
	Since time.Time
}

// Waiter waits.
type Waiter struct {
	Ask   Ask
	Count runtime.Resources
	Queue runtime.Queue
}

// Snapshot gives holders and waiters. What it says of Waits names other projects'
// work too: it is for who runs the machine.
func (s *Scheduler) Snapshot() Snapshot {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := Snapshot{Total: s.total, Used: s.all.minus(s.free).resources(), Granted: s.granted, Waited: s.waited}
	for _, e := range slices.SortedFunc(maps.Values(s.holding), func(a, b *entry) int {
		if c := a.since.Compare(b.since); c != 0 {
			return c
		}
		return older(a, b)
	}) {
		out.Holders = append(out.Holders, Holder{Ask: e.Ask, Count: e.need.resources(), GPUs: e.grant.GPUs, Since: e.since})
	}
	for i, e := range s.ordered() {
		q := runtime.Queue{Position: i + 1, Length: len(s.order), Since: e.Created, Waits: s.waits(e, true)}
		out.Waiters = append(out.Waiters, Waiter{Ask: e.Ask, Count: e.need.resources(), Queue: q})
	}
	return out
}

// Place is where a workload waits; false when it does not. Work of other projects
// is counted and not named.
func (s *Scheduler) Place(id string) (runtime.Queue, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.waiting[id]
	if e == nil || e.err != nil {
		return runtime.Queue{}, false
	}
	order := s.ordered()
	return runtime.Queue{Position: slices.Index(order, e) + 1, Length: len(order), Since: e.Created, Waits: s.waits(e, false)}, true
}

// Waits reports that a workload waits for room. Unlike Place it costs little, so that
// it can be asked of all the tasks of a run.
func (s *Scheduler) Waits(id string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.waiting[id]
	return e != nil && e.err == nil
}

// ordered is what waits in the order in which it would be served if each was given
// what it asks for; members of incomplete gangs come last. It is good for a second.
func (s *Scheduler) ordered() []*entry {
	now := s.now()
	if age := now.Sub(s.orderAt); !s.orderAt.IsZero() && age >= 0 && age < time.Second {
		return s.order
	}
	s.order, s.orderAt = s.order[:0], now
	seen := map[*entry]bool{}
	shares := maps.Clone(s.shares)
	s.turn(s.units(now), shares, func(u *unit) bool {
		s.order = append(s.order, u.members...)
		for _, e := range u.members {
			seen[e] = true
			shares[e.Project] = shares[e.Project].plus(e.need)
		}
		return true
	})
	var rest []*entry
	for _, e := range s.waiting {
		if !seen[e] && e.err == nil {
			rest = append(rest, e)
		}
	}
	slices.SortFunc(rest, older)
	s.order = append(s.order, rest...)
	return s.order
}

// lacks is what an ask waits for, without who has it.
func (s *Scheduler) lacks(e *entry) string {
	here, size, need := s.gang(e)
	if here < size {
		return fmt.Sprintf("the other members of its gang (%d of %d have asked)", here, size)
	}
	var parts []string
	for _, l := range s.missing(need) {
		parts = append(parts, l.what)
	}
	if len(parts) == 0 {
		return "its turn"
	}
	return strings.Join(parts, " and ")
}

// lack is one dimension in which there is not enough.
type lack struct {
	what  string // "2 cores"
	state string // "1.5 of 2 in use"
	takes func(amount) bool
}

func (s *Scheduler) missing(need amount) []lack {
	var out []lack
	used, short := s.all.minus(s.free), s.free.short(need)
	if short.gpus {
		out = append(out, lack{gpus(need.gpus), fmt.Sprintf("%d of %d in use", used.gpus, s.all.gpus), func(a amount) bool { return a.gpus > 0 }})
	}
	if short.cores {
		state := fmt.Sprintf("%g of %g in use", float64(used.cores)/1000, float64(s.all.cores)/1000)
		out = append(out, lack{cores(need.cores), state, func(a amount) bool { return a.cores > 0 }})
	}
	if short.memory {
		state := fmt.Sprintf("%d of %d MiB in use", mib(used.memory), s.all.memory>>20)
		out = append(out, lack{fmt.Sprintf("%d MiB of memory", mib(need.memory)), state, func(a amount) bool { return a.memory > 0 }})
	}
	return out
}

// complete says that nothing but room is missing.
func (s *Scheduler) complete(e *entry) bool {
	here, size, _ := s.gang(e)
	return here >= size
}

// gang gives how many of an ask's gang are here, of how many, and what those that
// wait need together.
func (s *Scheduler) gang(e *entry) (here, size int, need amount) {
	if e.Gang == "" {
		return 1, 1, e.need
	}
	for _, m := range s.waiting {
		if m.Gang == e.Gang && m.err == nil {
			here, size, need = here+1, max(size, m.GangSize), need.plus(m.need)
		}
	}
	for _, m := range s.holding {
		if m.Gang == e.Gang {
			return size, size, need // they were granted together
		}
	}
	return here, size, need
}

// waits says what an ask lacks and who has it.
func (s *Scheduler) waits(e *entry, all bool) string {
	here, size, need := s.gang(e)
	if here < size {
		return s.lacks(e)
	}
	var parts []string
	for _, l := range s.missing(need) {
		parts = append(parts, fmt.Sprintf("%s (%s%s)", l.what, l.state, s.users(e.Project, all, l.takes)))
	}
	if len(parts) == 0 {
		return "its turn: room is kept for what came before it"
	}
	return strings.Join(parts, " and ")
}

const nameAtMost = 3

// users names who holds something, those of other projects only for all.
func (s *Scheduler) users(project string, all bool, takes func(amount) bool) string {
	var names []string
	others, more := 0, 0
	for _, h := range slices.SortedFunc(maps.Values(s.holding), older) {
		switch {
		case !takes(h.need):
		case !all && h.Project != project:
			others++
		case len(names) == nameAtMost:
			more++
		default:
			names = append(names, h.ID)
		}
	}
	if more > 0 {
		names = append(names, fmt.Sprintf("%d more", more))
	}
	if others > 0 {
		names = append(names, fmt.Sprintf("%d of other projects", others))
	}
	if len(names) == 0 {
		return ""
	}
	return " by " + strings.Join(names, ", ")
}

func (a amount) resources() runtime.Resources {
	return runtime.Resources{Cores: float64(a.cores) / 1000, MemoryBytes: a.memory, GPUs: int(a.gpus)}
}
