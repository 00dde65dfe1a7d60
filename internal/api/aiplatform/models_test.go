package aiplatform

import (
	"slices"
	"testing"

	pb "cloud.google.com/go/aiplatform/apiv1beta1/aiplatformpb"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/fieldmaskpb"
)

func upload(tb testing.TB, s *server, id, parent string, m *pb.Model) *pb.UploadModelResponse {
	tb.Helper()
	if m.ArtifactUri == "" {
		m.ArtifactUri = "gs://b/model"
	}
	return call[*pb.UploadModelResponse](tb, s, "UploadModel",
		&pb.UploadModelRequest{Parent: location, ModelId: id, ParentModel: parent, Model: m})
}

func getModel(tb testing.TB, s *server, name string) *pb.Model {
	tb.Helper()
	return call[*pb.Model](tb, s, "GetModel", &pb.GetModelRequest{Name: name})
}

func TestModelVersions(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	const name = location + "/models/m1"

	first := upload(t, s, "m1", "", &pb.Model{DisplayName: "one", VersionAliases: []string{"testing"}, VersionDescription: "d"})
	if first.Model != name || first.ModelVersionId != "1" {
		t.Fatalf("upload answered %v", first)
	}
	got := getModel(t, s, name+"@1")
	if got.Name != name+"@1" || !slices.Equal(got.VersionAliases, []string{"testing", "default"}) || got.VersionDescription != "d" ||
		got.Etag == "" || got.CreateTime == nil || got.VersionUpdateTime == nil ||
		!slices.Equal(got.SupportedDeploymentResourcesTypes, []pb.Model_DeploymentResourcesType{pb.Model_DEDICATED_RESOURCES, pb.Model_SHARED_RESOURCES}) {
		t.Errorf("GetModel = %v", got)
	}

	second := upload(t, s, "", name, &pb.Model{ArtifactUri: "gs://b/two"})
	if second.Model != name || second.ModelVersionId != "2" {
		t.Fatalf("second upload answered %v", second)
	}
	if m := getModel(t, s, name); m.VersionId != "1" || m.Name != name {
		t.Errorf("the default version became %v", m.VersionId)
	}
	third := upload(t, s, "", name, &pb.Model{VersionAliases: []string{"default", "prod"}})
	if m := getModel(t, s, name); m.VersionId != third.ModelVersionId {
		t.Errorf("default is %s, want %s", m.VersionId, third.ModelVersionId)
	}
	if m := getModel(t, s, name+"@1"); slices.Contains(m.VersionAliases, "default") {
		t.Errorf("version 1 kept default: %v", m.VersionAliases)
	}
	for alias, want := range map[string]string{"prod": "3", "default": "3", "testing": "1", "2": "2", "-": "3"} {
		if m := getModel(t, s, name+"@"+alias); m.VersionId != want {
			t.Errorf("@%s = %s, want %s", alias, m.VersionId, want)
		}
	}
	refuse(t, s, "GetModel", &pb.GetModelRequest{Name: name + "@none"}, codes.NotFound, name+"@none")
	refuse(t, s, "GetModel", &pb.GetModelRequest{Name: name + "@9"}, codes.NotFound)

	versions := call[*pb.ListModelVersionsResponse](t, s, "ListModelVersions", &pb.ListModelVersionsRequest{Name: name}).Models
	ids := make([]string, len(versions))
	for i, v := range versions {
		ids[i] = v.VersionId
	}
	if !slices.Equal(ids, []string{"1", "2", "3"}) {
		t.Errorf("versions = %v", ids)
	}
	if l := call[*pb.ListModelsResponse](t, s, "ListModels", &pb.ListModelsRequest{Parent: location}).Models; len(l) != 1 || l[0].VersionId != "3" {
		t.Errorf("ListModels = %v", l)
	}

	refuse(t, s, "DeleteModelVersion", &pb.DeleteModelVersionRequest{Name: name + "@3"}, codes.FailedPrecondition, "default")
	refuse(t, s, "DeleteModelVersion", &pb.DeleteModelVersionRequest{Name: name}, codes.InvalidArgument)
	call[*emptypb.Empty](t, s, "DeleteModelVersion", &pb.DeleteModelVersionRequest{Name: name + "@2"})
	refuse(t, s, "GetModel", &pb.GetModelRequest{Name: name + "@2"}, codes.NotFound)
	if next := upload(t, s, "", name+"@1", &pb.Model{}); next.ModelVersionId != "4" {
		t.Errorf("a deleted version's number was given again: %s", next.ModelVersionId)
	}

	call[*emptypb.Empty](t, s, "DeleteModel", &pb.DeleteModelRequest{Name: name})
	refuse(t, s, "GetModel", &pb.GetModelRequest{Name: name}, codes.NotFound, name)
	refuse(t, s, "GetModel", &pb.GetModelRequest{Name: name + "@1"}, codes.NotFound)
	if again := upload(t, s, "m1", "", &pb.Model{}); again.ModelVersionId != "1" {
		t.Errorf("a new model starts at version %s", again.ModelVersionId)
	}
}

