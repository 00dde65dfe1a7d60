package aiplatform

import (
	"context"
	"strings"

	"tategu/internal/api"
	"tategu/internal/operation"
	"tategu/internal/resource"
	"tategu/internal/store"

	pb "cloud.google.com/go/aiplatform/apiv1beta1/aiplatformpb"
	"cloud.google.com/go/longrunning/autogen/longrunningpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/timestamppb"
)

const modelService = "ModelService"

// Models is the ModelService: models, their versions and aliases.
//
// Every version is a row of kind modelVersions; the row of kind models repeats
// the default version, which is what a name without "@" means. As the request's
// documentation says, display name, description and labels of an update without
// "@" belong to the model, that is to all its versions.
type Models struct{ std *Standard }

// NewModels makes the service.
func NewModels(std *Standard) *Models { return &Models{std: std} }

// Methods gives the rows of the dispatch table.
func (s *Models) Methods() ([]api.Method, error) {
	name := func(m string) string { return MethodName(modelService, m) }
	return []api.Method{
		api.Unary(name("UploadModel"), "aiplatform.models.upload", s.upload),
		api.Unary(name("GetModel"), "aiplatform.models.get", s.get),
		api.Unary(name("ListModels"), "aiplatform.models.list", s.list),
		api.Unary(name("ListModelVersions"), "aiplatform.models.listVersions", s.listVersions),
		api.Unary(name("UpdateModel"), "aiplatform.models.update", s.update),
		api.Unary(name("MergeVersionAliases"), "aiplatform.models.mergeVersionAliases", s.mergeAliases),
		api.Unary(name("DeleteModel"), "aiplatform.models.delete", s.delete),
		api.Unary(name("DeleteModelVersion"), "aiplatform.models.deleteVersion", s.deleteVersion),
	}, nil
}

// upload registers a model or, below parent_model, the next version of one.
func (s *Models) upload(ctx context.Context, req *pb.UploadModelRequest) (*longrunningpb.Operation, error) {
	if req.GetModel() == nil {
		return nil, resource.Invalid("model", "model is missing")
	}
	m := proto.CloneOf(req.Model)
	ClearOutputOnly(m)
	if err := checkUpload(m); err != nil {
		return nil, err
	}
	m.SupportedDeploymentResourcesTypes = []pb.Model_DeploymentResourcesType{pb.Model_DEDICATED_RESOURCES, pb.Model_SHARED_RESOURCES}
	m.SupportedInputStorageFormats = []string{"jsonl"}
	m.SupportedOutputStorageFormats = []string{"jsonl"}
	var op *longrunningpb.Operation
	err := s.std.store.Update(ctx, func(tx store.Tx) error {
		var err error
		if req.ParentModel == "" {
			err = s.insertFirst(ctx, tx, req, m)
		} else {
			err = s.insertNext(ctx, tx, req, m)
		}
		if err != nil {
			return err
		}
		op, err = operation.Done(ctx, tx, m.Name, s.std.Metadata("UploadModelOperationMetadata"),
			&pb.UploadModelResponse{Model: m.Name, ModelVersionId: m.VersionId})
		return err
	})
	return op, err
}

func checkUpload(m *pb.Model) error {
	if m.GetContainerSpec() == nil && m.ArtifactUri == "" {
		return resource.Invalid("model", "a model needs container_spec (what serves it), artifact_uri (its file or folder), or both")
	}
	if m.ArtifactUri != "" && !strings.HasPrefix(m.ArtifactUri, "gs://") {
		return resource.Invalid("model.artifact_uri", "%q is not a gs:// URI", m.ArtifactUri)
	}
	if m.GetContainerSpec() != nil && m.ContainerSpec.ImageUri == "" {
		return resource.Invalid("model.container_spec.image_uri", "container_spec has no image_uri")
	}
	return checkAliases(m.VersionAliases)
}

func (s *Models) insertFirst(ctx context.Context, tx store.Tx, req *pb.UploadModelRequest, m *pb.Model) error {
	m.VersionAliases = withAlias(m.VersionAliases, defaultAlias)
	s.stampVersion(m, "1")
	if err := s.std.Insert(ctx, tx, req.Parent, req.ModelId, m, ""); err != nil {
		return err
	}
	if err := putCounter(ctx, tx, m.Name, 1); err != nil {
		return err
	}
	if err := moved(ctx, tx, m.Name, m.VersionId, m.VersionAliases); err != nil {
		return err
	}
	return s.putVersion(ctx, tx, m)
}

func (s *Models) insertNext(ctx context.Context, tx store.Tx, req *pb.UploadModelRequest, m *pb.Model) error {
	parent, _, _ := strings.Cut(req.ParentModel, "@")
	if !strings.HasPrefix(parent, req.Parent+"/models/") {
		return resource.Invalid("parent_model", "parent_model %q is not in %s", req.ParentModel, req.Parent)
	}
	existing := &pb.Model{}
	if err := s.std.Load(ctx, tx, parent, existing); err != nil {
		return err
	}
	n, err := nextCounter(ctx, tx, parent)
	if err != nil {
		return err
	}
	m.Name, m.CreateTime = existing.Name, existing.CreateTime
	if m.DisplayName == "" {
		m.DisplayName = existing.DisplayName
	}
	s.stampVersion(m, n)
	m.UpdateTime = m.VersionUpdateTime
	if err := s.takeAliases(ctx, tx, m.Name, m.VersionId, m.VersionAliases); err != nil {
		return err
	}
	return s.putVersion(ctx, tx, m)
}

