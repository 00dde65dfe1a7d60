package aiplatform

import (
	"context"
	"net"
	"regexp"

	"tategu/internal/api"
	"tategu/internal/operation"
	"tategu/internal/resource"
	"tategu/internal/store"
	"tategu/internal/vector"

	pb "cloud.google.com/go/aiplatform/apiv1beta1/aiplatformpb"
	"cloud.google.com/go/longrunning/autogen/longrunningpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"
)

const indexEndpointService = "IndexEndpointService"

// IndexEndpoints is the IndexEndpointService. A deployed index answers as soon as it
// is in memory, so that operations are done when they are answered.
type IndexEndpoints struct {
	std    *Standard
	engine *vector.Engine
	public func() string
	ids    *regexp.Regexp
}

// NewIndexEndpoints makes the service. public gives the host:port under which clients
// reach this server.
func NewIndexEndpoints(std *Standard, engine *vector.Engine, public func() string) *IndexEndpoints {
	return &IndexEndpoints{std: std, engine: engine, public: public, ids: regexp.MustCompile(`^[a-zA-Z][a-zA-Z0-9_]{0,127}$`)}
}

// Methods gives the rows of the dispatch table.
func (s *IndexEndpoints) Methods() ([]api.Method, error) {
	name := func(m string) string { return MethodName(indexEndpointService, m) }
	return []api.Method{
		api.Unary(name("CreateIndexEndpoint"), "aiplatform.indexEndpoints.create", s.create),
		api.Unary(name("GetIndexEndpoint"), "aiplatform.indexEndpoints.get", s.get),
		api.Unary(name("ListIndexEndpoints"), "aiplatform.indexEndpoints.list", s.list),
		api.Unary(name("UpdateIndexEndpoint"), "aiplatform.indexEndpoints.update", s.update),
		api.Unary(name("DeleteIndexEndpoint"), "aiplatform.indexEndpoints.delete", s.delete),
		api.Unary(name("DeployIndex"), "aiplatform.indexEndpoints.deploy", s.deploy),
		api.Unary(name("UndeployIndex"), "aiplatform.indexEndpoints.undeploy", s.undeploy),
		api.Unary(name("MutateDeployedIndex"), "aiplatform.indexEndpoints.update", s.mutate),
	}, nil
}

func (s *IndexEndpoints) create(ctx context.Context, req *pb.CreateIndexEndpointRequest) (*longrunningpb.Operation, error) {
	if req.GetIndexEndpoint() == nil {
		return nil, resource.Invalid("index_endpoint", "index_endpoint is missing")
	}
	e := proto.CloneOf(req.IndexEndpoint)
	ClearOutputOnly(e)
	switch {
	case e.GetEncryptionSpec().GetKmsKeyName() != "":
		return nil, resource.Unimplemented("index_endpoint.encryption_spec")
	case e.GetPrivateServiceConnectConfig().GetEnablePrivateServiceConnect():
		return nil, resource.Unimplemented("index_endpoint.private_service_connect_config")
	}
	var op *longrunningpb.Operation
	err := s.std.store.Update(ctx, func(tx store.Tx) error {
		if err := s.std.Insert(ctx, tx, req.Parent, "", e, ""); err != nil {
			return err
		}
		shown := proto.CloneOf(e)
		s.dedicate(shown)
		var err error
		op, err = operation.Done(ctx, tx, e.Name, s.std.Metadata("CreateIndexEndpointOperationMetadata"), shown)
		return err
	})
	return op, err
}

// dedicate names this server as the endpoint's own, private ones too: without a
// domain the SDK's find_neighbors falls back to the private API and drops the ids of a
// query (google-cloud-aiplatform 2.7.0, matching_engine_index_endpoint.py).
func (s *IndexEndpoints) dedicate(e *pb.IndexEndpoint) {
	e.PublicEndpointDomainName = s.public()
	host, _, err := net.SplitHostPort(s.public())
	if err != nil {
		host = s.public()
	}
	for _, d := range e.DeployedIndexes {
		d.PrivateEndpoints = &pb.IndexPrivateEndpoints{MatchGrpcAddress: host}
	}
}

// show fills in addresses, and when each deployed index was in step with its index:
// always, as of the index's last update.
func (s *IndexEndpoints) show(ctx context.Context, e *pb.IndexEndpoint) error {
	s.dedicate(e)
	for _, d := range e.DeployedIndexes {
		index := &pb.Index{}
		err := s.std.Load(ctx, s.std.store, d.Index, index)
		if err != nil && !resource.IsNotFound(err) {
			return err
		}
		d.IndexSyncTime = index.GetUpdateTime()
	}
	return nil
}

func (s *IndexEndpoints) get(ctx context.Context, req *pb.GetIndexEndpointRequest) (*pb.IndexEndpoint, error) {
	e := &pb.IndexEndpoint{}
	if err := s.std.Get(ctx, req, e); err != nil {
		return nil, err
	}
	return e, s.show(ctx, e)
}

