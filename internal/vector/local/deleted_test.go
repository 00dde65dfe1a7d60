package local

import (
	"testing"

	pb "cloud.google.com/go/aiplatform/apiv1beta1/aiplatformpb"

	"tategu/internal/resource"
	"tategu/internal/store"
	"tategu/internal/vector"
	"tategu/internal/vector/ann"
	"tategu/internal/vector/vectortest"
)

// TestMergeOfDeleted: a merge that was at work when its index was deleted writes nothing,
// which nobody would ever remove.
func TestMergeOfDeleted(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	b := p.open(t, nil)
	index := p.index(t, "deleted", vector.Config{Dimensions: 8, Measure: ann.Measure{Distance: ann.SquaredL2}, Recall: 0.95})
	if err := b.Upsert(t.Context(), index, []*pb.IndexDatapoint{vectortest.Point("a", 1)}, vector.Mask{}); err != nil {
		t.Fatal(err)
	}
	err := p.rows.Update(t.Context(), func(tx store.Tx) error {
		if err := tx.Delete(t.Context(), resource.KindIndexes, index.Name); err != nil {
			return err
		}
		return b.Drop(t.Context(), tx, index.Name)
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := b.table(index).merge(t.Context()); !resource.IsNotFound(err) {
		t.Errorf("the merge gave %v", err)
	}
	for _, kind := range []store.Kind{kindTable, segmentKind, kindLog} {
		if rows, err := p.rows.List(t.Context(), store.Query{Kind: kind}); err != nil || len(rows) != 0 {
			t.Errorf("%s has %d rows, %v", kind, len(rows), err)
		}
	}
	if err := b.tend(t.Context()); err != nil {
		t.Error(err)
	}
	if err := b.Close(); err != nil {
		t.Error(err)
	}
}