func TestMergeVersionAliases(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	name := upload(t, s, "m", "", &pb.Model{VersionAliases: []string{"testing"}}).Model
	upload(t, s, "", name, &pb.Model{})
	merge := func(version string, aliases ...string) []string {
		return call[*pb.Model](t, s, "MergeVersionAliases",
			&pb.MergeVersionAliasesRequest{Name: name + "@" + version, VersionAliases: aliases}).VersionAliases
	}
	if got := merge("default", "new-alias"); !slices.Equal(got, []string{"testing", "default", "new-alias"}) {
		t.Errorf("after adding: %v", got)
	}
	if got := merge("new-alias", "-testing"); !slices.Equal(got, []string{"default", "new-alias"}) {
		t.Errorf("after removing: %v", got)
	}
	if got := merge("2", "default", "new-alias"); !slices.Equal(got, []string{"default", "new-alias"}) {
		t.Errorf("after moving: %v", got)
	}
	if got := getModel(t, s, name+"@1").VersionAliases; len(got) != 0 {
		t.Errorf("version 1 kept %v", got)
	}
	if got := getModel(t, s, name); got.VersionId != "2" || got.Etag != getModel(t, s, name+"@2").Etag {
		t.Errorf("the model shows version %s", got.VersionId)
	}
	req := func(version string, aliases ...string) *pb.MergeVersionAliasesRequest {
		return &pb.MergeVersionAliasesRequest{Name: name + version, VersionAliases: aliases}
	}
	refuse(t, s, "MergeVersionAliases", req("@2", "-default"), codes.FailedPrecondition)
	refuse(t, s, "MergeVersionAliases", req("@2", "Bad"), codes.InvalidArgument, "Bad")
	refuse(t, s, "MergeVersionAliases", req("", "x1"), codes.InvalidArgument)
	refuse(t, s, "MergeVersionAliases", req("@7", "x1"), codes.NotFound)
}

func TestUpdateModel(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	name := upload(t, s, "m", "", &pb.Model{DisplayName: "a", Labels: map[string]string{"k": "v"}}).Model
	upload(t, s, "", name, &pb.Model{DisplayName: "a"})
	update := func(m *pb.Model, paths ...string) *pb.UpdateModelRequest {
		return &pb.UpdateModelRequest{Model: m, UpdateMask: &fieldmaskpb.FieldMask{Paths: paths}}
	}
	call[*pb.Model](t, s, "UpdateModel", update(&pb.Model{
		Name: name, DisplayName: "new", Description: "d", Labels: map[string]string{"l": "m"}, ArtifactUri: "gs://not/this",
	}, "display_name", "description", "labels"))
	for _, version := range []string{"", "@1", "@2"} {
		m := getModel(t, s, name+version)
		if m.DisplayName != "new" || m.Description != "d" || m.ArtifactUri != "gs://b/model" || !cmp.Equal(m.Labels, map[string]string{"l": "m"}) {
			t.Errorf("%s%s = %v", name, version, m)
		}
	}
	// As ModelRegistry.update_version does it: the name that GetModel answered.
	v2 := getModel(t, s, name+"@2")
	v2.VersionDescription = "second"
	if got := call[*pb.Model](t, s, "UpdateModel", update(v2, "version_description")); got.VersionDescription != "second" || got.Name != name+"@2" {
		t.Errorf("update of a version = %v", got)
	}
	if m := getModel(t, s, name); m.VersionDescription != "" {
		t.Errorf("version 1 got %q", m.VersionDescription)
	}
	refuse(t, s, "UpdateModel", update(v2, "version_description"), codes.Aborted, "etag")
	refuse(t, s, "UpdateModel", update(&pb.Model{Name: name}, "no_such.field"), codes.InvalidArgument, "no_such.field")
	refuse(t, s, "UpdateModel", update(&pb.Model{Name: name}, "artifact_uri"), codes.InvalidArgument, "artifact_uri")
	refuse(t, s, "UpdateModel", update(&pb.Model{Name: name}, "version_description"), codes.FailedPrecondition)
	refuse(t, s, "UpdateModel", update(&pb.Model{Name: name + "@1"}, "display_name"), codes.FailedPrecondition)
	refuse(t, s, "UpdateModel", update(&pb.Model{Name: name}), codes.InvalidArgument)
	refuse(t, s, "UpdateModel", update(&pb.Model{Name: location + "/models/none"}, "labels"), codes.NotFound)
}

func TestUploadIsChecked(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	upload(t, s, "taken", "", &pb.Model{})
	ok := &pb.Model{ArtifactUri: "gs://b/m"}
	for name, tt := range map[string]struct {
		req  *pb.UploadModelRequest
		code codes.Code
	}{
		"no model":         {&pb.UploadModelRequest{Parent: location}, codes.InvalidArgument},
		"nothing to serve": {&pb.UploadModelRequest{Parent: location, Model: &pb.Model{}}, codes.InvalidArgument},
		"local path":       {&pb.UploadModelRequest{Parent: location, Model: &pb.Model{ArtifactUri: "/tmp/m"}}, codes.InvalidArgument},
		"no image":         {&pb.UploadModelRequest{Parent: location, Model: &pb.Model{ContainerSpec: &pb.ModelContainerSpec{}}}, codes.InvalidArgument},
		"bad alias":        {&pb.UploadModelRequest{Parent: location, Model: &pb.Model{ArtifactUri: "gs://b/m", VersionAliases: []string{"1"}}}, codes.InvalidArgument},
		"bad id":           {&pb.UploadModelRequest{Parent: location, ModelId: "a/b", Model: ok}, codes.InvalidArgument},
		"bad parent":       {&pb.UploadModelRequest{Parent: "projects/p", Model: ok}, codes.InvalidArgument},
		"any location":     {&pb.UploadModelRequest{Parent: "projects/p/locations/-", Model: ok}, codes.InvalidArgument},
		"taken id":         {&pb.UploadModelRequest{Parent: location, ModelId: "taken", Model: ok}, codes.AlreadyExists},
		"no parent model":  {&pb.UploadModelRequest{Parent: location, ParentModel: location + "/models/none", Model: ok}, codes.NotFound},
		"foreign parent":   {&pb.UploadModelRequest{Parent: location, ParentModel: "projects/q/locations/us-central1/models/m", Model: ok}, codes.InvalidArgument},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			refuse(t, s, "UploadModel", tt.req, tt.code)
		})
	}
}
