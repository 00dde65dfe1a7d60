package local

import (
	"testing"

	pb "cloud.google.com/go/aiplatform/apiv1beta1/aiplatformpb"

	"tategu/internal/vector"
	"tategu/internal/vector/ann"
	"tategu/internal/vector/vectortest"
)

// TestRestedStaysOut: to be counted, as the metrics do again and again, brings no index
// back into memory, and what has come since is counted.
func TestRestedStaysOut(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	b := p.open(t, nil)
	index := p.index(t, "rested", vector.Config{Dimensions: 8, Measure: ann.Measure{Distance: ann.DotProduct}, Recall: 0.95})
	point := vectortest.Point("a", 1)
	point.SparseEmbedding = &pb.IndexDatapoint_SparseEmbedding{Values: []float32{1}, Dimensions: []int64{3}}
	if err := b.Upsert(t.Context(), index, []*pb.IndexDatapoint{point}, vector.Mask{}); err != nil {
		t.Fatal(err)
	}
	table := b.table(index)
	for n, id := range []string{"b", "c"} {
		if _, err := table.rest(t.Context()); err != nil {
			t.Fatal(err)
		}
		st, err := b.Stats(t.Context(), index)
		if err != nil || st.Count != int64(n+1) || st.Sparse != 1 || st.Unmerged != 0 || table.current.Load() != nil {
			t.Errorf("rested: %+v, %v; in memory %v", st, err, table.current.Load() != nil)
		}
		if err := b.Upsert(t.Context(), index, []*pb.IndexDatapoint{vectortest.Point(id, 2)}, vector.Mask{}); err != nil {
			t.Fatal(err)
		}
		if st, err := b.Stats(t.Context(), index); err != nil || st.Count != int64(n+2) {
			t.Errorf("after an upsert: %+v, %v", st, err)
		}
	}
	if err := b.Close(); err != nil {
		t.Error(err)
	}
}
