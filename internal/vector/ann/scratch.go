package ann

import (
	"context"
	"math"
	"unsafe"

	"tategu/internal/vector/ann/kernel"
)

// chunk is how many rows one call of a kernel looks through.
const chunk = 1024

// scratch is what one search needs. It belongs to a segment and is used again.
type scratch struct {
	s       *Segment
	query   *Query
	dead    *Bitmap
	filter  *Bitmap // rows that may be found; nil is all that are not dead
	live    Bitmap  // what filter is where rows are dead
	allowed int     // rows in filter
	shares  bool    // the query shares scans with others
	widen   int     // of a beam
	all     bool    // the last search looked at every row that is allowed
	chosen  int     // rows of the leaves that were chosen
	spread  float64 // how many times as many rows are scanned as near rows would be
	done    <-chan struct{}

	vector []float32 // at length 1 where vectors are compared so; zeros up to the stride
	code   []int8
	beta   float32
	half   []int8 // the query for codes of 4 bits
	scaled []float32
	beta4  float32

	pool  pool
	probe pool
	best  []Neighbor
	crowd map[uint32]int

	walk   walk
	rows   []uint32
	dists  []float32
	scan   kernel.Scan
	kernel func(*kernel.Scan) int // of rows
	rank   kernel.Rank
}

// take is scratch that nobody uses, or new.
func (s *Segment) take() *scratch {
	select {
	case sc := <-s.free:
		return sc
	default:
		return newScratch(s)
	}
}

// give keeps scratch for the next search, unless there is enough.
func (s *Segment) give(sc *scratch) {
	sc.query, sc.dead, sc.filter, sc.done = nil, nil, nil, nil
	select {
	case s.free <- sc:
	default:
	}
}

// until has the search look no further once a context has ended.
func (sc *scratch) until(ctx context.Context) { sc.done = ctx.Done() }

// ended says that nobody waits for the rest.
func (sc *scratch) ended() bool {
	select {
	case <-sc.done:
		return true
	default:
		return false
	}
}

func newScratch(s *Segment) *scratch {
	return &scratch{
		s: s, vector: aligned[float32](s.stride), code: aligned[int8](roundUp(max(4*s.groups, 1), 64)),
		half: aligned[int8](8 * halfLines(s.meta.Dimensions)), scaled: make([]float32, s.meta.Dimensions),
		rows: make([]uint32, chunk+kernel.Lanes), dists: make([]float32, chunk+kernel.Lanes), crowd: map[uint32]int{},
	}
}

// prepare brings a query to the form of the kernels.
func (sc *scratch) prepare(q *Query, dead *Bitmap) {
	s := sc.s
	sc.query, sc.dead, sc.best, sc.filter, sc.allowed = q, dead, sc.best[:0], q.Allowed, 0
	switch {
	case q.Allowed != nil && dead != nil:
		sc.bury()
	case q.Allowed != nil:
		sc.allowed = q.Allowed.Count()
	}
	copy(sc.vector, q.Vector)
	if s.measure.scaled() {
		u := unit(q.Vector)
		for i := range q.Vector {
			sc.vector[i] *= u
		}
	}
	if s.Method == Exact {
		return
	}
	v := sc.vector[:s.meta.Dimensions]
	sc.beta = encodeQuery(sc.code, v, s.mean, s.Scale, s.measure.distant())
	if s.Bits == 4 {
		for i, x := range v {
			if s.measure.distant() {
				x -= s.mean[i]
			}
			sc.scaled[i] = x * s.steps[i]
		}
		sc.beta4 = encodeQuery(sc.half, sc.scaled, nil, 1, false)
	}
}

// bury has dead rows be rows that a filter keeps out.
func (sc *scratch) bury() {
	if sc.live.Reset(sc.s.Rows); sc.query.Allowed == nil {
		sc.live.Fill()
	} else {
		copy(sc.live.words, sc.query.Allowed.words)
	}
	sc.live.AndNot(sc.dead)
	sc.filter, sc.allowed = &sc.live, sc.live.Count()
}

// encodeQuery rounds a query to bytes and gives what norms are multiplied with in scores. For
// dot products the mean of the rows makes no difference to the order; for distances both
// sides are taken from it.
func encodeQuery(code []int8, v, mean []float32, scale float32, norms bool) float32 {
	var top float32
	for i, x := range v {
		if norms {
			x -= mean[i]
		}
		top = max(top, x, -x)
	}
	if !(top > 1e-30) { // nothing to tell rows apart by, and its inverse would overflow
		top = 1
	}
	inv := 127 / top
	for i, x := range v {
		if norms {
			x -= mean[i]
		}
		f := x * inv
		if f >= 0 {
			code[i] = int8(f + 0.5)
		} else {
			code[i] = int8(f - 0.5)
		}
	}
	return inv / (2 * scale)
}

