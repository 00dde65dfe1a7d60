package aiplatform

import (
	"context"
	"testing"

	"tategu/internal/operation"
	"tategu/internal/resource"
	"tategu/internal/store"

	pb "cloud.google.com/go/aiplatform/apiv1beta1/aiplatformpb"
	"cloud.google.com/go/longrunning/autogen/longrunningpb"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/fieldmaskpb"
)

func createEndpoint(tb testing.TB, s *server, id string) string {
	tb.Helper()
	return call[*pb.Endpoint](tb, s, "CreateEndpoint",
		&pb.CreateEndpointRequest{Parent: location, EndpointId: id, Endpoint: &pb.Endpoint{DisplayName: id}}).Name
}

func deployRequest(endpoint, model, id string, split map[string]int32) *pb.DeployModelRequest {
	return &pb.DeployModelRequest{Endpoint: endpoint, TrafficSplit: split, DeployedModel: &pb.DeployedModel{
		Id: id, Model: model,
		PredictionResources: &pb.DeployedModel_DedicatedResources{DedicatedResources: &pb.DedicatedResources{
			MachineSpec: &pb.MachineSpec{MachineType: "n1-standard-2"}, MinReplicaCount: 1,
		}},
	}}
}

// serve does what the serving engine does once the replicas of a deployment are ready.
func serve(tb testing.TB, s *server, endpoint, id string) {
	tb.Helper()
	key := resource.DeploymentKey(endpoint, id)
	err := s.store.Update(tb.Context(), func(tx store.Tx) error {
		req, e := &pb.DeployModelRequest{}, &pb.Endpoint{}
		row, err := store.GetMessage(tb.Context(), tx, resource.KindDeployments, key, req)
		if err != nil {
			return err
		}
		if err := s.std.Load(tb.Context(), tx, endpoint, e); err != nil {
			return err
		}
		e.DeployedModels = append(e.DeployedModels, req.DeployedModel)
		if len(req.TrafficSplit) > 0 {
			e.TrafficSplit = req.TrafficSplit
		}
		if err := s.std.Save(tb.Context(), tx, e, ""); err != nil {
			return err
		}
		row.State = resource.StateDeployed
		if err := tx.Put(tb.Context(), row); err != nil {
			return err
		}
		op, err := tx.Get(tb.Context(), resource.KindDeploymentOps, key)
		if err != nil {
			return err
		}
		_, err = operation.Finish(tb.Context(), tx, string(op.Data), &pb.DeployModelResponse{DeployedModel: req.DeployedModel})
		return err
	})
	if err != nil {
		tb.Fatal(err)
	}
}

func deployState(tb testing.TB, s *server, endpoint, id string) string {
	tb.Helper()
	row, err := s.store.Get(tb.Context(), resource.KindDeployments, resource.DeploymentKey(endpoint, id))
	if resource.IsNotFound(err) {
		return ""
	}
	if err != nil {
		tb.Fatal(err)
	}
	return row.State
}

