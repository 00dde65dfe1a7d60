package ann_test

import (
	"context"
	"errors"
	"testing"

	"tategu/internal/vector/ann"
)

// TestSearchEnds: a search ends with its context whatever its method, and the next one on
// the same segment is whole.
func TestSearchEnds(t *testing.T) {
	t.Parallel()
	const d = 16
	rows := points(10_000, d, 3)
	canceled, cancel := context.WithCancel(t.Context())
	cancel()
	for _, method := range []ann.Method{ann.Exact, ann.Flat, ann.IVF, ann.HNSW} {
		s := build(t, rows, ann.Options{Dimensions: d, Measure: ann.Measure{Distance: ann.SquaredL2}, Method: method})
		for _, n := range []int{1, 3} {
			var asked []ann.Query
			for i := range n {
				asked = append(asked, ann.Query{Vector: rows[i].Vector, K: 5, PerCrowd: i % 2})
			}
			var out ann.Results
			if err := s.SearchContext(canceled, asked, nil, &out); !errors.Is(err, context.Canceled) {
				t.Errorf("%v, %d queries: %v", method, n, err)
			}
			if err := s.Search(asked, nil, &out); err != nil {
				t.Fatal(err)
			}
			for i := range n {
				if got := out.At(i); len(got) != 5 || s.ID(got[0].Row) != rows[i].ID {
					t.Errorf("%v: after one that was canceled, query %d of %d found %v", method, i, n, got)
				}
			}
		}
	}
}
