package scheduler_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"tategu/internal/runtime"
	"tategu/internal/runtime/scheduler"
)

// world runs random workloads on a scheduler that is replaced now and then, as by
// restarts of the server. What it knows of who runs is its own count.
type world struct {
	t     *testing.T
	inv   runtime.Inventory
	ended sync.WaitGroup

	mu      sync.Mutex
	s       *scheduler.Scheduler
	ctx     context.Context //nolint:containedctx // the life of s
	stop    context.CancelFunc
	waiting map[string]scheduler.Ask
	running map[string]scheduler.Ask
	given   map[string]scheduler.Grant
	ran     int
}

func newWorld(t *testing.T, inv runtime.Inventory) *world {
	t.Helper()
	w := &world{
		t: t, inv: inv, waiting: map[string]scheduler.Ask{}, running: map[string]scheduler.Ask{},
		given: map[string]scheduler.Grant{},
	}
	w.ctx, w.stop = context.WithCancel(t.Context())
	w.s = scheduler.New(inv, time.Now, scheduler.Options{})
	return w
}

// restart takes what runs over and lets what waits wait again, at one moment.
func (w *world) restart() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.stop()
	w.ctx, w.stop = context.WithCancel(w.t.Context())
	w.s = scheduler.New(w.inv, time.Now, scheduler.Options{})
	for id, a := range w.running {
		if w.s.Adopt(a, w.given[id]) {
			w.t.Error("what ran together is too much after a restart")
		}
	}
	var again []scheduler.Ask
	for _, a := range w.waiting {
		again = append(again, a)
	}
	w.s.Enqueue(again...)
}

func (w *world) current() (*scheduler.Scheduler, context.Context) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.s, w.ctx
}

// starved is how long nothing may wait.
const starved = 24 * time.Hour

// run is the life of a workload. Cancel ends its waiting, 0 = never.
func (w *world) run(a scheduler.Ask, lasts, cancel time.Duration) {
	defer w.ended.Done()
	a.Created = time.Now()
	w.mu.Lock()
	w.waiting[a.ID] = a
	w.s.Enqueue(a)
	w.mu.Unlock()
	deadline := time.Now().Add(starved)
	if cancel > 0 {
		deadline = time.Now().Add(cancel)
	}
	for {
		s, life := w.current()
		ctx, done := context.WithDeadline(life, deadline)
		g, err := s.Wait(ctx, a.ID)
		done()
		switch {
		case errors.Is(err, context.DeadlineExceeded):
			if cancel == 0 {
				w.t.Errorf("%s starves: %+v", a.ID, a)
			}
			w.mu.Lock()
			delete(w.waiting, a.ID)
			w.s.Release(a.ID)
			w.mu.Unlock()
			return
		case life.Err() != nil:
			continue
		case err != nil:
			w.t.Errorf("%s: %v", a.ID, err)
			return
		}
		if !w.begin(s, a, g) {
			continue // granted by a server that is gone
		}
		<-time.After(lasts)
		w.end(a)
		return
	}
}

func (w *world) begin(s *scheduler.Scheduler, a scheduler.Ask, g scheduler.Grant) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if s != w.s {
		return false
	}
	delete(w.waiting, a.ID)
	w.running[a.ID], w.given[a.ID] = a, g
	w.ran++
	w.check()
	return true
}

func (w *world) end(a scheduler.Ask) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.running, a.ID)
	delete(w.given, a.ID)
	w.s.Release(a.ID)
}

