package torchserve_test

import (
	"encoding/json"
	"strings"
	"testing"

	"tategu/internal/torchserve"
)

// TestConverge: one server becomes what another is, step by step.
func TestConverge(t *testing.T) {
	t.Parallel()
	store := t.TempDir()
	shared := func(c *torchserve.Config) { c.ModelStore = store }
	a, b := start(t, configure(t, shared)), start(t, configure(t, shared))
	one, two := 1, 2
	state := func(w *world) string {
		t.Helper()
		data, err := w.State()
		if err != nil {
			t.Fatal(err)
		}
		return string(data)
	}
	follow := func(what string) {
		t.Helper()
		if err := b.Converge(t.Context(), []byte(state(a))); err != nil {
			t.Errorf("%s: %v", what, err)
		}
		if x, y := state(a), state(b); x != y {
			t.Errorf("%s: %s, want %s", what, y, x)
		}
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	register := func(file, name string, batch int) {
		t.Helper()
		_, err := a.Register(t.Context(), torchserve.Registration{URL: file, ModelName: name, InitialWorkers: &one, BatchSize: batch, Synchronous: true})
		must(err)
	}
	base := state(b)
	for _, f := range [][2]string{{"m1", "1.0"}, {"m2", "2.0"}, {"n", "1.0"}} {
		writeModel(t, store, f[0], f[1], "")
	}
	register("m1.mar", "m", 0)
	follow("one model")
	b.want(t, "m", "x", "x:False:")
	register("m2.mar", "m", 4)
	register("n.mar", "n", 0)
	must(a.SetDefault(t.Context(), "m", "2.0"))
	follow("a second version, which is the default")
	must(a.Scale(t.Context(), torchserve.Scaling{Model: "m", MinWorkers: &two, MaxWorkers: &two, Synchronous: true}))
	follow("two workers")
	if all, err := b.Describe(t.Context(), "m", "", false); err != nil || len(all[0].Workers) != 2 || all[0].Version != "2.0" || all[0].BatchSize != 4 {
		t.Errorf("%+v, %v", all, err)
	}
	must(a.Unregister(t.Context(), "n", ""))
	register("n.mar", "n", 3)
	must(a.Unregister(t.Context(), "m", "1.0"))
	follow("a model with another size of batches, and one version less")
	must(b.Converge(t.Context(), []byte(base)))
	if state(b) != base || len(b.Models()) != 0 {
		t.Errorf("back at the start: %s", state(b))
	}
}

// TestConvergeWithoutArchive: what cannot be opened is told, is still part of the state,
// and can be removed.
func TestConvergeWithoutArchive(t *testing.T) {
	t.Parallel()
	w := start(t, configure(t, nil))
	w.up(t, "m", 1, "")
	before, err := w.State()
	if err != nil {
		t.Fatal(err)
	}
	var models map[string]map[string]map[string]any
	if err := json.Unmarshal(before, &models); err != nil {
		t.Fatal(err)
	}
	models["gone"] = map[string]map[string]any{"1.0": {"marName": "gone.mar", "defaultVersion": true}}
	writeModel(t, w.store, "other", "7.0", "") // another version than was registered
	models["other"] = map[string]map[string]any{"1.0": {"marName": "other.mar", "defaultVersion": true}}
	wanted, err := json.Marshal(models)
	if err != nil {
		t.Fatal(err)
	}
	err = w.Converge(t.Context(), wanted)
	if err == nil || !strings.Contains(err.Error(), "gone.mar") || !strings.Contains(err.Error(), "now of version 7.0") {
		t.Errorf("the error is %v", err)
	}
	w.want(t, "m", "x", "x:False:")
	state, err := w.State()
	if err != nil || !strings.Contains(string(state), "gone.mar") || !strings.Contains(string(state), "other.mar") || len(w.Models()) != 1 {
		t.Errorf("%s, %v, %d models", state, err, len(w.Models()))
	}
	for _, name := range []string{"gone", "other"} {
		if err := w.Unregister(t.Context(), name, ""); err != nil {
			t.Error(err)
		}
	}
	if state, err = w.State(); err != nil || string(state) != string(before) {
		t.Errorf("%s, %v", state, err)
	}
	if err := w.Unregister(t.Context(), "gone", ""); err == nil {
		t.Error("it was removed twice")
	}
	if err := w.Converge(t.Context(), []byte("{")); err == nil {
		t.Error("half a state was taken")
	}
}
