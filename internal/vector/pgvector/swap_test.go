package pgvector

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	pb "cloud.google.com/go/aiplatform/apiv1beta1/aiplatformpb"
	"go.uber.org/goleak"
	"google.golang.org/grpc/codes"

	"tategu/internal/resource"
	"tategu/internal/store"
	"tategu/internal/vector"
	"tategu/internal/vector/ann"
	"tategu/internal/vector/vectortest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func done(context.Context, store.Tx, vector.Stats) error { return nil }

func opened(t *testing.T, p *place) *Backend {
	t.Helper()
	b := p.open(t)
	t.Cleanup(func() {
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	})
	return b
}

func l2(dimensions int) vector.Config {
	return vector.Config{Dimensions: dimensions, Measure: ann.Measure{Distance: ann.SquaredL2}, Recall: 0.95}
}

func TestServer(t *testing.T) {
	t.Parallel()
	dsn := server(t)
	for name, test := range map[string]func(*testing.T, string){"Swaps": swaps, "Filters": filters, "Swept": swept, "Owner": owner, "Dimensions": dimensions} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, dsn)
		})
	}
}

// swaps: queries and changes go on while generations take each other's place, and none fails or
// sees half of one.
func swaps(t *testing.T, dsn string) {
	t.Helper()
	p := newPlace(t, dsn, "swaps")
	b := opened(t, p)
	index := p.index(t, "swaps", l2(8))
	generation := func(n int) vector.Points {
		var src vector.Points
		for i := range 20 {
			src.Put = append(src.Put, vectortest.Point(fmt.Sprintf("%d-%d", n, i), float32(i)))
		}
		return src
	}
	if err := b.Replace(t.Context(), index, true, generation(0), done); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var work sync.WaitGroup
	defer work.Wait()
	defer cancel()
	var streamed []string
	work.Go(func() {
		for i := 0; ctx.Err() == nil; i++ {
			id := "s" + strconv.Itoa(i)
			err := b.Upsert(t.Context(), index, []*pb.IndexDatapoint{vectortest.Point(id, 1000+float32(i))}, vector.Mask{})
			if err != nil {
				t.Error(err)
				return
			}
			streamed = append(streamed, id)
		}
	})
	for range 2 {
		work.Go(func() {
			for ctx.Err() == nil {
				out, err := b.Find(t.Context(), index, []vector.Query{{Point: vectortest.Point("", 0), Neighbors: 10}}, false)
				if err != nil {
					t.Error(err)
					return
				}
				of := ""
				for _, n := range out[0] {
					generation, _, _ := strings.Cut(n.Datapoint.DatapointId, "-")
					if of == "" {
						of = generation
					}
					if generation != of {
						t.Errorf("neighbours of two generations: %v", out[0])
						return
					}
				}
				if len(out[0]) != 10 {
					t.Errorf("%d neighbours", len(out[0]))
					return
				}
			}
		})
	}
	for n := range 6 {
		if err := b.Replace(t.Context(), index, true, generation(n+1), done); err != nil {
			t.Fatal(err)
		}
	}
	cancel()
	work.Wait()
	all, err := b.Scan(t.Context(), index, "s", 100_000)
	if err != nil {
		t.Fatal(err)
	}
	// Each overwrite leaves out what was streamed before it began: what is there is the end of what was streamed.
	var have []string
	for _, q := range all {
		have = append(have, q.DatapointId)
	}
	missing := 0
	for _, id := range slices.Backward(streamed) {
		if !slices.Contains(have, id) {
			missing++
		} else if missing > 0 {
			t.Fatalf("%s is there, and one that was streamed later is not", id)
		}
	}
	if len(have) == 0 || have[0] == "" || len(have)+missing != len(streamed) {
		t.Errorf("%d of %d streamed are there, %d are not", len(have), len(streamed), missing)
	}
}

// filters: neighbours behind filters are the true ones, also where all that pass lie together
// and far from the query.
func filters(t *testing.T, dsn string) {
	t.Helper()
	const n, d, asked = 3000, 16, 15
	p := newPlace(t, dsn, "filters")
	b := opened(t, p)
	cfg := l2(d)
	index := p.index(t, "filters", cfg)
	rng := rand.New(rand.NewPCG(1, 2))
	var src vector.Points
	random := func() []float32 {
		v := make([]float32, d)
		for j := range v {
			v[j] = float32(rng.NormFloat64())
		}
		return v
	}
	for i := range n {
		v := random()
		src.Put = append(src.Put, &pb.IndexDatapoint{
			DatapointId: fmt.Sprintf("%05d", i), FeatureVector: v,
			Restricts:        []*pb.IndexDatapoint_Restriction{{Namespace: "cent", AllowList: []string{strconv.Itoa(i % 100)}}},
			NumericRestricts: []*pb.IndexDatapoint_NumericRestriction{{Namespace: "x", Value: &pb.IndexDatapoint_NumericRestriction_ValueFloat{ValueFloat: v[0]}}},
		})
	}
	if err := b.Replace(t.Context(), index, true, src, done); err != nil {
		t.Fatal(err)
	}
	if st, err := b.Stats(t.Context(), index); err != nil || st.Method != "hnsw" || st.Recall < 0.95 {
		t.Fatalf("%+v, %v", st, err)
	}
	sums := map[string]float64{}
	for range asked {
		v := random()
		v[0] = -2
		for name, narrow := range map[string]func(*pb.IndexDatapoint) func(*pb.IndexDatapoint) bool{
			"none": func(*pb.IndexDatapoint) func(*pb.IndexDatapoint) bool {
				return func(*pb.IndexDatapoint) bool { return true }
			},
			"one of 100": func(q *pb.IndexDatapoint) func(*pb.IndexDatapoint) bool {
				q.Restricts = []*pb.IndexDatapoint_Restriction{{Namespace: "cent", AllowList: []string{"7"}}}
				return func(p *pb.IndexDatapoint) bool { return p.Restricts[0].AllowList[0] == "7" }
			},
			"far": func(q *pb.IndexDatapoint) func(*pb.IndexDatapoint) bool {
				q.NumericRestricts = []*pb.IndexDatapoint_NumericRestriction{{Namespace: "x", Op: pb.IndexDatapoint_NumericRestriction_GREATER, Value: &pb.IndexDatapoint_NumericRestriction_ValueFloat{ValueFloat: 1}}}
				return func(p *pb.IndexDatapoint) bool { return p.FeatureVector[0] > 1 }
			},
		} {
			q := vector.Query{Point: &pb.IndexDatapoint{FeatureVector: v}, Neighbors: 10}
			passes := narrow(q.Point)
			out, err := b.Find(t.Context(), index, []vector.Query{q}, false)
			if err != nil {
				t.Fatal(err)
			}
			sums[name] += hits(out[0], src.Put, cfg.Measure, v, passes) / asked
		}
	}
	for name, sum := range sums {
		if sum < 0.95 {
			t.Errorf("%s: recall %.3f", name, sum)
		}
	}
}

