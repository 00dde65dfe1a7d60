package torchserve_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"tategu/internal/torchserve"
)

const graph = "models:\n  left: {url: m.mar}\n  right: {url: m.mar, batch-size: 2}\ndag:\n  before: [left, right]\n  left: [after]\n  right: [after]\n"

// run gives a workflow's answer.
func (w *world) run(tb testing.TB, name, text string) string {
	tb.Helper()
	var all bytes.Buffer
	if err := w.PredictWorkflow(tb.Context(), name, body(text), func(f torchserve.Frame) error { all.Write(f.Body); return nil }); err != nil {
		tb.Fatalf("%s: %v", name, err)
	}
	return all.String()
}

// restored is the configuration of a start from the last snapshot.
func restored(tb testing.TB, cfg torchserve.Config) torchserve.Config {
	tb.Helper()
	last, err := torchserve.LastSnapshot(cfg.SnapshotFolder)
	if err != nil {
		tb.Fatal(err)
	}
	data, err := os.ReadFile(last)
	if err != nil {
		tb.Fatal(err)
	}
	next, err := torchserve.ReadProperties(cfg, data, func(string) (string, bool) { return "", false })
	if err != nil {
		tb.Fatal(err)
	}
	return next
}

func (w *world) registerWorkflow(tb testing.TB, r torchserve.WorkflowRegistration) {
	tb.Helper()
	if _, err := w.RegisterWorkflow(tb.Context(), r); err != nil {
		tb.Fatal(err)
	}
}

// TestSnapshotOfWorkflows: a workflow is in the snapshot when its registration is
// answered, with what its nodes were scaled to, and its models are there once.
func TestSnapshotOfWorkflows(t *testing.T) {
	t.Parallel()
	cfg := configure(t, func(c *torchserve.Config) {
		c.SnapshotFolder, c.WorkflowStore = filepath.Join(t.TempDir(), "config"), t.TempDir()
	})
	w := start(t, cfg)
	w.up(t, "m", 1, "")
	writeWorkflow(t, cfg.WorkflowStore, "wf", graph)
	writeWorkflow(t, cfg.WorkflowStore, "gone", graph)
	long, two := 7*time.Second, 2
	w.registerWorkflow(t, torchserve.WorkflowRegistration{URL: "wf.war", Name: "named", ResponseTimeout: &long})
	w.registerWorkflow(t, torchserve.WorkflowRegistration{URL: "gone.war"})
	if err := w.UnregisterWorkflow(t.Context(), "gone"); err != nil {
		t.Fatal(err)
	}
	if err := w.Scale(t.Context(), torchserve.Scaling{Model: "named__left", MinWorkers: &two, MaxWorkers: &two, Synchronous: true}); err != nil {
		t.Fatal(err)
	}
	wantCode(t, w.Unregister(t.Context(), "named__left", ""), 409, "node of the workflow named")
	answer, state := w.run(t, "named", "x"), stateOf(t, w)

	again := start(t, restored(t, cfg)) // as after kill -9: the first has not ended
	w.stop()
	if got := again.run(t, "named", "x"); got != answer {
		t.Errorf("it answers %s, was %s", got, answer)
	}
	if got := stateOf(t, again); got != state {
		t.Errorf("%s, was %s", got, state)
	}
	if n := len(again.Workflows()); n != 1 || len(again.Models()) != 1 {
		t.Errorf("%d workflows, models %+v", n, again.Models())
	}
	left, err := again.Describe(t.Context(), "named__left", "all", false)
	if err != nil || len(left) != 1 || len(left[0].Workers) != 2 || left[0].ResponseTimeout != long {
		t.Errorf("%+v, %v", left, err)
	}
	if err := again.StartError(); err != nil {
		t.Error(err)
	}
	again.stop() // a snapshot of the end
	third := start(t, restored(t, cfg))
	if got := stateOf(t, third); got != state {
		t.Errorf("%s, was %s", got, state)
	}
	third.stop()
	if err := os.Remove(filepath.Join(cfg.WorkflowStore, "wf.war")); err != nil {
		t.Fatal(err)
	}
	s, err := torchserve.New(restored(t, cfg), torchserve.Deps{Log: quiet()})
	if err != nil {
		t.Fatal(err)
	}
	wantCode(t, s.Run(t.Context()), 500, "the workflow named of the snapshot")
}