// check counts what runs.
func (w *world) check() {
	var sum runtime.Resources
	gpus := map[string]string{}
	for id, a := range w.running {
		cores, memory := a.Resources.Cores, a.Resources.MemoryBytes
		if cores == 0 || a.Resources.Hint {
			cores = scheduler.DefaultCores
		}
		if memory == 0 || a.Resources.Hint {
			memory = scheduler.DefaultMemory
		}
		sum.Cores += cores
		sum.MemoryBytes += memory
		if got := w.given[id].GPUs; len(got) != a.Resources.GPUs {
			w.t.Errorf("%s has %d GPUs of %d", id, len(got), a.Resources.GPUs)
		}
		for _, g := range w.given[id].GPUs {
			if !slices.ContainsFunc(w.inv.GPUs, func(h runtime.GPU) bool { return h.ID == g.ID }) {
				w.t.Errorf("%s has GPU %s, which does not exist", id, g.ID)
			}
			if other, taken := gpus[g.ID]; taken {
				w.t.Errorf("%s and %s have GPU %s", id, other, g.ID)
			}
			gpus[g.ID] = id
		}
	}
	if sum.Cores > w.inv.Cores+1e-9 || sum.MemoryBytes > w.inv.MemoryBytes {
		w.t.Errorf("overcommitted: %+v of %+v", sum, w.inv)
	}
}

// atOnce is how many goroutines wait at the same time: the race detector has 255
// slots for them, and dies with a failed check of its own where it has to take
// slots away while synctest's timers fire (golang/go#78156).
const atOnce = 200

// TestRandomWorkloads lets 200 workloads of each seed come, wait, run, be cancelled
// and live through restarts. All end.
func TestRandomWorkloads(t *testing.T) {
	seeds := uint64(40)
	if testing.Short() {
		seeds = 5
	}
	for seed := range seeds {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				rng := rand.New(rand.NewPCG(seed, 5))
				w := newWorld(t, runtime.Inventory{Cores: 4, MemoryBytes: 16 * gib, GPUs: []runtime.GPU{{ID: "0"}, {ID: "1"}, {ID: "2"}}})
				cancelled := w.load(rng, atOnce)
				for range rng.IntN(6) {
					<-time.After(time.Duration(rng.IntN(1200)) * time.Second)
					w.restart()
				}
				w.ended.Wait()
				if w.ran+cancelled < atOnce {
					t.Errorf("%d ran, %d could be cancelled, of %d", w.ran, cancelled, atOnce)
				}
				if s := w.s.Snapshot(); s.Used != (runtime.Resources{}) || len(s.Holders)+len(s.Waiters) > 0 {
					t.Errorf("left: %+v", s)
				}
				w.stop()
			})
		})
	}
}

// load starts n workloads, some of them in gangs, and gives how many have a time
// after which they stop waiting.
func (w *world) load(rng *rand.Rand, n int) (cancelled int) {
	for i := 0; i < n; {
		a := scheduler.Ask{
			Project: fmt.Sprint("project-", rng.IntN(4)), Priority: runtime.Priority(rng.IntN(3)),
			Resources: runtime.Resources{Cores: float64(rng.IntN(9)) / 2, MemoryBytes: int64(rng.IntN(16)) * gib, Hint: rng.IntN(8) == 0},
		}
		if rng.IntN(4) == 0 {
			a.Resources.GPUs = 1 + rng.IntN(3)
		}
		members := 1
		if rng.IntN(10) == 0 {
			members = min(1+rng.IntN(4), n-i)
			a.Gang, a.GangSize = fmt.Sprint("gang-", i), members
			a.Resources = runtime.Resources{Cores: float64(4 / members), MemoryBytes: gib, GPUs: 3 / members}
		}
		var cancel time.Duration
		if members == 1 && rng.IntN(6) == 0 {
			cancel = time.Duration(1+rng.IntN(300)) * time.Second
			cancelled++
		}
		come := time.Duration(rng.IntN(3000)) * time.Second
		for range members {
			a := a
			a.ID = fmt.Sprint("w", i)
			i++
			lasts, late := time.Duration(1+rng.IntN(120))*time.Second, time.Duration(rng.IntN(3))*time.Second
			w.ended.Add(1)
			go func() {
				<-time.After(come + late)
				w.run(a, lasts, cancel)
			}()
		}
	}
	return cancelled
}
