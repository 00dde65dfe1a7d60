package local

import (
	"context"
	"errors"
	"runtime"
	"runtime/debug"

	pb "cloud.google.com/go/aiplatform/apiv1beta1/aiplatformpb"
	"google.golang.org/grpc/codes"

	"tategu/internal/resource"
	"tategu/internal/store"
	"tategu/internal/vector"
	"tategu/internal/vector/ann"
)

// Replace implements vector.Backend.
func (b *Backend) Replace(ctx context.Context, index vector.Index, overwrite bool, src vector.Source, commit vector.Commit) error {
	t := b.table(index)
	defer t.askAgain()
	t.maintain.Lock()
	defer t.maintain.Unlock()
	// What was streamed so far belongs to the generation that goes, whole.
	if err := t.mergeLocked(ctx, true); err != nil {
		return err
	}
	v, err := t.use(ctx)
	if err != nil {
		return err
	}
	defer v.leave()
	built, found, err := t.buildRows(ctx, incoming(ctx, t, v, overwrite, src), ann.Options{Threads: runtime.GOMAXPROCS(0), Check: true}, true)
	if err != nil {
		return err
	}
	gen, err := t.check(built, found)
	if err != nil {
		t.abandon(ctx, built)
		return err
	}
	was, now, err := t.install(ctx, gen, built, commit)
	if err != nil {
		return err
	}
	b.letGo(ctx, was, now)
	if built.Len()*t.index.Config.Dimensions*4 > giveBack {
		debug.FreeOSMemory()
	}
	return nil
}

// giveBack is from how many bytes of vectors on the memory of a build, twice as much
// and more, goes back to the system at once: left alone it would, over minutes.
const giveBack = 64 << 20

// errStop ends the reading of a source whose rows nobody wants any more.
var errStop = errors.New("no more rows are wanted")

// incoming gives the rows of a source, then those that stay.
func incoming(ctx context.Context, t *table, v *view, overwrite bool, src vector.Source) ann.Rows {
	return func(yield func(ann.Row, error) bool) {
		seen := map[string]bool{}
		err := src.Datapoints(ctx, func(p *pb.IndexDatapoint) error {
			r, err := toRow(p, t.index.Config.Dimensions)
			if err != nil {
				return err
			}
			if !overwrite {
				seen[r.ID] = true
			}
			if !yield(r, nil) {
				return errStop
			}
			return nil
		})
		if errors.Is(err, errStop) {
			return
		}
		if err != nil {
			yield(ann.Row{}, err)
			return
		}
		if overwrite {
			return
		}
		for _, id := range src.Removed() {
			seen[id] = true
		}
		stay := &source{view: v}
		for i := range v.segments {
			stay.segments = append(stay.segments, i)
		}
		for r, err := range stay.rows() {
			if err == nil && seen[r.ID] {
				continue
			}
			if !yield(r, err) {
				return
			}
		}
	}
}

// least is the recall below which a generation is not shown, as a share of the one
// that was wanted.
const least = 0.8

// check decides on a new segment, of which a build has told what it finds.
func (t *table) check(s *segment, found float64) (generation, error) {
	gen := generation{Created: t.backend.cfg.Now().UTC(), Method: s.Stats().Method, Recall: found, Parts: []part{s.part}}
	// A configuration may ask for few leaves: then what it finds is what was wanted.
	if want := t.wanted() * least; gen.Recall < want && t.index.Config.LeafPart == 0 && t.index.Config.Approximate == 0 {
		return gen, resource.Errorf(codes.Internal, "the new generation finds %.0f%% of the true neighbours, less than %.0f%%; the old one stays", 100*gen.Recall, 100*want).
			WithResource(t.index.Name).WithCause(resource.CausePlatform).
			WithHint("make an index with bruteForceConfig, which compares every vector")
	}
	return gen, nil
}

