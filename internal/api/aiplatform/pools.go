package aiplatform

import (
	"context"
	"slices"
	"strings"

	pb "cloud.google.com/go/aiplatform/apiv1beta1/aiplatformpb"
	"cloud.google.com/go/longrunning/autogen/longrunningpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	"tategu/internal/api"
	"tategu/internal/operation"
	"tategu/internal/resource"
	"tategu/internal/store"
)

const poolService = "DeploymentResourcePoolService"

// Pools serves DeploymentResourcePoolService. What room a pool gives to whom is
// decided in package serving.
type Pools struct{ std *Standard }

// NewPools makes the service.
func NewPools(std *Standard) *Pools { return &Pools{std: std} }

// Methods gives the rows of the dispatch table.
func (s *Pools) Methods() ([]api.Method, error) {
	methods, err := s.std.Methods(poolService, "GetDeploymentResourcePool", "ListDeploymentResourcePools")
	if err != nil {
		return nil, err
	}
	name := func(m string) string { return MethodName(poolService, m) }
	return append(methods,
		api.Unary(name("CreateDeploymentResourcePool"), "aiplatform.deploymentResourcePools.create", s.create),
		api.Unary(name("UpdateDeploymentResourcePool"), "aiplatform.deploymentResourcePools.update", s.update),
		api.Unary(name("DeleteDeploymentResourcePool"), "aiplatform.deploymentResourcePools.delete", s.delete),
		api.Unary(name("QueryDeployedModels"), "aiplatform.deploymentResourcePools.queryDeployedModels", s.query),
	), nil
}

func (s *Pools) create(ctx context.Context, req *pb.CreateDeploymentResourcePoolRequest) (*longrunningpb.Operation, error) {
	if req.GetDeploymentResourcePool() == nil {
		return nil, resource.Invalid("deployment_resource_pool", "deployment_resource_pool is missing")
	}
	p := proto.CloneOf(req.GetDeploymentResourcePool())
	ClearOutputOnly(p)
	if err := checkPool(p); err != nil {
		return nil, err
	}
	if req.GetDeploymentResourcePoolId() == "" {
		return nil, resource.Invalid("deployment_resource_pool_id", "deployment_resource_pool_id is not set: the pool has no name without it")
	}
	var op *longrunningpb.Operation
	err := s.std.store.Update(ctx, func(tx store.Tx) error {
		err := s.std.Insert(ctx, tx, req.GetParent(), req.GetDeploymentResourcePoolId(), p, "")
		if err != nil {
			return err
		}
		op, err = operation.Done(ctx, tx, p.GetName(), s.std.Metadata("CreateDeploymentResourcePoolOperationMetadata"), p)
		return err
	})
	return op, err
}

// checkPool wants resources that several models can share, and refuses by name what
// would not be done.
func checkPool(p *pb.DeploymentResourcePool) error {
	const field = "deployment_resource_pool."
	d := p.GetDedicatedResources()
	switch {
	case d.GetMachineSpec() == nil:
		return resource.Invalid(field+"dedicated_resources.machine_spec", "dedicated_resources has no machine_spec")
	case p.GetEncryptionSpec().GetKmsKeyName() != "":
		return resource.Unimplemented(field + "encryption_spec")
	case p.GetServiceAccount() != "":
		return resource.Unimplemented(field + "service_account").WithHint("name it when a model is deployed: each runs as its own account")
	case p.GetDisableContainerLogging():
		return resource.Unimplemented(field + "disable_container_logging").WithHint("set it on the deployed models")
	case d.GetRequiredReplicaCount() != 0 || d.GetInitialReplicaCount() != 0 || d.GetScaleToZeroSpec() != nil || len(d.GetAutoscalingMetricSpecs()) > 0 || d.GetSpot() || d.GetFlexStart() != nil:
		return resource.Unimplemented(field + "dedicated_resources with more than machine_spec, min_replica_count and max_replica_count").
			WithHint("the replicas of a pool go to the models that have requests")
	}
	return checkReplicas(field+"dedicated_resources", &d.MinReplicaCount, &d.MaxReplicaCount)
}

