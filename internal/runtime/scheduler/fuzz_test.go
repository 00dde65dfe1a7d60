package scheduler

import (
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"tategu/internal/runtime"
)

// model drives a scheduler by bytes and knows what must hold after every step.
type model struct {
	t    *testing.T
	s    *Scheduler
	now  time.Time
	next int
	asks []Ask
}

func (m *model) clock() time.Time { return m.now }

func newModel(t *testing.T) *model {
	t.Helper()
	m := &model{t: t, now: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)}
	m.s = New(runtime.Inventory{Cores: 4, MemoryBytes: 8 << 30, GPUs: []runtime.GPU{{ID: "0"}, {ID: "1"}}}, m.clock, Options{})
	return m
}

func (m *model) ask(b byte) Ask {
	m.next++
	a := Ask{
		ID: fmt.Sprint("w", m.next), Project: string('a' + rune(b%3)), Priority: runtime.Priority(b / 3 % 3), Created: m.now,
		Resources: runtime.Resources{Cores: float64(b%11) / 2, MemoryBytes: int64(b%5) << 31, GPUs: int(b / 16 % 4)},
	}
	if b%7 == 0 {
		a.Gang, a.GangSize, a.Project = fmt.Sprint("g", b%2), int(b%3), "a" // a gang is of one project
	}
	m.asks = append(m.asks, a)
	return a
}

// step does one thing; arg chooses which.
func (m *model) step(op, arg byte) {
	before := map[string]bool{}
	for id := range m.s.holding {
		before[id] = true
	}
	switch op % 6 {
	case 0, 1:
		m.s.Enqueue(m.ask(arg))
	case 2:
		m.s.Enqueue(m.ask(arg), m.ask(arg/2), m.ask(arg/3))
	case 3:
		if len(m.asks) > 0 {
			m.s.Release(m.asks[int(arg)%len(m.asks)].ID)
		}
	case 4:
		m.now = m.now.Add(time.Duration(arg) * 10 * time.Second)
		m.s.Release("nothing") // whatever comes of time alone
		m.s.Enqueue()
	case 5:
		if len(m.asks) > 0 && arg%8 == 0 {
			m.restart()
		}
	}
	m.check(before)
}

// restart loses what waits for its grant and every third grant.
func (m *model) restart() {
	old := m.s
	m.s = New(old.total, m.clock, old.opt)
	var again []Ask
	for i, a := range m.asks {
		if e := old.holding[a.ID]; e != nil && i%3 > 0 {
			if m.s.Adopt(a, e.grant) {
				m.t.Fatal("adopted beyond what there is")
			}
		} else if e != nil || old.waiting[a.ID] != nil {
			again = append(again, a)
		}
	}
	m.s.Enqueue(again...)
}

func (m *model) check(before map[string]bool) {
	m.t.Helper()
	s := m.s
	free, gpus := s.all, map[string]bool{}
	for _, e := range s.holding {
		free = free.minus(e.need)
		if int64(len(e.grant.GPUs)) != e.need.gpus {
			m.t.Fatalf("%s has %d GPUs of %d", e.ID, len(e.grant.GPUs), e.need.gpus)
		}
		for _, g := range e.grant.GPUs {
			if gpus[g.ID] {
				m.t.Fatalf("GPU %s was given twice", g.ID)
			}
			gpus[g.ID] = true
		}
		if s.waiting[e.ID] != nil {
			m.t.Fatalf("%s waits and holds", e.ID)
		}
	}
	if free != s.free || free.cores < 0 || free.memory < 0 || free.gpus < 0 {
		m.t.Fatalf("free is %+v, counted %+v", s.free, free)
	}
	m.sameOrder()
	// Who is first in line lacks something, or it would run. Whoever was granted
	// below it did not take that.
	units := s.units(m.now)
	if len(units) == 0 {
		return
	}
	var head *unit
	s.turn(units, s.shares, func(u *unit) bool {
		head = u
		return false
	})
	if !s.free.short(head.need).any() {
		m.t.Fatalf("%s is first in line and fits: free %+v, needs %+v", head.first().ID, s.free, head.need)
	}
	for id, e := range s.holding {
		if !before[id] && e.Gang == "" && s.level(e, m.now) < head.level && !s.free.plus(e.need).short(head.need).any() {
			m.t.Fatalf("%s was granted what %s of a higher priority was waiting for", id, head.first().ID)
		}
	}
}

