package ann

import "context"

// choose builds the segment with the method that was asked for, or the fastest one.
func (b *builder) choose(ctx context.Context, order []uint32) (*Segment, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	l := b.flat()
	if b.o.Method == Exact || b.n == 0 || b.o.Measure.Distance == L1 {
		l = &layout{method: Exact}
	}
	s := b.segment(l)
	s.Tuning = Tuning{Leaves: 1, Candidates: max(b.o.Candidates, 100)}
	s.meta.Stats = Stats{Rows: b.n, Method: l.method.String(), Kernel: b.kernels.Name, Recall: b.o.Recall}
	return s, b.attach(s, l, order)
}
