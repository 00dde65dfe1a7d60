package ann

import (
	"math/bits"
	"slices"

	"tategu/internal/vector/ann/kernel"
)

// The graph has one level: each row's neighbours, degree of them, free places none. Where a
// walk begins is found among the leaves' centres, which is what HNSW has upper levels for.
const (
	none    = ^uint32(0)
	walked  = uint32(1) << 31 // of a row in a walk: its neighbours have been looked at
	seeds   = 6               // leaves where a walk begins
	maxHops = 512             // rows that one step of a walk compares
)

// node of a walk. Higher scores are nearer.
type node struct {
	score float32
	row   uint32
}

// walk is the state of one walk, used again.
type walk struct {
	seen   []uint8 // the number of the walk that saw the row
	number uint8
	pool   []node
	ids    []uint32
	dots   []int32
	pick   kernel.Pick
}

func (w *walk) begin(rows, beam int) {
	if len(w.seen) < rows {
		w.seen, w.number = make([]uint8, rows), 0
		w.ids, w.dots = make([]uint32, maxHops), make([]int32, maxHops)
	}
	if w.number++; w.number == 0 {
		clear(w.seen)
		w.number = 1
	}
	if cap(w.pool) < beam+1 {
		w.pool = make([]node, beam+1)
	}
	w.pool = w.pool[:beam+1]
}

// see says whether the walk had not seen a row.
func (w *walk) see(row uint32) bool {
	if w.seen[row] == w.number {
		return false
	}
	w.seen[row] = w.number
	return true
}

func (s *Segment) neighbors(row uint32) []uint32 {
	at := int(row) * s.Degree
	return s.links[at : at+s.Degree : at+s.Degree]
}

// Of rows that a filter lets through, a walk needs so many for each neighbour that is wanted,
// so that it has not just met the edge of them.
const enough = 2

// walkThrough is the share of rows, one of so many, from which on a walk goes through all rows
// and leaves out those that do not pass at its end.
const walkThrough = 12

// walkCost is what a walk costs in codes scanned: a row that it meets costs about as much as
// one that is compared exactly, and it meets about 16 for each that it keeps.
func walkCost(beam int) int { return comparison * 16 * beam }

// walkGraph fills the pool by walks, each wider than the one before, until enough of the rows
// that it meets pass. It gives up where comparing all that pass would cost less: they are not
// where the query is.
func (sc *scratch) walkGraph(k int, e effort) bool {
	sc.all = false
	want := max(k, e.candidates)
	if sc.filter != nil {
		want = max(want, enough*k)
	}
	for beam := max(e.beam, want); ; beam *= 4 {
		sc.scanGraph(beam, want)
		if sc.filter == nil && sc.dead != nil && 4*sc.pool.n < 3*min(want, sc.s.Rows) {
			sc.bury() // many that it met are dead
			want = max(want, enough*k)
		}
		if sc.filter == nil || sc.pool.n >= min(enough*k, sc.allowed) {
			return true
		}
		if beam >= sc.s.Rows || sc.cheap(walkCost(4*beam)) {
			return false
		}
	}
}

// scanGraph fills the pool with the rows that a walk finds.
func (sc *scratch) scanGraph(beam, candidates int) {
	s, w := sc.s, &sc.walk
	beam = min(beam, s.Rows)
	w.begin(s.Rows, beam)
	w.pick = kernel.Pick{Query: &sc.code[0], Codes: &s.codes[0], Rows: &w.ids[0], Out: &w.dots[0], Lines: s.lines, Stride: 64 * s.lines}
	sc.nearest(min(seeds, s.Leaves))
	n := 0
	for _, leaf := range sc.probe.rows[:sc.probe.n] {
		if r := s.entries[leaf]; w.see(r) {
			w.ids[n] = r
			n++
		}
	}
	size, _ := sc.take(n, 0, beam, 0)
	for at := 0; at < size; {
		row := w.pool[at].row
		w.pool[at].row |= walked
		next := at + 1
		for next < size && w.pool[next].row&walked != 0 {
			next++
		}
		if next < size {
			w.pick.Next = ptr(s.links, int(w.pool[next].row)*s.Degree)
		}
		if n := sc.step(s.neighbors(row)); n > 0 {
			size, next = sc.take(n, size, beam, next)
		}
		for at = next; at < size && w.pool[at].row&walked != 0; {
			at++
		}
	}
	p := &sc.pool
	candidates = min(candidates, s.Rows)
	p.reset(candidates)
	for _, v := range w.pool[:size] {
		if row := v.row &^ walked; sc.passes(row) {
			p.rows[p.n] = row
			if p.n++; p.n == candidates {
				return
			}
		}
	}
}

