package pipeline

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"tategu/internal/resource"
	"tategu/internal/runtime"
)

// crowd plays a loop whose attempts end in a random order, commits after each step
// as a job does, and watches how many there are at a time.
type crowd struct {
	t       *testing.T
	m       *machine
	rng     *rand.Rand
	now     time.Time
	running []start
	most    int // attempts at a time
	nodes   int // tasks in memory at a time
	fails   func(path string, attempt int) bool
}

func newCrowd(t *testing.T, plan *Plan, r run) *crowd {
	t.Helper()
	return &crowd{t: t, m: newMachine(plan, r), rng: rand.New(rand.NewPCG(1, 1)), now: time.Unix(1, 0), fails: func(string, int) bool { return false }}
}

func (c *crowd) send(ev event) {
	c.now = c.now.Add(time.Second)
	actions := c.m.step(c.now, ev)
	clear(c.m.changed)
	c.m.forget()
	c.nodes = max(c.nodes, len(c.m.nodes))
	for _, a := range actions {
		switch a := a.(type) {
		case start:
			c.running = append(c.running, a)
		case grow:
			c.send(grown(a))
		case wake:
			c.send(due{path: a.path})
		case stop:
		default:
			c.t.Fatalf("nobody asked for %T", a)
		}
	}
	c.most = max(c.most, len(c.running))
}

// end lets one attempt end, whichever.
func (c *crowd) end() {
	i := c.rng.IntN(len(c.running))
	a := c.running[i]
	c.running = slices.Delete(c.running, i, i+1)
	o := outcome{files: map[string][]byte{"out": fmt.Append(nil, c.m.nodes[a.path].inputs.Parameters["in"])}}
	if c.fails(a.path, a.attempt) {
		o = outcome{exit: runtime.Exit{Code: 1, Message: "no luck with " + a.path, Cause: resource.CauseUserCode}}
	}
	c.send(ended{path: a.path, attempt: a.attempt, outcome: o})
}

func (c *crowd) play() {
	c.t.Helper()
	c.send(began{})
	for !c.m.done() {
		if len(c.running) == 0 {
			c.t.Fatal("nothing runs and the run is not done")
		}
		c.end()
	}
}

func crowdOf(t *testing.T, limit, items, atOnce int) *crowd {
	t.Helper()
	plan, err := ParseJSON(loopIR(limit))
	if err != nil {
		t.Fatal(err)
	}
	r := loopRun(items)
	r.atOnce = atOnce
	return newCrowd(t, plan, r)
}

// TestCapacity: a loop without a limit has so many attempts at a time as a run may
// have, what ended leaves the memory, and what it collects is in order.
func TestCapacity(t *testing.T) {
	t.Parallel()
	c := crowdOf(t, 0, 1000, 7)
	c.play()
	if c.m.root.State != Succeeded || c.most != 7 {
		t.Errorf("%s with %d attempts at a time, want 7", c.m.root.State, c.most)
	}
	if c.nodes > 2+2*8 { // the run and the loop; for each attempt a DAG and a program, and what just ended
		t.Errorf("%d tasks were in memory at a time", c.nodes)
	}
	out, _ := c.m.nodes["loop"].Outputs.Parameters["out"].([]any)
	want := make([]any, 1000)
	for i := range want {
		want[i] = float64(i)
	}
	if !slices.Equal(out, want) {
		t.Errorf("collected %v", out)
	}
}

// TestCapacityKeepsLimits: a limit of the pipeline below that still holds, and one
// above it does not lift it.
func TestCapacityKeepsLimits(t *testing.T) {
	t.Parallel()
	for limit, want := range map[int]int{3: 3, 50: 7} {
		c := crowdOf(t, limit, 200, 7)
		c.play()
		if c.m.root.State != Succeeded || c.most != want {
			t.Errorf("limit %d: %s with %d attempts at a time, want %d", limit, c.m.root.State, c.most, want)
		}
	}
}

// TestCapacityFailures: the failure of a loop tells of its first iterations that
// failed, whichever ended first, and of how many there are more.
func TestCapacityFailures(t *testing.T) {
	t.Parallel()
	var messages []string
	for _, atOnce := range []int{0, 7} {
		c := crowdOf(t, 0, 300, atOnce)
		c.fails = func(path string, _ int) bool { return strings.HasSuffix(path, "1/work") }
		c.play()
		if c.m.root.State != Failed || !strings.Contains(c.m.root.Failure.Message, "and 20 more") {
			t.Fatalf("%s: %v", c.m.root.State, c.m.root.Failure)
		}
		messages = append(messages, c.m.root.Failure.Message)
	}
	if messages[0] != messages[1] {
		t.Errorf("what failed reads\n%s\nand with few at a time\n%s", messages[0], messages[1])
	}
}

