package ann_test

import (
	"testing"

	"tategu/internal/vector/ann"
)

// Recall where the rows around a query are dead, as after somebody removed all that was like it:
// those behind them are found, with a filter and without.
func TestDeadAround(t *testing.T) {
	t.Parallel()
	const n, d, asked = 8_000, 12, 10
	rows := points(n+asked, d, 11)
	rows, queries := rows[:n], rows[n:]
	m := ann.Measure{Distance: ann.SquaredL2}
	pass := below("n", n/4)
	for _, o := range []ann.Options{{Method: ann.IVF}, {Method: ann.IVF, Candidates: 24}, {Method: ann.HNSW}} {
		o.Measure = m
		s, method := build(t, rows, o), o.Method
		for _, share := range []int{100, 20, 5} {
			var sum, filtered float64
			for _, q := range queries {
				nearest := nearestFirst(rows, m, q.Vector)
				dead := ann.NewBitmap(n)
				for _, r := range nearest[:n/share] {
					row, _ := s.Row(r.ID)
					dead.Set(row)
				}
				alive := nearest[n/share:]
				var allowed ann.Bitmap
				s.Allowed(pass, &allowed)
				var out ann.Results
				asks := []ann.Query{{Vector: q.Vector, K: 10}, {Vector: q.Vector, K: 10, Allowed: &allowed}}
				if err := s.Search(asks, dead, &out); err != nil {
					t.Fatal(err)
				}
				sum += recall(firstIDs(alive, ann.Filter{}), ids(s, out.At(0))) / asked
				filtered += recall(firstIDs(alive, pass), ids(s, out.At(1))) / asked
			}
			if sum < 0.85 || filtered < 0.85 {
				t.Errorf("%v (%v), one of %d is dead: recall %.3f, with a filter %.3f", method, s.Tuned(), share, sum, filtered)
			}
		}
	}
}

func firstIDs(rows []ann.Row, f ann.Filter) (out []string) {
	for _, r := range rows {
		if f.Match(r) && len(out) < 10 {
			out = append(out, r.ID)
		}
	}
	return out
}
