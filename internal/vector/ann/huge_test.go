package ann_test

import (
	"testing"

	"tategu/internal/vector/ann"
)

// TestHuge: one row of values whose squares are beyond what others are told apart by neither
// ends a build nor hides the others; nor do tiny values.
func TestHuge(t *testing.T) {
	t.Parallel()
	for _, value := range []float32{1e-30, 1e15, 1e17, 1e25, 1e38} {
		for _, m := range []ann.Measure{{Distance: ann.DotProduct}, {Distance: ann.Cosine}, {Distance: ann.SquaredL2}, {Distance: ann.L1}} {
			for _, n := range []int{300, 4500} {
				rows := points(n, 5, 3)
				for j := range rows[n/2].Vector {
					rows[n/2].Vector[j] *= value
				}
				s := build(t, rows, ann.Options{Measure: m, Threads: 1})
				var out ann.Results
				sum := 0.0
				for i := range 10 {
					q := rows[i*n/10+1].Vector
					if err := s.Search([]ann.Query{{Vector: q, K: 10}}, nil, &out); err != nil {
						t.Fatal(err)
					}
					sum += recall(truth(m, rows, q, 10, nil), ids(s, out.At(0))) / 10
				}
				if sum < 0.9 {
					t.Errorf("one of %d is %g times as long, %v: %s %v, recall %.2f", n, value, m.Distance, s.Stats().Method, s.Tuned(), sum)
				}
			}
		}
	}
}
