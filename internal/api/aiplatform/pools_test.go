package aiplatform

import (
	"testing"

	pb "cloud.google.com/go/aiplatform/apiv1beta1/aiplatformpb"
	"cloud.google.com/go/longrunning/autogen/longrunningpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	"tategu/internal/resource"
)

func newPool(change func(*pb.DeploymentResourcePool)) *pb.CreateDeploymentResourcePoolRequest {
	p := &pb.DeploymentResourcePool{DedicatedResources: &pb.DedicatedResources{MachineSpec: &pb.MachineSpec{MachineType: "n1-standard-2"}, MinReplicaCount: 1, MaxReplicaCount: 2}}
	if change != nil {
		change(p)
	}
	return &pb.CreateDeploymentResourcePoolRequest{Parent: location, DeploymentResourcePoolId: "pool", DeploymentResourcePool: p}
}

func shareRequest(endpoint, model, id, pool string) *pb.DeployModelRequest {
	r := deployRequest(endpoint, model, id, nil)
	r.DeployedModel.PredictionResources = &pb.DeployedModel_SharedResources{SharedResources: pool}
	return r
}

// TestPools: a pool is made, changed, deployed to, looked into, and deleted once nobody
// is in it.
func TestPools(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	pool := call[*pb.DeploymentResourcePool](t, s, "CreateDeploymentResourcePool", newPool(nil))
	if pool.GetName() != location+"/deploymentResourcePools/pool" || pool.GetCreateTime() == nil {
		t.Errorf("pool %v", pool)
	}
	refuse(t, s, "CreateDeploymentResourcePool", newPool(nil), codes.AlreadyExists, pool.GetName())
	model := upload(t, s, "m", "", &pb.Model{}).Model
	e, other := createEndpoint(t, s, "e"), createEndpoint(t, s, "other")
	refuse(t, s, "DeployModel", shareRequest(e, model, "d", pool.GetName()+"-no"), codes.NotFound, pool.GetName()+"-no")
	refuse(t, s, "DeployModel", shareRequest(e, model, "d", "projects/q/locations/us-central1/deploymentResourcePools/pool"), codes.InvalidArgument, "is not a pool of")
	call[*longrunningpb.Operation](t, s, "DeployModel", shareRequest(e, model, "d", pool.GetName()))
	deletion := &pb.DeleteDeploymentResourcePoolRequest{Name: pool.GetName()}
	refuse(t, s, "DeleteDeploymentResourcePool", deletion, codes.FailedPrecondition, e, "undeploy")
	serve(t, s, e, "d")
	for _, id := range []string{"x", "y"} {
		call[*longrunningpb.Operation](t, s, "DeployModel", shareRequest(other, model, id, pool.GetName()))
		serve(t, s, other, id)
	}
	query := &pb.QueryDeployedModelsRequest{DeploymentResourcePool: pool.GetName(), PageSize: 2}
	page := call[*pb.QueryDeployedModelsResponse](t, s, "QueryDeployedModels", query)
	if len(page.GetDeployedModelRefs()) != 2 || page.GetTotalDeployedModelCount() != 3 || page.GetTotalEndpointCount() != 2 || page.GetNextPageToken() == "" ||
		page.GetDeployedModelRefs()[0].GetEndpoint() != e || page.GetDeployedModelRefs()[0].GetDeployedModelId() != "d" {
		t.Errorf("page %v", page)
	}
	query.PageToken = page.GetNextPageToken()
	if page = call[*pb.QueryDeployedModelsResponse](t, s, "QueryDeployedModels", query); len(page.GetDeployedModelRefs()) != 1 || page.GetDeployedModelRefs()[0].GetDeployedModelId() != "y" || page.GetNextPageToken() != "" {
		t.Errorf("page %v", page)
	}
	refuse(t, s, "MutateDeployedModel", &pb.MutateDeployedModelRequest{
		Endpoint: e, DeployedModel: deployRequest("", "", "d", nil).DeployedModel, UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"dedicated_resources.max_replica_count"}},
	}, codes.FailedPrecondition, pool.GetName())
	update := &pb.UpdateDeploymentResourcePoolRequest{
		DeploymentResourcePool: &pb.DeploymentResourcePool{Name: pool.GetName(), DedicatedResources: &pb.DedicatedResources{MaxReplicaCount: 5}},
		UpdateMask:             &fieldmaskpb.FieldMask{Paths: []string{"dedicated_resources.max_replica_count"}},
	}
	if now := call[*pb.DeploymentResourcePool](t, s, "UpdateDeploymentResourcePool", update).GetDedicatedResources(); now.GetMaxReplicaCount() != 5 || now.GetMinReplicaCount() != 1 {
		t.Errorf("resources %v", now)
	}
	update.UpdateMask.Paths = []string{"dedicated_resources.machine_spec"}
	refuse(t, s, "UpdateDeploymentResourcePool", update, codes.InvalidArgument, "machine_spec")
	for endpoint, ids := range map[string][]string{e: {"d"}, other: {"y", "x"}} {
		for i, id := range ids {
			undeploy := &pb.UndeployModelRequest{Endpoint: endpoint, DeployedModelId: id}
			if len(ids) > 1 && i == 0 {
				undeploy.TrafficSplit = map[string]int32{"x": 100}
			}
			call[*pb.UndeployModelResponse](t, s, "UndeployModel", undeploy)
		}
	}
	call[*emptypb.Empty](t, s, "DeleteDeploymentResourcePool", deletion)
	refuse(t, s, "GetDeploymentResourcePool", &pb.GetDeploymentResourcePoolRequest{Name: pool.GetName()}, codes.NotFound, pool.GetName())
}

func TestPoolsRefuseWhatTheyWouldNotDo(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	for part, change := range map[string]func(*pb.DeploymentResourcePool){
		"machine_spec":              func(p *pb.DeploymentResourcePool) { p.DedicatedResources.MachineSpec = nil },
		"is not a range":            func(p *pb.DeploymentResourcePool) { p.DedicatedResources.MinReplicaCount = 3 },
		"encryption_spec":           func(p *pb.DeploymentResourcePool) { p.EncryptionSpec = &pb.EncryptionSpec{KmsKeyName: "k"} },
		"service_account":           func(p *pb.DeploymentResourcePool) { p.ServiceAccount = "ok@p" },
		"disable_container_logging": func(p *pb.DeploymentResourcePool) { p.DisableContainerLogging = true },
		"more than machine_spec":    func(p *pb.DeploymentResourcePool) { p.DedicatedResources.Spot = true },
	} {
		code := codes.Unimplemented
		if part == "machine_spec" || part == "is not a range" {
			code = codes.InvalidArgument
		}
		refuse(t, s, "CreateDeploymentResourcePool", newPool(change), code, part)
	}
	unnamed := newPool(nil)
	unnamed.DeploymentResourcePoolId = ""
	refuse(t, s, "CreateDeploymentResourcePool", unnamed, codes.InvalidArgument, "deployment_resource_pool_id")
	if rows := call[*pb.ListDeploymentResourcePoolsResponse](t, s, "ListDeploymentResourcePools", &pb.ListDeploymentResourcePoolsRequest{Parent: location}); len(rows.GetDeploymentResourcePools()) > 0 {
		t.Errorf("%s: %v", resource.KindDeploymentResourcePools, rows)
	}
}
