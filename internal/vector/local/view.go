package local

import (
	"sync/atomic"

	"tategu/internal/vector"
	"tategu/internal/vector/ann"
)

// view is one state of an index, from which queries are answered. It is replaced, not
// changed (but for what is streamed into its memory), and what it maps stays mapped
// until its last user leaves.
type view struct {
	users    atomic.Int64 // queries, and one for the table
	gen      generation
	previous *generation
	segments []*segment
	dead     []*ann.Bitmap // a segment; rows that were replaced or removed; nil = none
	hidden   []*ann.Bitmap // likewise, and rows without a vector
	mem      *memory       // what is streamed now
	frozen   *memory       // what is being merged; nil = nothing
}

// newView retains the segments. dead has one entry a segment.
func newView(gen generation, previous *generation, segments []*segment, dead []*ann.Bitmap, mem, frozen *memory) *view {
	v := &view{gen: gen, previous: previous, segments: segments, dead: dead, mem: mem, frozen: frozen, hidden: make([]*ann.Bitmap, len(segments))}
	v.users.Store(1)
	for i, s := range segments {
		s.retain()
		v.hidden[i] = hide(s, dead[i])
	}
	return v
}

func hide(s *segment, dead *ann.Bitmap) *ann.Bitmap {
	if s.sparse == nil {
		return dead
	}
	out := s.sparse.only.Clone()
	if dead != nil {
		for row := range dead.All() {
			out.Set(row)
		}
	}
	return out
}

// enter fails when the view was left by all.
func (v *view) enter() bool {
	for {
		n := v.users.Load()
		if n == 0 {
			return false
		}
		if v.users.CompareAndSwap(n, n+1) {
			return true
		}
	}
}

func (v *view) leave() {
	if v.users.Add(-1) > 0 {
		return
	}
	for _, s := range v.segments {
		s.release()
	}
}

// memories are those whose entries win over segments, the newest first.
func (v *view) memories() []*memory {
	if v.frozen == nil {
		return []*memory{v.mem}
	}
	return []*memory{v.mem, v.frozen}
}

// shadowed reports an id whose last change is in memory. The caller holds their locks.
func (v *view) shadowed(id string) bool {
	for _, m := range v.memories() {
		if _, ok := m.byID[id]; ok {
			return true
		}
	}
	return false
}

// rlock locks the memories for reading.
func (v *view) rlock() (unlock func()) {
	memories := v.memories()
	for _, m := range memories {
		m.mu.RLock()
	}
	return func() {
		for _, m := range memories {
			m.mu.RUnlock()
		}
	}
}

// each visits the entries in memory that count: the last change of each id. The
// caller holds the locks.
func (v *view) each(visit func(m *memory, at int, e *entry)) {
	for n, m := range v.memories() {
		for i := range m.entries {
			if n > 0 {
				if _, newer := v.mem.byID[m.entries[i].id]; newer {
					continue
				}
			}
			visit(m, i, &m.entries[i])
		}
	}
}

// stats counts what a query would see.
func (v *view) stats() vector.Stats {
	unlock := v.rlock()
	defer unlock()
	st := vector.Stats{Generation: v.gen.Number, Created: v.gen.Created, Recall: v.gen.Recall, Method: v.gen.Method, Segments: len(v.segments)}
	if v.previous != nil {
		st.Previous, st.CanRollback = v.previous.Number, true
	}
	sparseOnly := int64(0)
	for i, s := range v.segments {
		st.Bytes += s.part.Size
		live := func(b *ann.Bitmap) int64 {
			if v.dead[i] == nil {
				return int64(b.Count())
			}
			b = b.Clone()
			b.AndNot(v.dead[i])
			return int64(b.Count())
		}
		st.Count += int64(s.Len())
		if v.dead[i] != nil {
			st.Count -= int64(v.dead[i].Count())
		}
		if s.sparse != nil {
			st.Sparse += live(s.sparse.has)
			sparseOnly += live(s.sparse.only)
		}
	}
	v.each(func(_ *memory, _ int, e *entry) {
		st.Unmerged++
		if e.point == nil {
			return
		}
		st.Count++
		if e.point.GetSparseEmbedding() != nil {
			st.Sparse++
		}
		if !e.dense() {
			sparseOnly++
		}
	})
	for _, m := range v.memories() {
		st.Bytes += m.bytes
	}
	st.Vectors = st.Count - sparseOnly
	return st
}