// scanExact compares every row that passes.
func (sc *scratch) scanExact(k int) {
	sc.best, sc.all = sc.best[:0], true
	n := 0
	put := func(row uint32) {
		if sc.dead != nil && sc.dead.Has(row) {
			return
		}
		sc.rows[n] = row
		if n++; n == chunk {
			sc.compare(sc.rows[:n], k)
			n = 0
		}
	}
	if a := sc.filter; a != nil {
		for row := range a.All() {
			if put(row); n == 0 && sc.ended() {
				return
			}
		}
	} else {
		for row := range uint32(sc.s.Rows) {
			if put(row); n == 0 && sc.ended() {
				return
			}
		}
	}
	sc.compare(sc.rows[:n], k)
}

// compare gives rows their exact distance and keeps the best.
func (sc *scratch) compare(rows []uint32, k int) {
	if len(rows) == 0 {
		return
	}
	sc.s.distances(&sc.rank, sc.vector, rows, sc.dists[:len(rows)])
	for i, d := range sc.dists[:len(rows)] {
		if len(sc.best) < k || d <= sc.best[k-1].Distance {
			sc.keepBest(Neighbor{rows[i], d}, k)
		}
	}
}

// distances of rows from a query that is prepared.
func (s *Segment) distances(a *kernel.Rank, query []float32, rows []uint32, out []float32) {
	*a = kernel.Rank{Query: &query[0], Base: &s.floats[0], Rows: &rows[0], Out: &out[0], Count: len(rows), Stride: s.stride}
	switch s.measure.Distance {
	case L1:
		if s.scales != nil {
			s.slowL1(query, rows, out)
			return
		}
		s.kernels.L1(a)
		return
	case SquaredL2:
		if s.scales == nil {
			s.kernels.L2(a)
			return
		}
	case DotProduct, Cosine:
	}
	s.kernels.Dot(a)
	for i, d := range out {
		if s.scales != nil {
			d *= s.scales[rows[i]]
		}
		switch s.measure.Distance {
		case Cosine:
			d = max(0, 1-d)
		case SquaredL2: // both are of length 1
			d = max(0, 2-2*d)
		default:
			if d = -d; d != d { // products beyond what a float holds, of both signs
				d = float32(math.Inf(1))
			}
		}
		out[i] = d
	}
}

// slowL1 is for sums of absolute differences at length 1, which nobody seems to use.
func (s *Segment) slowL1(query []float32, rows []uint32, out []float32) {
	for i, r := range rows {
		var sum float32
		for j, x := range s.Vector(r) {
			d := query[j] - x*s.scales[r]
			sum += max(d, -d)
		}
		out[i] = sum
	}
}

// Distances of some rows from a vector, exactly.
func (s *Segment) Distances(vector []float32, rows []uint32, out []float32) error {
	if err := CheckVector(vector, s.meta.Dimensions); err != nil || len(rows) == 0 {
		return err
	}
	sc := s.take()
	defer s.give(sc)
	sc.prepare(&Query{Vector: vector}, nil)
	s.distances(&sc.rank, sc.vector, rows, out)
	return nil
}

// pool keeps the rows that score best: up to twice as many as wanted, then the lower half goes.
type pool struct {
	rows      []uint32
	scores    []float32
	n, want   int
	threshold float32
}

// reset for want rows, with room for one more chunk.
func (p *pool) reset(want int) {
	room := 2*want + chunk + 2*kernel.Lanes
	if len(p.rows) < room {
		p.rows, p.scores = make([]uint32, room), make([]float32, room)
	}
	p.n, p.want, p.threshold = 0, want, lowest
}

const lowest = -1e38

// shrink keeps the best and raises the threshold, once there are enough.
func (p *pool) shrink() {
	if p.n < p.want || p.n == 0 {
		return
	}
	selectBest(p.rows[:p.n], p.scores[:p.n], p.want)
	p.n = p.want
	p.threshold = p.scores[p.want-1]
}

// room for a kernel's rows: pointers to the first free places.
func (p *pool) room() (*uint32, *float32) {
	return (*uint32)(unsafe.Pointer(&p.rows[p.n])), &p.scores[p.n]
}

// selectBest moves the n highest scores to the front, the lowest of them to place n-1.
func selectBest(rows []uint32, scores []float32, n int) {
	lo, hi, k := 0, len(scores)-1, n-1
	for lo < hi {
		// median of three
		m := int(uint(lo+hi) >> 1)
		a, b, c := scores[lo], scores[m], scores[hi]
		p := max(min(a, b), min(max(a, b), c))
		i, j := lo, hi
		for i <= j {
			for scores[i] > p {
				i++
			}
			for scores[j] < p {
				j--
			}
			if i <= j {
				scores[i], scores[j] = scores[j], scores[i]
				rows[i], rows[j] = rows[j], rows[i]
				i++
				j--
			}
		}
		switch {
		case k <= j:
			hi = j
		case k >= i:
			lo = i
		default:
			return
		}
	}
}
