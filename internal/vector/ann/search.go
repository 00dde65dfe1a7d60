package ann

import (
	"context"
	"fmt"
	"math"
	"slices"
)

// Query asks for the rows nearest to a vector.
type Query struct {
	Vector []float32
	K      int
	// Candidates are compared exactly, at least K (approximate_neighbor_count); 0 leaves it
	// to the segment's tuning.
	Candidates int
	// Fraction of the leaves to scan (fraction_leaf_nodes_to_search); 0 leaves it to the
	// tuning. A graph widens its beam likewise; flat and exact segments look at all rows anyway.
	Fraction float64
	// Beam is how many rows the walk of a graph keeps; 0 leaves it to the tuning.
	Beam int
	// PerCrowd is how many neighbours of one crowding tag there may be; 0 is no limit.
	// Rows without a tag are not limited.
	PerCrowd int
	// Allowed rows, as Segment.Allowed gives them; nil is all.
	Allowed *Bitmap
	// Exact compares every row that is allowed.
	Exact bool
}

// Results of one call. The zero value is ready, and may be used again: then no memory is
// taken.
type Results struct {
	found []Neighbor
	ends  []int
}

// Len is how many queries were answered.
func (r *Results) Len() int { return len(r.ends) }

// At are the neighbours of query i, the nearest first; of equal ones the lower row first.
func (r *Results) At(i int) []Neighbor {
	start := 0
	if i > 0 {
		start = r.ends[i-1]
	}
	return r.found[start:r.ends[i]:r.ends[i]]
}

// Search answers queries. Rows in dead are passed over (nil: none). Fewer than K neighbours
// mean that there are no more that are allowed; or, of an approximate method, that no more
// were found near. An error is of a query that cannot be asked.
func (s *Segment) Search(queries []Query, dead *Bitmap, out *Results) error {
	return s.SearchContext(context.Background(), queries, dead, out)
}

// SearchContext is Search that ends with its context: some thousand rows later at most.
func (s *Segment) SearchContext(ctx context.Context, queries []Query, dead *Bitmap, out *Results) error {
	out.found, out.ends = out.found[:0], out.ends[:0]
	for i := range queries {
		if err := CheckVector(queries[i].Vector, s.meta.Dimensions); err != nil {
			return err
		}
		if a := queries[i].Allowed; a != nil && a.Len() != s.Rows {
			return fmt.Errorf("a bitmap of %d rows for a segment of %d", a.Len(), s.Rows)
		}
	}
	if dead != nil && dead.Len() != s.Rows {
		return fmt.Errorf("a bitmap of %d rows for a segment of %d", dead.Len(), s.Rows)
	}
	if s.Method == IVF && len(queries) > 1 {
		b := s.takeBatch()
		defer s.giveBatch(b)
		for ; len(queries) > 0; queries = queries[min(len(queries), together):] {
			b.answer(ctx, s, queries[:min(len(queries), together)], dead, out)
		}
		return ctx.Err()
	}
	sc := s.take()
	defer s.give(sc)
	sc.until(ctx)
	for i := range queries {
		sc.prepare(&queries[i], dead)
		if queries[i].K > 0 && s.Rows > 0 {
			sc.run()
			out.found = append(out.found, sc.best...)
		}
		out.ends = append(out.ends, len(out.found))
	}
	return ctx.Err()
}

// run fills best. With a limit a crowding tag it looks wider until there are enough.
func (sc *scratch) run() {
	q := sc.query
	sc.widen = 1
	if q.PerCrowd <= 0 || sc.s.crowding == nil {
		sc.fill(q.K, sc.leavesFor(q, q.K), sc.candidatesFor(q))
		return
	}
	want := 4 * q.K
	leaves, candidates := sc.leavesFor(q, want), sc.candidatesFor(q)
	for {
		candidates = max(candidates, want)
		sc.fill(want, leaves, candidates)
		full := len(sc.best) < want && sc.all
		sc.limit()
		if len(sc.best) >= q.K || full || want >= sc.s.Rows || sc.ended() {
			sc.best = sc.best[:min(len(sc.best), q.K)]
			return
		}
		want, leaves, sc.widen = min(4*want, sc.s.Rows), min(2*leaves, sc.s.Leaves), 2*sc.widen
	}
}

