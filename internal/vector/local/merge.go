package local

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"

	"google.golang.org/grpc/codes"

	"tategu/internal/blob"
	"tategu/internal/resource"
	"tategu/internal/store"
	"tategu/internal/vector/ann"
	"tategu/internal/volume"
)

const segmentKind = blob.KindVectorSegment

// merge turns what is in memory into a segment. Queries and changes go on.
func (t *table) merge(ctx context.Context) error {
	t.maintain.Lock()
	defer t.maintain.Unlock()
	return t.mergeLocked(ctx, true)
}

// mergeSoon is merge for who has other indexes to look after: one that is being worked on
// is left alone, and its next change asks again.
func (t *table) mergeSoon(ctx context.Context) error {
	if !t.maintain.TryLock() {
		return nil
	}
	defer t.maintain.Unlock()
	return t.mergeLocked(ctx, false)
}

// mergeLocked is merge for who holds maintain; awaited says that somebody waits for it.
func (t *table) mergeLocked(ctx context.Context, awaited bool) error {
	v, upTo, err := t.freeze(ctx)
	if v == nil || err != nil {
		return err
	}
	defer v.leave()
	keep, rows := v.choose()
	var was, m manifest
	var added *segment
	if rows.count > 0 {
		if added, err = t.build(ctx, rows, awaited); err != nil {
			return err
		}
	}
	err = t.backend.cfg.Store.Update(ctx, func(tx store.Tx) error {
		// Of an index that was deleted meanwhile nothing may be written: nobody would remove it.
		if _, err := tx.Get(ctx, resource.KindIndexes, t.index.Name); err != nil {
			return err
		}
		if was, err = readManifest(ctx, tx, t.index.Name); err != nil {
			return err
		}
		m = was
		m.Current.Watermark, m.Current.Parts = upTo, nil
		for _, i := range keep {
			p := v.segments[i].part
			p.Dead = packDead(v.dead[i])
			m.Current.Parts = append(m.Current.Parts, p)
		}
		if added != nil {
			m.Current.Parts = append(m.Current.Parts, added.part)
			if m.Current.Method == "" {
				m.Current.Method = added.Stats().Method
			}
		}
		return m.write(ctx, tx, t.index.Name)
	})
	if err != nil {
		t.abandon(ctx, added)
		return fmt.Errorf("merge %s: %w", t.index.Name, err)
	}
	t.merged(v, m, keep, added)
	t.backend.letGo(ctx, was, m)
	return t.backend.trimLog(ctx, t.index.Name, upTo)
}

// freeze sets aside what is in memory, with all changes up to a number; nil = nothing
// is there. What an earlier merge left when it failed is part of it.
func (t *table) freeze(ctx context.Context) (*view, int64, error) {
	old, err := t.enterAlone(ctx)
	if err != nil {
		return nil, 0, err
	}
	defer t.gate.Unlock()
	defer old.leave()
	t.publish.Lock()
	defer t.publish.Unlock()
	if len(old.mem.entries) == 0 && old.frozen == nil {
		return nil, 0, nil
	}
	frozen := old.mem
	if old.frozen != nil {
		if frozen, err = overlay(old.frozen, old.mem); err != nil {
			return nil, 0, err
		}
	}
	v := newView(old.gen, old.previous, old.segments, old.dead, newMemory(frozen.measure, frozen.dims), frozen)
	v.enter()
	t.swap(v)
	return v, t.seq, nil
}

// Of when segments are merged with what is in memory.
const (
	maxSmall   = 6      // small segments beside the first
	smallRows  = 20_000 // are few, whatever the first has
	smallShare = 0.3    // of the first segment's rows
	deadShare  = 0.3
)

