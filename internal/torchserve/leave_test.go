package torchserve_test

import (
	"context"
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"tategu/internal/torchserve"
)

// TestScaleOfOneThatLeft: workers that were not started, since who asked for them had
// gone, keep nobody waiting.
func TestScaleOfOneThatLeft(t *testing.T) {
	t.Parallel()
	w := start(t, configure(t, func(c *torchserve.Config) { c.UnregisterTime = 100 * time.Millisecond }))
	w.up(t, "m", 1, "")
	gone, leave := context.WithCancel(t.Context())
	leave()
	failed := false
	for n := 8; !failed && n < 400; n += 8 { // which of both is seen first is chance
		err := w.Scale(gone, torchserve.Scaling{Model: "m", MinWorkers: &n})
		failed = errors.Is(err, context.Canceled)
		if err != nil && !failed {
			t.Fatal(err)
		}
	}
	if !failed {
		t.Fatal("a client that has gone has its workers started")
	}
	done := make(chan error, 1)
	go func() { done <- w.Unregister(t.Context(), "m", "") }()
	select {
	case err := <-done:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(time.Minute):
		t.Fatal("it is not unregistered")
	}
}

// TestUnregisterOfOneThatLeft: what is unregistered is gone from the snapshot, too.
func TestUnregisterOfOneThatLeft(t *testing.T) {
	t.Parallel()
	cfg := configure(t, func(c *torchserve.Config) { c.SnapshotFolder = t.TempDir() })
	w := start(t, cfg)
	w.up(t, "m", 1, "")
	gone, leave := context.WithCancel(t.Context())
	leave()
	if err := w.Unregister(gone, "m", ""); err != nil {
		t.Fatal(err)
	}
	path, err := torchserve.LastSnapshot(cfg.SnapshotFolder)
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(path)
	if err != nil || strings.Contains(string(text), "m.mar") {
		t.Errorf("%s, %v", text, err)
	}
}

// TestScaleToNone: who waits for a worker when the last one goes hears of it.
func TestScaleToNone(t *testing.T) {
	t.Parallel()
	w := start(t, configure(t, nil))
	w.up(t, "m", 1, "")
	done := t.TempDir() + "/done"
	first, second := make(chan error, 1), make(chan error, 1)
	go func() { _, err := w.ask(t.Context(), "m", "until "+done); first <- err }()
	w.metrics.await(t, "Waits")
	go func() { _, err := w.ask(t.Context(), "m", "x"); second <- err }()
	eventually(t, func() bool {
		all, err := w.Describe(t.Context(), "m", "", false)
		return err == nil && all[0].Waiting == 1
	})
	zero := 0
	if err := w.Scale(t.Context(), torchserve.Scaling{Model: "m", MinWorkers: &zero}); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-second:
		wantCode(t, err, 503, "has no worker to serve inference request")
	case <-time.After(time.Minute):
		t.Error("a request waits for a worker that there is none of")
	}
	touch(t, done)
	if err := <-first; err != nil {
		t.Error(err)
	}
}

// TestStoppedWhileItLoads: a worker that is stopped in the middle of its load, at which
// moment soever, takes nothing else along.
func TestStoppedWhileItLoads(t *testing.T) {
	t.Parallel()
	w := start(t, configure(t, nil))
	w.up(t, "m", 1, "")
	none, two := 0, 2
	for range 12 {
		for _, n := range []*int{&two, &none} { // which does not wait for those
			if err := w.Scale(t.Context(), torchserve.Scaling{Model: "m", MinWorkers: n}); err != nil {
				t.Fatal(err)
			}
		}
	}
	one := 1
	if err := w.Scale(t.Context(), torchserve.Scaling{Model: "m", MinWorkers: &one, Synchronous: true}); err != nil {
		t.Fatal(err)
	}
	w.want(t, "m", "x", "x:False:")
}
