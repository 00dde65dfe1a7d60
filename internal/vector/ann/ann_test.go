package ann_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"tategu/internal/vector/ann"
)

// points are clustered vectors with attributes: what real ones look like, in small.
func points(n, d int, seed uint64) []ann.Row {
	rng := rand.New(rand.NewPCG(seed, 1))
	centres := make([][]float32, 1+n/50)
	for i := range centres {
		centres[i] = make([]float32, d)
		for j := range centres[i] {
			centres[i][j] = float32(rng.NormFloat64())
		}
	}
	rows := make([]ann.Row, n)
	for i := range rows {
		v := make([]float32, d)
		c := centres[rng.IntN(len(centres))]
		for j := range v {
			v[j] = c[j] + 0.4*float32(rng.NormFloat64())
		}
		rows[i] = ann.Row{
			ID: fmt.Sprintf("id-%05d", i), Vector: v, Crowding: "crowd" + strconv.Itoa(i%7), Extra: []byte{byte(i), byte(i >> 8)},
			Restricts: []ann.Restrict{{Namespace: "half", Allow: []string{strconv.Itoa(i % 2)}}, {Namespace: "cent", Allow: []string{strconv.Itoa(i % 100)}, Deny: []string{strconv.Itoa(i % 3)}}},
			Numerics:  []ann.Numeric{{Namespace: "n", Number: ann.Number{Kind: ann.Int, Int: int64(i - n/2)}}, {Namespace: "n", Number: ann.Number{Kind: ann.Double, Float: float64(i) / 8}}},
		}
	}
	return rows
}

func seq(rows []ann.Row) ann.Rows {
	return func(yield func(ann.Row, error) bool) {
		for _, r := range rows {
			if !yield(r, nil) {
				return
			}
		}
	}
}

func build(tb testing.TB, rows []ann.Row, o ann.Options) *ann.Segment {
	tb.Helper()
	path := filepath.Join(tb.TempDir(), "segment")
	if o.Dimensions == 0 {
		o.Dimensions = len(rows[0].Vector)
	}
	if _, err := ann.BuildFile(tb.Context(), path, seq(rows), o); err != nil {
		tb.Fatal(err)
	}
	s, err := ann.Open(path)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := s.Close(); err != nil {
			tb.Error(err)
		}
	})
	return s
}

// truth are the ids of the k nearest rows that pass, by the plain formula.
func truth(m ann.Measure, rows []ann.Row, q []float32, k int, pass func(ann.Row) bool) []string {
	type found struct {
		id string
		d  float32
	}
	var all []found
	for _, r := range rows {
		if pass == nil || pass(r) {
			all = append(all, found{r.ID, m.Between(q, r.Vector)})
		}
	}
	slices.SortFunc(all, func(a, b found) int {
		if a.d < b.d {
			return -1
		}
		if a.d > b.d {
			return 1
		}
		return 0
	})
	out := make([]string, 0, k)
	for _, f := range all[:min(k, len(all))] {
		out = append(out, f.id)
	}
	return out
}

func ids(s *ann.Segment, found []ann.Neighbor) []string {
	out := make([]string, 0, len(found))
	for _, n := range found {
		out = append(out, s.ID(n.Row))
	}
	return out
}

// recall is the share of the wanted ids that were found.
func recall(want, got []string) float64 {
	if len(want) == 0 {
		return 1
	}
	n := 0
	for _, id := range want {
		if slices.Contains(got, id) {
			n++
		}
	}
	return float64(n) / float64(len(want))
}

func measures() iter.Seq[ann.Measure] {
	return slices.Values([]ann.Measure{{Distance: ann.DotProduct}, {Distance: ann.DotProduct, UnitNorm: true}, {Distance: ann.Cosine}, {Distance: ann.SquaredL2}, {Distance: ann.SquaredL2, UnitNorm: true}, {Distance: ann.L1}, {Distance: ann.L1, UnitNorm: true}})
}

func TestExactFindsAll(t *testing.T) {
	rows := points(700, 19, 1)
	for m := range measures() {
		t.Run(fmt.Sprint(m), func(t *testing.T) {
			s := build(t, rows, ann.Options{Measure: m, Method: ann.Exact})
			var out ann.Results
			queries := points(20, 19, 2)
			for _, q := range queries {
				if err := s.Search([]ann.Query{{Vector: q.Vector, K: 10}}, nil, &out); err != nil {
					t.Fatal(err)
				}
				got := out.At(0)
				if r := recall(truth(m, rows, q.Vector, 10, nil), ids(s, got)); r < 1 {
					t.Errorf("recall %.2f", r)
				}
				for i, n := range got {
					want := m.Between(q.Vector, s.Vector(n.Row))
					if d := n.Distance - want; d > 1e-4*max(1, want) || -d > 1e-4*max(1, want) {
						t.Errorf("distance %v instead of %v", n.Distance, want)
					}
					if i > 0 && n.Distance < got[i-1].Distance {
						t.Error("not in order")
					}
				}
			}
		})
	}
}

