package aiplatform

import (
	"context"

	"tategu/internal/api"
	"tategu/internal/operation"
	"tategu/internal/resource"
	"tategu/internal/store"
	"tategu/internal/vector"

	pb "cloud.google.com/go/aiplatform/apiv1beta1/aiplatformpb"
	"cloud.google.com/go/longrunning/autogen/longrunningpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
)

const indexService = "IndexService"

// metadataSchema is what the API names as the schema of Index.metadata.
const metadataSchema = "gs://google-cloud-aiplatform/schema/matchingengine/metadata/nearest_neighbor_search_1.0.0.yaml"

// Reader says whether the caller may read files, which the server reads with rights of
// its own.
type Reader interface {
	MayRead(ctx context.Context, uri string) error
}

// Indexes is the IndexService. A call with contents records a batch update, which the
// vector engine does and whose operation it finishes; datapoints that are streamed go
// straight to the engine.
type Indexes struct {
	std    *Standard
	may    Reader
	engine *vector.Engine
}

// NewIndexes makes the service.
func NewIndexes(std *Standard, may Reader, engine *vector.Engine) *Indexes {
	return &Indexes{std: std, may: may, engine: engine}
}

// Methods gives the rows of the dispatch table.
func (s *Indexes) Methods() ([]api.Method, error) {
	name := func(m string) string { return MethodName(indexService, m) }
	return []api.Method{
		api.Unary(name("CreateIndex"), "aiplatform.indexes.create", s.create),
		api.Unary(name("GetIndex"), "aiplatform.indexes.get", s.get),
		api.Unary(name("ListIndexes"), "aiplatform.indexes.list", s.list),
		api.Unary(name("UpdateIndex"), "aiplatform.indexes.update", s.update),
		api.Unary(name("DeleteIndex"), "aiplatform.indexes.delete", s.delete),
		api.Unary(name("UpsertDatapoints"), "aiplatform.indexes.update", s.upsert).Within(streamed),
		api.Unary(name("RemoveDatapoints"), "aiplatform.indexes.update", s.remove),
	}, nil
}

func (s *Indexes) create(ctx context.Context, req *pb.CreateIndexRequest) (*longrunningpb.Operation, error) {
	if req.GetIndex() == nil {
		return nil, resource.Invalid("index", "index is missing")
	}
	index := proto.CloneOf(req.Index)
	ClearOutputOnly(index)
	if index.GetEncryptionSpec().GetKmsKeyName() != "" {
		return nil, resource.Unimplemented("index.encryption_spec")
	}
	if _, err := vector.ParseConfig(index); err != nil {
		return nil, err
	}
	contents, err := s.contents(ctx, index)
	if err != nil {
		return nil, err
	}
	index.Metadata, index.MetadataSchemaUri = vector.Shown(index.GetMetadata()), metadataSchema
	if index.IndexUpdateMethod == pb.Index_INDEX_UPDATE_METHOD_UNSPECIFIED {
		index.IndexUpdateMethod = pb.Index_BATCH_UPDATE
	}
	index.IndexStats = &pb.IndexStats{ShardsCount: 1}
	var op *longrunningpb.Operation
	err = s.std.store.Update(ctx, func(tx store.Tx) error {
		if err := s.std.Insert(ctx, tx, req.Parent, "", index, ""); err != nil {
			return err
		}
		meta := s.std.Metadata("CreateIndexOperationMetadata")
		if contents.URI == "" {
			op, err = operation.Done(ctx, tx, index.Name, meta, index)
			return err
		}
		if op, err = operation.Start(ctx, tx, index.Name, meta); err != nil {
			return err
		}
		return vector.Update{Operation: op.Name, URI: contents.URI, Overwrite: true, Creates: true}.Put(ctx, tx, index.Name)
	})
	return op, err
}

// contents is where the metadata of a request says that datapoints are, which its
// caller may read.
func (s *Indexes) contents(ctx context.Context, index *pb.Index) (vector.Contents, error) {
	contents, err := vector.ParseContents(index.GetMetadata())
	if err != nil || contents.URI == "" {
		return contents, err
	}
	return contents, s.may.MayRead(ctx, contents.URI)
}

func (s *Indexes) get(ctx context.Context, req *pb.GetIndexRequest) (*pb.Index, error) {
	index := &pb.Index{}
	if err := s.std.Get(ctx, req, index); err != nil {
		return nil, err
	}
	return index, s.show(ctx, index)
}

func (s *Indexes) list(ctx context.Context, req *pb.ListIndexesRequest) (*pb.ListIndexesResponse, error) {
	resp := &pb.ListIndexesResponse{}
	return resp, s.std.ListWith(ctx, req, resp, ListOptions{Each: func(ctx context.Context, msg proto.Message) error {
		if index, ok := msg.(*pb.Index); ok {
			return s.show(ctx, index)
		}
		return nil
	}})
}

