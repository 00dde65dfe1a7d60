// Package vectortest says what every backend of vector search does.
package vectortest

import (
	"context"
	"errors"
	"maps"
	"math/rand/v2"
	"slices"
	"strconv"
	"testing"

	pb "cloud.google.com/go/aiplatform/apiv1beta1/aiplatformpb"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"

	"tategu/internal/resource"
	"tategu/internal/store"
	"tategu/internal/vector"
	"tategu/internal/vector/ann"
)

// Fixture is a backend under test.
type Fixture struct {
	Backend vector.Backend
	// Index makes the row of an index, without which nothing may be upserted.
	Index func(t *testing.T, name string, cfg vector.Config) vector.Index
	// Reopen gives a backend over the same state as after a restart.
	Reopen func(t *testing.T) vector.Backend
}

const dims = 8

// Run runs the suite; open gives a fixture of its own to each test.
func Run(t *testing.T, open func(t *testing.T) Fixture) {
	t.Helper()
	for name, test := range map[string]func(*testing.T, Fixture){
		"StreamedIsSeen": streamedIsSeen, "Distances": distances, "Masks": masks, "Restricts": restricts, "Crowding": crowding,
		"Sparse": sparse, "Replace": replaces, "Delta": delta, "StreamedSurvivesReplace": streamedSurvives, "Rollback": rollback, "RollbackKeepsStreamed": rollbackKeeps,
		"FailedCommit": failedCommit, "FailedSource": failedSource, "Scan": scan, "Reopen": reopen, "Stats": stats, "NoIndex": noIndex, "Oracle": oracle,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, open(t))
		})
	}
}

func config(d ann.Distance) vector.Config {
	return vector.Config{Dimensions: dims, Measure: ann.Measure{Distance: d}, Recall: 0.95}
}

// Point is a datapoint with the vector (x, 1, 0...).
func Point(id string, x float32) *pb.IndexDatapoint {
	v := make([]float32, dims)
	v[0], v[1] = x, 1
	return &pb.IndexDatapoint{DatapointId: id, FeatureVector: v}
}

func near(x float32, n int) vector.Query { return vector.Query{Point: Point("", x), Neighbors: n} }

func find(t *testing.T, b vector.Backend, index vector.Index, q vector.Query) []vector.Neighbor {
	t.Helper()
	out, err := b.Find(t.Context(), index, []vector.Query{q}, false)
	if err != nil {
		t.Fatal(err)
	}
	return out[0]
}

func ids(ns []vector.Neighbor) []string {
	out := make([]string, 0, len(ns))
	for _, n := range ns {
		out = append(out, n.Datapoint.GetDatapointId())
	}
	return out
}

