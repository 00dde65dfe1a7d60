package local

import (
	"context"

	pb "cloud.google.com/go/aiplatform/apiv1beta1/aiplatformpb"

	"tategu/internal/vector"
)

// merging is a backend that merges before every query of one kind or another.
type merging struct{ *Backend }

func (m merging) merge(ctx context.Context, index vector.Index) error {
	return m.table(index).merge(ctx)
}

// Find implements vector.Backend.
func (m merging) Find(ctx context.Context, index vector.Index, queries []vector.Query, full bool) ([][]vector.Neighbor, error) {
	if err := m.merge(ctx, index); err != nil {
		return nil, err
	}
	return m.Backend.Find(ctx, index, queries, full)
}

// Get implements vector.Backend.
func (m merging) Get(ctx context.Context, index vector.Index, ids []string) ([]*pb.IndexDatapoint, error) {
	if err := m.merge(ctx, index); err != nil {
		return nil, err
	}
	return m.Backend.Get(ctx, index, ids)
}