// install puts a generation in the place of the current one, durably and then for
// queries. Changes are held up from the one to the other. Files that the earlier manifest
// names alone are the caller's to let go: that takes a while, and nobody waits for it.
func (t *table) install(ctx context.Context, gen generation, built *segment, commit vector.Commit) (was, m manifest, err error) {
	old, err := t.enterAlone(ctx)
	if err != nil {
		return was, m, err
	}
	defer t.gate.Unlock()
	defer old.leave()
	streamed, err := t.streamed(ctx, old)
	if err != nil {
		t.abandon(ctx, built)
		return was, m, err
	}
	var next *view
	shown := false
	err = t.backend.cfg.Store.Update(ctx, func(tx store.Tx) error {
		if was, err = readManifest(ctx, tx, t.index.Name); err != nil {
			return err
		}
		m = was
		m.Last++
		gen.Number, gen.Watermark = m.Last, m.Current.Watermark
		previous := old.closed(m.Current, streamed)
		m.Previous, m.Current = &previous, gen
		next = newView(m.Current, m.Previous, []*segment{built}, []*ann.Bitmap{nil}, old.mem, nil)
		next.buryIn(0, old.mem)
		if err := m.write(ctx, tx, t.index.Name); err != nil {
			return err
		}
		if err := commit(ctx, tx, next.stats()); err != nil {
			return err
		}
		// Whoever hears of the end of the update finds its datapoints, and others may hear of it
		// before we do. Queries need not wait for the disk meanwhile.
		old.enter() // for the table, should it come back
		t.show(next)
		shown = true
		return nil
	})
	if err != nil {
		switch {
		case shown:
			built.gone.Store(true)
			t.show(old)
		case next != nil:
			built.gone.Store(true)
			next.leave()
		default:
			t.abandon(ctx, built)
		}
		t.abandon(ctx, streamed)
		return was, m, err
	}
	old.leave()
	t.abandonCached(streamed)
	return was, m, nil
}

// show has queries see a view from now on.
func (t *table) show(v *view) {
	t.publish.Lock()
	defer t.publish.Unlock()
	t.swap(v)
}

// streamed makes a segment of what has come since the merge that a batch update began
// with, nil for nothing: the generation that goes had it, and the new one has it in
// memory. Changes wait for this, so that nothing is built but what can be compared.
func (t *table) streamed(ctx context.Context, v *view) (*segment, error) {
	rows := &source{view: v, memory: v.mem}
	if rows.countAll(); rows.count == 0 {
		return nil, nil //nolint:nilnil // nothing has come
	}
	s, _, err := t.buildRows(ctx, rows.rows(), ann.Options{Hint: rows.count, Threads: runtime.GOMAXPROCS(0), Method: ann.Exact}, true)
	return s, err
}

// closed is the view's generation with all that was streamed into it, for a roll-back.
// The caller holds the gate alone.
func (v *view) closed(gen generation, streamed *segment) generation {
	gen.Parts = nil
	for i, s := range v.segments {
		p := s.part
		p.Dead = packDead(v.dead[i])
		gen.Parts = append(gen.Parts, p)
	}
	if streamed != nil {
		gen.Parts = append(gen.Parts, streamed.part)
	}
	return gen
}

// Rollback implements vector.Backend: current and previous change places.
func (b *Backend) Rollback(ctx context.Context, index vector.Index, commit vector.Commit) error {
	t := b.table(index)
	t.maintain.Lock()
	defer t.maintain.Unlock()
	if err := t.mergeLocked(ctx, true); err != nil {
		return err
	}
	m, err := readManifest(ctx, b.cfg.Store, index.Name)
	if err != nil {
		return err
	}
	if m.Previous == nil {
		return vector.NoEarlier(index)
	}
	segments, dead, err := b.openParts(ctx, m.Previous.Parts)
	if err != nil {
		return err
	}
	old, err := t.enterAlone(ctx)
	if err != nil {
		closeAll(segments)
		return err
	}
	defer t.gate.Unlock()
	defer old.leave()
	// What came since the merge above stays on top, as after a batch update.
	next := newView(*m.Previous, &m.Current, segments, dead, old.mem, nil)
	for i := range segments {
		next.buryIn(i, old.mem)
	}
	err = b.cfg.Store.Update(ctx, func(tx store.Tx) error {
		current := *m.Previous
		current.Watermark = m.Current.Watermark
		next.gen = current
		swapped := manifest{Last: m.Last, Current: current, Previous: &m.Current}
		if err := swapped.write(ctx, tx, index.Name); err != nil {
			return err
		}
		return commit(ctx, tx, next.stats())
	})
	if err != nil {
		next.leave()
		return err
	}
	t.publish.Lock()
	defer t.publish.Unlock()
	t.swap(next)
	return nil
}
