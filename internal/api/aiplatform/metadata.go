package aiplatform

import (
	"context"
	"strings"

	"tategu/internal/api"
	"tategu/internal/lineage"
	"tategu/internal/resource"
	"tategu/internal/store"

	pb "cloud.google.com/go/aiplatform/apiv1beta1/aiplatformpb"
	"cloud.google.com/go/longrunning/autogen/longrunningpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
)

const metadataService = "MetadataService"

// Metadata is the MetadataService: stores with contexts, executions, artifacts
// and schemas by the standard methods, and the lineage between them.
type Metadata struct{ std *Standard }

// NewMetadata makes the service.
func NewMetadata(std *Standard) *Metadata { return &Metadata{std: std} }

// Methods gives the rows of the dispatch table.
func (s *Metadata) Methods() ([]api.Method, error) {
	standard, err := s.std.Methods(
		metadataService,
		"CreateMetadataStore", "GetMetadataStore", "ListMetadataStores",
		"GetMetadataSchema", "ListMetadataSchemas",
		"GetContext", "UpdateContext", "GetExecution", "UpdateExecution", "GetArtifact", "UpdateArtifact",
	)
	if err != nil {
		return nil, err
	}
	creates, err := s.std.Methods(metadataService, "CreateContext", "CreateExecution", "CreateArtifact", "CreateMetadataSchema")
	if err != nil {
		return nil, err
	}
	for i := range creates {
		creates[i].Unary = s.inStore(creates[i].Unary)
	}
	name := func(m string) string { return MethodName(metadataService, m) }
	return append(append(append(standard, creates...), s.purges()...),
		api.Unary(name("DeleteMetadataStore"), "aiplatform.metadataStores.delete", s.deleteStore),
		api.Unary(name("ListContexts"), "aiplatform.contexts.list", s.listContexts),
		api.Unary(name("ListExecutions"), "aiplatform.executions.list", s.listExecutions),
		api.Unary(name("ListArtifacts"), "aiplatform.artifacts.list", s.listArtifacts),
		api.Unary(name("DeleteContext"), "aiplatform.contexts.delete", s.deleteContext),
		api.Unary(name("DeleteExecution"), "aiplatform.executions.delete", s.deleteExecution),
		api.Unary(name("DeleteArtifact"), "aiplatform.artifacts.delete", s.deleteArtifact),
		api.Unary(name("AddContextArtifactsAndExecutions"), "aiplatform.contexts.addContextArtifactsAndExecutions", s.addMembers),
		api.Unary(name("AddContextChildren"), "aiplatform.contexts.addContextChildren", s.addChildren),
		api.Unary(name("RemoveContextChildren"), "aiplatform.contexts.removeContextChildren", s.removeChildren),
		api.Unary(name("AddExecutionEvents"), "aiplatform.executions.addExecutionEvents", s.addEvents),
		api.Unary(name("QueryContextLineageSubgraph"), "aiplatform.contexts.queryContextLineageSubgraph", s.queryContext),
		api.Unary(name("QueryExecutionInputsAndOutputs"), "aiplatform.executions.queryExecutionInputsAndOutputs", s.queryExecution),
		api.Unary(name("QueryArtifactLineageSubgraph"), "aiplatform.artifacts.queryArtifactLineageSubgraph", s.queryArtifact),
	), nil
}

// inStore creates something in a metadata store, which must exist; the one
// called default is made on demand, as the cloud's is.
func (s *Metadata) inStore(create func(context.Context, proto.Message) (proto.Message, error)) func(context.Context, proto.Message) (proto.Message, error) {
	return func(ctx context.Context, req proto.Message) (proto.Message, error) {
		if err := s.ensureStore(ctx, getString(req.ProtoReflect(), "parent")); err != nil {
			return nil, err
		}
		return create(ctx, req)
	}
}

func (s *Metadata) ensureStore(ctx context.Context, name string) error {
	err := s.std.Load(ctx, s.std.store, name, &pb.MetadataStore{})
	location, isDefault := strings.CutSuffix(name, "/metadataStores/default")
	if !resource.IsNotFound(err) || !isDefault {
		return err
	}
	err = s.std.store.Update(ctx, func(tx store.Tx) error {
		return s.std.Insert(ctx, tx, location, "default", &pb.MetadataStore{}, "")
	})
	if resource.CodeOf(err) == codes.AlreadyExists {
		return nil
	}
	return err
}

// deleteStore is refused while something is in the store.
func (s *Metadata) deleteStore(ctx context.Context, req *pb.DeleteMetadataStoreRequest) (*longrunningpb.Operation, error) {
	return s.std.Delete(ctx, req, &pb.MetadataStore{}, func(tx store.Tx) error {
		for _, kind := range []store.Kind{resource.KindContexts, resource.KindExecutions, resource.KindArtifacts} {
			rows, err := tx.List(ctx, store.Query{Kind: kind, Parent: req.Name, Limit: 1})
			if err != nil {
				return err
			}
			if len(rows) > 0 {
				return resource.Errorf(codes.FailedPrecondition, "%s is not empty: it has %s", req.Name, kind).WithResource(req.Name).
					WithHint("delete its contexts, executions and artifacts first")
			}
		}
		return nil
	})
}

func (s *Metadata) listContexts(ctx context.Context, req *pb.ListContextsRequest) (*pb.ListContextsResponse, error) {
	resp := &pb.ListContextsResponse{}
	return resp, s.std.ListWith(ctx, req, resp, ListOptions{
		Calls: []string{"parent_contexts", "child_contexts"},
		Call:  contextCalls(s.std.store),
	})
}

