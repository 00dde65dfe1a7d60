package ann

import (
	"context"
	"math"
	"sync"

	"tategu/internal/vector/ann/kernel"
)

// Building the graph: the leaves give each row its near rows (a scan of few leaves), of
// which those stay that are nearer to the row than to one that stays already; then links are
// made both ways, and rows with too many choose again in the same manner. Each row is done by
// itself, so that the same rows give the same graph with any number of threads.
const (
	degree     = 32
	nearLeaves = 12
	nearRows   = 80
)

// linker has what linking needs of all rows, by the rows of the layout.
type linker struct {
	b     *builder
	s     *Segment // of the leaves
	rows  []byte   // codes row by row
	lines int
	norms []float32
	sums  []int32 // of each row's codes, less 128 each
}

// graph turns a segment of leaves into one of a graph over the same rows.
func (b *builder) graph(ctx context.Context, ivf *Segment) (*Segment, error) {
	l := b.linker(ivf)
	first := make([]uint32, b.n*degree)
	var pool sync.Pool
	if err := b.each(ctx, func(i int) {
		w := l.worker(&pool)
		defer pool.Put(w)
		w.near(uint32(i))
		w.keep(first[i*degree : (i+1)*degree])
	}); err != nil {
		return nil, err
	}
	back := backLinks(first, b.n)
	links := aligned[uint32](b.n * degree)
	if err := b.each(ctx, func(i int) {
		w := l.worker(&pool)
		defer pool.Put(w)
		w.join(uint32(i), first[i*degree:(i+1)*degree], back.at(i))
		w.keep(links[i*degree : (i+1)*degree])
	}); err != nil {
		return nil, err
	}
	s := &Segment{
		meta: ivf.meta, measure: ivf.measure, kernels: ivf.kernels, stride: ivf.stride, groups: ivf.groups,
		floats: ivf.floats, scales: ivf.scales, mean: ivf.mean, centroids: ivf.centroids, centroidNorms: ivf.centroidNorms,
		codes: l.rows, lines: l.lines, links: links,
	}
	if b.distant() {
		s.norms = l.norms
	}
	s.Bits = 8
	s.Method, s.Degree, s.entries = HNSW, degree, l.entries()
	return s, nil
}

// each calls f for all rows on all threads, until the context ends.
func (b *builder) each(ctx context.Context, f func(i int)) error {
	parallel(b.o.Threads, b.n, func(i int) {
		if i%1024 == 0 && ctx.Err() != nil || ctx.Err() != nil {
			return
		}
		f(i)
	})
	return ctx.Err()
}

func (b *builder) linker(ivf *Segment) *linker {
	l := &linker{b: b, s: ivf, lines: lines(b.o.Dimensions), norms: make([]float32, b.n), sums: make([]int32, b.n)}
	l.rows = aligned[byte](b.n * 64 * l.lines)
	if b.distant() {
		l.norms = aligned[float32](roundUp(b.n, kernel.Lanes))
	}
	parallel(b.o.Threads, b.n, func(i int) {
		row := l.rows[i*64*l.lines : (i+1)*64*l.lines]
		for j := range row {
			row[j] = 128
		}
		for j, x := range ivf.scaledRow(uint32(i), make([]float32, b.o.Dimensions)) {
			row[j] = b.code(x - b.mean[j])
		}
		var length float64
		for j := range row {
			v := int32(row[j]) - 128
			l.sums[i] += v
			length += float64(v * v)
		}
		l.norms[i] = float32(length) * b.scale * b.scale
	})
	return l
}

// backLinks are the rows that link to each row.
func backLinks(links []uint32, n int) lists[uint32] {
	ends := make([]uint64, n+1)
	for _, e := range links {
		if e != none {
			ends[e+1]++
		}
	}
	for i := range n {
		ends[i+1] += ends[i]
	}
	at := append([]uint64(nil), ends[:n]...)
	values := make([]uint32, ends[n])
	for i := range n {
		for _, e := range links[i*degree : (i+1)*degree] {
			if e == none {
				break
			}
			values[at[e]] = uint32(i)
			at[e]++
		}
	}
	return lists[uint32]{ends: ends, values: values}
}