func TestRowsComeBackAsTheyWere(t *testing.T) {
	rows := points(300, 6, 3)
	for _, method := range []ann.Method{ann.Auto, ann.Exact, ann.Flat} {
		s := build(t, rows, ann.Options{Measure: ann.Measure{Distance: ann.Cosine}, Method: method})
		n := 0
		for row := range s.Scan("") {
			got, err := s.Get(row)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(rows[n], got); d != "" {
				t.Fatal(d)
			}
			n++
		}
		if n != len(rows) || s.Len() != n {
			t.Errorf("%d rows", n)
		}
		if row, ok := s.Row("id-00017"); !ok || s.ID(row) != "id-00017" {
			t.Error("id-00017 is not found")
		}
		if _, ok := s.Row("id-x"); ok {
			t.Error("an id that is not there is found")
		}
		for row := range s.Scan("id-00298") {
			if s.ID(row) != "id-00299" {
				t.Error("after", s.ID(row))
			}
		}
	}
}

func TestAllowedIsMatch(t *testing.T) {
	rows := points(500, 4, 4)
	s := build(t, rows, ann.Options{})
	i := func(v int64) ann.Number { return ann.Number{Kind: ann.Int, Int: v} }
	filters := []ann.Filter{
		{},
		{Restricts: []ann.Restrict{{Namespace: "half", Allow: []string{"1"}}}},
		{Restricts: []ann.Restrict{{Namespace: "half", Deny: []string{"1"}}}},
		{Restricts: []ann.Restrict{{Namespace: "cent", Allow: []string{"7", "2", "50"}}, {Namespace: "half", Allow: []string{"1", "0"}}}},
		{Restricts: []ann.Restrict{{Namespace: "no", Allow: []string{"1"}}}},
		{Restricts: []ann.Restrict{{Namespace: "no", Deny: []string{"1"}}}},
		{Tests: []ann.Test{{Namespace: "n", Operator: ann.Less, Number: i(-5)}}},
		{Tests: []ann.Test{{Namespace: "n", Operator: ann.LessEqual, Number: i(-5)}, {Namespace: "n", Operator: ann.NotEqual, Number: i(-9)}}},
		{Tests: []ann.Test{{Namespace: "n", Operator: ann.Equal, Number: ann.Number{Kind: ann.Double, Float: 4.5}}}},
		{Tests: []ann.Test{{Namespace: "n", Operator: ann.Greater, Number: i(100)}}, Restricts: []ann.Restrict{{Namespace: "half", Allow: []string{"1"}}}},
		{Tests: []ann.Test{{Namespace: "n", Operator: ann.GreaterEqual, Number: ann.Number{Kind: ann.Float, Float: 0}}}},
		{Tests: []ann.Test{{Namespace: "n", Operator: ann.GreaterEqual, Number: i(100)}}},
	}
	for _, f := range filters {
		var b ann.Bitmap
		n := s.Allowed(f, &b)
		count := 0
		for _, r := range rows {
			row, _ := s.Row(r.ID)
			if b.Has(row) != f.Match(r) {
				t.Errorf("%+v: row %s: %v", f, r.ID, b.Has(row))
			}
			if f.Match(r) {
				count++
			}
		}
		if n != count {
			t.Errorf("%+v: %d instead of %d", f, n, count)
		}
	}
}