func wantIDs(t *testing.T, what string, got []vector.Neighbor, want ...string) {
	t.Helper()
	if !slices.Equal(ids(got), want) {
		t.Errorf("%s: found %v, want %v", what, ids(got), want)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func done(context.Context, store.Tx, vector.Stats) error { return nil }

// replace loads datapoints as a whole generation.
func replace(t *testing.T, f Fixture, index vector.Index, points ...*pb.IndexDatapoint) {
	t.Helper()
	must(t, f.Backend.Replace(t.Context(), index, true, vector.Points{Put: points}, done))
}

func streamedIsSeen(t *testing.T, f Fixture) {
	t.Helper()
	index := f.Index(t, "streamed", config(ann.SquaredL2))
	wantIDs(t, "an empty index", find(t, f.Backend, index, near(0, 3)))
	must(t, f.Backend.Upsert(t.Context(), index, []*pb.IndexDatapoint{Point("a", 0), Point("b", 1), Point("c", 2)}, vector.Mask{}))
	wantIDs(t, "after upsert", find(t, f.Backend, index, near(0.1, 2)), "a", "b")
	must(t, f.Backend.Upsert(t.Context(), index, []*pb.IndexDatapoint{Point("a", 9)}, vector.Mask{}))
	wantIDs(t, "after a is moved", find(t, f.Backend, index, near(0.1, 3)), "b", "c", "a")
	must(t, f.Backend.Remove(t.Context(), index, []string{"b", "unknown"}))
	wantIDs(t, "after b is removed", find(t, f.Backend, index, near(0.1, 3)), "c", "a")
	must(t, f.Backend.Upsert(t.Context(), index, []*pb.IndexDatapoint{Point("b", 0)}, vector.Mask{}))
	wantIDs(t, "after b is back", find(t, f.Backend, index, near(0.1, 1)), "b")
}

func distances(t *testing.T, f Fixture) {
	t.Helper()
	for name, tt := range map[string]struct {
		d    ann.Distance
		want float64 // of (3, 1) and (1, 1)
	}{"l2": {ann.SquaredL2, 4}, "l1": {ann.L1, 2}, "dot": {ann.DotProduct, 4}, "cosine": {ann.Cosine, 1 - 4/4.47213595}} {
		index := f.Index(t, "distance-"+name, config(tt.d))
		for _, where := range []string{"streamed", "loaded"} {
			if where == "loaded" {
				replace(t, f, index, Point("a", 3))
			} else {
				must(t, f.Backend.Upsert(t.Context(), index, []*pb.IndexDatapoint{Point("a", 3)}, vector.Mask{}))
			}
			got := find(t, f.Backend, index, near(1, 1))
			if len(got) != 1 || got[0].Distance-tt.want > 1e-5 || tt.want-got[0].Distance > 1e-5 {
				t.Errorf("%s, %s: %+v, want the distance %v", name, where, got, tt.want)
			}
		}
	}
}

func masks(t *testing.T, f Fixture) {
	t.Helper()
	index := f.Index(t, "masks", config(ann.SquaredL2))
	p := Point("a", 1)
	p.Restricts = []*pb.IndexDatapoint_Restriction{{Namespace: "color", AllowList: []string{"red"}}}
	replace(t, f, index, p)
	change := &pb.IndexDatapoint{DatapointId: "a", Restricts: []*pb.IndexDatapoint_Restriction{{Namespace: "color", AllowList: []string{"blue"}}}}
	must(t, f.Backend.Upsert(t.Context(), index, []*pb.IndexDatapoint{change}, vector.Mask{Restricts: true}))
	got, err := f.Backend.Get(t.Context(), index, []string{"a", "b"})
	must(t, err)
	want := proto.CloneOf(p)
	want.Restricts[0].AllowList[0] = "blue"
	if !proto.Equal(got[0], want) || got[1] != nil {
		t.Errorf("after a masked upsert: %v, want %v", got, want)
	}
	err = f.Backend.Upsert(t.Context(), index, []*pb.IndexDatapoint{{DatapointId: "b"}}, vector.Mask{Restricts: true})
	if !resource.IsNotFound(err) {
		t.Errorf("a masked upsert of nothing: %v", err)
	}
}

func restricted(id string, x float32, color string, size int64) *pb.IndexDatapoint {
	p := Point(id, x)
	p.Restricts = []*pb.IndexDatapoint_Restriction{{Namespace: "color", AllowList: []string{color}}}
	p.NumericRestricts = []*pb.IndexDatapoint_NumericRestriction{{Namespace: "size", Value: &pb.IndexDatapoint_NumericRestriction_ValueInt{ValueInt: size}}}
	p.CrowdingTag = &pb.IndexDatapoint_CrowdingTag{CrowdingAttribute: color}
	return p
}

// mixed has one half in segments and one in memory.
func mixed(t *testing.T, f Fixture, name string) vector.Index {
	t.Helper()
	index := f.Index(t, name, config(ann.SquaredL2))
	replace(t, f, index, restricted("a", 0, "red", 1), restricted("c", 2, "blue", 3), restricted("e", 4, "red", 5))
	must(t, f.Backend.Upsert(t.Context(), index, []*pb.IndexDatapoint{restricted("b", 1, "red", 2), restricted("d", 3, "blue", 4)}, vector.Mask{}))
	return index
}

func restricts(t *testing.T, f Fixture) {
	t.Helper()
	index := mixed(t, f, "restricts")
	q := near(0, 5)
	q.Point.Restricts = []*pb.IndexDatapoint_Restriction{{Namespace: "color", AllowList: []string{"blue", "green"}}}
	wantIDs(t, "allow blue", find(t, f.Backend, index, q), "c", "d")
	q.Point.Restricts = []*pb.IndexDatapoint_Restriction{{Namespace: "color", DenyList: []string{"blue"}}}
	wantIDs(t, "deny blue", find(t, f.Backend, index, q), "a", "b", "e")
	q.Point.Restricts = nil
	for op, want := range map[pb.IndexDatapoint_NumericRestriction_Operator][]string{
		pb.IndexDatapoint_NumericRestriction_LESS:          {"a", "b"},
		pb.IndexDatapoint_NumericRestriction_LESS_EQUAL:    {"a", "b", "c"},
		pb.IndexDatapoint_NumericRestriction_EQUAL:         {"c"},
		pb.IndexDatapoint_NumericRestriction_NOT_EQUAL:     {"a", "b", "d", "e"},
		pb.IndexDatapoint_NumericRestriction_GREATER_EQUAL: {"c", "d", "e"},
		pb.IndexDatapoint_NumericRestriction_GREATER:       {"d", "e"},
	} {
		q.Point.NumericRestricts = []*pb.IndexDatapoint_NumericRestriction{{Namespace: "size", Op: op, Value: &pb.IndexDatapoint_NumericRestriction_ValueInt{ValueInt: 3}}}
		wantIDs(t, op.String(), find(t, f.Backend, index, q), want...)
	}
}

func crowding(t *testing.T, f Fixture) {
	t.Helper()
	index := mixed(t, f, "crowding")
	q := near(0, 5)
	q.PerCrowding = 1
	wantIDs(t, "one of each", find(t, f.Backend, index, q), "a", "c")
	q.PerCrowding = 2
	wantIDs(t, "two of each", find(t, f.Backend, index, q), "a", "b", "c", "d")
}

func withSparse(id string, x float32, dimensions []int64, values []float32) *pb.IndexDatapoint {
	p := Point(id, x)
	p.SparseEmbedding = &pb.IndexDatapoint_SparseEmbedding{Dimensions: dimensions, Values: values}
	return p
}

func sparse(t *testing.T, f Fixture) {
	t.Helper()
	index := f.Index(t, "sparse", config(ann.SquaredL2))
	only := withSparse("only", 0, []int64{7}, []float32{9})
	only.FeatureVector = nil
	replace(t, f, index, withSparse("a", 0, []int64{1, 7}, []float32{1, 1}), only, Point("plain", 1))
	must(t, f.Backend.Upsert(t.Context(), index, []*pb.IndexDatapoint{withSparse("b", 5, []int64{7}, []float32{3})}, vector.Mask{}))
	q := vector.Query{Point: &pb.IndexDatapoint{SparseEmbedding: &pb.IndexDatapoint_SparseEmbedding{Dimensions: []int64{7}, Values: []float32{2}}}, Neighbors: 5}
	got := find(t, f.Backend, index, q)
	wantIDs(t, "sparse alone", got, "only", "b", "a")
	if len(got) > 1 && (got[0].SparseDistance != 18 || got[1].SparseDistance != 6) {
		t.Errorf("sparse distances: %+v", got)
	}
	wantIDs(t, "dense alone", find(t, f.Backend, index, near(0, 5)), "a", "plain", "b")
	q.Point.FeatureVector = Point("", 0).FeatureVector
	q.Alpha = 1
	wantIDs(t, "alpha 1", find(t, f.Backend, index, q), "a", "plain", "b")
	q.Alpha = 0
	wantIDs(t, "alpha 0", find(t, f.Backend, index, q), "only", "b", "a")
	q.Alpha = 0.5
	got = find(t, f.Backend, index, q)
	if len(got) != 4 || got[0].Datapoint.GetDatapointId() != "a" || got[0].SparseDistance != 2 {
		t.Errorf("joint ranking: %+v, want a first, which is in both", got)
	}
}

func replaces(t *testing.T, f Fixture) {
	t.Helper()
	index := f.Index(t, "replace", config(ann.SquaredL2))
	must(t, f.Backend.Upsert(t.Context(), index, []*pb.IndexDatapoint{Point("old", 0)}, vector.Mask{}))
	full := Point("new", 0)
	full.EmbeddingMetadata = &structpb.Struct{Fields: map[string]*structpb.Value{"title": structpb.NewStringValue("x")}}
	full.NumericRestricts = []*pb.IndexDatapoint_NumericRestriction{
		{Namespace: "i", Value: &pb.IndexDatapoint_NumericRestriction_ValueInt{ValueInt: -5}},
		{Namespace: "f", Value: &pb.IndexDatapoint_NumericRestriction_ValueFloat{ValueFloat: 0.1}},
		{Namespace: "d", Value: &pb.IndexDatapoint_NumericRestriction_ValueDouble{ValueDouble: 0.1}},
	}
	replace(t, f, index, full, Point("other", 3))
	wantIDs(t, "after a complete overwrite", find(t, f.Backend, index, near(0, 5)), "new", "other")
	out, err := f.Backend.Find(t.Context(), index, []vector.Query{near(0, 1)}, true)
	must(t, err)
	if !proto.Equal(out[0][0].Datapoint, full) {
		t.Errorf("the full datapoint is %v, want %v", out[0][0].Datapoint, full)
	}
}

func delta(t *testing.T, f Fixture) {
	t.Helper()
	index := f.Index(t, "delta", config(ann.SquaredL2))
	replace(t, f, index, Point("a", 0), Point("b", 1), Point("c", 2))
	src := vector.Points{Put: []*pb.IndexDatapoint{Point("b", 7), Point("d", 3)}, Remove: []string{"a", "unknown"}}
	must(t, f.Backend.Replace(t.Context(), index, false, src, done))
	wantIDs(t, "after a delta", find(t, f.Backend, index, near(0, 9)), "c", "d", "b")
}

// during is a source that lets a test act in the middle of a build.
type during struct {
	vector.Points
	act func()
}

// Datapoints implements vector.Source.
func (d during) Datapoints(ctx context.Context, put func(*pb.IndexDatapoint) error) error {
	d.act()
	return d.Points.Datapoints(ctx, put)
}

func streamedSurvives(t *testing.T, f Fixture) {
	t.Helper()
	index := f.Index(t, "survives", config(ann.SquaredL2))
	replace(t, f, index, Point("a", 0), Point("b", 1))
	src := during{Points: vector.Points{Put: []*pb.IndexDatapoint{Point("b", 5), Point("c", 6)}}, act: func() {
		must(t, f.Backend.Upsert(t.Context(), index, []*pb.IndexDatapoint{Point("b", 2), Point("s", 3)}, vector.Mask{}))
		must(t, f.Backend.Remove(t.Context(), index, []string{"c"}))
	}}
	must(t, f.Backend.Replace(t.Context(), index, true, src, done))
	wantIDs(t, "what was streamed during the build", find(t, f.Backend, index, near(0, 9)), "b", "s")
}

// rollbackKeeps: what was streamed while a generation was built, the one before has, too.
func rollbackKeeps(t *testing.T, f Fixture) {
	t.Helper()
	index := f.Index(t, "rollback-keeps", config(ann.SquaredL2))
	replace(t, f, index, Point("a", 0), Point("b", 1), Point("c", 6))
	src := during{Points: vector.Points{Put: []*pb.IndexDatapoint{Point("x", 5)}}, act: func() {
		must(t, f.Backend.Upsert(t.Context(), index, []*pb.IndexDatapoint{Point("b", 2), Point("s", 3)}, vector.Mask{}))
		must(t, f.Backend.Remove(t.Context(), index, []string{"c"}))
	}}
	must(t, f.Backend.Replace(t.Context(), index, true, src, done))
	must(t, f.Backend.Rollback(t.Context(), index, done))
	wantIDs(t, "rolled back", find(t, f.Backend, index, near(0, 9)), "a", "b", "s")
	f.Backend = f.Reopen(t)
	wantIDs(t, "rolled back, after a restart", find(t, f.Backend, index, near(0, 9)), "a", "b", "s")
	must(t, f.Backend.Rollback(t.Context(), index, done))
	wantIDs(t, "rolled back twice", find(t, f.Backend, index, near(0, 9)), "b", "s", "x")
}

func rollback(t *testing.T, f Fixture) {
	t.Helper()
	index := f.Index(t, "rollback", config(ann.SquaredL2))
	if err := f.Backend.Rollback(t.Context(), index, done); err == nil {
		t.Error("an index without an earlier generation was rolled back")
	}
	replace(t, f, index, Point("a", 0))
	must(t, f.Backend.Upsert(t.Context(), index, []*pb.IndexDatapoint{Point("b", 1)}, vector.Mask{}))
	replace(t, f, index, Point("x", 0))
	must(t, f.Backend.Upsert(t.Context(), index, []*pb.IndexDatapoint{Point("y", 1)}, vector.Mask{}))
	must(t, f.Backend.Rollback(t.Context(), index, done))
	wantIDs(t, "rolled back", find(t, f.Backend, index, near(0, 9)), "a", "b")
	must(t, f.Backend.Rollback(t.Context(), index, done))
	wantIDs(t, "rolled back twice", find(t, f.Backend, index, near(0, 9)), "x", "y")
}

var errRefused = errors.New("refused")

func failedCommit(t *testing.T, f Fixture) {
	t.Helper()
	index := f.Index(t, "failed-commit", config(ann.SquaredL2))
	replace(t, f, index, Point("a", 0))
	refuse := func(context.Context, store.Tx, vector.Stats) error { return errRefused }
	if err := f.Backend.Replace(t.Context(), index, true, vector.Points{Put: []*pb.IndexDatapoint{Point("b", 0)}}, refuse); !errors.Is(err, errRefused) {
		t.Errorf("replace: %v", err)
	}
	wantIDs(t, "after a refused commit", find(t, f.Backend, index, near(0, 9)), "a")
}

// broken fails after its first datapoint.
type broken struct{ vector.Points }

// Datapoints implements vector.Source.
func (b broken) Datapoints(ctx context.Context, put func(*pb.IndexDatapoint) error) error {
	return errors.Join(b.Points.Datapoints(ctx, put), errRefused)
}

func failedSource(t *testing.T, f Fixture) {
	t.Helper()
	index := f.Index(t, "failed-source", config(ann.SquaredL2))
	replace(t, f, index, Point("a", 0))
	src := broken{vector.Points{Put: []*pb.IndexDatapoint{Point("b", 0)}}}
	if err := f.Backend.Replace(t.Context(), index, true, src, done); !errors.Is(err, errRefused) {
		t.Errorf("replace: %v", err)
	}
	wantIDs(t, "after a source that failed", find(t, f.Backend, index, near(0, 9)), "a")
}

func scan(t *testing.T, f Fixture) {
	t.Helper()
	index := mixed(t, f, "scan")
	must(t, f.Backend.Remove(t.Context(), index, []string{"c"}))
	var got []string
	for after := ""; ; {
		page, err := f.Backend.Scan(t.Context(), index, after, 2)
		must(t, err)
		if len(page) == 0 {
			break
		}
		for _, p := range page {
			got = append(got, p.GetDatapointId())
		}
		after = got[len(got)-1]
	}
	if !slices.Equal(got, []string{"a", "b", "d", "e"}) {
		t.Errorf("scanned %v", got)
	}
}

func reopen(t *testing.T, f Fixture) {
	t.Helper()
	index := mixed(t, f, "reopen")
	must(t, f.Backend.Upsert(t.Context(), index, []*pb.IndexDatapoint{restricted("a", 9, "red", 1)}, vector.Mask{}))
	must(t, f.Backend.Remove(t.Context(), index, []string{"c"}))
	f.Backend = f.Reopen(t)
	wantIDs(t, "after a restart", find(t, f.Backend, index, near(0, 9)), "b", "d", "e", "a")
	must(t, f.Backend.Upsert(t.Context(), index, []*pb.IndexDatapoint{restricted("c", 0, "red", 1)}, vector.Mask{}))
	wantIDs(t, "upserted after a restart", find(t, f.Backend, index, near(0, 1)), "c")
}

func stats(t *testing.T, f Fixture) {
	t.Helper()
	index := mixed(t, f, "stats")
	must(t, f.Backend.Upsert(t.Context(), index, []*pb.IndexDatapoint{withSparse("a", 9, []int64{1}, []float32{1})}, vector.Mask{}))
	must(t, f.Backend.Remove(t.Context(), index, []string{"c"}))
	st, err := f.Backend.Stats(t.Context(), index)
	must(t, err)
	if st.Count != 4 || st.Vectors != 4 || st.Sparse != 1 || st.Generation != 1 || st.Recall < 0.99 || st.Bytes == 0 {
		t.Errorf("stats: %+v", st)
	}
	f.Backend = f.Reopen(t)
	again, err := f.Backend.Stats(t.Context(), index)
	must(t, err)
	if again.Count != 4 || again.Sparse != 1 {
		t.Errorf("stats after a restart: %+v", again)
	}
}

func noIndex(t *testing.T, f Fixture) {
	t.Helper()
	index := vector.Index{Name: "projects/p/locations/l/indexes/none", Config: config(ann.SquaredL2)}
	if err := f.Backend.Upsert(t.Context(), index, []*pb.IndexDatapoint{Point("a", 0)}, vector.Mask{}); !resource.IsNotFound(err) {
		t.Errorf("upsert into an index that is not there: %v", err)
	}
}

// oracle does the same changes to the backend and to a map, and compares.
func oracle(t *testing.T, f Fixture) {
	t.Helper()
	index := f.Index(t, "oracle", config(ann.SquaredL2))
	rng := rand.New(rand.NewPCG(1, 2)) //nolint:gosec // a test that is the same each time
	want := map[string]*pb.IndexDatapoint{}
	random := func() *pb.IndexDatapoint { return Point(strconv.Itoa(rng.IntN(60)), rng.Float32()*100) }
	for step := range 300 {
		switch n := rng.IntN(20); {
		case n == 0:
			src := vector.Points{}
			next := map[string]*pb.IndexDatapoint{}
			for range rng.IntN(30) {
				p := random()
				next[p.DatapointId] = p
			}
			for _, p := range next {
				src.Put = append(src.Put, p)
			}
			overwrite := rng.IntN(2) == 0
			must(t, f.Backend.Replace(t.Context(), index, overwrite, src, done))
			if overwrite {
				want = map[string]*pb.IndexDatapoint{}
			}
			maps.Copy(want, next)
		case n == 1:
			f.Backend = f.Reopen(t)
		case n < 8:
			id := strconv.Itoa(rng.IntN(60))
			must(t, f.Backend.Remove(t.Context(), index, []string{id}))
			delete(want, id)
		default:
			p := random()
			must(t, f.Backend.Upsert(t.Context(), index, []*pb.IndexDatapoint{p}, vector.Mask{}))
			want[p.DatapointId] = p
		}
		compareAll(t, f.Backend, index, want, rng.Float32()*100)
		if t.Failed() {
			t.Fatalf("at step %d", step)
		}
	}
}

func compareAll(t *testing.T, b vector.Backend, index vector.Index, want map[string]*pb.IndexDatapoint, x float32) {
	t.Helper()
	all, err := b.Scan(t.Context(), index, "", 1000)
	must(t, err)
	if len(all) != len(want) {
		t.Errorf("%d datapoints are there, want %d", len(all), len(want))
		return
	}
	for _, p := range all {
		if !proto.Equal(p, want[p.GetDatapointId()]) {
			t.Errorf("%v is there, want %v", p, want[p.GetDatapointId()])
		}
	}
	var truth []float32
	q := near(x, 5)
	for _, p := range want {
		truth = append(truth, index.Config.Measure.Between(q.Point.GetFeatureVector(), p.GetFeatureVector()))
	}
	slices.Sort(truth)
	got := find(t, b, index, q)
	if len(got) != min(5, len(truth)) {
		t.Errorf("found %d neighbours of %d", len(got), len(truth))
		return
	}
	for i, n := range got {
		if d := n.Distance - float64(truth[i]); d > 1e-2 || d < -1e-2 {
			t.Errorf("neighbour %d is %v away, want %v", i, n.Distance, truth[i])
		}
	}
}

// Index makes the row of an index, which a backend's own rows belong to.
func Index(t *testing.T, rows store.Store, id string, cfg vector.Config) vector.Index {
	t.Helper()
	name := "projects/p/locations/l/indexes/" + id
	err := rows.Update(t.Context(), func(tx store.Tx) error {
		return store.PutMessage(t.Context(), tx, store.Row{Kind: resource.KindIndexes, Key: name, Parent: "projects/p/locations/l"}, &pb.Index{Name: name})
	})
	if err != nil {
		t.Fatal(err)
	}
	return vector.Index{Name: name, Config: cfg}
}
