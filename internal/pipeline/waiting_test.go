package pipeline

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"

	"tategu/internal/resource"
	"tategu/internal/runtime"
)

// TestWaitingOnce: a task that waits for its turn and is asked for again, as when a
// restored run considers it twice, has one place and is counted once.
func TestWaitingOnce(t *testing.T) {
	t.Parallel()
	plan, err := ParseJSON(wideIR(20))
	if err != nil {
		t.Fatal(err)
	}
	r := loopRun(0)
	r.parameters, r.atOnce = map[string]any{}, 1
	c := newCrowd(t, plan, r)
	c.send(began{})
	last := c.m.nodes["t019"]
	if !last.queued || len(c.m.ready) != 20-spread {
		t.Fatalf("%d wait", len(c.m.ready))
	}
	c.m.attempt(last)
	if len(c.m.ready) != 20-spread {
		t.Errorf("%d wait after one was asked for again, want %d", len(c.m.ready), 20-spread)
	}
}

// TestWaitingRetryFailsFast: a task that failed, and whose next attempt waits or
// pauses when another fails for good, has failed as it did: that is told.
func TestWaitingRetryFailsFast(t *testing.T) {
	t.Parallel()
	ir := bytes.Replace(wideIR(20), []byte(`"t000":{`), []byte(`"t000":{"retryPolicy":{"maxRetryCount":3},`), 1)
	for name, pauses := range map[string]bool{"waits": false, "pauses": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			plan, err := ParseJSON(ir)
			if err != nil {
				t.Fatal(err)
			}
			r := loopRun(0)
			r.parameters, r.failFast = map[string]any{}, true
			if !pauses {
				r.atOnce = 1
			}
			m, now := newMachine(plan, r), time.Unix(1, 0)
			var running []start
			send := func(ev event) {
				for _, a := range m.step(now, ev) {
					if a, ok := a.(start); ok {
						running = append(running, a)
					}
				}
			}
			fails := func(path string, attempt int) {
				send(ended{path: path, attempt: attempt, outcome: outcome{exit: runtime.Exit{Code: 1, Message: "no luck with " + path, Cause: resource.CauseUserCode}}})
			}
			send(began{})
			fails("t000", 1)
			if !pauses {
				send(due{path: "t000"})
				if !m.nodes["t000"].queued {
					t.Fatal("the second attempt does not wait for its turn")
				}
			}
			fails("t001", 1)
			if pauses {
				send(due{path: "t000"})
			}
			for len(running) > 0 {
				a := running[0]
				running = running[1:]
				send(ended{path: a.path, attempt: a.attempt, outcome: outcome{files: map[string][]byte{"out": []byte("1")}}})
			}
			n := m.nodes["t000"]
			if n.State != Failed || n.Failure == nil || !strings.Contains(n.Failure.Message, "no luck with t000") || n.Attempt != 1 {
				t.Errorf("it is %s after %d attempts: %+v", n.State, n.Attempt, n.Failure)
			}
			if m.root.State != Failed || !strings.Contains(m.root.Failure.Message, "no luck with t000") {
				t.Errorf("the run is %s: %+v", m.root.State, m.root.Failure)
			}
		})
	}
}

// TestCachedLoopIsSteady: a loop whose iterations all come from the cache starts a
// burst between two commits, as any other.
func TestCachedLoopIsSteady(t *testing.T) {
	t.Parallel()
	ir := bytes.Replace(loopIR(0), []byte(`"work":{"taskInfo"`), []byte(`"work":{"cachingOptions":{"enableCache":true},"taskInfo"`), 1)
	plan, err := ParseJSON(ir)
	if err != nil {
		t.Fatal(err)
	}
	const items = 2000
	r := loopRun(items)
	r.atOnce = 64
	m, now := newMachine(plan, r), time.Unix(1, 0)
	rounds, made := 0, 0
	for queue := []event{began{}}; len(queue) > 0; rounds++ { // as job.apply does
		var actions []action
		for _, ev := range queue {
			actions = append(actions, m.step(now, ev)...)
		}
		queue = nil
		if l := m.nodes["loop"].loop; len(l.nodes)-made > 2*burst {
			t.Fatalf("%d iterations were made between two commits", len(l.nodes)-made)
		} else {
			made = len(l.nodes)
		}
		clear(m.changed)
		m.forget()
		for _, a := range actions {
			switch a := a.(type) {
			case lookup:
				var in int
				if _, err := fmt.Sscanf(a.path, "loop/loop-%d/work", &in); err != nil {
					t.Fatal(err)
				}
				queue = append(queue, looked{path: a.path, entry: &cacheEntry{Task: "other", Outputs: Values{Parameters: map[string]any{"out": float64(in)}}}})
			case grow:
				queue = append(queue, grown(a))
			default:
				t.Fatalf("nobody asked for %T", a)
			}
		}
	}
	if out, _ := m.nodes["loop"].Outputs.Parameters["out"].([]any); m.root.State != Succeeded || len(out) != items {
		t.Errorf("%s after %d rounds, %d collected", m.root.State, rounds, len(out))
	}
}