func TestWhatCannotBeBuilt(t *testing.T) {
	rows := points(10, 4, 5)
	twice := append(slices.Clone(rows), rows[3])
	for _, c := range []struct {
		rows []ann.Row
		want error
	}{
		{twice, ann.ErrDuplicate},
		{append(slices.Clone(rows), ann.Row{ID: "x", Vector: []float32{1}}), ann.ErrVector},
		{append(slices.Clone(rows), ann.Row{ID: "x", Vector: []float32{1, 2, 3, float32(inf())}}), ann.ErrVector},
	} {
		path := filepath.Join(t.TempDir(), "s")
		if _, err := ann.BuildFile(t.Context(), path, seq(c.rows), ann.Options{Dimensions: 4}); !errors.Is(err, c.want) {
			t.Errorf("%v instead of %v", err, c.want)
		}
		if _, err := ann.Open(path); err == nil {
			t.Error("a file is there")
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := ann.BuildFile(ctx, filepath.Join(t.TempDir(), "s"), seq(rows), ann.Options{Dimensions: 4}); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

func inf() float64 { v := 1e300; return v * v }

func TestEmptySegment(t *testing.T) {
	s := build(t, nil, ann.Options{Dimensions: 4})
	var out ann.Results
	if err := s.Search([]ann.Query{{Vector: make([]float32, 4), K: 3}}, nil, &out); err != nil || len(out.At(0)) != 0 {
		t.Error(err, out.At(0))
	}
}

func TestQueriesThatCannotBeAsked(t *testing.T) {
	rows := points(100, 4, 5)
	s := build(t, rows, ann.Options{})
	var out ann.Results
	if err := s.Search([]ann.Query{{Vector: []float32{1}, K: 1}}, nil, &out); !errors.Is(err, ann.ErrVector) {
		t.Error(err)
	}
	if err := s.Search([]ann.Query{{Vector: rows[0].Vector, K: 1, Allowed: ann.NewBitmap(7)}}, nil, &out); err == nil {
		t.Error("a bitmap of another segment")
	}
	if err := s.Search([]ann.Query{{Vector: rows[0].Vector, K: 1}}, ann.NewBitmap(7), &out); err == nil {
		t.Error("dead rows of another segment")
	}
}

func TestDeadRowsAndCrowding(t *testing.T) {
	rows := points(3000, 8, 6)
	for _, method := range []ann.Method{ann.Exact, ann.Flat, ann.Auto} {
		s := build(t, rows, ann.Options{Method: method, Measure: ann.Measure{Distance: ann.SquaredL2}})
		dead := ann.NewBitmap(s.Len())
		var out ann.Results
		q := ann.Query{Vector: rows[5].Vector, K: 10}
		for range 3 {
			if err := s.Search([]ann.Query{q}, dead, &out); err != nil {
				t.Fatal(err)
			}
			for _, n := range out.At(0) {
				if dead.Has(n.Row) {
					t.Error("a dead row")
				}
				dead.Set(n.Row)
			}
		}
		q.PerCrowd = 2
		if err := s.Search([]ann.Query{q}, nil, &out); err != nil {
			t.Fatal(err)
		}
		tags := map[string]int{}
		for _, n := range out.At(0) {
			r, _ := s.Get(n.Row)
			tags[r.Crowding]++
		}
		for tag, n := range tags {
			if n > 2 {
				t.Errorf("%s: %d neighbours", tag, n)
			}
		}
		if len(out.At(0)) != 10 {
			t.Errorf("%d neighbours of 7 tags with 2 each", len(out.At(0)))
		}
	}
}

// Recall of 10 neighbours for queries that are no rows, with filters that let through half to
// one of 10,000 rows. Counts, not times.
func TestRecall(t *testing.T) {
	const n, d, asked = 7_000, 24, 25
	rows := points(n+asked, d, 7)
	rows, queries := rows[:n], rows[n:]
	for i := range rows {
		rows[i].Restricts = nil
		for _, every := range selective() {
			rows[i].Restricts = append(rows[i].Restricts, ann.Restrict{Namespace: strconv.Itoa(every), Allow: []string{strconv.Itoa(i * 7919 % n % every)}})
		}
	}
	for _, m := range []ann.Measure{{Distance: ann.Cosine}, {Distance: ann.SquaredL2}, {Distance: ann.L1}} {
		exact := build(t, rows, ann.Options{Measure: m, Method: ann.Exact})
		for _, method := range []ann.Method{ann.Auto, ann.Flat, ann.IVF, ann.HNSW} {
			s := build(t, rows, ann.Options{Measure: m, Method: method})
			for _, every := range selective() {
				f := ann.Filter{Restricts: []ann.Restrict{{Namespace: strconv.Itoa(every), Allow: []string{"0"}}}}
				want, got := answers(t, exact, queries, f), answers(t, s, queries, f)
				var sum float64
				for i := range queries {
					sum += recall(want[i], got[i]) / asked
				}
				if sum < 0.95 {
					t.Errorf("%v %v (%v), one of %d rows is allowed: recall %.4f", method, m.Distance, s.Tuned(), every, sum)
				}
			}
		}
	}
}

func answers(t *testing.T, s *ann.Segment, queries []ann.Row, f ann.Filter) [][]string {
	t.Helper()
	var allowed ann.Bitmap
	s.Allowed(f, &allowed)
	asked := make([]ann.Query, 0, len(queries))
	for _, q := range queries {
		asked = append(asked, ann.Query{Vector: q.Vector, K: 10, Allowed: &allowed})
	}
	var out ann.Results
	if err := s.Search(asked, nil, &out); err != nil {
		t.Fatal(err)
	}
	found := make([][]string, 0, len(queries))
	for i := range queries {
		found = append(found, ids(s, out.At(i)))
	}
	return found
}

func selective() []int { return []int{1, 2, 4, 10, 20, 100, 1000, 10000} }

// A search whose results are used again takes no memory.
func TestSearchTakesNoMemory(t *testing.T) {
	rows := points(6000, 20, 8)
	for _, method := range []ann.Method{ann.Exact, ann.Flat, ann.IVF, ann.HNSW} {
		s := build(t, rows, ann.Options{Measure: ann.Measure{Distance: ann.SquaredL2}, Method: method})
		var allowed ann.Bitmap
		s.Allowed(ann.Filter{Restricts: []ann.Restrict{{Namespace: "half", Allow: []string{"1"}}}}, &allowed)
		queries := []ann.Query{{Vector: rows[1].Vector, K: 10}, {Vector: rows[2].Vector, K: 10, Allowed: &allowed}, {Vector: rows[3].Vector, K: 5, PerCrowd: 2}}
		var out ann.Results
		if n := testing.AllocsPerRun(50, func() {
			if err := s.Search(queries, nil, &out); err != nil {
				t.Fatal(err)
			}
		}); n >= 1 { // the pool of scratch may be emptied by a collection in between
			t.Errorf("%v: %v allocations", method, n)
		}
	}
}

// Many queries of one call find what each finds by itself.
func TestTogetherAsAlone(t *testing.T) {
	rows := points(8000, 20, 9)
	s := build(t, rows, ann.Options{Measure: ann.Measure{Distance: ann.SquaredL2}, Method: ann.IVF, LeafSize: 50})
	var half, few ann.Bitmap
	s.Allowed(ann.Filter{Restricts: []ann.Restrict{{Namespace: "half", Allow: []string{"1"}}}}, &half)
	s.Allowed(ann.Filter{Restricts: []ann.Restrict{{Namespace: "cent", Allow: []string{"1"}}}}, &few)
	dead := ann.NewBitmap(s.Len())
	dead.Set(7)
	var queries []ann.Query
	for i, r := range points(150, 20, 9) {
		queries = append(queries, ann.Query{Vector: r.Vector, K: i % 13, Fraction: 0.02 * float64(i%5), Candidates: 20 * (i % 3)})
		switch q := &queries[i]; i % 6 {
		case 1:
			q.Allowed = &half
		case 2:
			q.Allowed = &few
		case 3:
			q.PerCrowd = 1
		case 4:
			q.Exact = true
		}
	}
	var all, one ann.Results
	if err := s.Search(queries, dead, &all); err != nil || all.Len() != len(queries) {
		t.Fatal(err, all.Len())
	}
	for i := range queries {
		if err := s.Search(queries[i:i+1], dead, &one); err != nil {
			t.Fatal(err)
		}
		if r := recall(ids(s, one.At(0)), ids(s, all.At(i))); len(one.At(0)) != len(all.At(i)) || r < 1 {
			t.Errorf("query %d: %d neighbours instead of %d, %.2f of them", i, len(all.At(i)), len(one.At(0)), r)
		}
	}
}

// Any number of threads builds the same segment, and any number of goroutines searches it.
func TestThreads(t *testing.T) {
	rows := points(5000, 16, 10)
	for _, method := range []ann.Method{ann.IVF, ann.HNSW} {
		o := ann.Options{Measure: ann.Measure{Distance: ann.Cosine}, Method: method, Candidates: 50}
		o.Threads = 1
		one := build(t, rows, o)
		o.Threads = 4
		four := build(t, rows, o)
		var queries []ann.Query
		for _, r := range rows[:100] {
			queries = append(queries, ann.Query{Vector: r.Vector, K: 10, Fraction: 0.1, Beam: 60})
		}
		var want ann.Results
		if err := one.Search(queries, nil, &want); err != nil {
			t.Fatal(err)
		}
		var wg sync.WaitGroup
		for range 6 {
			wg.Go(func() {
				var got ann.Results
				for i := range queries {
					if err := four.Search(queries[i:i+1], nil, &got); err != nil {
						t.Error(err)
						return
					}
					if d := cmp.Diff(want.At(i), got.At(0)); d != "" {
						t.Errorf("%v, query %d: %s", method, i, d)
						return
					}
				}
			})
		}
		wg.Wait()
	}
}
