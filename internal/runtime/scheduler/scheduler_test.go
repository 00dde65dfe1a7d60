package scheduler_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"tategu/internal/resource"
	"tategu/internal/runtime"
	"tategu/internal/runtime/scheduler"
)

const gib = 1 << 30

// machine has 4 cores, 16 GiB and 2 GPUs.
func machine() runtime.Inventory {
	return runtime.Inventory{Cores: 4, MemoryBytes: 16 * gib, GPUs: []runtime.GPU{{ID: "gpu-a"}, {ID: "gpu-b"}}}
}

// bench is a scheduler with a clock that stands still.
type bench struct {
	*scheduler.Scheduler
	t   *testing.T
	now time.Time
}

func newBench(t *testing.T, inv runtime.Inventory) *bench {
	t.Helper()
	b := &bench{t: t, now: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)}
	b.Scheduler = scheduler.New(inv, func() time.Time { return b.now }, scheduler.Options{})
	return b
}

func (b *bench) ask(id, project string, p runtime.Priority, cores float64, gpus int) scheduler.Ask {
	return scheduler.Ask{ID: id, Project: project, Priority: p, Created: b.now, Resources: runtime.Resources{Cores: cores, MemoryBytes: 1, GPUs: gpus}}
}

// job asks for cores and GPUs in project p.
func (b *bench) job(id string, cores float64, gpus int) {
	b.Enqueue(b.ask(id, "p", runtime.PriorityJob, cores, gpus))
}

func (b *bench) holders() string {
	var ids []string
	for _, h := range b.Snapshot().Holders {
		ids = append(ids, h.Ask.ID)
	}
	return strings.Join(ids, " ")
}

func (b *bench) waiters() string {
	var ids []string
	for _, w := range b.Snapshot().Waiters {
		ids = append(ids, w.Ask.ID)
	}
	return strings.Join(ids, " ")
}

func (b *bench) want(holders, waiters string) {
	b.t.Helper()
	if h, w := b.holders(), b.waiters(); h != holders || w != waiters {
		b.t.Fatalf("holders %q, waiters %q; want %q and %q", h, w, holders, waiters)
	}
}

func TestRefusesWhatNeverFits(t *testing.T) {
	b := newBench(t, machine())
	for name, tc := range map[string]struct {
		want runtime.Resources
		say  string
	}{
		"fits":       {want: runtime.Resources{Cores: 4, MemoryBytes: 16 * gib, GPUs: 2}},
		"cores":      {want: runtime.Resources{Cores: 4.001}, say: "4.001 CPU cores are asked for and this machine has 4"},
		"many cores": {want: runtime.Resources{Cores: 1e300}, say: "CPU cores are asked for"},
		"memory":     {want: runtime.Resources{MemoryBytes: 16*gib + 1}, say: "16385 MiB of memory are asked for and this machine has 16384 MiB"},
		"GPUs":       {want: runtime.Resources{GPUs: 3}, say: "3 GPUs are asked for and this machine has 2"},
		"a hint":     {want: runtime.Resources{Cores: 96, MemoryBytes: 1 << 50, Hint: true}},
		"nonsense":   {want: runtime.Resources{Cores: -5, MemoryBytes: -5, GPUs: -5}},
	} {
		err := b.Fits(scheduler.Ask{ID: name, Resources: tc.want})
		if (err == nil) != (tc.say == "") || err != nil && !strings.Contains(err.Error(), tc.say) {
			t.Errorf("%s: %v, want %q", name, err, tc.say)
		}
		if e, ok := errors.AsType[*resource.Error](err); err != nil && (!ok || e.Cause != resource.CauseResource || e.Hint == "") {
			t.Errorf("%s: %#v has no cause or hint", name, err)
		}
	}
	none := newBench(t, runtime.Inventory{Cores: 1, MemoryBytes: gib})
	if err := none.Fits(none.ask("x", "p", 0, 1, 1)); err == nil || !strings.Contains(err.Error(), "1 GPU is asked for and this machine has none") {
		t.Errorf("no GPU: %v", err)
	}
	gang := []scheduler.Ask{b.ask("a", "p", 0, 3, 0), b.ask("b", "p", 0, 3, 0)}
	if err := b.Fits(gang...); err == nil || !strings.Contains(err.Error(), "2 programs start together, for which 6 CPU cores are asked for") {
		t.Errorf("gang: %v", err)
	}
}

