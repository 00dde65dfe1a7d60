package scheduler

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"testing"
	"time"

	"tategu/internal/runtime"
)

// day plays workloads on a clock of its own, second by second and in one goroutine:
// what it finds is the same every time, and the race detector, which has room for 255
// goroutines, does not die of a check of its own when the timers of more than that
// fire at one instant of synctest's clock (golang/go#78156).
type day struct {
	s     *Scheduler
	now   time.Time
	lasts map[string]time.Duration
	ends  map[string]time.Time // of what runs
}

func newDay(inv runtime.Inventory) *day {
	d := &day{now: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC), lasts: map[string]time.Duration{}, ends: map[string]time.Time{}}
	d.s = New(inv, func() time.Time { return d.now }, Options{})
	return d
}

func (d *day) ask(a Ask, lasts time.Duration) {
	a.Created, d.lasts[a.ID] = d.now, lasts
	d.s.Enqueue(a)
	d.look()
}

// look notes what was granted.
func (d *day) look() {
	for id := range d.s.holding {
		if _, runs := d.ends[id]; !runs {
			d.ends[id] = d.now.Add(d.lasts[id])
		}
	}
}

// second lets one pass: what is over ends, in the order of ids.
func (d *day) second() {
	d.now = d.now.Add(time.Second)
	var over []string
	for id, end := range d.ends {
		if !end.After(d.now) {
			over = append(over, id)
		}
	}
	slices.Sort(over)
	for _, id := range over {
		delete(d.ends, id)
		d.s.Release(id)
		d.look()
	}
	d.s.Enqueue() // whatever comes of time alone
	d.look()
}

// TestNobodyStarves: a stream of small work of higher priority and of other
// projects, which alone would fill the machine, does not keep a job that needs all
// of it from running.
func TestNobodyStarves(t *testing.T) {
	t.Parallel()
	d := newDay(runtime.Inventory{Cores: 4, MemoryBytes: 16 << 30, GPUs: []runtime.GPU{{ID: "0"}}})
	const asked = 60 // seconds after the first of the stream
	for second := range 2600 {
		if second == asked {
			d.ask(Ask{ID: "big", Project: "p", Resources: runtime.Resources{Cores: 4, GPUs: 1}}, time.Second)
		}
		if second%2 == 0 {
			d.ask(Ask{
				ID: fmt.Sprint("w", second), Project: fmt.Sprint("project-", second), Priority: runtime.PriorityOnline, Resources: runtime.Resources{Cores: 1},
			}, 10*time.Second)
		}
		if d.s.holding["big"] != nil {
			if waited := time.Duration(second-asked) * time.Second; waited > 3*DefaultAge+time.Minute {
				t.Errorf("it waited %v", waited)
			}
			return
		}
		d.second()
	}
	t.Error("it never ran")
}

// TestFairness measures how two projects share a machine that both want all of,
// of which one comes first with everything it has.
func TestFairness(t *testing.T) {
	t.Parallel()
	const gib = 1 << 30
	for name, tc := range map[string]struct {
		of    func(rng *rand.Rand, project int) runtime.Resources
		ratio float64 // of the shares at most
	}{
		"equal work": {ratio: 1.01, of: func(*rand.Rand, int) runtime.Resources { return runtime.Resources{Cores: 1, MemoryBytes: gib} }},
		"large and small": {ratio: 1.1, of: func(_ *rand.Rand, p int) runtime.Resources {
			return runtime.Resources{Cores: 0.5 + 1.5*float64(p), MemoryBytes: gib}
		}},
		"random": {ratio: 1.1, of: func(rng *rand.Rand, _ int) runtime.Resources {
			return runtime.Resources{Cores: 0.25 * float64(1+rng.IntN(8)), MemoryBytes: gib}
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for seed := range uint64(10) {
				ratio := shareOut(t, rand.New(rand.NewPCG(seed, 2)), tc.of)
				if !(ratio <= tc.ratio) {
					t.Errorf("seed %d: one project got %.3f times what the other got, want at most %g", seed, ratio, tc.ratio)
				}
			}
		})
	}
}

// shareOut gives how many times the core seconds of the one project those of the
// other are, while both wait and the first minute is over: while the first ask of
// much is young, little passes it, whose ever it is.
func shareOut(t *testing.T, rng *rand.Rand, of func(rng *rand.Rand, project int) runtime.Resources) float64 {
	t.Helper()
	const each = 300
	d := newDay(runtime.Inventory{Cores: 8, MemoryBytes: 64 << 30})
	for project := range 2 {
		for i := range each {
			d.ask(Ask{ID: fmt.Sprintf("p%d-%03d", project, i), Project: strconv.Itoa(project), Resources: of(rng, project)}, time.Duration(5+rng.IntN(10))*time.Second)
		}
		d.second()
	}
	for range int(DefaultPatience / time.Second) {
		d.second()
	}
	var used [2]float64
	for waiting := [2]int{1, 1}; waiting[0] > 0 && waiting[1] > 0; d.second() {
		waiting = [2]int{}
		for _, e := range d.s.waiting {
			waiting[e.Project[0]-'0']++
		}
		for _, e := range d.s.holding {
			used[e.Project[0]-'0'] += e.Resources.Cores
		}
	}
	if min(used[0], used[1]) < 100 {
		t.Fatalf("core seconds %v: too few to compare", used)
	}
	return max(used[0], used[1]) / min(used[0], used[1])
}
