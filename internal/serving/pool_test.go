package serving_test

import (
	"fmt"
	"strings"
	"testing"

	pb "cloud.google.com/go/aiplatform/apiv1beta1/aiplatformpb"

	"tategu/internal/resource"
	"tategu/internal/serving"
)

// TestSharedResources: two real programs take turns in a pool of one, before and after
// a restart of the server.
func TestSharedResources(t *testing.T) {
	t.Parallel()
	const pool = project + "/deploymentResourcePools/x"
	w := newWorld(t)
	w.withProcesses()
	echoModel(t, w)
	limits := func(n int32) {
		w.put(resource.KindDeploymentResourcePools, pool, &pb.DeploymentResourcePool{Name: pool, DedicatedResources: &pb.DedicatedResources{MinReplicaCount: 1, MaxReplicaCount: n}})
	}
	limits(1)
	for _, id := range []string{"8", "9"} {
		op := w.deploy(id, "echo", func(r *pb.DeployModelRequest) {
			r.DeployedModel.PredictionResources = &pb.DeployedModel_SharedResources{SharedResources: pool}
		})
		if op.GetError() != nil {
			t.Fatal(op.GetError())
		}
	}
	ask := func(id string) {
		t.Helper()
		resp, err := w.engine.Predict(t.Context(), endpoint, serving.Request{DeployedModel: id, Body: fmt.Appendf(nil, `{"instances": [%s]}`, id)})
		if err != nil {
			t.Fatal(err)
		}
		if err := resp.Body.Close(); err != nil || resp.DeployedModel != id {
			t.Errorf("%s answered for %s, %v", resp.DeployedModel, id, err)
		}
	}
	only := func(id string) {
		t.Helper()
		if ids := programsBecome(t, w, 1); !strings.HasPrefix(ids[0], "replica-"+id+"-") {
			t.Errorf("%v run, want one of %s", ids, id)
		}
	}
	only("9") // the first made room for it
	for _, id := range []string{"8", "9", "8"} {
		ask(id)
		only(id)
	}
	if st := w.engine.Replicas(resource.DeploymentKey(endpoint, "9")); !strings.Contains(st.GetMessage(), "it made room in the pool for the echo (8)") || !strings.Contains(st.GetMessage(), "Pool x: 1 of 1 replicas in use (the echo (8) has 1)") {
		t.Errorf("status %v", st)
	}
	w.stop()
	w.open()
	only("8")
	ask("9")
	only("9")
	limits(2)
	ask("8")
	programsBecome(t, w, 2)
	w.undeploy("9")
	only("8")
}