// What says nothing of itself counts little, and a machine type too.
func TestDefaults(t *testing.T) {
	b := newBench(t, runtime.Inventory{Cores: 2, MemoryBytes: 8 * gib})
	for i := range 21 {
		b.Enqueue(scheduler.Ask{ID: string(rune('a' + i)), Created: b.now, Resources: runtime.Resources{Cores: float64(i % 3), Hint: true}})
	}
	if s := b.Snapshot(); len(s.Holders) != 20 || len(s.Waiters) != 1 {
		t.Errorf("%d run and %d wait, want 20 and 1", len(s.Holders), len(s.Waiters))
	}
	tiny := newBench(t, runtime.Inventory{Cores: 0.05, MemoryBytes: 1 << 20})
	tiny.Enqueue(scheduler.Ask{ID: "x"})
	tiny.want("x", "")
}

func TestPriorities(t *testing.T) {
	b := newBench(t, machine())
	b.job("running", 4, 0)
	for _, a := range []struct {
		id       string
		priority runtime.Priority
	}{{"job", runtime.PriorityJob}, {"batch", runtime.PriorityBatch}, {"online", runtime.PriorityOnline}} {
		b.now = b.now.Add(time.Second)
		b.Enqueue(b.ask(a.id, "p", a.priority, 4, 0))
	}
	b.want("running", "online batch job")
	b.Release("running")
	b.want("online", "batch job")
	b.Release("online")
	b.want("batch", "job")
}

// A job that has waited for ten minutes is worth a batch, after thirty it goes by
// age alone.
func TestAge(t *testing.T) {
	b := newBench(t, machine())
	b.job("running", 4, 0)
	b.job("job", 4, 0)
	b.now = b.now.Add(scheduler.DefaultAge)
	b.Enqueue(b.ask("batch", "q", runtime.PriorityBatch, 4, 0))
	// Equals now: project p holds the machine and q nothing.
	b.want("running", "batch job")
	b.now = b.now.Add(2 * scheduler.DefaultAge)
	b.Enqueue(b.ask("online", "q", runtime.PriorityOnline, 4, 0))
	b.want("running", "job batch online")
	b.Release("running")
	b.want("job", "batch online")
}

func TestProjectsTakeTurns(t *testing.T) {
	b := newBench(t, machine())
	for _, id := range []string{"p1", "p2", "p3", "p4", "p5", "p6"} {
		b.job(id, 1, 0)
	}
	b.now = b.now.Add(time.Second)
	b.Enqueue(b.ask("q1", "q", 0, 1, 0), b.ask("q2", "q", 0, 1, 0), b.ask("q3", "q", 0, 1, 0))
	b.want("p1 p2 p3 p4", "q1 q2 q3 p5 p6")
	b.Release("p1")
	b.Release("p2")
	b.want("p3 p4 q1 q2", "p5 q3 p6")
	b.Release("p3")
	b.Release("p4")
	b.want("p5 p6 q1 q2", "q3")
}

// The dominant share counts: a project with a GPU of two holds more than one with
// a core of four.
func TestDominantShare(t *testing.T) {
	b := newBench(t, machine())
	b.Enqueue(b.ask("g", "gpu", 0, 0.1, 1))
	b.Enqueue(b.ask("c", "cpu", 0, 1, 0), b.ask("rest", "cpu2", 0, 2.9, 0))
	b.Enqueue(b.ask("g2", "gpu", 0, 1, 0), b.ask("c2", "cpu", 0, 1, 0))
	b.want("g c rest", "c2 g2")
}

