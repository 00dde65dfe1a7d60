package batch_test

import (
	"testing"

	pb "cloud.google.com/go/aiplatform/apiv1beta1/aiplatformpb"

	"tategu/internal/runtime"
	"tategu/internal/runtime/runtimetest"
)

// Replicas of batch prediction come after those of endpoints.
func TestPriority(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.stop()
	rt := &runtimetest.Recorder{}
	w.runtime = rt
	w.open()
	w.model("echo", &pb.Model{ContainerSpec: &pb.ModelContainerSpec{ImageUri: "echo", HealthRoute: "/health", PredictRoute: "/predict"}})
	w.write("gs://b/in/1.jsonl", "1")
	if job := w.ended(w.submit("echo", "gs://b/in", nil)); job.State != pb.JobState_JOB_STATE_FAILED {
		t.Fatal(job)
	}
	asked := rt.Asked()
	if len(asked) == 0 || asked[0].Priority != runtime.PriorityBatch {
		t.Errorf("asked %+v", asked)
	}
}