// TestCapacityFailFast: once a task failed nothing that waits starts.
func TestCapacityFailFast(t *testing.T) {
	t.Parallel()
	c := crowdOf(t, 0, 300, 7)
	c.m.run.failFast = true
	c.fails = func(path string, _ int) bool { return strings.Contains(path, "loop-20/") }
	started := 0
	c.send(began{})
	for !c.m.done() {
		broken := c.m.broken
		before := len(c.running)
		c.end()
		if broken && len(c.running) >= before {
			t.Fatal("something started after a task had failed")
		}
		started++
	}
	if c.m.root.State != Failed || started > 100 {
		t.Errorf("%s after %d programs", c.m.root.State, started)
	}
}

// TestCapacityOfWidth: tasks side by side wait for their turn, in their order, and a
// cancel ends those that wait.
func TestCapacityOfWidth(t *testing.T) {
	t.Parallel()
	plan, err := ParseJSON(wideIR(200))
	if err != nil {
		t.Fatal(err)
	}
	r := loopRun(0)
	r.parameters, r.atOnce = map[string]any{}, 2
	c := newCrowd(t, plan, r)
	c.play()
	if c.m.root.State != Succeeded || c.most != 2*spread {
		t.Errorf("%s with %d attempts at a time, want %d", c.m.root.State, c.most, 2*spread)
	}
	c = newCrowd(t, plan, r)
	c.send(began{})
	for range 20 {
		c.end()
	}
	c.send(cancel{})
	if len(c.running) != 2*spread {
		t.Errorf("%d attempts run after a cancel", len(c.running))
	}
	for len(c.running) > 0 {
		c.end()
	}
	if c.m.root.State != Cancelled || c.m.running != 0 {
		t.Errorf("%s, %d attempts count", c.m.root.State, c.m.running)
	}
}

// TestCapacityAfterRestart: what runs is counted again, so that there are no more.
func TestCapacityAfterRestart(t *testing.T) {
	t.Parallel()
	c := crowdOf(t, 0, 100, 7)
	rows := map[string][]byte{}
	step := func(ev event) {
		c.now = c.now.Add(time.Second)
		actions := c.m.step(c.now, ev)
		for path := range c.m.changed {
			rows[path] = encode(c.m.nodes[path].Task)
		}
		clear(c.m.changed)
		c.m.forget()
		for _, a := range actions {
			if a, ok := a.(start); ok {
				c.running = append(c.running, a)
			}
		}
	}
	step(began{})
	for i := 0; !c.m.done(); i++ {
		if i%10 == 9 {
			c.m, c.running = restoredFrom(t, c.m, rows), nil
			step(began{})
		}
		if len(c.running) > 7 || len(c.running) == 0 {
			t.Fatalf("%d attempts at a time", len(c.running))
		}
		a := c.running[c.rng.IntN(len(c.running))]
		c.running = slices.DeleteFunc(c.running, func(s start) bool { return s == a })
		step(ended{path: a.path, attempt: a.attempt, outcome: outcome{files: map[string][]byte{"out": []byte("1")}}})
	}
	if out, _ := c.m.nodes["loop"].Outputs.Parameters["out"].([]any); c.m.root.State != Succeeded || len(out) != 100 {
		t.Errorf("%s, %d collected", c.m.root.State, len(out))
	}
}

// wideIR has n tasks side by side.
func wideIR(n int) []byte {
	tasks := make([]string, n)
	for i := range tasks {
		tasks[i] = fmt.Sprintf(`"t%03d":{"taskInfo":{"name":"t%03d"},"componentRef":{"name":"comp-work"},"inputs":{"parameters":{"in":{"runtimeValue":{"constant":%d}}}}}`, i, i, i)
	}
	return fmt.Appendf(nil, `{"schemaVersion":"2.1.0","pipelineInfo":{"name":"wide"},
		"components":{"comp-work":{"executorLabel":"exec","inputDefinitions":{"parameters":{"in":{"parameterType":"NUMBER_INTEGER"}}},"outputDefinitions":{"parameters":{"out":{"parameterType":"NUMBER_INTEGER"}}}}},
		"deploymentSpec":{"executors":{"exec":{"container":{"image":"none","command":["work"]}}}},"root":{"dag":{"tasks":{%s}}}}`, strings.Join(tasks, ","))
}
