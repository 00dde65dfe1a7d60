package local

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"

	"tategu/internal/store"
	"tategu/internal/vector"
	"tategu/internal/vector/ann"
)

var errDisk = errors.New("the disk is gone")

// failing is a store whose transactions are undone once they are complete.
type failing struct {
	store.Store
	on atomic.Bool
}

func (f *failing) Update(ctx context.Context, fn func(tx store.Tx) error) error {
	return f.Store.Update(ctx, func(tx store.Tx) error {
		if err := fn(tx); err != nil || !f.on.Load() {
			return err
		}
		return errDisk
	})
}

// TestUndone: a generation whose commit fails after queries saw it goes again, and what is
// streamed then lies on the one before.
func TestUndone(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	rows := &failing{Store: p.rows}
	b := p.open(t, func(c *Config) { c.Store = rows })
	index := p.index(t, "undone", vector.Config{Dimensions: 8, Measure: ann.Measure{Distance: ann.SquaredL2}, Recall: 0.95})
	replace := func(n int) error {
		return b.Replace(t.Context(), index, true, generationOf(n), func(context.Context, store.Tx, vector.Stats) error { return nil })
	}
	has := func(id string) bool {
		t.Helper()
		got, err := b.Get(t.Context(), index, []string{id})
		if err != nil {
			t.Fatal(err)
		}
		return got[0] != nil
	}
	if err := replace(1); err != nil {
		t.Fatal(err)
	}
	rows.on.Store(true)
	for range 2 {
		if err := replace(2); !errors.Is(err, errDisk) {
			t.Fatalf("error %v", err)
		}
		if !has("g1-0") || has("g2-0") {
			t.Fatal("the generation before does not answer")
		}
	}
	rows.on.Store(false)
	askOnce(t, b, index)
	if err := b.Upsert(t.Context(), index, generationOf(3).Put[:1], vector.Mask{}); err != nil {
		t.Fatal(err)
	}
	if st, err := b.Stats(t.Context(), index); err != nil || st.Generation != 1 || st.Count != 201 {
		t.Errorf("%+v, %v", st, err)
	}
	if err := replace(4); err != nil {
		t.Fatal(err)
	}
	if has("g1-0") || !has("g4-0") {
		t.Error("the next generation does not answer")
	}
	if err := b.Close(); err != nil {
		t.Error(err)
	}
}