// choose says which segments stay, and gives the rows of all others with those in
// memory. The first segment is merged when the small ones have become a good part of
// it, or its dead ones have.
func (v *view) choose() (keep []int, rows *source) {
	rows = &source{view: v, memory: v.frozen}
	small, dead := len(v.frozen.entries), 0
	for i, s := range v.segments {
		if i > 0 {
			small += s.Len()
		} else if v.dead[0] != nil {
			dead = v.dead[0].Count()
		}
	}
	if len(v.segments) == 0 {
		rows.countAll()
		return nil, rows
	}
	first := v.segments[0].Len()
	switch {
	case float64(small) > max(smallRows, smallShare*float64(first)), float64(dead) > deadShare*float64(first):
		for i := range v.segments {
			rows.segments = append(rows.segments, i)
		}
	case len(v.segments) > maxSmall:
		keep = []int{0}
		for i := range v.segments[1:] {
			rows.segments = append(rows.segments, i+1)
		}
	default:
		for i := range v.segments {
			keep = append(keep, i)
		}
	}
	rows.countAll()
	return keep, rows
}

// source gives the rows of some segments and of a memory.
type source struct {
	view     *view
	memory   *memory
	segments []int
	count    int
}

func (s *source) countAll() {
	for _, i := range s.segments {
		s.count += s.view.segments[i].Len()
		if dead := s.view.dead[i]; dead != nil {
			s.count -= dead.Count()
		}
	}
	for i := range s.memory.entries {
		if s.memory.entries[i].point != nil {
			s.count++
		}
	}
}

// rows gives what lives. Of the view's dead rows those that were marked when the
// memory was set aside are all that may be left out: v is that very view.
func (s *source) rows() ann.Rows {
	return func(yield func(ann.Row, error) bool) {
		for _, i := range s.segments {
			seg, dead := s.view.segments[i], s.view.dead[i]
			for row := range uint32(seg.Len()) {
				if dead != nil && dead.Has(row) {
					continue
				}
				if !yield(seg.Get(row)) {
					return
				}
			}
		}
		if s.memory == nil {
			return
		}
		for i := range s.memory.entries { // frozen: nobody changes it
			e := &s.memory.entries[i]
			if e.point == nil {
				continue
			}
			if !yield(toRow(e.point, s.memory.dims)) {
				return
			}
		}
	}
}

// build makes a segment, in the cache and as a content.
func (t *table) build(ctx context.Context, rows *source, awaited bool) (*segment, error) {
	s, _, err := t.buildRows(ctx, rows.rows(), ann.Options{Hint: rows.count, Threads: max(1, runtime.GOMAXPROCS(0)/2)}, awaited)
	return s, err
}