func TestEndpointLife(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	model := upload(t, s, "m", "", &pb.Model{DisplayName: "the model"}).Model
	upload(t, s, "", model, &pb.Model{VersionAliases: []string{"prod"}})
	e := createEndpoint(t, s, "e")
	if got := call[*pb.Endpoint](t, s, "GetEndpoint", &pb.GetEndpointRequest{Name: e}); !got.DedicatedEndpointEnabled ||
		got.DedicatedEndpointDns != ownAddr || got.Etag == "" || got.CreateTime == nil {
		t.Errorf("GetEndpoint = %v", got)
	}

	op := call[*longrunningpb.Operation](t, s, "DeployModel", deployRequest(e, model+"@prod", "d1", map[string]int32{"0": 100}))
	if op.Done {
		t.Fatal("the deploy operation is done before serving acted")
	}
	row := &pb.DeployModelRequest{}
	if _, err := store.GetMessage(t.Context(), s.store, resource.KindDeployments, resource.DeploymentKey(e, "d1"), row); err != nil {
		t.Fatal(err)
	}
	d := row.DeployedModel
	if d.Model != model || d.ModelVersionId != "2" || d.DisplayName != "the model" || !cmp.Equal(row.TrafficSplit, map[string]int32{"d1": 100}) ||
		d.ServiceAccount != "default@p.iam.tategu.internal" || d.GetDedicatedResources().MaxReplicaCount != 1 {
		t.Errorf("deployment row = %v", row)
	}
	refuse(t, s, "DeleteEndpoint", &pb.DeleteEndpointRequest{Name: e}, codes.FailedPrecondition, "being deployed")
	refuse(t, s, "DeleteModel", &pb.DeleteModelRequest{Name: model}, codes.FailedPrecondition, e)
	refuse(t, s, "UndeployModel", &pb.UndeployModelRequest{Endpoint: e, DeployedModelId: "d1"}, codes.FailedPrecondition, "cancel")
	refuse(t, s, "DeployModel", deployRequest(e, model, "d1", nil), codes.AlreadyExists)

	serve(t, s, e, "d1")
	if op, err := operation.Get(t.Context(), s.store, op.Name); err != nil || !op.Done {
		t.Fatalf("operation = %v, %v", op, err)
	}
	refs := getModel(t, s, model+"@2").DeployedModels
	if len(refs) != 1 || refs[0].Endpoint != e || refs[0].DeployedModelId != "d1" || len(getModel(t, s, model).DeployedModels) != 0 {
		t.Errorf("deployed_models = %v", refs)
	}
	refuse(t, s, "DeleteModelVersion", &pb.DeleteModelVersionRequest{Name: model + "@2"}, codes.FailedPrecondition, e)
	refuse(t, s, "DeleteEndpoint", &pb.DeleteEndpointRequest{Name: e}, codes.FailedPrecondition, "d1")

	call[*longrunningpb.Operation](t, s, "DeployModel", deployRequest(e, model, "d2", map[string]int32{"0": 30, "d1": 70}))
	serve(t, s, e, "d2")
	update := &pb.UpdateEndpointRequest{
		Endpoint:   &pb.Endpoint{Name: e, TrafficSplit: map[string]int32{"d1": 50, "d2": 50}},
		UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"trafficSplit"}},
	}
	if got := call[*pb.Endpoint](t, s, "UpdateEndpoint", update); !cmp.Equal(got.TrafficSplit, update.Endpoint.TrafficSplit) || got.DisplayName != "e" {
		t.Errorf("UpdateEndpoint = %v", got)
	}
	update.Endpoint.TrafficSplit = map[string]int32{"d1": 99}
	refuse(t, s, "UpdateEndpoint", update, codes.InvalidArgument, "99")

	refuse(t, s, "UndeployModel", &pb.UndeployModelRequest{Endpoint: e, DeployedModelId: "d1"}, codes.FailedPrecondition, "50 percent")
	refuse(t, s, "UndeployModel", &pb.UndeployModelRequest{Endpoint: e, DeployedModelId: "d1", TrafficSplit: map[string]int32{"d1": 100}}, codes.InvalidArgument)
	call[*pb.UndeployModelResponse](t, s, "UndeployModel",
		&pb.UndeployModelRequest{Endpoint: e, DeployedModelId: "d1", TrafficSplit: map[string]int32{"d2": 100}})
	if st := deployState(t, s, e, "d1"); st != resource.StateUndeploying {
		t.Errorf("deployment is %q", st)
	}
	call[*pb.UndeployModelResponse](t, s, "UndeployModel", &pb.UndeployModelRequest{Endpoint: e, DeployedModelId: "d2"})
	got := call[*pb.Endpoint](t, s, "GetEndpoint", &pb.GetEndpointRequest{Name: e})
	if len(got.DeployedModels) != 0 || len(got.TrafficSplit) != 0 {
		t.Errorf("after undeploying all: %v", got)
	}
	refuse(t, s, "UndeployModel", &pb.UndeployModelRequest{Endpoint: e, DeployedModelId: "d2"}, codes.NotFound)
	call[*emptypb.Empty](t, s, "DeleteModel", &pb.DeleteModelRequest{Name: model})
	call[*emptypb.Empty](t, s, "DeleteEndpoint", &pb.DeleteEndpointRequest{Name: e})
	refuse(t, s, "GetEndpoint", &pb.GetEndpointRequest{Name: e}, codes.NotFound, e)
}

