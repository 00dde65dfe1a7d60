package local

import (
	"slices"
	"testing"

	pb "cloud.google.com/go/aiplatform/apiv1beta1/aiplatformpb"
	"google.golang.org/grpc/codes"

	"tategu/internal/resource"
	"tategu/internal/vector"
	"tategu/internal/vector/ann"
)

// TestAnswersAreBounded: a short request may ask for the same large datapoint many times.
func TestAnswersAreBounded(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	b := p.open(t, nil)
	const dims = 32768
	index := p.index(t, "large", vector.Config{Dimensions: dims, Measure: ann.Measure{Distance: ann.DotProduct}, BruteForce: true, Recall: 0.95})
	point := &pb.IndexDatapoint{DatapointId: "a", FeatureVector: make([]float32, dims)}
	if err := b.Upsert(t.Context(), index, []*pb.IndexDatapoint{point}, vector.Mask{}); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Get(t.Context(), index, slices.Repeat([]string{"a"}, 2500)); resource.CodeOf(err) != codes.InvalidArgument {
		t.Errorf("reading too much gave %v", err)
	}
	queries := slices.Repeat([]vector.Query{{Point: point, Neighbors: 1}}, 2500)
	if _, err := b.Find(t.Context(), index, queries, true); resource.CodeOf(err) != codes.InvalidArgument {
		t.Errorf("an answer that is too large gave %v", err)
	}
	if got, err := b.Find(t.Context(), index, queries, false); err != nil || len(got) != len(queries) || len(got[2499]) != 1 {
		t.Errorf("%d answers, %v", len(got), err)
	}
	if err := b.Close(); err != nil {
		t.Error(err)
	}
}
