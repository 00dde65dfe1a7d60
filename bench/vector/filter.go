package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strconv"

	"tategu/internal/vector/ann"
)

// Filters are measured by how much of the truth they leave to be found, and what a query costs
// with the making of its bitmap, which is a part of every query.
const (
	filterQueries = 200
	pivots        = 8   // of regions
	tags          = 256 // crowding tags, each of a neighbourhood
	plainChecks   = 3   // queries a case whose truth is found once more, without any of the engine
)

// shares of the rows that filters let through.
func shares() []float64 { return []float64{0.5, 0.1, 0.01, 0.001, 0.0001} }

// filterReply is one case.
type filterReply struct {
	Method  string  `json:"method"`
	Filter  string  `json:"filter"`
	Share   float64 `json:"share"`
	Allowed int     `json:"allowed"` // rows, on average
	Recall  float64 `json:"recall"`
	PerCPU  float64 `json:"per_cpu"`   // queries a second of CPU
	Bitmap  float64 `json:"bitmap_us"` // of which the bitmap takes
}

// filterCase is a kind of filter; of says which filter a query has.
type filterCase struct {
	name     string
	perCrowd int
	of       func(query, count int) ann.Filter
}

// attributed are the rows of a set with attributes to filter by.
type attributed struct {
	rows  []ann.Row
	far   []int // of each query: the pivot that is furthest from it
	n     int
	seeds *rand.Rand
}

func attribute(base, queries []float32, d int, m ann.Measure) *attributed {
	n := len(base) / d
	a := &attributed{rows: make([]ann.Row, n), n: n, seeds: rand.New(rand.NewPCG(5, 9))} //nolint:gosec // the same each time
	rank := a.seeds.Perm(n)
	for i := range a.rows {
		r := &a.rows[i]
		r.ID, r.Vector = strconv.Itoa(i), base[i*d:(i+1)*d]
		token := ann.Restrict{Namespace: "chance"}
		for _, s := range shares() {
			side := "out"
			if rank[i] < count(n, s) {
				side = "in"
			}
			token.Allow = append(token.Allow, side+share(s))
		}
		r.Restricts = []ann.Restrict{token}
		r.Numerics = []ann.Numeric{{Namespace: "chance", Number: whole(rank[i])}}
	}
	a.regions(queries, d, m)
	a.crowd(m)
	return a
}

// all implements ann.Rows.
func (a *attributed) all(yield func(ann.Row, error) bool) {
	for _, r := range a.rows {
		if !yield(r, nil) {
			return
		}
	}
}

func count(n int, s float64) int { return max(1, int(float64(n)*s+0.5)) }

func share(s float64) string { return strconv.FormatFloat(100*s, 'f', -1, 64) }

func whole(i int) ann.Number { return ann.Number{Kind: ann.Int, Int: int64(i)} }

// regions number the rows by their distance from each pivot: rows that pass lie together. A
// query gets the pivot that is furthest from it, so that nothing near it passes.
func (a *attributed) regions(queries []float32, d int, m ann.Measure) {
	type at struct {
		row  int
		dist float32
	}
	order := make([]at, a.n)
	a.far = make([]int, len(queries)/d)
	furthest := make([]float32, len(a.far))
	for p := range pivots {
		centre := a.rows[a.seeds.IntN(a.n)].Vector
		for i, r := range a.rows {
			order[i] = at{i, m.Between(centre, r.Vector)}
		}
		slices.SortFunc(order, func(x, y at) int { return cmp.Compare(x.dist, y.dist) })
		for i, o := range order {
			r := &a.rows[o.row]
			r.Numerics = append(r.Numerics, ann.Numeric{Namespace: region(p), Number: whole(i)})
		}
		for i := range a.far {
			if dist := m.Between(centre, queries[i*d:(i+1)*d]); p == 0 || dist > furthest[i] {
				a.far[i], furthest[i] = p, dist
			}
		}
	}
}

func region(pivot int) string { return "region" + strconv.Itoa(pivot) }

// crowd gives near rows one tag: a query's nearest are nearly all of the same.
func (a *attributed) crowd(m ann.Measure) {
	centres := a.seeds.Perm(a.n)[:min(tags, a.n)]
	for i := range a.rows {
		best, least := 0, float32(0)
		for c, row := range centres {
			if dist := m.Between(a.rows[row].Vector, a.rows[i].Vector); c == 0 || dist < least {
				best, least = c, dist
			}
		}
		a.rows[i].Crowding = strconv.Itoa(best)
	}
}