// TestSnapshotOfBrokenWorkflow: a node whose workers do not start at the start is told,
// tried again, and stays part of its workflow.
func TestSnapshotOfBrokenWorkflow(t *testing.T) {
	t.Parallel()
	cfg := configure(t, func(c *torchserve.Config) { c.SnapshotFolder = filepath.Join(t.TempDir(), "config") })
	w := start(t, cfg)
	writeModel(t, w.store, "m", "1.0", "")
	writeWorkflow(t, w.store, "wf", graph)
	w.registerWorkflow(t, torchserve.WorkflowRegistration{URL: "wf.war"})
	w.stop()
	writeArchive(t, w.store, "m.mar", map[string]string{"handler.py": "raise RuntimeError('not today')", "MAR-INF/MANIFEST.json": manifest("m", "1.0", nil)})
	again := start(t, restored(t, cfg))
	if err := again.StartError(); err == nil || !strings.Contains(err.Error(), "wf__left") {
		t.Errorf("the start says %v", err)
	}
	if n := len(again.Workflows()); n != 1 {
		t.Errorf("%d workflows", n)
	}
}

// TestChangesWaitForTheStart: a change while a snapshot is restored does not make one that
// lacks what is still to come.
func TestChangesWaitForTheStart(t *testing.T) {
	t.Parallel()
	gate := filepath.Join(t.TempDir(), "go")
	cfg := configure(t, func(c *torchserve.Config) { c.SnapshotFolder = filepath.Join(t.TempDir(), "config") })
	w := start(t, cfg)
	w.up(t, "a", 1, "")
	w.up(t, "b", 1, "")
	w.stop()
	slow := "import os, time\nwhile not os.path.exists('" + gate + "'):\n    time.sleep(0.01)\n" + handler
	for _, name := range []string{"a", "b"} {
		writeArchive(t, w.store, name+".mar", map[string]string{"handler.py": slow, "MAR-INF/MANIFEST.json": manifest(name, "1.0", nil)})
	}
	writeModel(t, w.store, "c", "1.0", "")
	writeWorkflow(t, w.store, "wf", "models:\n  m: {url: c.mar}\ndag:\n  before: [m]\n  m: [after]\n")
	before, err := torchserve.LastSnapshot(cfg.SnapshotFolder)
	if err != nil {
		t.Fatal(err)
	}
	s, err := torchserve.New(restored(t, cfg), torchserve.Deps{Log: quiet()})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ran := make(chan error, 1)
	go func() { ran <- s.Run(ctx) }()
	zero := 0
	changed := make(chan error, 2)
	go func() {
		_, err := s.Register(t.Context(), torchserve.Registration{URL: "c.mar", InitialWorkers: &zero})
		changed <- err
	}()
	go func() {
		_, err := s.RegisterWorkflow(t.Context(), torchserve.WorkflowRegistration{URL: "wf.war"})
		changed <- err
	}()
	left, leave := context.WithCancel(t.Context())
	leave()
	for what, err := range map[string]error{
		"unregister": s.Unregister(left, "a", ""), "scale": s.Scale(left, torchserve.Scaling{Model: "a"}), "default": s.SetDefault(left, "a", "1.0"), "workflow": s.UnregisterWorkflow(left, "wf"),
	} {
		if !errors.Is(err, context.Canceled) {
			t.Errorf("%s does not wait: %v", what, err)
		}
	}
	if now, err := torchserve.LastSnapshot(cfg.SnapshotFolder); err != nil || now != before {
		t.Errorf("there is a snapshot of half a start: %s, %v", now, err)
	}
	touch(t, gate)
	for range 2 {
		if err := <-changed; err != nil {
			t.Error(err)
		}
	}
	if n := len(s.Models()); n != 3 {
		t.Errorf("%d models", n)
	}
	cancel()
	if err := <-ran; err != nil {
		t.Error(err)
	}
}

func stateOf(tb testing.TB, w *world) string {
	tb.Helper()
	data, err := w.State()
	if err != nil {
		tb.Fatal(err)
	}
	return string(data)
}