func TestBackfill(t *testing.T) {
	b := newBench(t, machine())
	b.job("half", 2, 0)
	b.job("all", 4, 0)
	b.job("small", 1, 0) // passes while "all" is young
	b.want("half small", "all")
	b.now = b.now.Add(scheduler.DefaultPatience)
	b.job("late", 1, 0) // does not
	b.want("half small", "all late")
	b.Release("half")
	b.want("small", "all late")
	b.Release("small")
	b.want("all", "late")
	b.Release("all")
	b.want("late", "")
}

// Lower priorities do not pass even a young one in what it lacks.
func TestBackfillBelow(t *testing.T) {
	b := newBench(t, machine())
	b.job("half", 2, 0)
	b.Enqueue(b.ask("online", "p", runtime.PriorityOnline, 4, 0))
	b.job("small", 1, 0)
	b.want("half", "online small")
}

// Three tasks want the one GPU: CPU tasks pass, however long that takes, also when
// they fill the machine otherwise.
func TestCPUPassesGPU(t *testing.T) {
	b := newBench(t, runtime.Inventory{Cores: 2, MemoryBytes: 8 * gib, GPUs: []runtime.GPU{{ID: "0"}}})
	b.job("g1", 1, 1)
	b.job("c1", 1, 0)
	b.job("g2", 1, 1)
	b.job("g3", 1, 1)
	b.now = b.now.Add(time.Hour)
	b.job("c2", 1, 0)
	b.want("g1 c1", "g2 g3 c2")
	b.Release("c1")
	b.want("g1 c2", "g2 g3")
	b.Release("g1")
	b.want("g2 c2", "g3")
	b.Release("g2")
	b.want("g3 c2", "")
}

// A GPU task that needs more cores than the one before it keeps those too.
func TestGPUKeepsCores(t *testing.T) {
	b := newBench(t, runtime.Inventory{Cores: 4, MemoryBytes: 8 * gib, GPUs: []runtime.GPU{{ID: "0"}}})
	b.job("g1", 1, 1)
	b.job("g2", 3, 1)
	b.now = b.now.Add(time.Minute)
	b.job("c1", 1, 0) // 2 of the 3 free cores are kept
	b.job("c2", 1, 0)
	b.want("g1 c1", "g2 c2")
	b.Release("g1")
	b.want("g2 c1", "c2")
}

func TestGPUsAreDistinct(t *testing.T) {
	b := newBench(t, machine())
	b.job("a", 1, 1)
	b.job("b", 1, 1)
	ids := func() string {
		var out []string
		for _, h := range b.Snapshot().Holders {
			for _, g := range h.GPUs {
				out = append(out, h.Ask.ID+"="+g.ID)
			}
		}
		return strings.Join(out, " ")
	}
	if got := ids(); got != "a=gpu-a b=gpu-b" {
		t.Fatal(got)
	}
	b.Release("a")
	b.now = b.now.Add(time.Second)
	b.job("c", 1, 1)
	if got := ids(); got != "b=gpu-b c=gpu-a" {
		t.Fatal(got)
	}
}

func gang(b *bench, name string, cores float64, ids ...string) []scheduler.Ask {
	var out []scheduler.Ask
	for _, id := range ids {
		a := b.ask(id, "p", runtime.PriorityJob, cores, 0)
		a.Gang, a.GangSize = name, len(ids)
		out = append(out, a)
	}
	return out
}

