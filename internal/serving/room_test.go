package serving_test

import (
	"context"
	"strings"
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

// Replicas are online work; a machine type is a hint and an accelerator is not. What
// can never be there together is refused before anything starts.
func TestRoom(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.stop()
	rt := &recorder{}
	var together int
	w.runtime, w.fits = rt, func(all ...runtime.Workload) error {
		if together = len(all); together > 2 {
			return resource.Errorf(codes.FailedPrecondition, "3 GPUs are asked for and this machine has 2")
		}
		return nil
	}
	w.open()
	w.model("echo", &pb.Model{ContainerSpec: &pb.ModelContainerSpec{ImageUri: "echo", HealthRoute: "/health", PredictRoute: "/predict"}})
	deploy := func(id string, replicas int32) string {
		op := w.deploy(id, "echo", func(r *pb.DeployModelRequest) {
			machine := &pb.MachineSpec{MachineType: "n1-standard-1", AcceleratorType: pb.AcceleratorType_NVIDIA_L4, AcceleratorCount: 1}
			r.DeployedModel.PredictionResources = &pb.DeployedModel_DedicatedResources{DedicatedResources: &pb.DedicatedResources{MinReplicaCount: replicas, MachineSpec: machine}}
		})
		if codes.Code(op.GetError().GetCode()) != codes.FailedPrecondition {
			t.Errorf("%v", op.GetError())
		}
		return op.GetError().GetMessage()
	}
	if got := deploy("8", 3); !strings.Contains(got, "3 GPUs are asked for") || together != 3 || len(rt.asked) > 0 {
		t.Errorf("%q, %d together, asked %d", got, together, len(rt.asked))
	}
	if got := deploy("9", 1); !strings.Contains(got, "no room for anything") {
		t.Errorf("%q", got)
	}
	rt.mu.Lock()
	defer rt.mu.Unlock()
	want := runtime.Resources{Cores: 1, GPUs: 1, Hint: true}
	if len(rt.asked) == 0 || rt.asked[0].Priority != runtime.PriorityOnline || rt.asked[0].Resources != want {
		t.Errorf("asked %+v", rt.asked)
	}
}
