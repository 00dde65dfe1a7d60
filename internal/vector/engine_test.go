package vector_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"
	"time"

	pb "cloud.google.com/go/aiplatform/apiv1beta1/aiplatformpb"
	"go.uber.org/goleak"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"tategu/internal/access"
	"tategu/internal/blob"
	"tategu/internal/blob/disk"
	"tategu/internal/identity"
	"tategu/internal/operation"
	"tategu/internal/resource"
	"tategu/internal/store"
	"tategu/internal/store/sqlite"
	"tategu/internal/telemetry"
	"tategu/internal/vector"
	"tategu/internal/vector/datapoint"
	"tategu/internal/vector/local"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const indexName = "projects/p/locations/l/indexes/1"

// bench is an engine with an index of two dimensions and a bucket.
type bench struct {
	rows   store.Store
	blobs  *blob.Store
	engine *vector.Engine
}

func newBench(t *testing.T) *bench {
	t.Helper()
	dir := t.TempDir()
	rows, err := sqlite.Open(t.Context(), filepath.Join(dir, "state.db"))
	if err != nil {
		t.Fatal(err)
	}
	content, err := disk.Open(filepath.Join(dir, "objects"))
	if err != nil {
		t.Fatal(err)
	}
	b := &bench{rows: rows, blobs: blob.New(rows, content, time.Now)}
	if err := b.blobs.EnsureBucket(t.Context(), "p", "bucket"); err != nil {
		t.Fatal(err)
	}
	log, err := telemetry.NewLogger(t.Output(), telemetry.Text, "error")
	if err != nil {
		t.Fatal(err)
	}
	backend, err := local.New(t.Context(), local.Config{Store: rows, Contents: b.blobs.Contents(), Cache: filepath.Join(dir, "cache"), Log: log, Now: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	authority, err := identity.NewAuthority(rows, t.TempDir(), time.Now)
	if err != nil {
		t.Fatal(err)
	}
	guarded := access.New(b.blobs, authority)
	objects := func(as identity.Account) vector.Objects { return guarded.As(as) }
	b.engine = vector.New(vector.EngineConfig{Store: rows, Objects: objects, Backend: backend, Log: log, Now: time.Now})
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- b.engine.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := errors.Join(<-ended, backend.Close(), rows.Close()); err != nil {
			t.Error(err)
		}
	})
	b.put(t, index(t, `{"config": {"dimensions": 2, "distanceMeasureType": "SQUARED_L2_DISTANCE"}}`))
	return b
}

func index(t *testing.T, metadata string) *pb.Index {
	t.Helper()
	x := &pb.Index{}
	if err := protojson.Unmarshal([]byte(`{"metadata": `+metadata+`}`), x); err != nil {
		t.Fatal(err)
	}
	x.Name = indexName
	return x
}

func (b *bench) put(t *testing.T, x *pb.Index) {
	t.Helper()
	err := b.rows.Update(t.Context(), func(tx store.Tx) error {
		return store.PutMessage(t.Context(), tx, store.Row{Kind: resource.KindIndexes, Key: x.Name, Parent: "projects/p/locations/l"}, x)
	})
	if err != nil {
		t.Fatal(err)
	}
}

