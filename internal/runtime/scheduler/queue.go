package scheduler

import (
	"cmp"
	"container/heap"
	"slices"
	"time"

	"tategu/internal/runtime"
)

// class is what asks have in common of which the older always goes before the
// younger: if there is no room for one of them, there is none for those behind it.
// A machine has few classes, however many asks wait, since work comes in series.
type class struct {
	project  string
	priority runtime.Priority
	need     amount
}

func classOf(e *entry) class { return class{project: e.Project, priority: e.Priority, need: e.need} }

// enqueue lets an ask wait.
func (s *Scheduler) enqueue(e *entry) {
	s.waiting[e.ID] = e
	s.silent[e] = struct{}{}
	if e.Gang != "" {
		s.gangs[e.Gang] = append(s.gangs[e.Gang], e)
		return
	}
	line := s.lines[classOf(e)]
	at, _ := slices.BinarySearchFunc(line, e, older)
	s.lines[classOf(e)] = slices.Insert(line, at, e)
}

// unline takes an ask out of where it waits; waiting still knows it.
func (s *Scheduler) unline(e *entry) {
	delete(s.silent, e)
	if e.Gang != "" {
		if left := slices.DeleteFunc(s.gangs[e.Gang], func(m *entry) bool { return m == e }); len(left) > 0 {
			s.gangs[e.Gang] = left
		} else {
			delete(s.gangs, e.Gang)
		}
		return
	}
	c := classOf(e)
	line := s.lines[c]
	if at, found := slices.BinarySearchFunc(line, e, older); found {
		line = slices.Delete(line, at, at+1)
	}
	if len(line) > 0 {
		s.lines[c] = line
	} else {
		delete(s.lines, c)
	}
}

// front is the first unit of a class, or a gang.
type front struct {
	*unit
	class class
	gang  bool
	share float64 // of its project when it came into the heap; 0 for what goes by age
}

// fronts is a heap (container/heap) of which the first is served next.
type fronts []*front

func (f fronts) Len() int      { return len(f) }
func (f fronts) Swap(i, j int) { f[i], f[j] = f[j], f[i] }
func (f fronts) Less(i, j int) bool {
	return cmp.Or(cmp.Compare(f[i].share, f[j].share), older(f[i].first(), f[j].first())) < 0
}

// Push implements heap.Interface.
func (f *fronts) Push(x any) {
	if one, ok := x.(*front); ok {
		*f = append(*f, one)
	}
}

// Pop implements heap.Interface.
func (f *fronts) Pop() any {
	last := (*f)[len(*f)-1]
	*f = (*f)[:len(*f)-1]
	return last
}

// fronts gives the first of every class, and the gangs that are complete.
func (s *Scheduler) fronts(now time.Time) []*front {
	out := make([]*front, 0, len(s.lines)+len(s.gangs))
	for c, line := range s.lines {
		out = append(out, &front{unit: s.alone(line[0], now), class: c})
	}
	for _, u := range s.gangUnits(now) {
		out = append(out, &front{unit: u, gang: true})
	}
	return out
}

// alone is the unit of an ask that is of no gang.
func (s *Scheduler) alone(e *entry, now time.Time) *unit {
	return &unit{members: []*entry{e}, need: e.need, level: s.level(e, now)}
}

// gangUnits gives the gangs whose members have all asked.
func (s *Scheduler) gangUnits(now time.Time) []*unit {
	if len(s.gangs) == 0 {
		return nil
	}
	resumed := map[string]bool{}
	for _, e := range s.holding {
		if e.Gang != "" {
			resumed[e.Gang] = true
		}
	}
	var out []*unit
	for gang, members := range s.gangs {
		u := &unit{members: slices.SortedFunc(slices.Values(members), older), resumed: resumed[gang]}
		for _, e := range members {
			u.size, u.need = max(u.size, e.GangSize), u.need.plus(e.need)
		}
		u.level = s.level(u.first(), now)
		if u.resumed {
			u.level = overdue + 1
		} else if len(members) < u.size {
			continue
		}
		out = append(out, u)
	}
	return out
}

// serve visits what waits in the order of turn, until visit says stop. Once a unit
// was not granted nothing of its class is visited any more. visit takes granted
// units out of their lines and counts them in the shares.
func (s *Scheduler) serve(now time.Time, visit func(*unit) (granted, more bool)) {
	all := s.fronts(now)
	for level := overdue + 1; level >= 0; level-- {
		var h fronts
		all = slices.DeleteFunc(all, func(f *front) bool {
			if f.level != level {
				return false
			}
			f.share = s.shareOf(f.unit)
			h = append(h, f)
			return true
		})
		heap.Init(&h)
		for len(h) > 0 {
			next := h[0]
			if share := s.shareOf(next.unit); share != next.share { // it has been given more since
				next.share = share
				heap.Fix(&h, 0)
				continue
			}
			granted, more := visit(next.unit)
			if !more {
				return
			}
			heap.Pop(&h)
			if line := s.lines[next.class]; granted && !next.gang && len(line) > 0 {
				f := &front{unit: s.alone(line[0], now), class: next.class}
				if f.level != level {
					all = append(all, f)
					continue
				}
				f.share = s.shareOf(f.unit)
				heap.Push(&h, f)
			}
		}
	}
}

// shareOf is what the order goes by before age.
func (s *Scheduler) shareOf(u *unit) float64 {
	if u.level >= overdue {
		return 0
	}
	return s.shares[u.first().Project].share(s.all)
}