// show fills in what the row does not know: how much is in the index now, and where it
// is deployed.
func (s *Indexes) show(ctx context.Context, index *pb.Index) error {
	stats, err := s.engine.Stats(ctx, index.Name)
	if err != nil {
		return err
	}
	index.IndexStats = &pb.IndexStats{VectorsCount: stats.Vectors, SparseVectorsCount: stats.Sparse, ShardsCount: 1}
	index.DeployedIndexes, err = s.deployments(ctx, s.std.store, index.Name)
	return err
}

// deployments reads the index endpoints of the index's project.
func (s *Indexes) deployments(ctx context.Context, r store.Reader, index string) ([]*pb.DeployedIndexRef, error) {
	rows, err := r.List(ctx, store.Query{Kind: resource.KindIndexEndpoints, Prefix: projectPrefix(index)})
	if err != nil {
		return nil, err
	}
	var refs []*pb.DeployedIndexRef
	for _, row := range rows {
		e := &pb.IndexEndpoint{}
		if err := store.Unmarshal(row, e); err != nil {
			return nil, err
		}
		for _, d := range e.GetDeployedIndexes() {
			if d.GetIndex() == index {
				refs = append(refs, &pb.DeployedIndexRef{IndexEndpoint: e.GetName(), DeployedIndexId: d.GetId(), DisplayName: d.GetDisplayName()})
			}
		}
	}
	return refs, nil
}

// update changes descriptions at once; metadata with contents begin a batch update.
func (s *Indexes) update(ctx context.Context, req *pb.UpdateIndexRequest) (*longrunningpb.Operation, error) {
	if req.GetIndex() == nil {
		return nil, resource.Invalid("index", "index is missing")
	}
	contents, err := s.contents(ctx, req.Index)
	if err != nil {
		return nil, err
	}
	var op *longrunningpb.Operation
	err = s.std.store.Update(ctx, func(tx store.Tx) error {
		index := &pb.Index{}
		if err := s.std.Load(ctx, tx, req.Index.Name, index); err != nil {
			return err
		}
		if err := s.merge(req, index); err != nil {
			return err
		}
		if err := s.std.Save(ctx, tx, index, ""); err != nil {
			return err
		}
		meta := s.std.Metadata("UpdateIndexOperationMetadata")
		if contents.URI == "" {
			op, err = operation.Done(ctx, tx, index.Name, meta, index)
			return err
		}
		if op, err = operation.Start(ctx, tx, index.Name, meta); err != nil {
			return err
		}
		return vector.Update{Operation: op.Name, URI: contents.URI, Overwrite: contents.Overwrite}.Put(ctx, tx, index.Name)
	})
	return op, err
}

// merge applies an update; the configuration of an index stays what it was made with.
func (s *Indexes) merge(req *pb.UpdateIndexRequest, index *pb.Index) error {
	was, err := vector.ParseConfig(index)
	if err != nil {
		return err
	}
	if vector.HasConfig(req.Index.GetMetadata()) {
		asked, err := vector.ParseConfig(&pb.Index{Metadata: req.Index.Metadata, Labels: index.Labels})
		if err != nil {
			return err
		}
		if asked != was {
			return resource.Invalid("index.metadata.config", "the configuration of %s cannot be changed", index.Name).
				WithHint("make another index, and undeploy this one once the other is deployed")
		}
	}
	given := proto.CloneOf(req)
	given.Index.Metadata = index.Metadata
	if err := Merge(given, index, given.Index); err != nil {
		return err
	}
	_, err = vector.ParseConfig(index) // a label may be wrong
	return err
}

// delete is refused while the index is deployed or being updated.
func (s *Indexes) delete(ctx context.Context, req *pb.DeleteIndexRequest) (*longrunningpb.Operation, error) {
	index := &pb.Index{}
	return s.std.Delete(ctx, req, index, func(tx store.Tx) error {
		refs, err := s.deployments(ctx, tx, index.Name)
		if err != nil {
			return err
		}
		if len(refs) > 0 {
			return resource.Errorf(codes.FailedPrecondition, "%s is deployed on %s as %s", index.Name, refs[0].IndexEndpoint, refs[0].DeployedIndexId).
				WithResource(index.Name).WithHint("undeploy it first")
		}
		return s.engine.Drop(ctx, tx, index.Name)
	})
}

// streamed allows for the values of a request's vectors.
var streamed = api.Limits{Values: 8 << 20} //nolint:gochecknoglobals // a constant

func (s *Indexes) upsert(ctx context.Context, req *pb.UpsertDatapointsRequest) (*pb.UpsertDatapointsResponse, error) {
	mask, err := vector.ParseMask(req.GetUpdateMask().GetPaths())
	if err != nil {
		return nil, err
	}
	return &pb.UpsertDatapointsResponse{}, s.engine.Upsert(ctx, req.GetIndex(), req.GetDatapoints(), mask)
}

func (s *Indexes) remove(ctx context.Context, req *pb.RemoveDatapointsRequest) (*pb.RemoveDatapointsResponse, error) {
	return &pb.RemoveDatapointsResponse{}, s.engine.Remove(ctx, req.GetIndex(), req.GetDatapointIds())
}
