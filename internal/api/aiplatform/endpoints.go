package aiplatform

import (
	"cmp"
	"context"
	"maps"

	"tategu/internal/api"
	"tategu/internal/identity"
	"tategu/internal/operation"
	"tategu/internal/resource"
	"tategu/internal/serving"
	"tategu/internal/store"

	pb "cloud.google.com/go/aiplatform/apiv1beta1/aiplatformpb"
	"cloud.google.com/go/longrunning/autogen/longrunningpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
)

const endpointService = "EndpointService"

// Endpoints is the EndpointService. It records what is wanted; the serving
// engine watches the rows of kind deployments, starts the replicas, makes the
// deployed model part of its endpoint and finishes the operation, or removes
// every trace of a deployment that failed.
type Endpoints struct {
	std      *Standard
	accounts Accounts
	may      ModelChecker
	replicas Replicas
	public   func() string
}

// NewEndpoints makes the service. replicas may be nil: then nothing is known of
// them. public gives the host:port under which clients reach this server.
func NewEndpoints(std *Standard, accounts Accounts, may ModelChecker, replicas Replicas, public func() string) *Endpoints {
	return &Endpoints{std: std, accounts: accounts, may: may, replicas: replicas, public: public}
}

// Methods gives the rows of the dispatch table.
func (s *Endpoints) Methods() ([]api.Method, error) {
	name := func(m string) string { return MethodName(endpointService, m) }
	return []api.Method{
		api.Unary(name("CreateEndpoint"), "aiplatform.endpoints.create", s.create),
		api.Unary(name("GetEndpoint"), "aiplatform.endpoints.get", s.get),
		api.Unary(name("ListEndpoints"), "aiplatform.endpoints.list", s.list),
		api.Unary(name("UpdateEndpoint"), "aiplatform.endpoints.update", s.update),
		api.Unary(name("DeleteEndpoint"), "aiplatform.endpoints.delete", s.delete),
		api.Unary(name("DeployModel"), "aiplatform.endpoints.deploy", s.deploy),
		api.Unary(name("UndeployModel"), "aiplatform.endpoints.undeploy", s.undeploy),
		api.Unary(name("MutateDeployedModel"), "aiplatform.endpoints.mutateDeployedModel", s.mutate),
	}, nil
}

// dedicate names this server as the endpoint's own. The SDK's raw_predict
// ignores api_endpoint and would send data and token to the cloud otherwise
// (google-cloud-aiplatform 2.7.0, models.py, Endpoint.raw_predict).
func (s *Endpoints) dedicate(e *pb.Endpoint) {
	e.DedicatedEndpointEnabled, e.DedicatedEndpointDns = true, s.public()
}

func (s *Endpoints) create(ctx context.Context, req *pb.CreateEndpointRequest) (*longrunningpb.Operation, error) {
	if req.GetEndpoint() == nil {
		return nil, resource.Invalid("endpoint", "endpoint is missing")
	}
	e := proto.CloneOf(req.Endpoint)
	ClearOutputOnly(e)
	if len(e.TrafficSplit) > 0 {
		return nil, resource.Invalid("endpoint.traffic_split", "a new endpoint has no deployed models, so it takes no traffic split")
	}
	if err := serving.CheckLabels(e.Labels); err != nil {
		return nil, err
	}
	if err := s.mayFollow(ctx, req.Parent, e.Labels); err != nil {
		return nil, err
	}
	var op *longrunningpb.Operation
	err := s.std.store.Update(ctx, func(tx store.Tx) error {
		if err := s.insert(ctx, tx, req, e); err != nil {
			return err
		}
		s.dedicate(e)
		var err error
		op, err = operation.Done(ctx, tx, e.Name, s.std.Metadata("CreateEndpointOperationMetadata"), e)
		return err
	})
	return op, err
}

// insert writes the row. The table of logged requests is named after the endpoint's id.
func (s *Endpoints) insert(ctx context.Context, tx store.Tx, req *pb.CreateEndpointRequest, e *pb.Endpoint) error {
	if err := s.std.Insert(ctx, tx, req.Parent, req.EndpointId, e, ""); err != nil {
		return err
	}
	if err := serving.AskFollow(ctx, tx, e, nil, s.std.now()); err != nil {
		return err
	}
	if !e.GetPredictRequestResponseLoggingConfig().GetEnabled() {
		return nil
	}
	if err := serving.CheckLogging(e); err != nil {
		return err
	}
	return s.std.Save(ctx, tx, e, "")
}

