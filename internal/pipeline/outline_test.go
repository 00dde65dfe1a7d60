package pipeline_test

import (
	"maps"
	"slices"
	"testing"

	"tategu/internal/pipeline"
)

// TestSteps: a pipeline with nested loops as its steps, each after those before it.
func TestSteps(t *testing.T) {
	t.Parallel()
	plan, err := pipeline.ParseJSON(readIR(t, "testdata/ir/loops.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	kinds, after := map[string]string{}, map[string][]string{}
	var look func(at string)
	look = func(at string) {
		for _, s := range plan.Steps(at) {
			for _, before := range s.After {
				if kinds[before] == "" {
					t.Errorf("%s comes before %s, which it waits for", s.Path, before)
				}
			}
			kinds[s.Path], after[s.Path] = s.Kind, s.After
			look(s.Path)
		}
	}
	look("")
	want := map[string]string{
		"make-tables": pipeline.KindGraph, "make-tables/for-loop-1": pipeline.KindLoop, "make-tables/for-loop-1/for-loop-2": pipeline.KindLoop,
		"make-tables/for-loop-1/for-loop-2/table": pipeline.KindContainer,
		"for-loop-1": pipeline.KindLoop, "for-loop-1/read": pipeline.KindContainer, "total": pipeline.KindContainer,
	}
	if !maps.Equal(kinds, want) {
		t.Errorf("steps %v, want %v", kinds, want)
	}
	if !slices.Contains(after["for-loop-1"], "make-tables") || !slices.Contains(after["total"], "for-loop-1") {
		t.Errorf("the steps come after %v", after)
	}
	for _, at := range []string{"nothing", "total", "total/x", "for-loop-1/nothing"} {
		if steps := plan.Steps(at); len(steps) > 0 {
			t.Errorf("inside %s are %v", at, steps)
		}
	}
	for task, step := range map[string]string{
		"total": "total", "make-tables": "make-tables", "for-loop-1": "for-loop-1", "for-loop-1/for-loop-1-7": "for-loop-1",
		"for-loop-1/for-loop-1-7/read":                                           "for-loop-1/read",
		"make-tables#2/for-loop-1/for-loop-1-0#3/for-loop-2/for-loop-2-11/table": "make-tables/for-loop-1/for-loop-2/table",
		"gone/away": "gone/away", "": "",
	} {
		if got := plan.StepOf(task); got != step {
			t.Errorf("the task %q is of the step %q, want %q", task, got, step)
		}
	}
}
