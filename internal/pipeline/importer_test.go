package pipeline_test

import (
	"testing"

	pb "cloud.google.com/go/aiplatform/apiv1beta1/aiplatformpb"

	"tategu/internal/pipeline"
	"tategu/internal/resource"
	"tategu/internal/store"
)

const importIR = `{"schemaVersion":"2.1.0","pipelineInfo":{"name":"import"},
	"components":{"comp":{"executorLabel":"exec","outputDefinitions":{"artifacts":{"artifact":{"artifactType":{"schemaTitle":"system.Dataset","schemaVersion":"0.0.1"}}}}}},
	"deploymentSpec":{"executors":{"exec":{"importer":{"artifactUri":{"constant":"gs://bucket/rows"},"typeSchema":{"schemaTitle":"system.Dataset","schemaVersion":"0.0.1"}}}}},
	"root":{"dag":{"tasks":{"load":{"taskInfo":{"name":"load"},"componentRef":{"name":"comp"}}}}}}`

// An imported artifact is in the metadata store with the execution that made it;
// the next run finds it there.
func TestImporterIsRecorded(t *testing.T) {
	t.Parallel()
	makeRuntime, _ := withFake(nil)
	b := newBench(t, makeRuntime)
	var artifact string
	for _, id := range []string{"one", "two"} {
		job := b.wait(b.submit(id, []byte(importIR), nil))
		details, err := pipeline.Details(t.Context(), b.store, job.Name, nil)
		if err != nil {
			t.Fatal(err)
		}
		load := details[len(details)-1]
		if load.TaskName != "load" || load.StartTime == nil || load.Execution.GetSchemaTitle() != "system.ImporterExecution" || load.Execution.State != pb.Execution_COMPLETE {
			t.Fatalf("task %v", load)
		}
		if _, err := store.GetMessage(t.Context(), b.store, resource.KindExecutions, load.Execution.Name, &pb.Execution{}); err != nil {
			t.Error(err)
		}
		name := load.Outputs["artifact"].Artifacts[0].Name
		a := &pb.Artifact{}
		if _, err := store.GetMessage(t.Context(), b.store, resource.KindArtifacts, name, a); err != nil {
			t.Fatal(err)
		}
		if a.Uri != "gs://bucket/rows" || artifact != "" && name != artifact {
			t.Errorf("run %s has artifact %s of %s, want %s", id, name, a.Uri, artifact)
		}
		artifact = name
	}
}