func (s *Endpoints) get(ctx context.Context, req *pb.GetEndpointRequest) (*pb.Endpoint, error) {
	e := &pb.Endpoint{}
	if err := s.std.Get(ctx, req, e); err != nil {
		return nil, err
	}
	s.show(e)
	return e, nil
}

func (s *Endpoints) list(ctx context.Context, req *pb.ListEndpointsRequest) (*pb.ListEndpointsResponse, error) {
	resp := &pb.ListEndpointsResponse{}
	return resp, s.std.ListWith(ctx, req, resp, ListOptions{Each: func(_ context.Context, msg proto.Message) error {
		if e, ok := msg.(*pb.Endpoint); ok {
			s.show(e)
		}
		return nil
	}})
}

func (s *Endpoints) update(ctx context.Context, req *pb.UpdateEndpointRequest) (*pb.Endpoint, error) {
	if req.GetEndpoint() == nil {
		return nil, resource.Invalid("endpoint", "endpoint is missing")
	}
	if err := s.mayFollow(ctx, req.Endpoint.Name, req.Endpoint.Labels); err != nil {
		return nil, err
	}
	e := &pb.Endpoint{}
	err := s.std.store.Update(ctx, func(tx store.Tx) error {
		if err := s.std.Load(ctx, tx, req.Endpoint.Name, e); err != nil {
			return err
		}
		before := maps.Clone(e.Labels)
		if err := Merge(req, e, req.Endpoint); err != nil {
			return err
		}
		if err := checkSplit("endpoint.traffic_split", e, e.TrafficSplit); err != nil {
			return err
		}
		if err := cmp.Or(serving.CheckLabels(e.Labels), serving.CheckLogging(e)); err != nil {
			return err
		}
		if err := serving.AskFollow(ctx, tx, e, before, s.std.now()); err != nil {
			return err
		}
		return s.std.Save(ctx, tx, e, "")
	})
	if err != nil {
		return nil, err
	}
	s.show(e)
	return e, nil
}

// mayFollow refuses labels that have versions of a model deployed, from whoever could not
// deploy them. name is below the project.
func (s *Endpoints) mayFollow(ctx context.Context, name string, labels map[string]string) error {
	if labels[serving.FollowLabel] == "" {
		return nil
	}
	n, err := resource.ParseName(name)
	if err != nil {
		return err
	}
	for _, permission := range []string{"aiplatform.endpoints.deploy", "aiplatform.models.get"} {
		if err := s.accounts.Authorize(ctx, identity.FromContext(ctx), n.Project(), permission); err != nil {
			return err
		}
	}
	return nil
}

// checkSplit wants shares of deployed models that add up to 100; empty is fine.
func checkSplit(field string, e *pb.Endpoint, split map[string]int32) error {
	if len(split) == 0 {
		return nil
	}
	sum := int64(0)
	for id, share := range split {
		if deployedModel(e, id) == nil {
			return resource.Invalid(field, "the traffic split names %q, which is not deployed on %s", id, e.Name)
		}
		if share < 0 || share > 100 {
			return resource.Invalid(field, "the traffic split gives %q %d percent", id, share)
		}
		sum += int64(share)
	}
	if sum != 100 {
		return resource.Invalid(field, "the traffic split adds up to %d, not to 100", sum)
	}
	return nil
}

func deployedModel(e *pb.Endpoint, id string) *pb.DeployedModel {
	for _, d := range e.DeployedModels {
		if d.Id == id {
			return d
		}
	}
	return nil
}

// delete is refused while models are deployed or being deployed.
func (s *Endpoints) delete(ctx context.Context, req *pb.DeleteEndpointRequest) (*longrunningpb.Operation, error) {
	e := &pb.Endpoint{}
	return s.std.Delete(ctx, req, e, func(tx store.Tx) error {
		busy := func(id, what string) error {
			return resource.Errorf(codes.FailedPrecondition, "%s has a model %s: %s", e.Name, what, id).WithResource(e.Name).
				WithHint("undeploy its models first")
		}
		if len(e.DeployedModels) > 0 {
			return busy(e.DeployedModels[0].Id, "deployed")
		}
		rows, err := tx.List(ctx, store.Query{
			Kind: resource.KindDeployments, Parent: e.Name, States: []string{resource.StateDeploying}, Limit: 1,
		})
		if err != nil {
			return err
		}
		if len(rows) > 0 {
			return busy(rows[0].Key, "being deployed")
		}
		if err := tx.Delete(ctx, resource.KindFollows, e.Name); err != nil {
			return err
		}
		return tx.Delete(ctx, resource.KindShadowReports, e.Name)
	})
}