func (s *IndexEndpoints) list(ctx context.Context, req *pb.ListIndexEndpointsRequest) (*pb.ListIndexEndpointsResponse, error) {
	resp := &pb.ListIndexEndpointsResponse{}
	return resp, s.std.ListWith(ctx, req, resp, ListOptions{Each: func(ctx context.Context, msg proto.Message) error {
		if e, ok := msg.(*pb.IndexEndpoint); ok {
			return s.show(ctx, e)
		}
		return nil
	}})
}

func (s *IndexEndpoints) update(ctx context.Context, req *pb.UpdateIndexEndpointRequest) (*pb.IndexEndpoint, error) {
	if req.GetIndexEndpoint() == nil {
		return nil, resource.Invalid("index_endpoint", "index_endpoint is missing")
	}
	e := &pb.IndexEndpoint{}
	err := s.std.store.Update(ctx, func(tx store.Tx) error {
		if err := s.std.Load(ctx, tx, req.IndexEndpoint.Name, e); err != nil {
			return err
		}
		if err := Merge(req, e, req.IndexEndpoint); err != nil {
			return err
		}
		return s.std.Save(ctx, tx, e, "")
	})
	if err != nil {
		return nil, err
	}
	return e, s.show(ctx, e)
}

// delete is refused while indexes are deployed.
func (s *IndexEndpoints) delete(ctx context.Context, req *pb.DeleteIndexEndpointRequest) (*longrunningpb.Operation, error) {
	e := &pb.IndexEndpoint{}
	op, err := s.std.Delete(ctx, req, e, func(store.Tx) error {
		if len(e.DeployedIndexes) == 0 {
			return nil
		}
		return resource.Errorf(codes.FailedPrecondition, "%s has an index deployed: %s", e.Name, e.DeployedIndexes[0].Id).WithResource(e.Name).
			WithHint("undeploy its indexes first")
	})
	s.engine.Forget()
	return op, err
}

func deployedIndex(e *pb.IndexEndpoint, id string) *pb.DeployedIndex {
	for _, d := range e.DeployedIndexes {
		if d.Id == id {
			return d
		}
	}
	return nil
}

// deploy brings the index into memory before it is part of the endpoint.
func (s *IndexEndpoints) deploy(ctx context.Context, req *pb.DeployIndexRequest) (*longrunningpb.Operation, error) {
	if req.GetDeployedIndex() == nil {
		return nil, resource.Invalid("deployed_index", "deployed_index is missing")
	}
	d := proto.CloneOf(req.DeployedIndex)
	ClearOutputOnly(d)
	if err := s.checkDeployed(d); err != nil {
		return nil, err
	}
	endpoint, err := resource.ParseName(req.IndexEndpoint)
	if err != nil {
		return nil, err
	}
	index, err := resource.ParseName(d.Index)
	if err != nil || index.Collection() != resource.KindIndexes {
		return nil, resource.Invalid("deployed_index.index", "%q is not the name of an index", d.Index)
	}
	if index.Project() != endpoint.Project() {
		return nil, resource.Invalid("deployed_index.index", "%s is in another project than %s", d.Index, req.IndexEndpoint)
	}
	if err := s.engine.Warm(ctx, d.Index); err != nil {
		return nil, err
	}
	d.CreateTime = timestamppb.New(s.std.now())
	var op *longrunningpb.Operation
	err = s.std.store.Update(ctx, func(tx store.Tx) error {
		if err := s.insertDeployed(ctx, tx, req.IndexEndpoint, d); err != nil {
			return err
		}
		meta := s.std.Metadata("DeployIndexOperationMetadata")
		if m, ok := meta.(*pb.DeployIndexOperationMetadata); ok {
			m.DeployedIndexId = d.Id
		}
		op, err = operation.Done(ctx, tx, req.IndexEndpoint, meta, &pb.DeployIndexResponse{DeployedIndex: d})
		return err
	})
	s.engine.Forget()
	return op, err
}

func (s *IndexEndpoints) checkDeployed(d *pb.DeployedIndex) error {
	switch {
	case !s.ids.MatchString(d.Id):
		return resource.Invalid("deployed_index.id", "%q is not an id: it begins with a letter, and has letters, digits and _, 128 at most", d.Id)
	case d.GetDeployedIndexAuthConfig() != nil:
		return resource.Unimplemented("deployed_index.deployed_index_auth_config").WithHint("callers show a token of this server; docs/guide/access.md tells how")
	case len(d.GetPscAutomationConfigs()) > 0:
		return resource.Unimplemented("deployed_index.psc_automation_configs")
	case d.GetEnableAccessLogging():
		return resource.Unimplemented("deployed_index.enable_access_logging").WithHint("the server's own log has every request at logLevel debug")
	}
	return s.checkResources(d)
}

