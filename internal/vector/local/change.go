package local

import (
	"context"
	"fmt"

	pb "cloud.google.com/go/aiplatform/apiv1beta1/aiplatformpb"
	"google.golang.org/grpc/codes"

	"tategu/internal/resource"
	"tategu/internal/store"
	"tategu/internal/vector"
	"tategu/internal/vector/ann"
)

// Upsert implements vector.Backend. Upserts of whole datapoints share commits of the
// store; those with a mask read before they write, so each is alone.
func (b *Backend) Upsert(ctx context.Context, index vector.Index, points []*pb.IndexDatapoint, mask vector.Mask) error {
	t := b.table(index)
	if !mask.Partial() {
		return t.change(ctx, change{points: points})
	}
	v, err := t.enterAlone(ctx)
	if err != nil {
		return err
	}
	defer t.gate.Unlock()
	defer v.leave()
	merged := make([]*pb.IndexDatapoint, len(points))
	unlock := v.rlock()
	for i, p := range points {
		old, err := v.get(p.GetDatapointId())
		if err == nil && old == nil {
			err = resource.Errorf(codes.NotFound, "%s has no datapoint %q, of which an update mask could keep the rest", index.Name, p.GetDatapointId()).
				WithResource(index.Name).WithHint("upsert it without an update_mask")
		}
		if err != nil {
			unlock()
			return err
		}
		merged[i] = mask.Apply(old, p)
	}
	unlock()
	return t.commit(ctx, change{points: merged})
}

// Remove implements vector.Backend.
func (b *Backend) Remove(ctx context.Context, index vector.Index, ids []string) error {
	return b.table(index).change(ctx, change{remove: ids})
}

// change makes a change durable and seen, beside others.
func (t *table) change(ctx context.Context, c change) error {
	for {
		v, err := t.use(ctx)
		if err != nil {
			return err
		}
		t.gate.RLock()
		if t.current.Load() == nil { // it left memory meanwhile
			t.gate.RUnlock()
			v.leave()
			continue
		}
		err = t.commit(ctx, c)
		t.gate.RUnlock()
		v.leave()
		return err
	}
}

// enterAlone gives the view, with the gate held alone.
func (t *table) enterAlone(ctx context.Context) (*view, error) {
	for {
		v, err := t.use(ctx)
		if err != nil {
			return nil, err
		}
		v.leave()
		t.gate.Lock()
		if v = t.acquire(); v != nil {
			return v, nil
		}
		t.gate.Unlock()
	}
}

// commit writes a change to the log, and shows it. The caller holds the gate.
func (t *table) commit(ctx context.Context, c change) error {
	var seq int64
	err := t.backend.cfg.Store.Update(ctx, func(tx store.Tx) error {
		if _, err := tx.Get(ctx, resource.KindIndexes, t.index.Name); err != nil {
			return err
		}
		t.seq++
		seq = t.seq
		row, err := c.row(t.index.Name, seq)
		if err != nil {
			return err
		}
		return tx.Put(ctx, row)
	})
	if err != nil {
		// Where the outcome of the commit is unknown, what the log has is shown by the next load.
		return fmt.Errorf("record a change of %s: %w", t.index.Name, err)
	}
	return t.reveal(c, seq)
}

// reveal puts a durable change into memory, then marks the rows that it replaces: a
// query that sees the marks sees the memory too.
func (t *table) reveal(c change, seq int64) error {
	t.publish.Lock()
	defer t.publish.Unlock()
	v := t.current.Load()
	if err := c.into(v.mem, seq); err != nil {
		return err
	}
	if dead, any := v.dying(c.ids()); any {
		t.swap(newView(v.gen, v.previous, v.segments, dead, v.mem, v.frozen))
	}
	if t.full(v.mem) {
		t.askMerge()
	}
	return nil
}

// full says that a memory is worth a merge.
func (t *table) full(m *memory) bool {
	return len(m.entries) >= t.backend.cfg.MergeAt || m.bytes > mergeBytes
}

// askAgain asks for the merge that a batch update was in the way of.
func (t *table) askAgain() {
	v := t.acquire()
	if v == nil {
		return
	}
	defer v.leave()
	defer v.rlock()()
	if t.full(v.mem) {
		t.askMerge()
	}
}

// mergeBytes begins a merge of large datapoints before there are many.
const mergeBytes = 64 << 20

// dying gives the dead rows with those of ids added.
func (v *view) dying(ids []string) (dead []*ann.Bitmap, any bool) {
	for i, s := range v.segments {
		d, cloned := v.dead[i], false
		for _, id := range ids {
			row, ok := s.Row(id)
			if !ok || d != nil && d.Has(row) {
				continue
			}
			if !cloned {
				d, cloned, any = cloneDead(d, s.Len()), true, true
			}
			d.Set(row)
		}
		dead = append(dead, d)
	}
	return dead, any
}

func (t *table) askMerge() {
	if t.queued.Swap(true) {
		return
	}
	select {
	case t.backend.merges <- t:
	default:
		t.queued.Store(false) // the next change asks again
	}
}

// Drop implements vector.Backend. Run lets go of memory and files.
func (b *Backend) Drop(ctx context.Context, tx store.Tx, name string) error {
	for _, kind := range []store.Kind{kindLog, segmentKind} {
		rows, err := tx.List(ctx, store.Query{Kind: kind, Parent: name})
		if err != nil {
			return err
		}
		for _, row := range rows {
			if err := tx.Delete(ctx, kind, row.Key); err != nil {
				return err
			}
		}
	}
	return tx.Delete(ctx, kindTable, name)
}