// through says that a walk goes through rows that do not pass as through any other.
func (sc *scratch) through() bool {
	return sc.filter == nil || sc.allowed*walkThrough >= sc.s.Rows
}

// step gathers the neighbours that were not seen. Where a filter keeps most rows out, those
// behind a neighbour that does not pass take its place.
func (sc *scratch) step(links []uint32) int {
	w, n := &sc.walk, 0
	if sc.through() {
		for _, e := range links {
			if e == none {
				break
			}
			if w.see(e) {
				w.ids[n] = e
				n++
			}
		}
		return n
	}
	for _, e := range links {
		if e == none {
			break
		}
		if !w.see(e) {
			continue
		}
		if sc.filter.Has(e) {
			w.ids[n] = e
			n++
			continue
		}
		for _, far := range sc.s.neighbors(e) {
			if far == none || n >= maxHops-sc.s.Degree {
				break
			}
			if sc.filter.Has(far) && w.see(far) {
				w.ids[n] = far
				n++
			}
		}
	}
	return n
}

// take compares the n rows gathered and puts them in their places; it gives the size of the
// pool, and the first place that may not have been walked from.
func (sc *scratch) take(n, size, beam, next int) (int, int) {
	s, w := sc.s, &sc.walk
	w.pick.Count = n
	s.kernels.Pick(&w.pick)
	pool := w.pool
	for i, id := range w.ids[:n] {
		score := float32(w.dots[i])
		if s.norms != nil {
			score -= sc.beta * s.norms[id]
		}
		if size == beam && score <= pool[size-1].score {
			continue
		}
		lo, hi := 0, size
		for lo < hi {
			if m := int(uint(lo+hi) >> 1); pool[m].score >= score {
				lo = m + 1
			} else {
				hi = m
			}
		}
		if size < beam {
			size++
		}
		copy(pool[lo+1:size], pool[lo:size-1])
		pool[lo] = node{score, id}
		next = min(next, lo)
	}
	return size, next
}

func (s *Segment) bindGraph(b *binder) {
	m := &s.meta
	if m.Degree < 1 || m.Degree > maxHops/2 || m.Rows == 0 || m.Leaves < 1 {
		b.fail(secMeta)
		return
	}
	s.lines = lines(m.Dimensions)
	s.codes = want[byte](b, secCodes, m.Rows*64*s.lines)
	s.links = want[uint32](b, secGraph, m.Rows*m.Degree)
	s.entries = want[uint32](b, secEntries, m.Leaves)
	b.below(s.entries, m.Rows, secEntries)
	for _, v := range s.links {
		if v != none && int(v) >= m.Rows {
			b.fail(secGraph)
			return
		}
	}
}

// lines of 64 bytes that a row's codes take.
func lines(dimensions int) int { return (dimensions + 63) / 64 }

// beamFor is how many rows a walk keeps.
func (sc *scratch) beamFor(q *Query) int {
	s := sc.s
	beam := s.Tuning.Beam
	switch {
	case q.Beam > 0:
		beam = q.Beam
	case q.Fraction > 0: // as many comparisons as scanning so many leaves, about
		beam = int(q.Fraction * float64(s.Rows) / 16)
	case q.K > 10:
		beam += 2 * (q.K - 10)
	}
	switch {
	case sc.filter == nil || sc.allowed == 0:
	case sc.through():
		beam = beam * s.Rows / sc.allowed
	default:
		beam *= bits.Len(uint(s.Rows / sc.allowed))
	}
	return max(beam, q.K)
}

func ptr[T plain](s []T, i int) *byte { return &raw(s[i : i+1])[0] }

// sortNodes puts the nearest first.
func sortNodes(n []node) {
	slices.SortFunc(n, func(a, b node) int {
		switch {
		case a.score > b.score || a.score == b.score && a.row < b.row:
			return -1
		case a == b:
			return 0
		}
		return 1
	})
}