// checkResources fills in what the API documents as defaults. One server answers,
// whatever the number of replicas.
func (s *IndexEndpoints) checkResources(d *pb.DeployedIndex) error {
	if d.DedicatedResources != nil && d.AutomaticResources != nil {
		return resource.Invalid("deployed_index", "both dedicated_resources and automatic_resources are set")
	}
	if d.DedicatedResources != nil {
		return checkReplicas("deployed_index.dedicated_resources", &d.DedicatedResources.MinReplicaCount, &d.DedicatedResources.MaxReplicaCount)
	}
	if d.AutomaticResources == nil {
		d.AutomaticResources = &pb.AutomaticResources{MinReplicaCount: 1, MaxReplicaCount: 1}
	}
	return checkReplicas("deployed_index.automatic_resources", &d.AutomaticResources.MinReplicaCount, &d.AutomaticResources.MaxReplicaCount)
}

// insertDeployed adds to an endpoint. The id is one of its project: the private API
// names nothing else.
func (s *IndexEndpoints) insertDeployed(ctx context.Context, tx store.Tx, endpoint string, d *pb.DeployedIndex) error {
	index := &pb.Index{}
	if err := s.std.Load(ctx, tx, d.Index, index); err != nil {
		return err
	}
	if d.DisplayName == "" {
		d.DisplayName = index.DisplayName
	}
	rows, err := tx.List(ctx, store.Query{Kind: resource.KindIndexEndpoints, Prefix: projectPrefix(endpoint)})
	if err != nil {
		return err
	}
	for _, row := range rows {
		other := &pb.IndexEndpoint{}
		if err := store.Unmarshal(row, other); err != nil {
			return err
		}
		if deployedIndex(other, d.Id) != nil {
			return resource.Errorf(codes.AlreadyExists, "%s has a deployed index %s already", other.Name, d.Id).WithResource(other.Name).
				WithHint("ids of deployed indexes are unique in a project: name another")
		}
	}
	e := &pb.IndexEndpoint{}
	if err := s.std.Load(ctx, tx, endpoint, e); err != nil {
		return err
	}
	e.DeployedIndexes = append(e.DeployedIndexes, d)
	return s.std.Save(ctx, tx, e, "")
}

func (s *IndexEndpoints) undeploy(ctx context.Context, req *pb.UndeployIndexRequest) (*longrunningpb.Operation, error) {
	var op *longrunningpb.Operation
	err := s.std.store.Update(ctx, func(tx store.Tx) error {
		e := &pb.IndexEndpoint{}
		if err := s.std.Load(ctx, tx, req.IndexEndpoint, e); err != nil {
			return err
		}
		if deployedIndex(e, req.DeployedIndexId) == nil {
			return notDeployedHere(e, req.DeployedIndexId)
		}
		var left []*pb.DeployedIndex
		for _, d := range e.DeployedIndexes {
			if d.Id != req.DeployedIndexId {
				left = append(left, d)
			}
		}
		e.DeployedIndexes = left
		if err := s.std.Save(ctx, tx, e, ""); err != nil {
			return err
		}
		var err error
		op, err = operation.Done(ctx, tx, e.Name, s.std.Metadata("UndeployIndexOperationMetadata"), &pb.UndeployIndexResponse{})
		return err
	})
	s.engine.Forget()
	return op, err
}

func notDeployedHere(e *pb.IndexEndpoint, id string) error {
	return resource.Errorf(codes.NotFound, "%s has no deployed index %q", e.Name, id).WithResource(e.Name)
}

// mutate changes the resources of a deployed index, and its description.
func (s *IndexEndpoints) mutate(ctx context.Context, req *pb.MutateDeployedIndexRequest) (*longrunningpb.Operation, error) {
	if req.GetDeployedIndex() == nil {
		return nil, resource.Invalid("deployed_index", "deployed_index is missing")
	}
	given := proto.CloneOf(req.DeployedIndex)
	ClearOutputOnly(given)
	if err := s.checkDeployed(given); err != nil {
		return nil, err
	}
	var op *longrunningpb.Operation
	err := s.std.store.Update(ctx, func(tx store.Tx) error {
		e := &pb.IndexEndpoint{}
		if err := s.std.Load(ctx, tx, req.IndexEndpoint, e); err != nil {
			return err
		}
		d := deployedIndex(e, given.Id)
		if d == nil {
			return notDeployedHere(e, given.Id)
		}
		if given.Index != "" && given.Index != d.Index {
			return resource.Invalid("deployed_index.index", "%s serves %s, which cannot be changed", d.Id, d.Index).
				WithHint("deploy the other index under an id of its own, and undeploy this one")
		}
		d.AutomaticResources, d.DedicatedResources = given.AutomaticResources, given.DedicatedResources
		if given.DisplayName != "" {
			d.DisplayName = given.DisplayName
		}
		if err := s.std.Save(ctx, tx, e, ""); err != nil {
			return err
		}
		var err error
		op, err = operation.Done(ctx, tx, e.Name, s.std.Metadata("MutateDeployedIndexOperationMetadata"), &pb.MutateDeployedIndexResponse{DeployedIndex: d})
		return err
	})
	return op, err
}
