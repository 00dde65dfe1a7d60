package pipeline_test

import (
	"bytes"
	"testing"

	pb "cloud.google.com/go/aiplatform/apiv1beta1/aiplatformpb"

	"tategu/internal/pipeline"
)

// TestRealPrograms runs a pipeline that kfp 2.17.0 compiled: Python functions with
// packages of their own, a container component, artifacts that are files and
// folders, numbers that stay floating point, a condition, and the cache.
func TestRealPrograms(t *testing.T) {
	t.Parallel()
	needPython(t)
	b := newBench(t, processRuntime(t))
	ir := readIR(t, "testdata/ir/train_and_tell.yaml")
	job := b.wait(b.submit("real", ir, nil))
	if job.State != pb.PipelineState_PIPELINE_STATE_SUCCEEDED {
		t.Fatalf("%s: %s", job.State, job.Error.GetMessage())
	}
	tasks := b.tasks(job.Name)
	if got := tasks[""].Outputs.Parameters["Output"]; got != "score 5.0" {
		t.Errorf("output of the pipeline = %v", got)
	}
	model := tasks["train"].Outputs.Artifacts["model"][0]
	if model.Metadata["framework"] != "none" || !model.Content || model.Schema.Title != "system.Model" {
		t.Errorf("model = %+v", model)
	}
	weights, err := b.objects.ReadAll(t.Context(), model.URI+"/a.txt", 100)
	if err != nil || string(weights) != "weights a" {
		t.Errorf("weights = %q, %v", weights, err)
	}
	if m := tasks["train"].Outputs.Artifacts["metrics"][0]; m.Metadata["rows"] != 10.0 || m.Content {
		t.Errorf("metrics = %+v", m)
	}
	details, err := pipeline.Details(t.Context(), b.store, job.Name, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range details {
		if d.TaskName == "split" && (d.Execution.GetMetadata().GetFields()["output:share"].GetNumberValue() != 10 || len(d.Outputs["table"].GetArtifacts()) != 1) {
			t.Errorf("split shows as %v", d)
		}
	}
	again := b.wait(b.submit("again", ir, nil))
	for path, task := range b.tasks(again.Name) {
		if (path == "split" || path == "train") && task.State != pipeline.Skipped {
			t.Errorf("the second run of %s is %s, want a cache hit", path, task.State)
		}
	}
	other := b.wait(b.submit("other", ir, map[string]any{"rows": 1}))
	if got := b.tasks(other.Name)[""].Outputs.Parameters["Output"]; got != "score 0.0" {
		t.Errorf("output with one row = %v, %s", got, other.Error.GetMessage())
	}
}

// FuzzParse: no input makes the parser panic, and what it accepts has a name.
func FuzzParse(f *testing.F) {
	f.Add(onePipeline(true, "a", "b"))
	f.Add([]byte(`{"schemaVersion":"2.1.0","pipelineInfo":{"name":"x"},"root":{"dag":{"tasks":{}}}}`))
	f.Add([]byte(`{"schemaVersion":"2.0.0","pipelineInfo":{"name":"x"},"components":{"c":{"dag":{"tasks":{"t":{"componentRef":{"name":"c"}}}}}},"root":{"dag":{"tasks":{"t":{"componentRef":{"name":"c"}}}}}}`))
	f.Add(bytes.ReplaceAll(onePipeline(false, "a"), []byte(`{{$.inputs`), []byte(`{"Concat": ["{{$.inputs`)))
	f.Fuzz(func(t *testing.T, ir []byte) {
		plan, err := pipeline.ParseJSON(ir)
		if err == nil && plan.Name == "" {
			t.Error("a plan without a name")
		}
	})
}