func (s *Models) stampVersion(m *pb.Model, id string) {
	now := timestamppb.New(s.std.now())
	m.VersionId, m.VersionCreateTime, m.VersionUpdateTime = id, now, now
}

// get answers NAME, NAME@VERSION and NAME@ALIAS.
func (s *Models) get(ctx context.Context, req *pb.GetModelRequest) (*pb.Model, error) {
	m, err := s.std.Model(ctx, s.std.store, req.Name)
	if err != nil {
		return nil, err
	}
	refs, err := s.references(ctx, m.Name)
	if err != nil {
		return nil, err
	}
	refs.fill(m)
	nameVersion(req.Name, m)
	return m, nil
}

// nameVersion answers the name of a version when a version was asked for, since
// the client's update of a version sends back the name that it got
// (google-cloud-aiplatform 2.7.0, ModelRegistry.update_version).
func nameVersion(asked string, m *pb.Model) {
	if _, version, ok := strings.Cut(asked, "@"); ok && version != "-" {
		m.Name = resource.VersionName(m.Name, m.VersionId)
	}
}

func (s *Models) list(ctx context.Context, req *pb.ListModelsRequest) (*pb.ListModelsResponse, error) {
	refs, err := s.references(ctx, req.Parent+"/models/-")
	if err != nil {
		return nil, err
	}
	resp := &pb.ListModelsResponse{}
	return resp, s.std.ListWith(ctx, req, resp, ListOptions{
		Each:    eachModel(refs.fill),
		Aliases: map[string]string{"base_model_name": "base_model_source.model_garden_source.public_model_name"},
	})
}

func (s *Models) listVersions(ctx context.Context, req *pb.ListModelVersionsRequest) (*pb.ListModelVersionsResponse, error) {
	name, _, _ := strings.Cut(req.Name, "@")
	if err := s.std.Load(ctx, s.std.store, name, &pb.Model{}); err != nil {
		return nil, err
	}
	refs, err := s.references(ctx, name)
	if err != nil {
		return nil, err
	}
	resp := &pb.ListModelVersionsResponse{}
	return resp, s.std.ListWith(ctx, req, resp, ListOptions{
		Kind: resource.KindModelVersions, Parent: name, OldestFirst: true,
		Each: eachModel(func(m *pb.Model) {
			refs.fill(m)
			m.Name = resource.VersionName(m.Name, m.VersionId)
		}),
	})
}

func eachModel(fill func(*pb.Model)) func(context.Context, proto.Message) error {
	return func(_ context.Context, msg proto.Message) error {
		if m, ok := msg.(*pb.Model); ok {
			fill(m)
		}
		return nil
	}
}

// delete removes a model with all its versions, unless one of them is deployed.
func (s *Models) delete(ctx context.Context, req *pb.DeleteModelRequest) (*longrunningpb.Operation, error) {
	if strings.Contains(req.Name, "@") {
		return nil, resource.Invalid("name", "%q names a version", req.Name).WithHint("use DeleteModelVersion for one version")
	}
	return s.std.Delete(ctx, req, &pb.Model{}, func(tx store.Tx) error {
		if err := notDeployed(ctx, tx, req.Name, ""); err != nil {
			return err
		}
		for _, kind := range []store.Kind{resource.KindModelVersions, resource.KindModelAliases} {
			rows, err := tx.List(ctx, store.Query{Kind: kind, Parent: req.Name})
			if err != nil {
				return err
			}
			for _, row := range rows {
				if err := tx.Delete(ctx, row.Kind, row.Key); err != nil {
					return err
				}
			}
		}
		return tx.Delete(ctx, kindModelCounter, req.Name)
	})
}

func (s *Models) deleteVersion(ctx context.Context, req *pb.DeleteModelVersionRequest) (*longrunningpb.Operation, error) {
	if !strings.Contains(req.Name, "@") {
		return nil, resource.Invalid("name", "%q names no version: want MODEL@VERSION", req.Name)
	}
	var op *longrunningpb.Operation
	err := s.std.store.Update(ctx, func(tx store.Tx) error {
		m, err := s.std.Model(ctx, tx, req.Name)
		if err != nil {
			return err
		}
		name := resource.VersionName(m.Name, m.VersionId)
		if isDefault(m) {
			return resource.Errorf(codes.FailedPrecondition, "%s is the default version", name).WithResource(name).
				WithHint("make another version the default first, or delete the model")
		}
		if err := notDeployed(ctx, tx, m.Name, m.VersionId); err != nil {
			return err
		}
		if err := dropped(ctx, tx, m.Name, m.VersionAliases); err != nil {
			return err
		}
		if err := tx.Delete(ctx, resource.KindModelVersions, name); err != nil {
			return err
		}
		op, err = operation.Done(ctx, tx, m.Name, s.std.Metadata("DeleteOperationMetadata"), &emptypb.Empty{})
		return err
	})
	return op, err
}
