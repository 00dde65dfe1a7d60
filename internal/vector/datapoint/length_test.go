package datapoint

import (
	"testing"

	pb "cloud.google.com/go/aiplatform/apiv1beta1/aiplatformpb"
)

// TestLongVectors: what overflows 32 bits when it is squared would be infinitely far from
// everything, or no number at all, which sorts before all others.
func TestLongVectors(t *testing.T) {
	t.Parallel()
	if err := CheckVector("a", []float32{1e19, 1e19}, 2); err == nil || err.Type != InvalidEmbedding {
		t.Errorf("a vector whose squares overflow: %v", err)
	}
	if err := CheckVector("a", []float32{1e18, -1e18}, 2); err != nil {
		t.Errorf("a long vector: %v", err)
	}
	sparse := &pb.IndexDatapoint_SparseEmbedding{Values: []float32{3e38}, Dimensions: []int64{1}}
	if err := CheckSparse("a", sparse); err == nil || err.Type != InvalidSparse {
		t.Errorf("a sparse embedding whose squares overflow: %v", err)
	}
}