// limit takes out neighbours beyond the limit of their tag.
func (sc *scratch) limit() {
	clear(sc.crowd)
	keep := sc.best[:0]
	for _, n := range sc.best {
		if tag := sc.s.crowding[n.Row]; tag != 0 {
			if sc.crowd[tag] >= sc.query.PerCrowd {
				continue
			}
			sc.crowd[tag]++
		}
		keep = append(keep, n)
	}
	sc.best = keep
}

func (sc *scratch) fill(k, leaves, candidates int) {
	sc.best = sc.best[:0]
	if sc.s.Method == Exact || sc.query.Exact || sc.few(leaves) {
		sc.scanExact(k)
		return
	}
	sc.search(k, effort{leaves, candidates, sc.beamFor(sc.query) * sc.widen})
}

// search is one approximate search: candidates by their codes, then the best of them exactly.
func (sc *scratch) search(k int, e effort) {
	sc.best = sc.best[:0]
	switch sc.s.Method {
	case Exact:
		sc.scanExact(k)
		return
	case HNSW:
		if !sc.walkGraph(k, e) {
			sc.scanExact(k)
			return
		}
	default:
		sc.choose(e.leaves)
		if sc.cheap(sc.chosen) {
			sc.scanExact(k)
			return
		}
		sc.scanLeaves(max(k, e.candidates))
	}
	sc.rerank(k)
}

// A comparison costs about as much as scanning this many codes.
const comparison = 8

// cheap says that comparing the rows that are allowed costs less than scanning so many codes.
func (sc *scratch) cheap(scanned int) bool {
	return sc.filter != nil && sc.allowed*comparison <= max(scanned, 4096)
}

// few says that comparing the rows that are allowed costs less than finding candidates, as
// far as that is known before leaves are chosen: where the rows that pass are spread evenly.
func (sc *scratch) few(leaves int) bool {
	if sc.filter == nil {
		return false
	}
	if sc.s.Method == HNSW {
		return sc.cheap(walkCost(sc.beamFor(sc.query)))
	}
	wanted := max(leaves*(sc.s.Rows/max(1, sc.s.Leaves)), perNeighbor*sc.query.K)
	scanned := float64(wanted) * float64(sc.s.Rows) / float64(max(1, sc.allowed))
	return sc.cheap(int(min(scanned, float64(sc.s.Rows))))
}

func (sc *scratch) candidatesFor(q *Query) int {
	if q.Candidates > 0 {
		return max(q.Candidates, q.K)
	}
	t := max(sc.s.Tuning.Candidates, tuneK)
	if q.K > 10 { // tuned for 10 neighbours
		t = q.K + (t-10)*int(math.Ceil(math.Sqrt(float64(q.K)/10)))
	}
	return t
}

// perNeighbor rows that pass a filter are scanned for each neighbour wanted, at least.
const perNeighbor = 50

// leavesFor k neighbours is how many leaves to scan where no filter keeps rows out.
func (sc *scratch) leavesFor(q *Query, k int) int {
	n := float64(sc.s.Tuning.Leaves)
	if q.Fraction > 0 {
		n = math.Ceil(q.Fraction * float64(sc.s.Leaves))
	} else if k > tuneK {
		n *= math.Sqrt(float64(k) / tuneK)
	}
	return max(1, int(min(n, float64(sc.s.Leaves))))
}

// passes says whether a row may be a neighbour.
func (sc *scratch) passes(row uint32) bool {
	return (sc.filter == nil || sc.filter.Has(row)) && (sc.dead == nil || !sc.dead.Has(row))
}

// keepBest puts a row into the k best, in order.
func (sc *scratch) keepBest(n Neighbor, k int) {
	b := sc.best
	if len(b) == k {
		if !less(n, b[k-1]) {
			return
		}
		b = b[:k-1]
	}
	i := len(b)
	if i > 16 {
		i, _ = slices.BinarySearchFunc(b, n, compare)
	} else {
		for i > 0 && less(n, b[i-1]) {
			i--
		}
	}
	sc.best = slices.Insert(b, i, n)
}

func less(a, b Neighbor) bool {
	return a.Distance < b.Distance || a.Distance == b.Distance && a.Row < b.Row
}

func compare(a, b Neighbor) int {
	if less(a, b) {
		return -1
	}
	if less(b, a) {
		return 1
	}
	return 0
}