// buildRows makes a segment of rows. Of the options those are its caller's that are not
// the index's.
func (t *table) buildRows(ctx context.Context, rows ann.Rows, o ann.Options, awaited bool) (_ *segment, found float64, err error) {
	if err := t.backend.makeCache(); err != nil {
		return nil, 0, wrongBuild(err)
	}
	dir, err := os.MkdirTemp(t.backend.cfg.Cache, ".build-*")
	if err != nil {
		return nil, 0, wrongBuild(err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	cfg := t.index.Config
	o.Dimensions, o.Measure, o.Recall, o.LeafSize, o.Fraction, o.Candidates = cfg.Dimensions, cfg.Measure, t.wanted(), cfg.LeafSize, cfg.LeafPart, cfg.Approximate
	if cfg.BruteForce {
		o.Method = ann.Exact
	}
	count, sparse := 0, 0
	counted := func(yield func(ann.Row, error) bool) {
		for r, err := range rows {
			count++
			if len(r.Extra) > 0 {
				if s, _, err := sparseOf(r); err == nil && s != nil {
					sparse++
				}
			}
			if !yield(r, err) {
				return
			}
		}
	}
	path := filepath.Join(dir, "segment")
	built, err := t.backend.cfg.Builder.Build(ctx, path, counted, o, awaited)
	if err != nil {
		return nil, 0, wrongBuild(err)
	}
	if built.Stats.Rows != count {
		return nil, 0, wrongBuild(fmt.Errorf("it has %d rows instead of %d", built.Stats.Rows, count))
	}
	p, err := t.backend.keep(ctx, path)
	if err != nil {
		return nil, 0, err
	}
	p.Rows, p.Sparse = built.Stats.Rows, sparse
	s, err := t.backend.openSegment(ctx, p)
	if err != nil {
		return nil, 0, errors.Join(err, t.backend.cfg.Contents.Remove(context.WithoutCancel(ctx), p.Content))
	}
	return s, built.Found, nil
}

// wrongBuild tells of a build that failed.
func wrongBuild(err error) error {
	if !volume.Blocked(err) {
		return fmt.Errorf("build a segment: %w", err)
	}
	return resource.Errorf(codes.ResourceExhausted, "build a segment in the cache of indexes: %w", err).WithCause(resource.CauseResource).
		WithHint("make room on the disk of the cache (`cache` of the configuration), and update the index once more; what was there before stays")
}

// keep makes a built file a content, and the cache's copy of it.
func (b *Backend) keep(ctx context.Context, path string) (p part, err error) {
	f, err := os.Open(path)
	if err != nil {
		return p, err
	}
	id, digest, err := b.cfg.Contents.Create(ctx, f)
	if err = errors.Join(err, f.Close()); err != nil {
		return p, fmt.Errorf("keep a segment: %w", err)
	}
	if err := os.Rename(path, b.cachePath(id)); err != nil {
		return p, fmt.Errorf("cache a segment: %w", err)
	}
	return part{Content: id, Size: digest.Size, CRC32C: digest.CRC32C}, nil
}

// abandon lets go of a segment that no manifest names. Where the outcome of a commit
// is unknown one may: the content stays then, until it is swept as nobody's.
func (t *table) abandon(_ context.Context, s *segment) {
	if s == nil {
		return
	}
	s.gone.Store(true)
	s.retain()
	s.release()
}

// merged shows the outcome of a merge: changes since are marked in the new segment.
func (t *table) merged(frozen *view, m manifest, keep []int, added *segment) {
	t.publish.Lock()
	defer t.publish.Unlock()
	v := t.current.Load()
	if v == nil {
		t.abandonCached(added)
		return // it left memory; the manifest knows
	}
	var segments []*segment
	var dead []*ann.Bitmap
	for _, i := range keep {
		s := frozen.segments[i]
		segments = append(segments, s)
		dead = append(dead, v.deadOf(s))
	}
	if added != nil {
		segments, dead = append(segments, added), append(dead, nil)
	}
	next := newView(m.Current, m.Previous, segments, dead, v.mem, nil)
	if added != nil {
		next.buryIn(len(segments)-1, v.mem)
	}
	t.swap(next)
}

// abandonCached closes a segment that was opened and is not shown; its file stays.
func (t *table) abandonCached(s *segment) {
	if s != nil {
		s.retain()
		s.release()
	}
}

// letGo removes the files and contents that one manifest named and the next does not.
// What is mapped stays readable; what cannot be removed now is swept later.
func (b *Backend) letGo(ctx context.Context, was, now manifest) {
	named := map[string]bool{}
	for _, p := range now.parts() {
		named[p.Content] = true
	}
	for _, p := range was.parts() {
		if !named[p.Content] {
			_ = os.Remove(b.cachePath(p.Content))
			_ = b.cfg.Contents.Remove(context.WithoutCancel(ctx), p.Content)
		}
	}
}

func (v *view) deadOf(s *segment) *ann.Bitmap {
	for i, have := range v.segments {
		if have == s {
			return v.dead[i]
		}
	}
	return nil
}

// buryIn marks the rows of one segment whose ids are in a memory.
func (v *view) buryIn(at int, m *memory) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	s := v.segments[at]
	var dead *ann.Bitmap
	for id := range m.byID {
		if row, ok := s.Row(id); ok {
			if dead == nil {
				dead = cloneDead(v.dead[at], s.Len())
			}
			dead.Set(row)
		}
	}
	if dead != nil {
		v.dead[at], v.hidden[at] = dead, hide(s, dead)
	}
}
