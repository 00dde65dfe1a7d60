package aiplatform_test

import (
	"context"
	"path/filepath"
	"testing"
	"time"

	pb "cloud.google.com/go/aiplatform/apiv1beta1/aiplatformpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"

	"tategu/internal/api"
	"tategu/internal/api/aiplatform"
	"tategu/internal/blob"
	"tategu/internal/blob/disk"
	"tategu/internal/identity"
	"tategu/internal/resource"
	"tategu/internal/store"
	"tategu/internal/store/sqlite"
	"tategu/internal/telemetry"
	"tategu/internal/vector"
	"tategu/internal/vector/local"
	"tategu/internal/vector/matchpb"
)

// only lets a caller into one project.
type only string

// Authorize implements aiplatform.Authorizer.
func (o only) Authorize(_ context.Context, _ identity.Principal, project, _ string) error {
	if project != string(o) {
		return resource.Errorf(codes.PermissionDenied, "not in %s", project)
	}
	return nil
}

// TestPrivateMatchBetweenProjects: the private protocol names no project. One who deploys
// under the same id elsewhere is not in the way, and nobody learns of what is not theirs.
func TestPrivateMatchBetweenProjects(t *testing.T) {
	t.Parallel()
	rows, err := sqlite.Open(t.Context(), filepath.Join(t.TempDir(), "state.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = rows.Close() })
	content, err := disk.Open(filepath.Join(t.TempDir(), "objects"))
	if err != nil {
		t.Fatal(err)
	}
	log, err := telemetry.NewLogger(t.Output(), telemetry.Text, "error")
	if err != nil {
		t.Fatal(err)
	}
	backend, err := local.New(t.Context(), local.Config{Store: rows, Contents: blob.New(rows, content, time.Now).Contents(), Cache: t.TempDir(), Log: log, Now: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	engine := vector.New(vector.EngineConfig{Store: rows, Backend: backend, Log: log, Now: time.Now})
	config, err := structpb.NewValue(map[string]any{"config": map[string]any{"dimensions": 2, "distanceMeasureType": "DOT_PRODUCT_DISTANCE"}})
	if err != nil {
		t.Fatal(err)
	}
	for _, project := range []string{"a", "b"} {
		parent := "projects/" + project + "/locations/l"
		index := &pb.Index{Name: parent + "/indexes/1", Metadata: config}
		endpoint := &pb.IndexEndpoint{Name: parent + "/indexEndpoints/1", DeployedIndexes: []*pb.DeployedIndex{{Id: "same", Index: index.Name}}}
		err := rows.Update(t.Context(), func(tx store.Tx) error {
			if err := store.PutMessage(t.Context(), tx, store.Row{Kind: resource.KindIndexes, Key: index.Name, Parent: parent}, index); err != nil {
				return err
			}
			return store.PutMessage(t.Context(), tx, store.Row{Kind: resource.KindIndexEndpoints, Key: endpoint.Name, Parent: parent}, endpoint)
		})
		if err != nil {
			t.Fatal(err)
		}
		if err := engine.Upsert(t.Context(), index.Name, []*pb.IndexDatapoint{{DatapointId: "of-" + project, FeatureVector: []float32{1, 0}}}, vector.Mask{}); err != nil {
			t.Fatal(err)
		}
	}
	req := &matchpb.MatchRequest{DeployedIndexId: "same", FloatVal: []float32{1, 0}, NumNeighbors: 5}
	for _, project := range []string{"a", "b"} {
		got, err := match(t, aiplatform.NewPrivateMatch(engine, only(project)), req)
		if err != nil || len(got.GetNeighbor()) != 1 || got.GetNeighbor()[0].GetId() != "of-"+project {
			t.Errorf("%s found %v, %v", project, got, err)
		}
	}
	if _, err := match(t, aiplatform.NewPrivateMatch(engine, only("c")), req); resource.CodeOf(err) != codes.NotFound {
		t.Errorf("a stranger got %v", err)
	}
	if _, err := engine.Find(t.Context(), "", "same", nil, false); resource.CodeOf(err) != codes.InvalidArgument {
		t.Errorf("a query of no endpoint gave %v", err)
	}
	if err := backend.Close(); err != nil {
		t.Error(err)
	}
}

func match(t *testing.T, s *aiplatform.PrivateMatch, req proto.Message) (*matchpb.MatchResponse, error) {
	t.Helper()
	methods, err := s.Methods()
	if err != nil {
		t.Fatal(err)
	}
	table, err := api.NewTable(methods)
	if err != nil {
		t.Fatal(err)
	}
	m, _ := table.Lookup("google.cloud.aiplatform.container.v1.MatchService/Match")
	out, err := m.Unary(t.Context(), req)
	if err != nil {
		return nil, err
	}
	resp, ok := out.(*matchpb.MatchResponse)
	if !ok {
		t.Fatalf("got %T", out)
	}
	return resp, nil
}