// entries are the rows nearest to the leaves' centres; of a leaf without rows, row 0.
func (l *linker) entries() []uint32 {
	s, out := l.s, make([]uint32, l.s.Leaves)
	mean := make([]float32, l.b.o.Dimensions)
	tmp := make([]float32, l.b.o.Dimensions)
	for i := range out {
		lo, hi := s.leaves[i], s.leaves[i+1]
		clear(mean)
		for r := lo; r < hi; r++ {
			for j, x := range s.scaledRow(r, tmp) {
				mean[j] += x / float32(hi-lo)
			}
		}
		best := float32(math.MaxFloat32)
		for r := lo; r < hi; r++ {
			var d float32
			for j, x := range s.scaledRow(r, tmp) {
				d += (x - mean[j]) * (x - mean[j])
			}
			if d < best {
				best, out[i] = d, r
			}
		}
	}
	return out
}

func (s *Segment) scaledRow(r uint32, tmp []float32) []float32 {
	v := s.Vector(r)
	if s.scales == nil {
		return v
	}
	for j, x := range v {
		tmp[j] = x * s.scales[r]
	}
	return tmp[:len(v)]
}

// linkWorker links rows for one goroutine.
type linkWorker struct {
	*linker
	sc    *scratch
	code  []int8
	cands []node
	kept  []uint32
	query Query
	dots  []int32
	pick  kernel.Pick
}

func (l *linker) worker(pool *sync.Pool) *linkWorker {
	if w, ok := pool.Get().(*linkWorker); ok {
		return w
	}
	w := &linkWorker{linker: l, sc: newScratch(l.s), code: aligned[int8](64 * l.lines), kept: make([]uint32, 0, 4096), dots: make([]int32, 4096)}
	w.pick = kernel.Pick{Query: &w.code[0], Codes: &l.rows[0], Out: &w.dots[0], Lines: l.lines, Stride: 64 * l.lines}
	return w
}

// ask makes a row the query.
func (w *linkWorker) ask(row uint32) {
	for j, c := range w.rows[int(row)*64*w.lines : int(row+1)*64*w.lines] {
		w.code[j] = int8(c ^ 0x80)
	}
}

// near gathers the rows of the nearest leaves that are nearest.
func (w *linkWorker) near(row uint32) {
	sc := w.sc
	w.query.Vector = w.s.Vector(row)
	sc.prepare(&w.query, nil)
	w.cands = w.cands[:0]
	sc.choose(min(nearLeaves, w.s.Leaves))
	sc.scanLeaves(nearRows + 1)
	w.ask(row)
	w.add(row, sc.pool.rows[:sc.pool.n])
}

// join gathers a row's links and those that link to it.
func (w *linkWorker) join(row uint32, links, back []uint32) {
	w.ask(row)
	w.cands = w.cands[:0]
	for i, e := range links {
		if e == none {
			links = links[:i]
			break
		}
	}
	w.add(row, links)
	w.add(row, back[:min(len(back), len(w.dots))])
}

// add gives candidates their distance; one that is there stays once.
func (w *linkWorker) add(row uint32, rows []uint32) {
	if len(rows) == 0 {
		return
	}
	w.distances(rows)
	old := len(w.cands)
next:
	for i, r := range rows {
		if r == row {
			continue
		}
		for _, c := range w.cands[:old] {
			if c.row == r {
				continue next
			}
		}
		w.cands = append(w.cands, node{-w.distance(row, r, w.dots[i]), r})
	}
}

// distances fills dots for the row that was asked.
func (w *linkWorker) distances(rows []uint32) {
	w.pick.Rows, w.pick.Count = &rows[0], len(rows)
	w.b.kernels.Pick(&w.pick)
}

// distance squared, of codes, by their dot product as the kernel gives it.
func (w *linkWorker) distance(a, b uint32, dot int32) float32 {
	return w.norms[a] + w.norms[b] - 2*w.b.scale*w.b.scale*float32(dot-128*w.sums[a])
}

// keep chooses links among the candidates.
func (w *linkWorker) keep(into []uint32) {
	sortNodes(w.cands)
	kept := w.kept[:0]
	for _, c := range w.cands {
		if len(kept) == len(into) {
			break
		}
		if len(kept) > 0 && w.hidden(c, kept) {
			continue
		}
		kept = append(kept, c.row)
	}
	n := copy(into, kept)
	for i := n; i < len(into); i++ {
		into[i] = none
	}
}

// spread is how much nearer (squared) another link has to be for one to be left out.
const spread = 1.1

func (w *linkWorker) hidden(c node, kept []uint32) bool {
	w.ask(c.row)
	w.distances(kept)
	for i, k := range kept {
		if spread*w.distance(c.row, k, w.dots[i]) < -c.score {
			return true
		}
	}
	return false
}
