package torchserve_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"tategu/internal/torchserve"
)

// TestSharedWork: a server that starts beside another one leaves it its files, and
// removes those of one that is no more.
func TestSharedWork(t *testing.T) {
	t.Parallel()
	cfg := configure(t, nil)
	archives := filepath.Join(cfg.Work, "archives")
	left := filepath.Join(archives, "server-1", "archive-1")
	if err := os.MkdirAll(left, 0o700); err != nil {
		t.Fatal(err)
	}
	first := start(t, cfg)
	if _, err := os.Stat(left); err == nil {
		t.Error("files of a server that is no more are left")
	}
	first.up(t, "m", 1, "")
	second := start(t, cfg)
	second.up(t, "n", 1, "")
	one, two := 1, 2
	for _, n := range []*int{&two, &one} { // a new worker reads the files
		if err := first.Scale(t.Context(), torchserve.Scaling{Model: "m", MinWorkers: n, Synchronous: true}); err != nil {
			t.Fatal(err)
		}
	}
	first.stop()
	second.want(t, "n", "x", "x:False:")
	second.stop()
	entries, err := os.ReadDir(archives)
	if err != nil || len(entries) != 1 {
		t.Errorf("left: %v, %v", entries, err)
	}
}

// TestSnapshotWithClockSetBack: the last snapshot is the last one that was written,
// also when older ones seem to be of the future, and when there are many.
func TestSnapshotWithClockSetBack(t *testing.T) {
	t.Parallel()
	folder := t.TempDir()
	ahead := time.Now().Add(time.Hour)
	for i := range 25 {
		path := filepath.Join(folder, ahead.Add(time.Duration(i)*time.Second).Format("20060102150405")+"000-snap.cfg")
		if err := os.WriteFile(path, []byte("old=1\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(path, ahead, ahead.Add(time.Duration(i)*time.Second)); err != nil {
			t.Fatal(err)
		}
	}
	zero := 0
	w := start(t, configure(t, func(c *torchserve.Config) { c.SnapshotFolder = folder }))
	writeModel(t, w.store, "m", "1.0", "")
	if _, err := w.Register(t.Context(), torchserve.Registration{URL: "m.mar", InitialWorkers: &zero}); err != nil {
		t.Fatal(err)
	}
	path, err := torchserve.LastSnapshot(folder)
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(path)
	if err != nil || !strings.Contains(string(text), "m.mar") {
		t.Errorf("%s: %s, %v", path, text, err)
	}
	if all, err := os.ReadDir(folder); err != nil || len(all) != 20 {
		t.Errorf("%d snapshots, %v", len(all), err)
	}
}

// TestWorkflowsOfOneName: a workflow that cannot be registered, since a node would be
// called as another's, leaves that one alone.
func TestWorkflowsOfOneName(t *testing.T) {
	t.Parallel()
	w := start(t, configure(t, nil))
	writeModel(t, w.store, "m", "1.0", "")
	writeWorkflow(t, w.store, "a", "models:\n  b__c: {url: m.mar}\ndag:\n  b__c: []\n")
	writeWorkflow(t, w.store, "a__b", "models:\n  c: {url: m.mar}\ndag:\n  c: []\n")
	if _, err := w.RegisterWorkflow(t.Context(), torchserve.WorkflowRegistration{URL: "a.war"}); err != nil {
		t.Fatal(err)
	}
	_, err := w.RegisterWorkflow(t.Context(), torchserve.WorkflowRegistration{URL: "a__b.war"})
	wantCode(t, err, 500, "Workflow a__b has failed to register")
	if err := w.PredictWorkflow(t.Context(), "a", body("x"), func(torchserve.Frame) error { return nil }); err != nil {
		t.Error(err)
	}
}