// hits is the share of the true ten neighbours that were found.
func hits(found []vector.Neighbor, points []*pb.IndexDatapoint, m ann.Measure, q []float32, passes func(*pb.IndexDatapoint) bool) float64 {
	left := slices.DeleteFunc(slices.Clone(points), func(p *pb.IndexDatapoint) bool { return !passes(p) })
	slices.SortFunc(left, func(a, b *pb.IndexDatapoint) int {
		if m.Between(q, a.FeatureVector) < m.Between(q, b.FeatureVector) {
			return -1
		}
		return 1
	})
	n := 0
	for _, p := range left[:10] {
		if slices.ContainsFunc(found, func(f vector.Neighbor) bool { return f.Datapoint.DatapointId == p.DatapointId }) {
			n++
		}
	}
	return float64(n) / 10
}

// swept: what deleted indexes, failed and older batch updates leave behind goes, the rest stays.
func swept(t *testing.T, dsn string) {
	t.Helper()
	p := newPlace(t, dsn, "swept")
	b := opened(t, p)
	index, gone := p.index(t, "kept", l2(8)), p.index(t, "gone", l2(8))
	for range 3 {
		for _, i := range []vector.Index{index, gone} {
			if err := b.Replace(t.Context(), i, true, vector.Points{Put: []*pb.IndexDatapoint{vectortest.Point("a", 0)}}, done); err != nil {
				t.Fatal(err)
			}
		}
	}
	refuse := func(context.Context, store.Tx, vector.Stats) error { return context.Canceled }
	if err := b.Replace(t.Context(), index, true, vector.Points{}, refuse); err == nil {
		t.Fatal("a refused commit")
	}
	if err := p.rows.Update(t.Context(), func(tx store.Tx) error { return b.Drop(t.Context(), tx, gone.Name) }); err != nil {
		t.Fatal(err)
	}
	if err := b.clean(t.Context()); err != nil {
		t.Fatal(err)
	}
	left, err := b.relationsThere(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	m, err := readManifest(t.Context(), p.rows, index.Name)
	if err != nil {
		t.Fatal(err)
	}
	want := m.relations()
	slices.Sort(want)
	slices.Sort(left)
	if !slices.Equal(left, want) {
		t.Errorf("%v are there, want %v", left, want)
	}
	if out, err := b.Get(t.Context(), index, []string{"a"}); err != nil || out[0] == nil {
		t.Error(out, err)
	}
}

// owner: two servers do not share a schema, of which each would drop what the other has.
func owner(t *testing.T, dsn string) {
	t.Helper()
	if err := opened(t, newPlace(t, dsn, "owner")).ready(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := opened(t, newPlace(t, dsn, "owner")).ready(t.Context()); resource.CodeOf(err) != codes.FailedPrecondition {
		t.Errorf("a second server: %v", err)
	}
}

// dimensions: beyond 2000 the graph has halves, beyond 4000 there is none, beyond 16,000 nothing is kept.
func dimensions(t *testing.T, dsn string) {
	t.Helper()
	p := newPlace(t, dsn, "dimensions")
	b := opened(t, p)
	for d, method := range map[int]string{2500: "hnsw", 5000: "exact"} {
		index := p.index(t, "wide"+strconv.Itoa(d), l2(d))
		var src vector.Points
		for i := range 30 {
			v := make([]float32, d)
			v[d-1] = float32(i)
			src.Put = append(src.Put, &pb.IndexDatapoint{DatapointId: strconv.Itoa(i), FeatureVector: v})
		}
		if err := b.Replace(t.Context(), index, true, src, done); err != nil {
			t.Fatal(err)
		}
		if st, err := b.Stats(t.Context(), index); err != nil || st.Method != method {
			t.Errorf("%d dimensions: %+v, %v", d, st, err)
		}
		out, err := b.Find(t.Context(), index, []vector.Query{{Point: src.Put[7], Neighbors: 3}}, false)
		if err != nil || len(out[0]) != 3 || out[0][0].Datapoint.DatapointId != "7" || out[0][0].Distance != 0 || out[0][2].Distance != 1 {
			t.Errorf("%d dimensions: %v, %v", d, out, err)
		}
	}
	index := p.index(t, "widest", l2(16_001))
	if err := b.Replace(t.Context(), index, true, vector.Points{}, done); resource.CodeOf(err) != codes.Unimplemented {
		t.Errorf("16,001 dimensions: %v", err)
	}
}