// sameOrder: serve, which looks at the first of each class alone, serves in the order
// of turn, which sorts everything; and the lines hold what waits, and no more.
func (m *model) sameOrder() {
	m.t.Helper()
	var want, got []string
	shares := maps.Clone(m.s.shares)
	m.s.turn(m.s.units(m.now), shares, func(u *unit) bool {
		for _, e := range u.members {
			want = append(want, e.ID)
			shares[e.Project] = shares[e.Project].plus(e.need)
		}
		return true
	})
	again := New(m.s.total, m.clock, m.s.opt)
	again.held, again.shares = true, maps.Clone(m.s.shares)
	maps.Copy(again.holding, m.s.holding)
	for _, e := range m.s.waiting {
		if e.err == nil {
			copied := *e
			again.enqueue(&copied)
		}
	}
	again.serve(m.now, func(u *unit) (granted, more bool) {
		for _, e := range u.members {
			got = append(got, e.ID)
			again.unline(e)
			again.shares[e.Project] = again.shares[e.Project].plus(e.need)
		}
		return true, true
	})
	if !slices.Equal(got, want) {
		m.t.Fatalf("served in the order %v, want %v", got, want)
	}
	lined := 0
	for c, line := range m.s.lines {
		if len(line) == 0 || !slices.IsSortedFunc(line, older) {
			m.t.Fatalf("the line of %+v: %d that wait", c, len(line))
		}
		lined += len(line)
	}
	for _, members := range m.s.gangs {
		lined += len(members)
	}
	for _, e := range m.s.waiting {
		if e.err == nil {
			lined--
		}
	}
	if lined != 0 {
		m.t.Fatalf("the lines hold %d more than wait", lined)
	}
}

// drain ends what runs until nothing complete waits.
func (m *model) drain() {
	for range len(m.asks) + 1 {
		for id := range m.s.holding {
			m.s.Release(id)
			break
		}
	}
	if left := m.s.units(m.now); len(left) > 0 && len(m.s.holding) == 0 {
		m.t.Fatalf("%s waits on an empty machine", left[0].first().ID)
	}
}

func FuzzEvents(f *testing.F) {
	f.Add([]byte{0, 9, 0, 12, 1, 200, 3, 0, 4, 9, 2, 33, 5, 8, 3, 1})
	f.Add([]byte{2, 255, 2, 17, 2, 90, 5, 0, 3, 3, 4, 255, 3, 2, 3, 1, 0, 7, 0, 14})
	f.Fuzz(func(t *testing.T, events []byte) {
		m := newModel(t)
		for i := 0; i+1 < len(events) && i < 400; i += 2 {
			m.step(events[i], events[i+1])
		}
		m.drain()
	})
}

// BenchmarkRelease is the end of a program and the arrival of another one, while
// many wait.
func BenchmarkRelease(b *testing.B) {
	for _, waiting := range []int{100, 1000, 10_000} {
		b.Run(fmt.Sprint(waiting, " wait"), func(b *testing.B) { benchmarkRelease(b, waiting) })
	}
}

func benchmarkRelease(b *testing.B, n int) {
	b.Helper()
	now := time.Now()
	s := New(runtime.Inventory{Cores: 2, MemoryBytes: 8 << 30}, func() time.Time { return now }, Options{})
	id := func(i int) string { return fmt.Sprint("w", i) }
	for i := range n {
		s.Enqueue(Ask{ID: id(i), Project: string('a' + rune(i%5)), Created: now, Resources: runtime.Resources{Cores: 1}})
	}
	for b.Loop() {
		for holder := range s.holding {
			s.Release(holder)
			break
		}
		s.Enqueue(Ask{ID: id(n), Project: string('a' + rune(n%5)), Created: now, Resources: runtime.Resources{Cores: 1}})
		n++
	}
}