// update changes how many replicas the pool has; serving sees the row.
func (s *Pools) update(ctx context.Context, req *pb.UpdateDeploymentResourcePoolRequest) (*longrunningpb.Operation, error) {
	given := req.GetDeploymentResourcePool()
	if given == nil {
		return nil, resource.Invalid("deployment_resource_pool", "deployment_resource_pool is missing")
	}
	paths := req.GetUpdateMask().GetPaths()
	if len(paths) == 0 {
		return nil, resource.Invalid("update_mask", "update_mask is missing: name the fields to change")
	}
	mutable := []string{"dedicated_resources.min_replica_count", "dedicated_resources.max_replica_count"}
	for _, path := range paths {
		if !slices.Contains(mutable, path) {
			return nil, resource.Invalid("update_mask", "%q of a pool cannot be changed: only %v can", path, mutable)
		}
	}
	mask, err := resource.ParseMask("update_mask", paths, given.ProtoReflect().Descriptor())
	if err != nil {
		return nil, err
	}
	var op *longrunningpb.Operation
	err = s.std.store.Update(ctx, func(tx store.Tx) error {
		p := &pb.DeploymentResourcePool{}
		if err := s.std.Load(ctx, tx, given.GetName(), p); err != nil {
			return err
		}
		mask.Apply(p.ProtoReflect(), given.ProtoReflect(), nil)
		if err := checkPool(p); err != nil {
			return err
		}
		if err := s.std.Save(ctx, tx, p, ""); err != nil {
			return err
		}
		op, err = operation.Done(ctx, tx, p.GetName(), s.std.Metadata("UpdateDeploymentResourcePoolOperationMetadata"), p)
		return err
	})
	return op, err
}

// delete is refused while models are in the pool, or being deployed to it.
func (s *Pools) delete(ctx context.Context, req *pb.DeleteDeploymentResourcePoolRequest) (*longrunningpb.Operation, error) {
	p := &pb.DeploymentResourcePool{}
	return s.std.Delete(ctx, req, p, func(tx store.Tx) error {
		in, err := inPool(ctx, tx, p.GetName(), resource.StateDeploying, resource.StateDeployed)
		if err != nil || len(in) == 0 {
			return err
		}
		return resource.Errorf(codes.FailedPrecondition, "%s has deployed models, %d in all, such as %s", p.GetName(), len(in), in[0].key).WithResource(p.GetName()).
			WithHint("undeploy them first")
	})
}

// pooled is a deployment that shares a pool.
type pooled struct {
	key      string
	endpoint string
	model    *pb.DeployedModel
}

// inPool lists the deployments of a pool in some states, by their names.
func inPool(ctx context.Context, r store.Reader, pool string, states ...string) ([]pooled, error) {
	rows, err := r.List(ctx, store.Query{Kind: resource.KindDeployments, States: states})
	if err != nil {
		return nil, err
	}
	var in []pooled
	for _, row := range rows {
		d := &pb.DeployModelRequest{}
		if err := store.Unmarshal(row, d); err != nil {
			return nil, err
		}
		if d.GetDeployedModel().GetSharedResources() == pool {
			in = append(in, pooled{row.Key, d.GetEndpoint(), d.GetDeployedModel()})
		}
	}
	slices.SortFunc(in, func(a, b pooled) int { return strings.Compare(a.key, b.key) })
	return in, nil
}

// query names the deployed models of a pool, in pages. The field of whole ones is deprecated.
func (s *Pools) query(ctx context.Context, req *pb.QueryDeployedModelsRequest) (*pb.QueryDeployedModelsResponse, error) {
	p := &pb.DeploymentResourcePool{}
	if err := s.std.Load(ctx, s.std.store, req.GetDeploymentResourcePool(), p); err != nil {
		return nil, err
	}
	size, err := resource.PageSize(int(req.GetPageSize()))
	if err != nil {
		return nil, err
	}
	var page resource.Page
	if token := req.GetPageToken(); token != "" {
		if page, err = resource.ParsePage(token, p.GetName()); err != nil {
			return nil, err
		}
	}
	in, err := inPool(ctx, s.std.store, p.GetName(), resource.StateDeployed)
	if err != nil {
		return nil, err
	}
	resp := &pb.QueryDeployedModelsResponse{TotalDeployedModelCount: int32(min(len(in), 1<<20))}
	endpoints := map[string]bool{}
	for i, d := range in {
		endpoints[d.endpoint] = true
		switch {
		case i < page.Offset:
		case len(resp.DeployedModelRefs) < size:
			resp.DeployedModelRefs = append(resp.DeployedModelRefs, &pb.DeployedModelRef{Endpoint: d.endpoint, DeployedModelId: d.model.GetId()})
		case resp.NextPageToken == "":
			resp.NextPageToken = resource.Page{Offset: i}.Token(p.GetName())
		}
	}
	resp.TotalEndpointCount = int32(min(len(endpoints), 1<<20))
	return resp, nil
}

// checkShared wants the pool of a deployed model to be there, in the endpoint's own location.
func (s *Standard) checkShared(ctx context.Context, tx store.Tx, endpoint string, d *pb.DeployedModel) error {
	name := d.GetSharedResources()
	if name == "" {
		return nil
	}
	location, _, _ := strings.Cut(endpoint, "/endpoints/")
	if !strings.HasPrefix(name, location+"/") {
		return resource.Invalid("deployed_model.shared_resources", "%q is not a pool of %s, where the endpoint is", name, location)
	}
	return s.Load(ctx, tx, name, &pb.DeploymentResourcePool{})
}
