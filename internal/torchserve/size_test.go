package torchserve_test

import (
	"os"
	"strings"
	"testing"
	"time"

	"tategu/internal/torchserve"
)

// threads says how many torch has; "slow" takes longer, without using a core.
const threads = `
import time
import torch

own = [0]

def handle(data, context):
    if not data:
        return None
    word = data[0]["body"].decode()
    if word.startswith("own "):
        torch.set_num_threads(int(word[4:]))
    if word == "slow":
        time.sleep(0.02)
    return [str(torch.get_num_threads())]
`

func (w *world) threads(t *testing.T, name string, r torchserve.Registration) {
	t.Helper()
	writeArchive(t, w.store, name+".mar", map[string]string{"handler.py": threads, "MAR-INF/MANIFEST.json": manifest(name, "1.0", nil)})
	r.URL, r.Synchronous = name+".mar", true
	if _, err := w.Register(t.Context(), r); err != nil {
		t.Fatal(err)
	}
}

// TestThreadsFollowModels: models with requests share the cores, at run time; what a
// handler sets itself is left alone.
func TestThreadsFollowModels(t *testing.T) {
	t.Parallel()
	w := start(t, configure(t, func(c *torchserve.Config) { c.Cores = 8 }))
	one, two := 1, 2
	w.threads(t, "a", torchserve.Registration{InitialWorkers: &one})
	w.threads(t, "b", torchserve.Registration{InitialWorkers: &two})
	w.want(t, "a", "alone", "8")
	settles := func(model, want string) {
		t.Helper()
		eventually(t, func() bool {
			got, err := w.ask(t.Context(), model, "how many")
			if err != nil {
				t.Fatal(err)
			}
			return got == want
		})
	}
	settles("b", "2") // 2 x 2 and 1 x 4
	settles("a", "4")
	if err := w.Scale(t.Context(), torchserve.Scaling{Model: "b", MinWorkers: &one, Synchronous: true}); err != nil {
		t.Fatal(err)
	}
	settles("a", "4")
	settles("b", "4")
	settles("a", "8") // b had no request for a while
	w.want(t, "a", "own 3", "3")
	settles("b", "4")
	w.want(t, "a", "how many", "3")
}

// TestOperatorsThreads: no worker has more than OMP_NUM_THREADS of the server.
func TestOperatorsThreads(t *testing.T) {
	t.Parallel()
	w := start(t, configure(t, func(c *torchserve.Config) {
		c.Cores = 8
		c.Environment = append(c.Environment, "OMP_NUM_THREADS=3")
	}))
	one := 1
	w.threads(t, "a", torchserve.Registration{InitialWorkers: &one})
	w.want(t, "a", "how many", "3")
}

// TestWorkersFollowLoad: a model of the start has one worker, more under load where they
// answer more, and those are kept. What is set by hand stays.
func TestWorkersFollowLoad(t *testing.T) {
	t.Parallel()
	cfg := configure(t, func(c *torchserve.Config) { c.Cores, c.LoadModels = 2, []string{"a.mar"} })
	writeArchive(t, cfg.ModelStore, "a.mar", map[string]string{"handler.py": threads, "MAR-INF/MANIFEST.json": manifest("a", "1.0", nil)})
	w := start(t, cfg)
	model := func() torchserve.Model {
		t.Helper()
		all, err := w.Describe(t.Context(), "a", "", false)
		if err != nil {
			t.Fatal(err)
		}
		return all[0]
	}
	if m := model(); m.MinWorkers != 1 || m.MaxWorkers != 2 || len(m.Workers) != 1 || !strings.Contains(m.Scaling, "1 of 1 to 2 workers, each with") {
		t.Fatalf("it starts with %+v", m)
	}
	load := func(until func() bool) {
		stop := make(chan struct{})
		done := make(chan struct{})
		for range 6 {
			go func() {
				defer func() { done <- struct{}{} }()
				for {
					select {
					case <-stop:
						return
					default:
					}
					if _, err := w.ask(t.Context(), "a", "slow"); err != nil {
						t.Error(err)
						return
					}
				}
			}()
		}
		eventually(t, until)
		close(stop)
		for range 6 {
			<-done
		}
	}
	load(func() bool { return strings.Contains(model().Scaling, "2 were kept") })
	if m := model(); len(m.Workers) != 2 || !strings.Contains(m.Scaling, "each with 1 of 2 threads") {
		t.Errorf("it has %d workers: %s", len(m.Workers), m.Scaling)
	}
	one := 1
	if err := w.Scale(t.Context(), torchserve.Scaling{Model: "a", MinWorkers: &one, Synchronous: true}); err != nil {
		t.Fatal(err)
	}
	begun := time.Now()
	load(func() bool { return time.Since(begun) > 8*time.Second })
	if m := model(); len(m.Workers) != 1 || m.Scaling != "" {
		t.Errorf("what is set by hand has %d workers: %q", len(m.Workers), m.Scaling)
	}
}

// TestRangeOfSnapshot: bounds that were set by hand are there after a restart.
func TestRangeOfSnapshot(t *testing.T) {
	t.Parallel()
	folder := t.TempDir()
	cfg := configure(t, func(c *torchserve.Config) { c.SnapshotFolder, c.Properties = folder, map[string]string{} })
	w := start(t, cfg)
	w.up(t, "m", 1, "")
	one, three := 1, 3
	if err := w.Scale(t.Context(), torchserve.Scaling{Model: "m", MinWorkers: &one, MaxWorkers: &three, Synchronous: true}); err != nil {
		t.Fatal(err)
	}
	w.stop()
	last, err := torchserve.LastSnapshot(folder)
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(last)
	if err != nil {
		t.Fatal(err)
	}
	again, err := torchserve.ReadProperties(cfg, text, os.LookupEnv)
	if err != nil {
		t.Fatal(err)
	}
	again.Work = t.TempDir()
	w = start(t, again)
	all, err := w.Describe(t.Context(), "m", "", false)
	if err != nil || all[0].MinWorkers != 1 || all[0].MaxWorkers != 3 {
		t.Errorf("it comes back as %+v, %v", all, err)
	}
}
