package ann

import (
	"context"
	"math"
	"slices"
)

// Fewer rows than this are scanned faster than leaves are chosen.
const flatRows = 4000

// graphBytes of codes scanned a query make it worth to see whether a graph is faster, which
// costs about three times as much to build as leaves.
const graphBytes = 4 << 20

// choose builds the segment with the method that was asked for, or the fastest one.
func (b *builder) choose(ctx context.Context, order []uint32) (*Segment, error) {
	s, err := b.pick(ctx)
	if err != nil {
		return nil, err
	}
	st := &s.meta.Stats
	st.Rows, st.Method, st.Leaves, st.Kernel, st.Recall = b.n, s.Method.String(), s.Leaves, b.kernels.Name, b.o.Recall
	return s, b.attach(s, order)
}

func (b *builder) pick(ctx context.Context) (*Segment, error) {
	method := b.o.Method
	if b.huge() {
		method = Exact
	}
	sums := b.o.Measure.Distance == L1
	switch {
	case b.n == 0 || method == Exact || sums && method == Auto && b.n <= flatRows:
		return b.exact(), nil
	case method == Flat || method == Auto && b.n <= flatRows:
		s := b.segment(b.flat())
		if err := b.tune(ctx, s); err != nil || method == Flat || b.o.Candidates > 0 || s.Tuning.Recall >= b.wanted() {
			return s, err
		}
		exact := b.exact() // of so few rows it costs little more
		exact.meta.Stats.Curve = s.meta.Stats.Curve
		return exact, nil
	}
	l, err := b.ivf(ctx, b.leafCount())
	if err != nil {
		return nil, err
	}
	b.reorder(l)
	b.bits = 4
	ivf := b.segment(l)
	if sums { // links would be by squared distances
		method = min(method, IVF)
	}
	if method != HNSW {
		if err := b.tune(ctx, ivf); err != nil {
			return nil, err
		}
		if ivf.Tuning.Recall < b.wanted() { // codes of 4 bits say too little of these
			b.bits = 8
			ivf = b.segment(l)
			if err := b.tune(ctx, ivf); err != nil {
				return nil, err
			}
		}
		if sums && method == Auto && (ivf.Tuning.Recall < b.wanted() || ivf.Tuning.micros >= b.exactMicros) {
			exact := b.exact()
			exact.meta.Stats.Curve = ivf.meta.Stats.Curve
			return exact, nil
		}
		scanned := float64(b.n) * float64(ivf.Tuning.Leaves) / float64(ivf.Leaves) * float64(4*ivf.codeLines())
		if sums || method == IVF || b.o.LeafSize > 0 || b.o.Fraction > 0 || scanned < graphBytes {
			return ivf, nil
		}
	}
	graph, err := b.graph(ctx, ivf)
	if err != nil {
		return nil, err
	}
	if err := b.tune(ctx, graph); err != nil {
		return nil, err
	}
	curve := slices.Concat(ivf.meta.Stats.Curve, graph.meta.Stats.Curve)
	if method == Auto && !faster(graph, ivf, b.wanted()) {
		graph = ivf
	}
	graph.meta.Stats.Curve = curve
	return graph, nil
}

// huge says that squared distances come near those that mean that nothing is there: such rows
// are compared as they are. Codes would tell little of any row beside one of them anyway.
func (b *builder) huge() bool {
	const most = far / 1000 // centres are between rows, and two rows up to twice as far apart as each is long
	if b.o.Measure.scaled() {
		return false
	}
	for i := range b.n {
		var sum float64
		for _, x := range b.floats[i*b.stride : (i+1)*b.stride] {
			sum += float64(x) * float64(x)
		}
		if sum > most {
			return true
		}
	}
	return false
}

// exact is a segment that compares all rows.
func (b *builder) exact() *Segment { return b.segment(&layout{method: Exact}) }

// wanted is a little more than the recall that was asked for: queries from outside are further
// from the rows than the rows that are asked for here.
func (b *builder) wanted() float64 { return b.o.Recall + (1-b.o.Recall)/4 }

// faster says whether a segment with its tuning finds enough, in less time than another.
func faster(a, b *Segment, wanted float64) bool {
	if a.Tuning.Recall < wanted {
		return false
	}
	return a.Tuning.micros < b.Tuning.micros || b.Tuning.Recall < wanted
}

// leafCount is how many leaves there will be.
func (b *builder) leafCount() int {
	size := b.o.LeafSize
	if size <= 0 {
		size = int(max(64, min(400, math.Sqrt(float64(b.n))/2.5)))
	}
	return min(b.n, (b.n+size-1)/size)
}