// Two gangs of which each fits alone never hold parts of the machine.
func TestGangs(t *testing.T) {
	b := newBench(t, machine())
	x, y := gang(b, "x", 1.5, "x1", "x2"), gang(b, "y", 1.5, "y1", "y2")
	b.Enqueue(x[0])
	b.Enqueue(y[0])
	b.want("", "x1 y1")
	if q, ok := b.Place("x1"); !ok || !strings.Contains(q.Waits, "the other members of its gang (1 of 2 have asked)") {
		t.Errorf("%+v", q)
	}
	b.Enqueue(y[1])
	b.want("y1 y2", "x1")
	b.Enqueue(x[1])
	b.want("y1 y2", "x1 x2")
	b.Release("y1")
	b.want("y2", "x1 x2")
	if q, _ := b.Place("x1"); !strings.Contains(q.Waits, "3 cores (1.5 of 4 in use by y2)") {
		t.Errorf("%+v", q)
	}
	b.Release("y2")
	b.want("x1 x2", "")
	g, err := b.Wait(t.Context(), "x1")
	if err != nil || g.Reason != "3 cores" {
		t.Errorf("%+v, %v", g, err)
	}
	// Who waited for nothing but the other members did not wait for room.
	if g, err := b.Wait(t.Context(), "y1"); !resource.IsNotFound(err) {
		t.Errorf("%+v, %v", g, err)
	}
}

func TestGangNeverFits(t *testing.T) {
	b := newBench(t, machine())
	b.Enqueue(gang(b, "x", 3, "x1", "x2")...)
	for _, id := range []string{"x1", "x2"} {
		if _, err := b.Wait(t.Context(), id); err == nil || !strings.Contains(err.Error(), "2 programs start together, for which 6 CPU cores") {
			t.Errorf("%s: %v", id, err)
		}
	}
	b.job("next", 4, 0)
	b.want("next", "")
}

// Of a gang that started, one member is found running and the other one lost its
// grant with the server: it goes first.
func TestGangResumes(t *testing.T) {
	b := newBench(t, machine())
	x := gang(b, "x", 2, "x1", "x2")
	b.Adopt(x[0], scheduler.Grant{})
	b.Enqueue(b.ask("old", "p", runtime.PriorityOnline, 3, 0), x[1])
	b.want("x1 x2", "old")
}

func TestAdopt(t *testing.T) {
	b := newBench(t, machine())
	gpu := scheduler.Grant{GPUs: []runtime.GPU{{ID: "gpu-b"}}}
	if b.Adopt(b.ask("a", "p", 0, 3, 1), gpu) {
		t.Error("the first is too much")
	}
	if !b.Adopt(b.ask("b", "p", 0, 3, 0), scheduler.Grant{}) {
		t.Error("6 of 4 cores are not too much")
	}
	b.job("g", 1, 1)
	b.want("a b", "g")
	b.Release("b")
	b.want("a g", "")
	if g, err := b.Wait(t.Context(), "g"); err != nil || len(g.GPUs) != 1 || g.GPUs[0].ID != "gpu-a" || g.Reason != "1 core" {
		t.Errorf("%+v, %v", g, err)
	}
	// Found running although it waits.
	b.job("late", 4, 0)
	b.Adopt(b.ask("late", "p", 0, 4, 0), scheduler.Grant{})
	if _, err := b.Wait(t.Context(), "late"); err != nil {
		t.Error(err)
	}
	b.Adopt(b.ask("late", "p", 0, 4, 0), scheduler.Grant{})
	for _, id := range []string{"a", "g", "late"} {
		b.Release(id)
	}
	if s := b.Snapshot(); s.Used != (runtime.Resources{}) {
		t.Errorf("in use afterwards: %+v", s.Used)
	}
}