// files writes objects below a folder of the bucket.
func (b *bench) files(t *testing.T, folder string, files map[string]string) string {
	t.Helper()
	for name, text := range files {
		if err := b.blobs.WriteObject(t.Context(), "gs://bucket/"+folder+"/"+name, "", []byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	return "gs://bucket/" + folder
}

// update asks for a batch update and gives its operation when it is done.
func (b *bench) update(t *testing.T, u vector.Update) (*pb.UpdateIndexOperationMetadata, error) {
	t.Helper()
	w := b.rows.Watch(operation.Kind)
	defer w.Close()
	if err := b.rows.Update(t.Context(), func(tx store.Tx) error {
		op, err := operation.Start(t.Context(), tx, indexName, &pb.UpdateIndexOperationMetadata{})
		if err != nil {
			return err
		}
		u.Operation = op.Name
		return u.Put(t.Context(), tx, indexName)
	}); err != nil {
		t.Fatal(err)
	}
	for {
		op, err := operation.Get(t.Context(), b.rows, u.Operation)
		if err != nil {
			t.Fatal(err)
		}
		if op.Done {
			meta := &pb.UpdateIndexOperationMetadata{}
			if err := proto.Unmarshal(op.Metadata.Value, meta); err != nil {
				t.Fatal(err)
			}
			if op.GetError() != nil {
				return meta, resource.Errorf(codes.Code(op.GetError().Code), "%s", op.GetError().Message)
			}
			return meta, nil
		}
		if _, err := w.Next(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}

func (b *bench) count(t *testing.T) int64 {
	t.Helper()
	st, err := b.engine.Stats(t.Context(), indexName)
	if err != nil {
		t.Fatal(err)
	}
	return st.Count
}

func line(id string, x int) string {
	return fmt.Sprintf(`{"id": "%s", "embedding": [%d, 1]}`+"\n", id, x)
}

func TestBatchUpdate(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	uri := b.files(t, "first", map[string]string{"a.json": line("a", 1) + line("b", 2), "b.csv": "c,3,1\n"})
	if meta, err := b.update(t, vector.Update{URI: uri, Overwrite: true}); err != nil || len(meta.NearestNeighborSearchOperationMetadata.ContentValidationStats) != 2 {
		t.Fatalf("update: %v, %v", err, meta)
	}
	x := &pb.Index{}
	if _, err := store.GetMessage(t.Context(), b.rows, resource.KindIndexes, indexName, x); err != nil || x.GetIndexStats().GetVectorsCount() != 3 || x.GetEtag() == "" {
		t.Errorf("the index is %v (%v)", x, err)
	}
	uri = b.files(t, "second", map[string]string{"a.json": line("d", 4) + line("a", 9) + line("d", 5) + line("b", 1), "delete/x.txt": "b\nc\n"})
	meta, err := b.update(t, vector.Update{URI: uri})
	if err != nil || b.count(t) != 2 {
		t.Errorf("delta: %v, %d datapoints", err, b.count(t))
	}
	for _, stats := range meta.NearestNeighborSearchOperationMetadata.ContentValidationStats {
		if strings.HasSuffix(stats.SourceGcsUri, ".json") && (stats.ValidRecordCount != 2 || stats.InvalidRecordCount != 2) {
			t.Errorf("counts: %v", stats)
		}
	}
	if st, err := b.engine.Rollback(t.Context(), indexName); err != nil || st.Count != 3 {
		t.Errorf("roll-back: %+v, %v", st, err)
	}
}

// TestSeenOnceTold: who hears that an update has ended finds what it brought.
func TestSeenOnceTold(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	var text strings.Builder
	for n := range 60 {
		text.WriteString(line(fmt.Sprintf("x%d", n), n))
		uri := b.files(t, fmt.Sprintf("n%d", n), map[string]string{"a.json": text.String()})
		if _, err := b.update(t, vector.Update{URI: uri, Overwrite: true}); err != nil {
			t.Fatal(err)
		}
		if got := b.count(t); got != int64(n)+1 {
			t.Fatalf("%d datapoints are told, %d are there", n+1, got)
		}
	}
}

func TestRefusedInput(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	for folder, tt := range map[string]struct {
		files map[string]string
		want  string
	}{
		"empty":  {nil, "no file of datapoints"},
		"suffix": {map[string]string{"a.txt": "x"}, "ends in none of"},
		"deep":   {map[string]string{"a.json": line("a", 1), "more/b.json": line("b", 1)}, "is in a folder"},
		"wrong":  {map[string]string{"a.json": "{}\n{\n"}, "none of the 2 records"},
	} {
		_, err := b.update(t, vector.Update{URI: b.files(t, folder, tt.files), Overwrite: true})
		if err == nil || !strings.Contains(err.Error(), tt.want) || b.count(t) != 0 {
			t.Errorf("%s: %v, want %q", folder, err, tt.want)
		}
	}
	many := strings.Repeat("{\n", 80)
	meta, err := b.update(t, vector.Update{URI: b.files(t, "many", map[string]string{"a.json": line("a", 1) + many}), Overwrite: true})
	stats := meta.GetNearestNeighborSearchOperationMetadata().GetContentValidationStats()
	if err != nil || len(stats) != 1 || stats[0].InvalidRecordCount != 80 || len(stats[0].PartialErrors) != 50 || stats[0].PartialErrors[0].ErrorType != datapoint.InvalidJSON {
		t.Errorf("many wrong records: %v, %v", err, stats)
	}
}

// TestFailedCreateLeavesNothing: an index whose files cannot be read was never there.
func TestFailedCreateLeavesNothing(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	if _, err := b.update(t, vector.Update{URI: "gs://bucket/nothing", Creates: true}); err == nil {
		t.Fatal("it was made")
	}
	if _, err := b.engine.Index(t.Context(), indexName); !resource.IsNotFound(err) {
		t.Errorf("the index is there (%v)", err)
	}
	rows, err := b.rows.List(t.Context(), store.Query{Kind: resource.KindIndexUpdates})
	if err != nil || len(rows) != 0 {
		t.Errorf("updates are left: %v, %v", rows, err)
	}
}

func TestParseConfig(t *testing.T) {
	t.Parallel()
	camel := `{"config": {"dimensions": 3, "approximateNeighborsCount": "7", "featureNormType": "UNIT_L2_NORM", "shardSize": null,
		"algorithmConfig": {"treeAhConfig": {"leafNodeEmbeddingCount": 9, "leafNodesToSearchPercent": 25}}}}`
	snake := `{"config": {"dimensions": 3, "approximate_neighbors_count": 7, "feature_norm_type": "UNIT_L2_NORM",
		"algorithm_config": {"tree_ah_config": {"leaf_node_embedding_count": 9, "fraction_leaf_nodes_to_search": 0.25}}}}`
	a, err1 := vector.ParseConfig(index(t, camel))
	b, err2 := vector.ParseConfig(index(t, snake))
	if err1 != nil || err2 != nil || a != b || a.LeafPart != 0.25 || a.Approximate != 7 || !a.Measure.UnitNorm {
		t.Errorf("camel %+v (%v), snake %+v (%v)", a, err1, b, err2)
	}
	for metadata, want := range map[string]string{
		`{}`: "config is missing", `{"config": {}}`: "dimensions is missing", `{"config": {"dimensions": 0.5}}`: "whole number", `{"config": 3}`: "not an object",
		`{"config": {"dimensions": 2, "distanceMeasureType": "FAR"}}`: "no distance", `{"config": {"dimensions": 2, "featureNormType": "X"}}`: "no normalisation",
		`{"config": {"dimensions": 2, "algorithmConfig": {"treeAhConfig": {}, "bruteForceConfig": {}}}}`:        "both",
		`{"config": {"dimensions": 2, "algorithmConfig": {"treeAhConfig": {"leafNodesToSearchPercent": 101}}}}`: "between",
	} {
		if _, err := vector.ParseConfig(index(t, metadata)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", metadata, err, want)
		}
	}
}

func FuzzParseConfig(f *testing.F) {
	f.Add([]byte(`{"config": {"dimensions": 3, "algorithm_config": {"treeAhConfig": {}}}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		x := &pb.Index{}
		if protojson.Unmarshal([]byte(`{"metadata": `+string(data)+`}`), x) != nil {
			return
		}
		cfg, err := vector.ParseConfig(x)
		if err != nil {
			return
		}
		again, err := vector.ParseConfig(&pb.Index{Metadata: vector.Shown(x.Metadata), Labels: x.Labels})
		if cfg.Dimensions < 1 || err == nil && again != cfg {
			t.Errorf("%s gave %+v, as shown %+v (%v)", data, cfg, again, err)
		}
	})
}

// resting is a backend without anything to do.
type resting struct{ vector.Backend }

func (resting) Stats(context.Context, vector.Index) (vector.Stats, error) {
	return vector.Stats{}, nil
}

func (resting) Run(ctx context.Context) error {
	<-ctx.Done()
	return ctx.Err()
}

// What ends first when the server ends is a race: no order of it may keep Run.
func TestRunEndsWithItsContext(t *testing.T) {
	b := newBench(t)
	for range 200 {
		ctx, stop := context.WithCancel(t.Context())
		e := vector.New(vector.EngineConfig{Store: b.rows, Backend: resting{}, Log: slog.New(slog.DiscardHandler), Now: time.Now})
		ended := make(chan error, 1)
		go func() { ended <- e.Run(ctx) }()
		stop()
		if err := <-ended; err != nil {
			t.Fatal(err)
		}
	}
}
