package batch_test

import (
	"context"
	"sync"
	"testing"

	pb "cloud.google.com/go/aiplatform/apiv1beta1/aiplatformpb"
	"google.golang.org/grpc/codes"

	"tategu/internal/resource"
	"tategu/internal/runtime"
)

// recorder is a runtime that takes nothing and remembers what it was asked.
type recorder struct {
	runtime.Runtime

	mu    sync.Mutex
	asked []runtime.Workload
}

func (r *recorder) Start(_ context.Context, w runtime.Workload) (runtime.Instance, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.asked = append(r.asked, w)
	return nil, resource.Errorf(codes.FailedPrecondition, "no room for anything")
}

func (r *recorder) List(context.Context) ([]runtime.Instance, error) { return nil, nil }

// Replicas of batch prediction come after those of endpoints.
func TestPriority(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.stop()
	rt := &recorder{}
	w.runtime = rt
	w.open()
	w.model("echo", &pb.Model{ContainerSpec: &pb.ModelContainerSpec{ImageUri: "echo", HealthRoute: "/health", PredictRoute: "/predict"}})
	w.write("gs://b/in/1.jsonl", "1")
	if job := w.ended(w.submit("echo", "gs://b/in", nil)); job.State != pb.JobState_JOB_STATE_FAILED {
		t.Fatal(job)
	}
	rt.mu.Lock()
	defer rt.mu.Unlock()
	if len(rt.asked) == 0 || rt.asked[0].Priority != runtime.PriorityBatch {
		t.Errorf("asked %+v", rt.asked)
	}
}
