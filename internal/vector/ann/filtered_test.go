package ann_test

import (
	"cmp"
	"math/rand/v2"
	"slices"
	"strconv"
	"testing"

	"tategu/internal/vector/ann"
)

// filtered is a filter, and how many neighbours of one crowding tag there may be.
type filtered struct {
	name     string
	filter   ann.Filter
	perCrowd int
}

// ranked gives rows numbers to filter by: by chance, and by their distance from some points, so
// that those that pass lie together.
func ranked(rows []ann.Row, m ann.Measure, centres [][]float32) {
	rank := rand.New(rand.NewPCG(3, 5)).Perm(len(rows))
	for i := range rows {
		rows[i].Restricts, rows[i].Crowding = nil, strconv.Itoa(i%400)
		rows[i].Numerics = []ann.Numeric{number("chance", rank[i])}
		for _, s := range []int{2, 10, 100, 1000} {
			side := "out"
			if rank[i] < len(rows)/s {
				side = "in"
			}
			rows[i].Restricts = append(rows[i].Restricts, ann.Restrict{Namespace: strconv.Itoa(s), Allow: []string{side}})
		}
	}
	order := make([]int, len(rows))
	for c, centre := range centres {
		away := make([]float32, len(rows))
		for i := range rows {
			order[i], away[i] = i, m.Between(centre, rows[i].Vector)
		}
		slices.SortFunc(order, func(a, b int) int { return cmp.Compare(away[a], away[b]) })
		for n, i := range order {
			rows[i].Numerics = append(rows[i].Numerics, number("region"+strconv.Itoa(c), n))
		}
	}
}

func number(namespace string, n int) ann.Numeric {
	return ann.Numeric{Namespace: namespace, Number: ann.Number{Kind: ann.Int, Int: int64(n)}}
}

func below(namespace string, n int) ann.Filter {
	return ann.Filter{Tests: []ann.Test{{Namespace: namespace, Operator: ann.Less, Number: ann.Number{Kind: ann.Int, Int: int64(n)}}}}
}

func filters(n, far int) []filtered {
	var all []filtered
	for _, s := range []int{2, 10, 100, 1000} {
		name := " one of " + strconv.Itoa(s)
		token := func(allow, deny []string) ann.Filter {
			return ann.Filter{Restricts: []ann.Restrict{{Namespace: strconv.Itoa(s), Allow: allow, Deny: deny}}}
		}
		region := below("region"+strconv.Itoa(far), n/s)
		all = append(
			all, filtered{"allow" + name, token([]string{"in"}, nil), 0}, filtered{"deny" + name, token(nil, []string{"out"}), 0},
			filtered{"numeric" + name, below("chance", n/s), 0}, filtered{"far" + name, region, 0},
			filtered{"crowding" + name, below("chance", n/s), 1}, filtered{"crowding, far" + name, region, 1},
		)
	}
	return all
}

// Recall of 10 neighbours behind filters, also where all rows that pass lie together and far from
// the query. Shares are such that some are compared all, and others are not.
func TestFilteredRecall(t *testing.T) {
	const n, d, asked = 8_000, 12, 20
	rows := points(n+asked, d, 11)
	rows, queries := rows[:n], rows[n:]
	for _, m := range []ann.Measure{{Distance: ann.Cosine}, {Distance: ann.SquaredL2}} {
		centres := [][]float32{rows[1].Vector, rows[2].Vector, rows[3].Vector, rows[4].Vector, rows[5].Vector, rows[6].Vector}
		ranked(rows, m, centres)
		for _, method := range []ann.Method{ann.IVF, ann.HNSW} {
			s := build(t, rows, ann.Options{Measure: m, Method: method})
			sums := map[string]float64{}
			for _, q := range queries {
				far, nearest := 0, nearestFirst(rows, m, q.Vector)
				for c := range centres {
					if m.Between(q.Vector, centres[c]) > m.Between(q.Vector, centres[far]) {
						far = c
					}
				}
				for _, f := range filters(n, far) {
					sums[f.name] += f.recall(t, s, nearest, q.Vector) / asked
				}
			}
			for name, sum := range sums {
				if sum < 0.95 {
					t.Errorf("%v %v (%v), %s: recall %.4f", method, m.Distance, s.Tuned(), name, sum)
				}
			}
		}
	}
}

// recall of a query, of which the rows are given the nearest first by the plain formula.
func (f filtered) recall(t *testing.T, s *ann.Segment, nearest []ann.Row, q []float32) float64 {
	t.Helper()
	var want []string
	crowd := map[string]int{}
	for _, r := range nearest {
		if !f.filter.Match(r) || f.perCrowd > 0 && crowd[r.Crowding] == f.perCrowd {
			continue
		}
		crowd[r.Crowding]++
		if want = append(want, r.ID); len(want) == 10 {
			break
		}
	}
	var allowed ann.Bitmap
	s.Allowed(f.filter, &allowed)
	var out ann.Results
	if err := s.Search([]ann.Query{{Vector: q, K: 10, Allowed: &allowed, PerCrowd: f.perCrowd}}, nil, &out); err != nil {
		t.Fatal(err)
	}
	if len(out.At(0)) != len(want) {
		t.Errorf("%s: %d neighbours, and there are %d", f.name, len(out.At(0)), len(want))
	}
	return recall(want, ids(s, out.At(0)))
}

func nearestFirst(rows []ann.Row, m ann.Measure, q []float32) []ann.Row {
	type at struct {
		row  int
		away float32
	}
	all := make([]at, len(rows))
	for i, r := range rows {
		all[i] = at{i, m.Between(q, r.Vector)}
	}
	slices.SortFunc(all, func(a, b at) int { return cmp.Compare(a.away, b.away) })
	out := make([]ann.Row, len(rows))
	for i, a := range all {
		out[i] = rows[a.row]
	}
	return out
}

// Sums of absolute differences are looked for by squared ones; where those say too little, as of
// values with heavy tails, all rows are compared.
func TestSumsOfDifferences(t *testing.T) {
	const n, d, asked = 5_000, 24, 20
	m := ann.Measure{Distance: ann.L1}
	rng := rand.New(rand.NewPCG(13, 1))
	heavy := points(n+asked, d, 12)
	for _, r := range heavy {
		for j := range r.Vector {
			r.Vector[j] = float32(rng.NormFloat64() / rng.NormFloat64())
		}
	}
	for name, rows := range map[string][]ann.Row{"clusters": points(n+asked, d, 12), "heavy tails": heavy} {
		s := build(t, rows[:n], ann.Options{Measure: m})
		var sum float64
		for _, q := range rows[n:] {
			sum += filtered{name: name}.recall(t, s, nearestFirst(rows[:n], m, q.Vector), q.Vector) / asked
		}
		if sum < 0.95 {
			t.Errorf("%s (%s, %v): recall %.3f", name, s.Stats().Method, s.Tuned(), sum)
		}
		if name == "heavy tails" && s.Stats().Method != ann.Exact.String() {
			t.Errorf("%s are searched by %s", name, s.Stats().Method)
		}
	}
}