// TestConvergeWorkflows: one server becomes what another is, with its workflows.
func TestConvergeWorkflows(t *testing.T) {
	t.Parallel()
	store := t.TempDir()
	shared := func(c *torchserve.Config) { c.ModelStore = store }
	a, b := start(t, configure(t, shared)), start(t, configure(t, shared))
	writeModel(t, store, "m", "1.0", "")
	writeWorkflow(t, store, "wf", graph)
	writeWorkflow(t, store, "other", graph)
	base := stateOf(t, a)
	if strings.Contains(base, "workflows") {
		t.Errorf("without workflows a state is not what it was: %s", base)
	}
	follow := func(what string) {
		t.Helper()
		if err := b.Converge(t.Context(), []byte(stateOf(t, a))); err != nil {
			t.Errorf("%s: %v", what, err)
		}
		if x, y := stateOf(t, a), stateOf(t, b); x != y {
			t.Errorf("%s: %s, want %s", what, y, x)
		}
	}
	a.registerWorkflow(t, torchserve.WorkflowRegistration{URL: "wf.war"})
	a.up(t, "single", 1, "")
	follow("a workflow beside a model")
	want := a.run(t, "wf", "x")
	if got := b.run(t, "wf", "x"); got != want {
		t.Errorf("%s, want %s", got, want)
	}
	two, long := 2, 9*time.Second
	if err := a.Scale(t.Context(), torchserve.Scaling{Model: "wf__right", MinWorkers: &two, MaxWorkers: &two, Synchronous: true}); err != nil {
		t.Fatal(err)
	}
	follow("a node with two workers")
	if right, err := b.Describe(t.Context(), "wf__right", "", false); err != nil || len(right[0].Workers) != 2 {
		t.Errorf("%+v, %v", right, err)
	}
	if err := a.UnregisterWorkflow(t.Context(), "wf"); err != nil {
		t.Fatal(err)
	}
	a.registerWorkflow(t, torchserve.WorkflowRegistration{URL: "other.war", Name: "wf", ResponseTimeout: &long})
	follow("another of the same name")
	if left, err := b.Describe(t.Context(), "wf__left", "all", false); err != nil || len(left) != 1 || left[0].ResponseTimeout != long {
		t.Errorf("%+v, %v", left, err)
	}
	var state map[string]any
	if err := json.Unmarshal([]byte(stateOf(t, a)), &state); err != nil {
		t.Fatal(err)
	}
	state["workflows"].(map[string]any)["lost"] = map[string]any{"warName": "lost.war"}
	wanted, err := json.Marshal(state)
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Converge(t.Context(), wanted); err == nil || !strings.Contains(err.Error(), "lost.war") {
		t.Errorf("a workflow whose archive has gone: %v", err)
	}
	if got := stateOf(t, b); !strings.Contains(got, "lost.war") || len(b.Workflows()) != 1 {
		t.Errorf("%s", got)
	}
	if err := b.UnregisterWorkflow(t.Context(), "lost"); err != nil {
		t.Error(err)
	}
	if x, y := stateOf(t, a), stateOf(t, b); x != y {
		t.Errorf("%s, want %s", y, x)
	}
	if err := b.Converge(t.Context(), []byte(base)); err != nil {
		t.Fatal(err)
	}
	if stateOf(t, b) != base || len(b.Workflows()) != 0 {
		t.Errorf("back at the start: %s", stateOf(t, b))
	}
	if err := b.Converge(t.Context(), []byte(`{"format": 3}`)); err == nil || !strings.Contains(err.Error(), "format 3") {
		t.Errorf("a state of another version: %v", err)
	}
}

// TestConvergeNodesOwnVersion: a node is a version of its own, also where another one that
// was registered by its name is the default.
func TestConvergeNodesOwnVersion(t *testing.T) {
	t.Parallel()
	store := t.TempDir()
	shared := func(c *torchserve.Config) { c.ModelStore = store }
	a, b := start(t, configure(t, shared)), start(t, configure(t, shared))
	writeModel(t, store, "m", "1.0", "")
	writeModel(t, store, "next", "2.0", "")
	writeWorkflow(t, store, "wf", graph)
	follow := func(what string) {
		t.Helper()
		if err := b.Converge(t.Context(), []byte(stateOf(t, a))); err != nil {
			t.Errorf("%s: %v", what, err)
		}
		if x, y := stateOf(t, a), stateOf(t, b); x != y {
			t.Errorf("%s: %s, want %s", what, y, x)
		}
	}
	a.registerWorkflow(t, torchserve.WorkflowRegistration{URL: "wf.war"})
	follow("a workflow")
	one, two := 1, 2
	if _, err := a.Register(t.Context(), torchserve.Registration{URL: "next.mar", ModelName: "wf__left", InitialWorkers: &one, Synchronous: true}); err != nil {
		t.Fatal(err)
	}
	follow("a version of a node's name")
	if err := a.SetDefault(t.Context(), "wf__left", "2.0"); err != nil {
		t.Fatal(err)
	}
	follow("which is the default")
	if err := a.Scale(t.Context(), torchserve.Scaling{Model: "wf__left", Version: "1.0", MinWorkers: &two, MaxWorkers: &two, Synchronous: true}); err != nil {
		t.Fatal(err)
	}
	follow("the node itself has two workers")
	if err := a.SetDefault(t.Context(), "wf__left", "1.0"); err != nil {
		t.Fatal(err)
	}
	follow("which is the default again")
	b = start(t, configure(t, shared))
	follow("from the start")
	if err := a.SetDefault(t.Context(), "wf__left", "2.0"); err != nil {
		t.Fatal(err)
	}
	b = start(t, configure(t, shared))
	follow("from the start, with the other")
}