func TestPlace(t *testing.T) {
	b := newBench(t, machine())
	b.job("mine", 1, 1)
	b.Enqueue(b.ask("theirs", "q", 0, 1, 1))
	b.job("next", 1, 1)
	since := b.now
	b.now = b.now.Add(time.Second)
	b.job("last", 1, 2)
	q, ok := b.Place("next")
	if !ok || q.Position != 1 || q.Length != 2 || !q.Since.Equal(since) || q.Waits != "1 GPU (2 of 2 in use by mine, 1 of other projects)" {
		t.Errorf("%+v", q)
	}
	if q := b.Snapshot().Waiters[1].Queue; q.Position != 2 || q.Waits != "2 GPUs (2 of 2 in use by mine, theirs)" {
		t.Errorf("%+v", q)
	}
	if !b.Waits("next") || b.Waits("mine") || b.Waits("none") {
		t.Error("Waits differs from Place")
	}
	if _, ok := b.Place("mine"); ok {
		t.Error("a holder has a place")
	}
}

func TestWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := scheduler.New(machine(), time.Now, scheduler.Options{})
		ask := func(id string) scheduler.Ask {
			return scheduler.Ask{ID: id, Project: "p", Created: time.Now(), Resources: runtime.Resources{GPUs: 2}}
		}
		s.Enqueue(ask("a"))
		if g, err := s.Wait(t.Context(), "a"); err != nil || len(g.GPUs) != 2 || g.Waited != 0 || g.Reason != "" {
			t.Fatalf("%+v, %v", g, err)
		}
		s.Enqueue(ask("b"), ask("gone"))
		// Whoever gives up waiting keeps the place until it is released.
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := s.Wait(ctx, "b"); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatal(err)
		}
		gone := make(chan error)
		go func() {
			_, err := s.Wait(t.Context(), "gone")
			gone <- err
		}()
		synctest.Wait()
		s.Release("gone")
		if err := <-gone; err == nil || !strings.Contains(err.Error(), "does not wait any more") {
			t.Error(err)
		}
		go func() {
			<-time.After(41 * time.Minute)
			s.Release("a")
		}()
		if g, err := s.Wait(t.Context(), "b"); err != nil || g.Waited != 41*time.Minute+time.Second || g.Reason != "2 GPUs" {
			t.Fatalf("%+v, %v", g, err)
		}
		if _, err := s.Wait(t.Context(), "never asked"); !resource.IsNotFound(err) {
			t.Error(err)
		}
	})
}

// A job that room is kept from becomes more urgent than the one it is kept for,
// without anything happening but time.
func TestAgeAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := scheduler.New(machine(), time.Now, scheduler.Options{})
		ask := func(id string, p runtime.Priority, cores float64) scheduler.Ask {
			return scheduler.Ask{ID: id, Project: "p", Priority: p, Created: time.Now(), Resources: runtime.Resources{Cores: cores}}
		}
		s.Enqueue(ask("stays", 0, 2))
		old := ask("job", 0, 1)
		old.Created = time.Now().Add(-scheduler.DefaultAge / 2)
		s.Enqueue(ask("batch", runtime.PriorityBatch, 3), old)
		began := time.Now()
		if _, err := s.Wait(t.Context(), "job"); err != nil {
			t.Fatal(err)
		}
		// Its equal by then, and older.
		if waited := time.Since(began); waited != scheduler.DefaultAge/2 {
			t.Errorf("it went after %v", waited)
		}
	})
}

// TestHold: what waits is not granted before everything that runs was counted.
func TestHold(t *testing.T) {
	t.Parallel()
	s := scheduler.New(machine(), time.Now, scheduler.Options{})
	whole := runtime.Resources{Cores: s.Inventory().Cores}
	s.Hold()
	s.Enqueue(scheduler.Ask{ID: "waits", Resources: whole})
	if over := s.Adopt(scheduler.Ask{ID: "runs", Resources: whole}, scheduler.Grant{}); over {
		t.Fatal("granted while held")
	}
	s.Open()
	if q, waits := s.Place("waits"); !waits || !strings.Contains(q.Waits, "runs") {
		t.Fatalf("place %+v, %v", q, waits)
	}
	s.Release("runs")
	if g, err := s.Wait(t.Context(), "waits"); err != nil || g.Reason == "" {
		t.Fatalf("grant %+v, %v", g, err)
	}
}
