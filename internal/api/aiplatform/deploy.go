package aiplatform

import (
	"context"
	"slices"
	"strings"

	"tategu/internal/operation"
	"tategu/internal/resource"
	"tategu/internal/serving"
	"tategu/internal/store"

	pb "cloud.google.com/go/aiplatform/apiv1beta1/aiplatformpb"
	"cloud.google.com/go/longrunning/autogen/longrunningpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// newModelKey stands for the model that is being deployed in a traffic split.
const newModelKey = "0"

// deploy writes the row that the serving engine acts on, and an operation that
// it finishes.
func (s *Endpoints) deploy(ctx context.Context, req *pb.DeployModelRequest) (*longrunningpb.Operation, error) {
	if req.GetDeployedModel() == nil {
		return nil, resource.Invalid("deployed_model", "deployed_model is missing")
	}
	want := proto.CloneOf(req)
	d := want.DeployedModel
	if d.RolloutOptions != nil {
		return nil, resource.Unimplemented("deployed_model.rollout_options").
			WithHint("deploy the model with a traffic_split and undeploy the old one: no request fails; docs/guide/serving.md tells of canaries")
	}
	if err := checkResources(d); err != nil {
		return nil, err
	}
	name, err := resource.ParseName(req.Endpoint)
	if err != nil {
		return nil, err
	}
	if d.ServiceAccount, err = RunAs(ctx, s.accounts, name.Project(), d.ServiceAccount); err != nil {
		return nil, err
	}
	checked, err := s.std.mayServe(ctx, s.may, name.Project(), d.Model)
	if err != nil {
		return nil, err
	}
	var op *longrunningpb.Operation
	err = s.std.store.Update(ctx, func(tx store.Tx) error {
		if err := s.prepare(ctx, tx, name.Project(), want, checked); err != nil {
			return err
		}
		if op, err = operation.Start(ctx, tx, want.Endpoint, s.std.Metadata("DeployModelOperationMetadata")); err != nil {
			return err
		}
		key := resource.DeploymentKey(want.Endpoint, d.Id)
		opRow := store.Row{Kind: resource.KindDeploymentOps, Key: key, Parent: want.Endpoint, Data: []byte(op.Name)}
		if err := tx.Put(ctx, opRow); err != nil {
			return err
		}
		row := store.Row{Kind: resource.KindDeployments, Key: key, Parent: want.Endpoint, State: resource.StateDeploying}
		return store.PutMessage(ctx, tx, row, want)
	})
	return op, err
}

// prepare resolves the model and its version, gives the deployed model its id
// and checks the traffic split. checked is what the caller may serve.
func (s *Endpoints) prepare(ctx context.Context, tx store.Tx, project string, want *pb.DeployModelRequest, checked parts) error {
	e, d := &pb.Endpoint{}, want.DeployedModel
	if err := s.std.Load(ctx, tx, want.Endpoint, e); err != nil {
		return err
	}
	modelName, err := resource.ParseName(d.Model)
	if err != nil {
		return resource.Invalid("deployed_model.model", "%q is not the name of a model", d.Model)
	}
	if modelName.Project() != project {
		return resource.Invalid("deployed_model.model", "%s is in another project than %s", d.Model, want.Endpoint)
	}
	model, err := s.std.Model(ctx, tx, d.Model)
	if err != nil {
		return err
	}
	if err := sameServed(model, checked); err != nil {
		return err
	}
	if err := s.std.checkShared(ctx, tx, want.Endpoint, d); err != nil {
		return err
	}
	d.Model, d.ModelVersionId = model.Name, model.VersionId
	if d.DisplayName == "" {
		d.DisplayName = model.DisplayName
	}
	d.CreateTime = timestamppb.New(s.std.now())
	delete(d.SystemLabels, serving.ReplacesLabel) // ours alone
	if d.Id == "" {
		d.Id = resource.NewID()
	} else if !s.std.ids.MatchString(d.Id) || d.Id == newModelKey {
		return resource.Invalid("deployed_model.id", "%q is not an id", d.Id)
	}
	_, err = tx.Get(ctx, resource.KindDeployments, resource.DeploymentKey(e.Name, d.Id))
	if err == nil || deployedModel(e, d.Id) != nil {
		return resource.Errorf(codes.AlreadyExists, "%s has a deployed model %s already", e.Name, d.Id).WithResource(e.Name)
	}
	if !resource.IsNotFound(err) {
		return err
	}
	if share, ok := want.TrafficSplit[newModelKey]; ok {
		delete(want.TrafficSplit, newModelKey)
		want.TrafficSplit[d.Id] = share
	}
	e.DeployedModels = append(e.DeployedModels, d)
	return checkSplit("traffic_split", e, want.TrafficSplit)
}

// checkResources wants one kind of resources with counts that make sense.
func checkResources(d *pb.DeployedModel) error {
	switch r := d.PredictionResources.(type) {
	case *pb.DeployedModel_DedicatedResources:
		if r.DedicatedResources.GetMachineSpec() == nil {
			return resource.Invalid("deployed_model.dedicated_resources.machine_spec", "dedicated_resources has no machine_spec")
		}
		return checkScaling(r.DedicatedResources)
	case *pb.DeployedModel_AutomaticResources:
		return checkReplicas("deployed_model.automatic_resources", &r.AutomaticResources.MinReplicaCount, &r.AutomaticResources.MaxReplicaCount)
	case *pb.DeployedModel_SharedResources:
		return nil // the pool has been checked
	default:
		return resource.Invalid("deployed_model", "deployed_model names no resources: want dedicated_resources, automatic_resources or shared_resources")
	}
}

// checkReplicas fills a missing maximum, as DedicatedResources documents.
func checkReplicas(field string, least, most *int32) error {
	if *least < 0 || *most < 0 || *most > 0 && *most < *least {
		return resource.Invalid(field+".max_replica_count", "%d to %d is not a range of replicas", *least, *most)
	}
	if *most == 0 {
		*most = max(*least, 1)
	}
	return nil
}

// undeploy takes the model off its endpoint at once; the serving engine then
// drains and stops its replicas.
func (s *Endpoints) undeploy(ctx context.Context, req *pb.UndeployModelRequest) (*longrunningpb.Operation, error) {
	var op *longrunningpb.Operation
	err := s.std.store.Update(ctx, func(tx store.Tx) error {
		e := &pb.Endpoint{}
		err := s.std.Load(ctx, tx, req.Endpoint, e)
		if err != nil {
			return err
		}
		if err := s.takeOff(ctx, tx, e, req); err != nil {
			return err
		}
		if err := s.std.Save(ctx, tx, e, ""); err != nil {
			return err
		}
		op, err = operation.Done(ctx, tx, e.Name, s.std.Metadata("UndeployModelOperationMetadata"), &pb.UndeployModelResponse{})
		return err
	})
	return op, err
}

func (s *Endpoints) takeOff(ctx context.Context, tx store.Tx, e *pb.Endpoint, req *pb.UndeployModelRequest) error {
	id, key := req.DeployedModelId, resource.DeploymentKey(e.Name, req.DeployedModelId)
	row, err := tx.Get(ctx, resource.KindDeployments, key)
	if err != nil && !resource.IsNotFound(err) {
		return err
	}
	known := err == nil
	if deployedModel(e, id) == nil {
		if known && row.State == resource.StateDeploying && serving.Replaces(row) {
			row.State = resource.StateUndeploying // no operation waits for it
			return tx.Put(ctx, row)
		}
		if known && row.State == resource.StateDeploying {
			return resource.Errorf(codes.FailedPrecondition, "%s is still being deployed on %s", id, e.Name).WithResource(key).
				WithHint("cancel its deploy operation instead")
		}
		return resource.NotFound(key)
	}
	share := e.TrafficSplit[id]
	e.DeployedModels = slices.DeleteFunc(e.DeployedModels, func(d *pb.DeployedModel) bool { return d.Id == id })
	switch {
	case len(e.DeployedModels) == 0:
		e.TrafficSplit = nil
	case len(req.TrafficSplit) > 0:
		if err := checkSplit("traffic_split", e, req.TrafficSplit); err != nil {
			return err
		}
		e.TrafficSplit = req.TrafficSplit
	case share > 0:
		return resource.Errorf(codes.FailedPrecondition, "%s still takes %d percent of the traffic of %s", id, share, e.Name).
			WithResource(key).WithHint("give a traffic_split without it")
	default:
		delete(e.TrafficSplit, id)
	}
	if err := serving.TakenOff(ctx, tx, e.Name, id); err != nil || !known {
		return err
	}
	row.State = resource.StateUndeploying
	return tx.Put(ctx, row)
}

// mutate changes a deployed model's replica counts and logging; the engine sees
// the changed row.
func (s *Endpoints) mutate(ctx context.Context, req *pb.MutateDeployedModelRequest) (*longrunningpb.Operation, error) {
	if req.GetDeployedModel() == nil {
		return nil, resource.Invalid("deployed_model", "deployed_model is missing")
	}
	mask, err := mutableMask(req)
	if err != nil {
		return nil, err
	}
	var op *longrunningpb.Operation
	err = s.std.store.Update(ctx, func(tx store.Tx) error {
		e := &pb.Endpoint{}
		if err := s.std.Load(ctx, tx, req.Endpoint, e); err != nil {
			return err
		}
		key := resource.DeploymentKey(e.Name, req.DeployedModel.Id)
		d := deployedModel(e, req.DeployedModel.Id)
		if d == nil {
			return resource.NotFound(key)
		}
		if d.GetSharedResources() != "" && strings.Contains(strings.Join(req.GetUpdateMask().GetPaths(), ","), "_resources.") {
			return resource.Errorf(codes.FailedPrecondition, "%s shares the resources of %s: it has no replica counts of its own", key, d.GetSharedResources()).WithResource(key).
				WithHint("update the dedicated_resources of the pool")
		}
		mask.Apply(d.ProtoReflect(), req.DeployedModel.ProtoReflect(), nil)
		if err := checkResources(d); err != nil {
			return err
		}
		if err := mutateRow(ctx, tx, key, d); err != nil {
			return err
		}
		if err := s.std.Save(ctx, tx, e, ""); err != nil {
			return err
		}
		op, err = operation.Done(ctx, tx, e.Name, s.std.Metadata("MutateDeployedModelOperationMetadata"),
			&pb.MutateDeployedModelResponse{DeployedModel: d})
		return err
	})
	return op, err
}

func mutateRow(ctx context.Context, tx store.Tx, key string, d *pb.DeployedModel) error {
	deployment := &pb.DeployModelRequest{}
	row, err := store.GetMessage(ctx, tx, resource.KindDeployments, key, deployment)
	if err != nil {
		return err
	}
	deployment.DeployedModel = d
	return store.PutMessage(ctx, tx, row, deployment)
}

// mutableMask allows what MutateDeployedModelRequest documents.
func mutableMask(req *pb.MutateDeployedModelRequest) (resource.Mask, error) {
	mutable := []string{
		"dedicated_resources.min_replica_count", "dedicated_resources.max_replica_count",
		"dedicated_resources.required_replica_count", "dedicated_resources.autoscaling_metric_specs",
		"automatic_resources.min_replica_count", "automatic_resources.max_replica_count",
		"enable_container_logging", "disable_container_logging",
	}
	paths := req.GetUpdateMask().GetPaths()
	if len(paths) == 0 {
		return resource.Mask{}, resource.Invalid("update_mask", "update_mask is missing: name the fields to change")
	}
	for _, p := range paths {
		if !slices.Contains(mutable, p) {
			return resource.Mask{}, resource.Invalid("update_mask", "%q of a deployed model cannot be changed: only %v can", p, mutable)
		}
	}
	return resource.ParseMask("update_mask", paths, req.DeployedModel.ProtoReflect().Descriptor())
}
