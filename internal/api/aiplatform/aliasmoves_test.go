package aiplatform

import (
	"testing"

	pb "cloud.google.com/go/aiplatform/apiv1beta1/aiplatformpb"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	"tategu/internal/resource"
	"tategu/internal/store"
)

// aliasRow gives the version that the row of an alias says, and its revision; 0 = none.
func aliasRow(t *testing.T, s *server, key string) (version string, revision int64) {
	t.Helper()
	row, err := s.store.Get(t.Context(), resource.KindModelAliases, key)
	if resource.IsNotFound(err) {
		return "", 0
	}
	if err != nil {
		t.Fatal(err)
	}
	return string(row.Data), row.Revision
}

// TestAliasMoves: each move of an alias, and nothing else, writes the row that followers
// watch; it goes with the alias.
func TestAliasMoves(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	up := func(parent string, aliases ...string) string {
		m := &pb.Model{DisplayName: "ranker", ArtifactUri: "gs://b/m", VersionAliases: aliases}
		return call[*pb.UploadModelResponse](t, s, "UploadModel", &pb.UploadModelRequest{Parent: location, ParentModel: parent, Model: m}).GetModel()
	}
	merge := func(name string, aliases ...string) {
		call[*pb.Model](t, s, "MergeVersionAliases", &pb.MergeVersionAliasesRequest{Name: name, VersionAliases: aliases})
	}
	name := up("", "champion")
	key := name + "@champion"
	first, at := aliasRow(t, s, key)
	if first != "1" || at == 0 {
		t.Fatalf("after the upload: %q, %d", first, at)
	}
	if v, _ := aliasRow(t, s, name+"@default"); v != "1" {
		t.Errorf("default is %q", v)
	}
	up(name)
	merge(name+"@1", "champion") // it has it already
	call[*pb.Model](t, s, "UpdateModel", &pb.UpdateModelRequest{
		Model: &pb.Model{Name: name + "@1", VersionDescription: "x"}, UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"version_description"}},
	})
	if v, now := aliasRow(t, s, key); v != "1" || now != at {
		t.Errorf("without a move it is %q, %d, and was %d", v, now, at)
	}
	merge(name+"@2", "champion")
	merge(name+"@1", "champion")
	if v, now := aliasRow(t, s, key); v != "1" || now == at {
		t.Errorf("away and back is no move: %q, %d", v, now)
	}
	merge(name+"@1", "-champion")
	if v, now := aliasRow(t, s, key); now != 0 {
		t.Errorf("an alias that is gone is %q", v)
	}
	up(name, "champion", "tried")
	if v, _ := aliasRow(t, s, key); v != "3" {
		t.Errorf("a new version took it: %q", v)
	}
	merge(name+"@2", "champion")
	call[*pb.Model](t, s, "MergeVersionAliases", &pb.MergeVersionAliasesRequest{Name: name + "@2", VersionAliases: []string{"other"}})
	if _, err := s.do(t.Context(), "DeleteModelVersion", &pb.DeleteModelVersionRequest{Name: name + "@3"}); err != nil {
		t.Fatal(err)
	}
	if v, _ := aliasRow(t, s, name+"@tried"); v != "" {
		t.Errorf("an alias of a version that is gone is %q", v)
	}
	if _, err := s.do(t.Context(), "DeleteModel", &pb.DeleteModelRequest{Name: name}); err != nil {
		t.Fatal(err)
	}
	rows, err := s.store.List(t.Context(), store.Query{Kind: resource.KindModelAliases})
	if err != nil || len(rows) != 0 {
		t.Errorf("rows of aliases of a model that is gone: %v, %v", rows, err)
	}
}
