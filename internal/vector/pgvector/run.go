package pgvector

import (
	"context"
	"log/slog"
	"time"

	"tategu/internal/store"
	"tategu/internal/vector"
)

// sweepEvery is how long relations that nothing names stay at most.
const sweepEvery = time.Minute

// Run implements vector.Backend: it drops the relations of indexes that were deleted and of
// batch updates that a crash ended.
func (b *Backend) Run(ctx context.Context) error {
	tick := time.NewTicker(sweepEvery)
	defer tick.Stop()
	for {
		if err := b.clean(ctx); err != nil && ctx.Err() == nil {
			b.cfg.Log.WarnContext(ctx, "cannot clean the database of the pgvector backend; it is tried again", slog.Any("error", err))
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		case <-b.sweep:
		}
	}
}

// clean drops relations that no manifest names. Those that are there are listed first and those
// that are being made next: what leaves the latter is in a manifest by then.
func (b *Backend) clean(ctx context.Context) error {
	if err := b.ready(ctx); err != nil {
		return err
	}
	names, err := b.relationsThere(ctx)
	if err != nil {
		return err
	}
	needed := map[string]bool{}
	b.mu.Lock()
	for name := range b.making {
		needed[name] = true
	}
	b.mu.Unlock()
	rows, err := b.cfg.Store.List(ctx, store.Query{Kind: kindTable})
	if err != nil {
		return err
	}
	for _, row := range rows {
		var m manifest
		if err := vector.DecodeManifest(row, &m); err != nil {
			return err
		}
		for _, name := range m.relations() {
			needed[name] = true
		}
	}
	for _, name := range names {
		if needed[name] {
			continue
		}
		if err := b.drop(ctx, name); err != nil {
			return err
		}
	}
	return nil
}

// clear asks for a sweep.
func (b *Backend) clear() {
	select {
	case b.sweep <- struct{}{}:
	default: // one is asked for
	}
}

// Drop implements vector.Backend. Run drops the relations.
func (b *Backend) Drop(ctx context.Context, tx store.Tx, name string) error {
	defer b.clear()
	return tx.Delete(ctx, kindTable, name)
}
