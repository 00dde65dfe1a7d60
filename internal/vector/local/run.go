package local

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"tategu/internal/resource"
	"tategu/internal/store"
	"tategu/internal/vector"
)

// tendEvery is how often idle indexes and those of no use are looked for.
const tendEvery = 5 * time.Second

// Run implements vector.Backend: merges, and indexes that leave memory.
func (b *Backend) Run(ctx context.Context) error {
	tick := time.NewTicker(tendEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case t := <-b.merges:
			t.queued.Store(false)
			if err := t.mergeSoon(ctx); err != nil && ctx.Err() == nil {
				b.cfg.Log.ErrorContext(ctx, "cannot merge an index", slog.String("index", t.index.Name), slog.Any("error", err))
			}
		case <-tick.C:
			if err := b.tend(ctx); err != nil && ctx.Err() == nil {
				b.cfg.Log.ErrorContext(ctx, "cannot tend the indexes", slog.Any("error", err))
			}
		}
	}
}

// sweep removes files of segments that no manifest names, and what builds left. No
// other method may be at work.
func (b *Backend) sweep(ctx context.Context) error {
	rows, err := b.cfg.Store.List(ctx, store.Query{Kind: segmentKind})
	if err != nil {
		return err
	}
	named := map[string]bool{}
	for _, row := range rows {
		named[row.State] = true
	}
	files, err := os.ReadDir(b.cfg.Cache)
	if err != nil {
		return err
	}
	var errs []error
	for _, f := range files {
		content, ok := strings.CutSuffix(f.Name(), ".segment")
		if !ok && !strings.HasPrefix(f.Name(), ".") || named[content] {
			continue
		}
		errs = append(errs, os.RemoveAll(filepath.Join(b.cfg.Cache, f.Name())))
	}
	return errors.Join(errs...)
}

// tend lets go of deleted indexes, then of idle ones, then of those beyond the bound
// of memory.
func (b *Backend) tend(ctx context.Context) error {
	now := b.cfg.Now()
	var loaded []*table
	total := int64(0)
	for _, t := range b.all() {
		_, err := b.cfg.Store.Get(ctx, resource.KindIndexes, t.index.Name)
		switch {
		case resource.IsNotFound(err):
			b.discard(t)
			continue
		case err != nil:
			return err
		}
		v := t.acquire()
		if v == nil {
			continue
		}
		total += v.stats().Bytes
		v.leave()
		loaded = append(loaded, t)
	}
	slices.SortFunc(loaded, func(x, y *table) int { return cmp.Compare(x.used.Load(), y.used.Load()) })
	for _, t := range loaded {
		if t.idle(now) < b.cfg.Idle && (b.cfg.Memory == 0 || total <= b.cfg.Memory) {
			continue
		}
		n, err := t.rest(ctx)
		if err != nil {
			return err
		}
		total -= n
	}
	return nil
}

// rest takes an index out of memory; what was streamed is merged first, so that it
// comes back without its log. One that is being worked on stays.
func (t *table) rest(ctx context.Context) (freed int64, err error) {
	if !t.maintain.TryLock() {
		return 0, nil
	}
	defer t.maintain.Unlock()
	v := t.acquire()
	if v == nil {
		return 0, nil
	}
	freed = v.stats().Bytes
	v.leave()
	// One that was deleted meanwhile leaves with what it has.
	if err := t.mergeLocked(ctx, false); err != nil && !resource.IsNotFound(err) {
		return 0, err
	}
	if v := t.acquire(); v != nil {
		st := v.stats()
		v.leave()
		st.Bytes = 0
		t.rested.Store(&st)
	}
	t.unload()
	return freed, nil
}

// discard forgets an index that was deleted, with its files.
func (b *Backend) discard(t *table) {
	b.mu.Lock()
	delete(b.tables, t.index.Name)
	b.mu.Unlock()
	if v := t.acquire(); v != nil {
		for _, s := range v.segments {
			s.gone.Store(true)
		}
		v.leave()
	}
	t.unload()
}

// restingStats are of an index that is not in memory.
func (t *table) restingStats(ctx context.Context) (vector.Stats, error) {
	m, err := readManifest(ctx, t.backend.cfg.Store, t.index.Name)
	if err != nil {
		return vector.Stats{}, err
	}
	rows, err := t.backend.cfg.Store.List(ctx, store.Query{Kind: kindLog, Parent: t.index.Name, Limit: 1})
	if err != nil {
		return vector.Stats{}, err
	}
	// What changes it brings it into memory, and leaves rows in the log where it has gone again.
	if st := t.rested.Load(); st != nil && len(rows) == 0 {
		return *st, nil
	}
	if len(rows) > 0 || m.Current.sparse() > 0 {
		v, err := t.use(ctx)
		if err != nil {
			return vector.Stats{}, err
		}
		defer v.leave()
		return v.stats(), nil
	}
	st := vector.Stats{Generation: m.Current.Number, Created: m.Current.Created, Recall: m.Current.Recall, Method: m.Current.Method, Segments: len(m.Current.Parts)}
	if m.Previous != nil {
		st.Previous, st.CanRollback = m.Previous.Number, true
	}
	for _, p := range m.Current.Parts {
		dead, err := p.Dead.unpack(p.Rows)
		if err != nil {
			return st, err
		}
		st.Count += int64(p.Rows)
		if dead != nil {
			st.Count -= int64(dead.Count())
		}
	}
	st.Vectors = st.Count
	return st, nil
}

func (g generation) sparse() (n int) {
	for _, p := range g.Parts {
		n += p.Sparse
	}
	return n
}