func (s *Metadata) listExecutions(ctx context.Context, req *pb.ListExecutionsRequest) (*pb.ListExecutionsResponse, error) {
	resp := &pb.ListExecutionsResponse{}
	return resp, s.std.ListWith(ctx, req, resp, ListOptions{Calls: []string{"in_context"}, Call: inContext(s.std.store)})
}

func (s *Metadata) listArtifacts(ctx context.Context, req *pb.ListArtifactsRequest) (*pb.ListArtifactsResponse, error) {
	resp := &pb.ListArtifactsResponse{}
	return resp, s.std.ListWith(ctx, req, resp, ListOptions{Calls: []string{"in_context"}, Call: inContext(s.std.store)})
}

func (s *Metadata) deleteContext(ctx context.Context, req *pb.DeleteContextRequest) (*longrunningpb.Operation, error) {
	return s.deleteNode(ctx, req, &pb.Context{}, req.Name)
}

func (s *Metadata) deleteExecution(ctx context.Context, req *pb.DeleteExecutionRequest) (*longrunningpb.Operation, error) {
	return s.deleteNode(ctx, req, &pb.Execution{}, req.Name)
}

func (s *Metadata) deleteArtifact(ctx context.Context, req *pb.DeleteArtifactRequest) (*longrunningpb.Operation, error) {
	return s.deleteNode(ctx, req, &pb.Artifact{}, req.Name)
}

func (s *Metadata) deleteNode(ctx context.Context, req, msg proto.Message, name string) (*longrunningpb.Operation, error) {
	return s.std.Delete(ctx, req, msg, func(tx store.Tx) error { return lineage.Forget(ctx, tx, name) })
}

func (s *Metadata) addMembers(ctx context.Context, req *pb.AddContextArtifactsAndExecutionsRequest) (*pb.AddContextArtifactsAndExecutionsResponse, error) {
	members := append(append([]string{}, req.Artifacts...), req.Executions...)
	err := sameStore("context", req.Context, members...)
	if err != nil {
		return nil, err
	}
	return &pb.AddContextArtifactsAndExecutionsResponse{}, s.std.store.Update(ctx, func(tx store.Tx) error {
		return lineage.AddToContext(ctx, tx, req.Context, members...)
	})
}

func (s *Metadata) addChildren(ctx context.Context, req *pb.AddContextChildrenRequest) (*pb.AddContextChildrenResponse, error) {
	if err := sameStore("context", req.Context, req.ChildContexts...); err != nil {
		return nil, err
	}
	return &pb.AddContextChildrenResponse{}, s.std.store.Update(ctx, func(tx store.Tx) error {
		return lineage.AddChildren(ctx, tx, req.Context, req.ChildContexts...)
	})
}

func (s *Metadata) removeChildren(ctx context.Context, req *pb.RemoveContextChildrenRequest) (*pb.RemoveContextChildrenResponse, error) {
	if err := sameStore("context", req.Context, req.ChildContexts...); err != nil {
		return nil, err
	}
	return &pb.RemoveContextChildrenResponse{}, s.std.store.Update(ctx, func(tx store.Tx) error {
		return lineage.RemoveChildren(ctx, tx, req.Context, req.ChildContexts...)
	})
}

func (s *Metadata) addEvents(ctx context.Context, req *pb.AddExecutionEventsRequest) (*pb.AddExecutionEventsResponse, error) {
	artifacts := make([]string, len(req.Events))
	for i, e := range req.Events {
		artifacts[i] = e.GetArtifact()
	}
	if err := sameStore("execution", req.Execution, artifacts...); err != nil {
		return nil, err
	}
	return &pb.AddExecutionEventsResponse{}, s.std.store.Update(ctx, func(tx store.Tx) error {
		return lineage.AddEvents(ctx, tx, req.Execution, s.std.now(), req.Events...)
	})
}

// sameStore keeps edges within one metadata store: the caller's permission was
// checked for the project of the first name only.
func sameStore(field, name string, others ...string) error {
	n, err := resource.ParseName(name)
	if err != nil {
		return err
	}
	parent := n.Parent().String() + "/"
	for _, o := range others {
		if !strings.HasPrefix(o, parent) {
			return resource.Invalid(field, "%q is not in the metadata store of %s", o, name)
		}
	}
	return nil
}

func (s *Metadata) queryContext(ctx context.Context, req *pb.QueryContextLineageSubgraphRequest) (*pb.LineageSubgraph, error) {
	return lineage.OfContext(ctx, s.std.store, req.Context)
}

func (s *Metadata) queryExecution(ctx context.Context, req *pb.QueryExecutionInputsAndOutputsRequest) (*pb.LineageSubgraph, error) {
	return lineage.OfExecution(ctx, s.std.store, req.Execution)
}

func (s *Metadata) queryArtifact(ctx context.Context, req *pb.QueryArtifactLineageSubgraphRequest) (*pb.LineageSubgraph, error) {
	if req.MaxHops < 0 {
		return nil, resource.Invalid("max_hops", "max_hops is %d: it must not be negative", req.MaxHops)
	}
	filter, err := resource.ParseFilter(req.Filter, resource.Schema{Message: (&pb.Artifact{}).ProtoReflect().Descriptor()})
	if err != nil {
		return nil, err
	}
	return lineage.OfArtifact(ctx, s.std.store, req.Artifact, int(req.MaxHops), func(a *pb.Artifact) (bool, error) {
		return filter.Match(a.ProtoReflect(), nil)
	})
}