func TestDeployIsChecked(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	model := upload(t, s, "m", "", &pb.Model{}).Model
	secret := upload(t, s, "secret", "", &pb.Model{ContainerSpec: &pb.ModelContainerSpec{ImageUri: "theirs/secret"}}).Model
	taken := upload(t, s, "taken", "", &pb.Model{ArtifactUri: "gs://theirs/m"}).Model
	e := createEndpoint(t, s, "e")
	change := func(f func(*pb.DeployModelRequest)) *pb.DeployModelRequest {
		r := deployRequest(e, model, "", nil)
		f(r)
		return r
	}
	for name, tt := range map[string]struct {
		req  *pb.DeployModelRequest
		code codes.Code
	}{
		"no deployed model": {&pb.DeployModelRequest{Endpoint: e}, codes.InvalidArgument},
		"no such endpoint":  {change(func(r *pb.DeployModelRequest) { r.Endpoint += "x" }), codes.NotFound},
		"no such model":     {change(func(r *pb.DeployModelRequest) { r.DeployedModel.Model += "x" }), codes.NotFound},
		"no such version":   {change(func(r *pb.DeployModelRequest) { r.DeployedModel.Model += "@7" }), codes.NotFound},
		"foreign model": {change(func(r *pb.DeployModelRequest) {
			r.DeployedModel.Model = "projects/q/locations/us-central1/models/m"
		}), codes.InvalidArgument},
		"foreign image": {change(func(r *pb.DeployModelRequest) { r.DeployedModel.Model = secret }), codes.PermissionDenied},
		"foreign files": {change(func(r *pb.DeployModelRequest) { r.DeployedModel.Model = taken }), codes.PermissionDenied},
		"no resources":  {change(func(r *pb.DeployModelRequest) { r.DeployedModel.PredictionResources = nil }), codes.InvalidArgument},
		"shared": {change(func(r *pb.DeployModelRequest) {
			r.DeployedModel.PredictionResources = &pb.DeployedModel_SharedResources{SharedResources: "x"}
		}), codes.InvalidArgument},
		"replica range": {change(func(r *pb.DeployModelRequest) {
			r.DeployedModel.GetDedicatedResources().MinReplicaCount, r.DeployedModel.GetDedicatedResources().MaxReplicaCount = 3, 2
		}), codes.InvalidArgument},
		"split sum":     {change(func(r *pb.DeployModelRequest) { r.TrafficSplit = map[string]int32{"0": 90} }), codes.InvalidArgument},
		"split unknown": {change(func(r *pb.DeployModelRequest) { r.TrafficSplit = map[string]int32{"0": 90, "7": 10} }), codes.InvalidArgument},
		"split sign":    {change(func(r *pb.DeployModelRequest) { r.TrafficSplit = map[string]int32{"0": 101} }), codes.InvalidArgument},
		"id zero":       {change(func(r *pb.DeployModelRequest) { r.DeployedModel.Id = "0" }), codes.InvalidArgument},
		"account":       {change(func(r *pb.DeployModelRequest) { r.DeployedModel.ServiceAccount = "no@x" }), codes.PermissionDenied},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			refuse(t, s, "DeployModel", tt.req, tt.code)
		})
	}
	ctx := context.WithoutCancel(t.Context())
	t.Cleanup(func() {
		for _, kind := range []store.Kind{resource.KindDeployments, resource.KindDeploymentOps} {
			rows, err := s.store.List(ctx, store.Query{Kind: kind})
			if err != nil || len(rows) > 0 {
				t.Errorf("a refused deploy left %s: %v, %v", kind, rows, err)
			}
		}
	})
}

func TestMutateDeployedModel(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	e := createEndpoint(t, s, "e")
	call[*longrunningpb.Operation](t, s, "DeployModel", deployRequest(e, upload(t, s, "m", "", &pb.Model{}).Model, "d", nil))
	serve(t, s, e, "d")
	req := &pb.MutateDeployedModelRequest{
		Endpoint: e, DeployedModel: deployRequest("", "", "d", nil).DeployedModel,
		UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"dedicated_resources.min_replica_count", "dedicated_resources.max_replica_count"}},
	}
	req.DeployedModel.GetDedicatedResources().MinReplicaCount, req.DeployedModel.GetDedicatedResources().MaxReplicaCount = 2, 4
	d := call[*pb.MutateDeployedModelResponse](t, s, "MutateDeployedModel", req).DeployedModel
	row := &pb.DeployModelRequest{}
	if _, err := store.GetMessage(t.Context(), s.store, resource.KindDeployments, resource.DeploymentKey(e, "d"), row); err != nil {
		t.Fatal(err)
	}
	for _, got := range []*pb.DedicatedResources{d.GetDedicatedResources(), row.DeployedModel.GetDedicatedResources()} {
		if got.MinReplicaCount != 2 || got.MaxReplicaCount != 4 || got.MachineSpec.GetMachineType() != "n1-standard-2" {
			t.Errorf("resources = %v", got)
		}
	}
	req.UpdateMask.Paths = []string{"model"}
	refuse(t, s, "MutateDeployedModel", req, codes.InvalidArgument, "model")
}

func TestCancelledDeployIsTakenBack(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	e := createEndpoint(t, s, "e")
	op := call[*longrunningpb.Operation](t, s, "DeployModel", deployRequest(e, upload(t, s, "m", "", &pb.Model{}).Model, "d", nil))
	const service = "google.longrunning.Operations/"
	refuse(t, s, service+"DeleteOperation", &longrunningpb.DeleteOperationRequest{Name: op.Name}, codes.FailedPrecondition)
	call[*emptypb.Empty](t, s, service+"CancelOperation", &longrunningpb.CancelOperationRequest{Name: op.Name})
	got := call[*longrunningpb.Operation](t, s, service+"GetOperation", &longrunningpb.GetOperationRequest{Name: op.Name})
	if !got.Done || codes.Code(got.GetError().GetCode()) != codes.Canceled {
		t.Errorf("operation = %v", got)
	}
	if st := deployState(t, s, e, "d"); st != resource.StateUndeploying {
		t.Errorf("deployment is %q", st)
	}
	call[*emptypb.Empty](t, s, service+"DeleteOperation", &longrunningpb.DeleteOperationRequest{Name: op.Name})
	refuse(t, s, service+"GetOperation", &longrunningpb.GetOperationRequest{Name: op.Name}, codes.NotFound)
}
