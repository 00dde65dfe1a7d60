package ann

import (
	"context"
	"runtime"
)

// Of the check of a segment.
const (
	checkNeighbors = 10
	checkRows      = 100
)

// Check is the share of the true neighbours that the segment's own method finds, asked for
// rows spread over all of it; 1 where there are none.
func (s *Segment) Check(ctx context.Context) (float64, error) {
	found, wanted := 0, 0
	var truth, got Results
	n := min(checkRows, s.Len())
	for i := range n {
		v := s.Vector(uint32(i * s.Len() / n))
		if err := s.Search([]Query{{Vector: v, K: checkNeighbors, Exact: true}}, nil, &truth); err != nil {
			return 0, err
		}
		if err := s.Search([]Query{{Vector: v, K: checkNeighbors}}, nil, &got); err != nil {
			return 0, err
		}
		if err := ctx.Err(); err != nil {
			return 0, err
		}
		runtime.Gosched()
		real := truth.At(0)
		if len(real) == 0 {
			continue
		}
		farthest := real[len(real)-1].Distance
		for _, g := range got.At(0) {
			if g.Distance <= farthest { // equally near ones are as good
				found++
			}
		}
		wanted += len(real)
	}
	if wanted == 0 {
		return 1, nil
	}
	return float64(min(found, wanted)) / float64(wanted), nil
}
