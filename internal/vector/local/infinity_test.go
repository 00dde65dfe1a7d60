package local

import (
	"testing"

	pb "cloud.google.com/go/aiplatform/apiv1beta1/aiplatformpb"

	"tategu/internal/vector"
	"tategu/internal/vector/ann"
)

// TestInfinities: products of large numbers are beyond float32, and their sums not numbers.
func TestInfinities(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	b := p.open(t, nil)
	index := p.index(t, "large", vector.Config{Dimensions: 2, Measure: ann.Measure{Distance: ann.DotProduct}, Recall: 0.95})
	points := []*pb.IndexDatapoint{
		{DatapointId: "far", FeatureVector: []float32{1, 1}},
		{DatapointId: "undefined", FeatureVector: []float32{1e30, -1e30}},
		{DatapointId: "near", FeatureVector: []float32{2, 1}},
	}
	if err := b.Upsert(t.Context(), index, points, vector.Mask{}); err != nil {
		t.Fatal(err)
	}
	q := vector.Query{Point: &pb.IndexDatapoint{FeatureVector: []float32{1e20, 1e20}}, Neighbors: 1}
	for _, merged := range []bool{false, true} {
		if merged {
			if err := b.table(index).merge(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		found, err := b.Find(t.Context(), index, []vector.Query{q}, false)
		if err != nil {
			t.Fatal(err)
		}
		if len(found[0]) != 1 || found[0][0].Datapoint.GetDatapointId() != "near" {
			t.Errorf("merged %v: found %v", merged, found)
		}
	}
	if err := b.Close(); err != nil {
		t.Error(err)
	}
}