func (a *attributed) cases() []filterCase {
	chance := func(allow, deny string) func(int, int) ann.Filter {
		return func(_, n int) ann.Filter {
			r := ann.Restrict{Namespace: "chance"}
			for _, s := range shares() {
				if count(a.n, s) != n {
					continue
				}
				if allow != "" {
					r.Allow = []string{allow + share(s)}
				}
				if deny != "" {
					r.Deny = []string{deny + share(s)}
				}
			}
			return ann.Filter{Restricts: []ann.Restrict{r}}
		}
	}
	below := func(namespace func(query int) string) func(int, int) ann.Filter {
		return func(q, n int) ann.Filter {
			return ann.Filter{Tests: []ann.Test{{Namespace: namespace(q), Operator: ann.Less, Number: whole(n)}}}
		}
	}
	random := below(func(int) string { return "chance" })
	return []filterCase{
		{name: "allow", of: chance("in", "")},
		{name: "deny", of: chance("", "out")},
		{name: "numeric", of: random},
		{name: "far region", of: below(func(q int) string { return region(a.far[q]) })},
		{name: "any region", of: below(func(q int) string { return region(q % pivots) })},
		{name: "crowding 1", perCrowd: 1, of: random},
		{name: "crowding 1, far", perCrowd: 1, of: below(func(q int) string { return region(a.far[q]) })},
	}
}

// measureFilters asks all cases of a segment that was built of the rows.
func measureFilters(s *ann.Segment, a *attributed, queries []float32, d int, out io.Writer) error {
	enc := json.NewEncoder(out)
	queries = queries[:min(len(queries), filterQueries*d)]
	for _, c := range a.cases() {
		for _, part := range shares() {
			r, err := measureFilter(s, a, c, queries, d, count(a.n, part))
			if err != nil {
				return fmt.Errorf("%s, %v: %w", c.name, part, err)
			}
			r.Method, r.Filter, r.Share = s.Stats().Method, c.name, part
			if err := enc.Encode(r); err != nil {
				return err
			}
		}
	}
	return nil
}

func measureFilter(s *ann.Segment, a *attributed, c filterCase, queries []float32, d, n int) (filterReply, error) {
	var r filterReply
	asked := make([]ann.Query, len(queries)/d)
	maps := make([]ann.Bitmap, len(asked))
	start := cpu()
	for i := range asked {
		asked[i] = ann.Query{Vector: queries[i*d : (i+1)*d], K: 10, PerCrowd: c.perCrowd, Allowed: &maps[i]}
		r.Allowed += s.Allowed(c.of(i, n), &maps[i])
	}
	bitmaps := cpu() - start
	r.Allowed /= len(asked)
	found := make([]ann.Results, len(asked))
	least := 0.0
	for turn := range 3 {
		start = cpu()
		for i := range asked {
			if err := s.Search(asked[i:i+1], nil, &found[i]); err != nil {
				return r, err
			}
		}
		if spent := cpu() - start; turn == 0 || spent < least {
			least = spent
		}
	}
	r.PerCPU = float64(len(asked)) / (least + bitmaps)
	r.Bitmap = bitmaps / float64(len(asked)) * 1e6
	var truth ann.Results
	for i := range asked {
		q := asked[i]
		q.Exact = true
		if err := s.Search([]ann.Query{q}, nil, &truth); err != nil {
			return r, err
		}
		if i < plainChecks {
			if err := a.check(s, q, c.of(i, n), truth.At(0)); err != nil {
				return r, err
			}
		}
		r.Recall += same(truth.At(0), found[i].At(0)) / float64(len(asked))
	}
	return r, nil
}

// same is the share of the truth that was found.
func same(truth, found []ann.Neighbor) float64 {
	if len(truth) == 0 {
		return 1
	}
	n := 0
	for _, t := range truth {
		if slices.ContainsFunc(found, func(f ann.Neighbor) bool { return f.Row == t.Row }) {
			n++
		}
	}
	return float64(n) / float64(len(truth))
}

// check finds the truth by the plain formula, over all rows.
func (a *attributed) check(s *ann.Segment, q ann.Query, f ann.Filter, truth []ann.Neighbor) error {
	type at struct {
		row  int
		dist float32
	}
	var all []at
	for i, r := range a.rows {
		if f.Match(r) {
			all = append(all, at{i, s.Measure().Between(q.Vector, r.Vector)})
		}
	}
	slices.SortFunc(all, func(x, y at) int { return cmp.Compare(x.dist, y.dist) })
	crowd, n := map[string]int{}, 0
	for _, x := range all {
		tag := a.rows[x.row].Crowding
		if q.PerCrowd > 0 && crowd[tag] == q.PerCrowd {
			continue
		}
		crowd[tag]++
		if n == q.K {
			break
		}
		if n >= len(truth) || truth[n].Distance-x.dist > 1e-3*max(1, x.dist) || x.dist-truth[n].Distance > 1e-3*max(1, x.dist) {
			return fmt.Errorf("neighbour %d is %v away by the plain formula, and the exact search has %v", n, x.dist, truth)
		}
		n++
	}
	if n != len(truth) {
		return fmt.Errorf("the exact search has %d neighbours, the plain formula %d", len(truth), n)
	}
	return nil
}
