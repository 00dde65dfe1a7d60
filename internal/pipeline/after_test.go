package pipeline

import (
	"slices"
	"testing"
)

const afterSpec = `{"schemaVersion": "2.1.0", "pipelineInfo": {"name": "p"}, "root": {"dag": {"tasks": {
	"a": {"componentRef": {"name": "c"}}, "loop": {"componentRef": {"name": "g"}, "dependentTasks": ["a"],
		"parameterIterator": {"itemInput": "i", "items": {"raw": "[1, 2]"}}},
	"z": {"componentRef": {"name": "c"}, "dependentTasks": ["loop"]}}}},
	"components": {"c": {"executorLabel": "e"}, "g": {"inputDefinitions": {"parameters": {"i": {"parameterType": "NUMBER_INTEGER"}}}, "dag": {"tasks": {
		"x": {"componentRef": {"name": "c"}}, "y": {"componentRef": {"name": "c"}, "dependentTasks": ["x"]}}}}},
	"deploymentSpec": {"executors": {"e": {"container": {"image": "i", "command": ["c"]}}}}}`

func TestAfter(t *testing.T) {
	t.Parallel()
	plan, err := ParseJSON([]byte(afterSpec))
	if err != nil {
		t.Fatal(err)
	}
	for at, want := range map[string][]string{
		"a": {"loop", "z"}, "loop": {"z"}, "z": nil,
		"loop/loop-1/x": {"loop/loop-1/y", "z"}, "loop/loop-0#2/y": {"z"}, "nothing": nil,
	} {
		if got := plan.After(at); !slices.Equal(got, want) {
			t.Errorf("after %s: %v, want %v", at, got, want)
		}
	}
	for at, want := range map[string]Executor{
		"a": {Label: "e", Graph: "root", Task: "a"}, "loop": {Graph: "root", Task: "loop"}, "loop/loop-1/x": {Label: "e", Graph: "g", Task: "x"},
	} {
		if got, ok := plan.ExecutorOf(at); !ok || got != want {
			t.Errorf("%s runs %+v, %v, want %+v", at, got, ok, want)
		}
	}
	if _, ok := plan.ExecutorOf("loop/x"); ok {
		t.Error("a task of a loop without its iteration was found")
	}
}
