package serving_test

import (
	"strings"
	"testing"

	pb "cloud.google.com/go/aiplatform/apiv1beta1/aiplatformpb"
	"google.golang.org/grpc/codes"

	"tategu/internal/resource"
	"tategu/internal/runtime"
	"tategu/internal/runtime/runtimetest"
)

// Replicas are online work; a machine type is a hint and an accelerator is not. What
// can never be there together is refused before anything starts.
func TestRoom(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.stop()
	rt := &runtimetest.Recorder{}
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
	if got := deploy("8", 3); !strings.Contains(got, "3 GPUs are asked for") || together != 3 || len(rt.Asked()) > 0 {
		t.Errorf("%q, %d together, asked %d", got, together, len(rt.Asked()))
	}
	if got := deploy("9", 1); !strings.Contains(got, "no room for anything") {
		t.Errorf("%q", got)
	}
	asked := rt.Asked()
	want := runtime.Resources{Cores: 1, GPUs: 1, Hint: true}
	if len(asked) == 0 || asked[0].Priority != runtime.PriorityOnline || asked[0].Resources != want {
		t.Errorf("asked %+v", asked)
	}
}

// TestUnlogged: the output of replicas is kept or not as the deployed model says.
func TestUnlogged(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.stop()
	rt := &runtimetest.Recorder{}
	w.runtime = rt
	w.open()
	w.model("echo", &pb.Model{ContainerSpec: &pb.ModelContainerSpec{ImageUri: "echo", HealthRoute: "/health", PredictRoute: "/predict"}})
	for i, want := range []bool{true, false} {
		before := len(rt.Asked())
		w.deploy(string(rune('1'+i)), "echo", func(r *pb.DeployModelRequest) { r.DeployedModel.DisableContainerLogging = want })
		if asked := rt.Asked()[before:]; len(asked) == 0 || asked[0].Unlogged != want {
			t.Errorf("asked %+v", asked)
		}
	}
}
