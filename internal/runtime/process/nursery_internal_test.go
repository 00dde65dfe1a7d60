package process

import (
	"context"
	"errors"
	"log/slog"
	"os/exec"
	goruntime "runtime"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"tategu/internal/runtime"
	"tategu/internal/runtime/process/wrapper"
	"tategu/internal/runtime/scheduler"
)

// nurseryOf has a clock that the test moves, on a machine with so much memory.
func nurseryOf(t *testing.T, memory int64) (n *nursery, recipeOf func(name string) recipe, move func(time.Duration)) {
	t.Helper()
	uv, err := exec.LookPath("uv")
	if err != nil {
		t.Skip("uv is not on this machine")
	}
	clock := struct {
		sync.Mutex
		now time.Time
	}{now: time.Now()}
	now := func() time.Time {
		clock.Lock()
		defer clock.Unlock()
		return clock.now
	}
	dir := t.TempDir()
	envs := &environments{dir: dir + "/envs", uv: uv, log: slog.New(slog.DiscardHandler), now: now, interpreters: map[string]interpreter{}}
	base, err := envs.get(t.Context(), wish{Any: true}, t.Output(), func(string) {})
	if err != nil {
		t.Skip(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var all sync.WaitGroup
	t.Cleanup(func() { cancel(); all.Wait() })
	n = &nursery{
		dir: dir, idle: time.Minute, log: slog.New(slog.NewTextHandler(t.Output(), nil)), now: now, importer: newImporter(), families: map[string]*family{}, kept: map[string]bool{},
		schedule:   scheduler.New(runtime.Inventory{Cores: 4, MemoryBytes: memory}, now, scheduler.Options{}),
		spawn:      func(f func(context.Context)) { all.Go(func() { f(ctx) }) },
		wrappers:   func() launcher { return launcher{self: "/bin/false"} },
		namespaces: func() uintptr { return 0 },
	}
	recipeOf = func(name string) recipe {
		s := wrapper.Spec{Command: []string{"python3", "/w/x.py"}}
		s.Env = append(s.Env, "NAME="+name, "PYTHONPATH=/w/hook", "TATEGU_VENV=/w/venv")
		return newRecipe(base, "/w", s, nil, runtime.Python{Script: "import json"}, n.importer)
	}
	return n, recipeOf, func(d time.Duration) {
		clock.Lock()
		defer clock.Unlock()
		clock.now = clock.now.Add(d)
	}
}

// raised asks until there is a zygote.
func raised(t *testing.T, n *nursery, r recipe) *zygote {
	t.Helper()
	for tick := time.Tick(5 * time.Millisecond); ; {
		if z := n.get(r, "owner of "+r.env[0]); z != nil {
			return z
		}
		select {
		case <-tick:
		case <-t.Context().Done():
			t.Fatal("no zygote")
		}
	}
}

// TestZygoteIdle: what nobody asks for ends, and its memory is given back.
func TestZygoteIdle(t *testing.T) {
	t.Parallel()
	n, recipeOf, move := nurseryOf(t, 8<<30)
	z := raised(t, n, recipeOf("a"))
	if used := n.schedule.Snapshot().Used.MemoryBytes; used != z.bytes || used == 0 {
		t.Errorf("%d bytes are counted of %d", used, z.bytes)
	}
	move(59 * time.Second)
	if n.tend(); n.get(recipeOf("a"), "") != z {
		t.Fatal("it ended too soon")
	}
	move(time.Minute)
	n.tend()
	<-z.ended
	if used := n.schedule.Snapshot().Used.MemoryBytes; used != 0 {
		t.Errorf("%d bytes are still counted", used)
	}
}

// TestZygoteKept: what is kept for an owner stays while it is idle, goes last when
// there is no room, and ends once its owner is gone.
func TestZygoteKept(t *testing.T) {
	t.Parallel()
	n, recipeOf, move := nurseryOf(t, 8<<30)
	const owner = "owner of NAME=kept"
	n.keep(owner, true)
	z := raised(t, n, recipeOf("kept"))
	move(time.Hour)
	others := make([]*zygote, mostZygotes)
	for i := range others {
		n.tend() // ends none: all but the first are young
		others[i] = raised(t, n, recipeOf(strconv.Itoa(i)))
		move(time.Second)
	}
	<-others[0].ended
	if n.get(recipeOf("kept"), owner) != z {
		t.Fatal("it left room for one that nobody keeps")
	}
	move(time.Hour)
	n.tend()
	for _, other := range others {
		<-other.ended
	}
	if n.get(recipeOf("kept"), owner) != z {
		t.Fatal("it ended while it was kept")
	}
	if used := n.schedule.Snapshot().Used.MemoryBytes; used != z.bytes {
		t.Errorf("%d bytes are counted of %d", used, z.bytes)
	}
	n.keep(owner, false)
	n.tend()
	if n.get(recipeOf("kept"), owner) != z {
		t.Fatal("it ended before it was idle")
	}
	move(time.Minute)
	n.tend()
	<-z.ended
}

// TestZygoteMemory: the one that was not used for longest goes when there is no room
// for another, and all go for a program that needs their memory.
func TestZygoteMemory(t *testing.T) {
	t.Parallel()
	n, recipeOf, move := nurseryOf(t, 8<<30)
	var all []*zygote
	for i := range mostZygotes + 1 {
		all = append(all, raised(t, n, recipeOf(strconv.Itoa(i))))
		move(time.Second)
	}
	<-all[0].ended
	if held := len(n.schedule.Snapshot().Holders); held != mostZygotes {
		t.Errorf("%d zygotes", held)
	}
	n.schedule.Enqueue(scheduler.Ask{ID: "big", Resources: runtime.Resources{MemoryBytes: 8 << 30}, Created: n.now()})
	n.makeRoom()
	if _, err := n.schedule.Wait(t.Context(), "big"); err != nil {
		t.Fatal(err)
	}
	for _, z := range all {
		<-z.ended
	}
}

// TestHear: a zygote that is stopped is given up at once. One that only says nothing
// is left to itself after a second, and ended after ten.
func TestHear(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]error{"answers": nil, "stopped": errStopped, "silent": errLate} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				z := &zygote{cmd: exec.Command("sleep", "1000"), ended: make(chan struct{})}
				if err := z.cmd.Start(); err != nil {
					t.Fatal(err)
				}
				defer z.kill()
				taken := make(chan bool, 1)
				switch name {
				case "answers":
					taken <- true
				case "stopped":
					if err := z.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
						t.Fatal(err)
					}
					for !z.stopped() {
						goruntime.Gosched()
					}
				}
				over := make(chan time.Time, 1)
				n := &nursery{spawn: func(f func(context.Context)) {
					go func() {
						f(t.Context())
						over <- time.Now()
					}()
				}}
				began := time.Now()
				if err := n.hear(t.Context(), z, taken); !errors.Is(err, want) {
					t.Fatalf("%v, want %v", err, want)
				}
				if errors.Is(want, errLate) {
					if waited := time.Since(began); waited != zygoteWait {
						t.Errorf("waited %v", waited)
					}
					if waited := (<-over).Sub(began); waited != zygotePatience {
						t.Errorf("ended after %v", waited)
					}
					if _ = z.cmd.Wait(); z.cmd.ProcessState.Exited() { // and not by itself
						t.Errorf("%v", z.cmd.ProcessState)
					}
				}
			})
		})
	}
}

// TestZygoteOfKilledServer: a server that is killed closes its socket, and that is
// all a zygote learns of it.
func TestZygoteOfKilledServer(t *testing.T) {
	t.Parallel()
	n, recipeOf, _ := nurseryOf(t, 8<<30)
	r := recipeOf("a")
	r.imports = []string{}
	z, err := openZygote(t.Context(), n.dir, r.base, r, n.wrappers(), 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := z.conn.Close(); err != nil {
		t.Fatal(err)
	}
	z.watch()
	if !z.cmd.ProcessState.Exited() || z.cmd.ProcessState.ExitCode() != 0 {
		t.Errorf("%v", z.cmd.ProcessState)
	}
}
