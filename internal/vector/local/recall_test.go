package local

import (
	"context"
	"testing"

	"tategu/internal/store"
	"tategu/internal/vector"
	"tategu/internal/vector/ann"
)

// TestRecallChanges: what an index is asked to find may change while it is there, and
// its next build is told.
func TestRecallChanges(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	var told []float64
	b := p.open(t, func(c *Config) { c.Builder = listener{&told} })
	index := p.index(t, "tuned", vector.Config{Dimensions: 8, Measure: ann.Measure{Distance: ann.SquaredL2}, Recall: 0.95})
	for _, recall := range []float64{0.95, 0.99} {
		index.Config.Recall = recall
		if err := b.Replace(t.Context(), index, true, generationOf(1), func(context.Context, store.Tx, vector.Stats) error { return nil }); err != nil {
			t.Fatal(err)
		}
	}
	if len(told) != 2 || told[0] != 0.95 || told[1] != 0.99 {
		t.Errorf("builds were told %v", told)
	}
	if err := b.Close(); err != nil {
		t.Error(err)
	}
}

// listener notes the recalls that builds are told.
type listener struct{ told *[]float64 }

func (l listener) Build(ctx context.Context, path string, rows ann.Rows, o ann.Options, awaited bool) (ann.Built, error) {
	*l.told = append(*l.told, o.Recall)
	return here{}.Build(ctx, path, rows, o, awaited)
}
