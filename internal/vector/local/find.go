package local

import (
	"cmp"
	"context"
	"slices"

	pb "cloud.google.com/go/aiplatform/apiv1beta1/aiplatformpb"

	"tategu/internal/vector"
	"tategu/internal/vector/ann"
)

// candidate is a datapoint on its way into an answer: a row of a segment or an entry
// in memory.
type candidate struct {
	id       string
	distance float32 // as package ann has it
	sparse   float32
	segment  *segment
	row      uint32
	entry    *entry // a copy: memory may change once its lock is given back
}

// Find implements vector.Backend.
func (b *Backend) Find(ctx context.Context, index vector.Index, queries []vector.Query, full bool) ([][]vector.Neighbor, error) {
	t := b.table(index)
	v, err := t.use(ctx)
	if err != nil {
		return nil, err
	}
	defer v.leave()
	out := make([][]vector.Neighbor, 0, len(queries))
	size := vector.NewBudget("queries")
	for len(queries) > 0 {
		n := v.share(queries)
		f := &finder{view: v, queries: queries[:n], measure: index.Config.Measure, full: full, size: size}
		found, err := f.find(ctx)
		if err != nil {
			return nil, err
		}
		out, queries = append(out, found...), queries[n:]
	}
	return out, ctx.Err()
}

// find answers all queries of a finder.
func (f *finder) find(ctx context.Context) (out [][]vector.Neighbor, err error) {
	f.dense, f.sparse = make([][]candidate, len(f.queries)), make([][]candidate, len(f.queries))
	f.filters, f.weights = make([]ann.Filter, len(f.queries)), make([]weights, len(f.queries))
	for i, q := range f.queries {
		f.filters[i] = toFilter(q.Point)
		f.weights[i] = weigh(q.Point.GetSparseEmbedding())
	}
	for i := range f.view.segments {
		if err := f.segment(ctx, i); err != nil {
			return nil, err
		}
	}
	f.memory()
	out = make([][]vector.Neighbor, len(f.queries))
	for i := range f.queries {
		if out[i], err = f.answer(i); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// finder answers some queries of one request from one view.
type finder struct {
	view          *view
	full          bool
	size          *vector.Budget
	queries       []vector.Query
	filters       []ann.Filter
	measure       ann.Measure
	dense, sparse [][]candidate // a query
	weights       []weights     // likewise, of its sparse embedding
}

func isDense(q vector.Query) bool  { return len(q.Point.GetFeatureVector()) > 0 }
func isSparse(q vector.Query) bool { return len(q.Point.GetSparseEmbedding().GetValues()) > 0 }

// depth is how many of each ranking are joined: more than are asked for, since one
// that is low in both may be high in the joint one.
func depth(q vector.Query) int {
	if isDense(q) && isSparse(q) {
		return max(2*q.Neighbors, 50)
	}
	return q.Neighbors
}

// segment looks for all queries in one segment, which shares its scans among them.
func (f *finder) segment(ctx context.Context, at int) error {
	s := f.view.segments[at]
	var asked []ann.Query
	var of []int
	for i, q := range f.queries {
		allowed := s.allowed(f.filters[i])
		if isSparse(q) && s.sparse != nil {
			most := depth(q)
			if q.PerCrowding > 0 {
				most = s.Len()
			}
			for _, n := range s.sparse.search(q.Point.GetSparseEmbedding(), f.view.dead[at], allowed, most) {
				f.sparse[i] = append(f.sparse[i], candidate{id: s.ID(n.Row), sparse: n.Distance, segment: s, row: n.Row})
			}
		}
		if isDense(q) {
			asked = append(asked, ann.Query{
				Vector: q.Point.GetFeatureVector(), K: depth(q), Candidates: q.Approximate, Fraction: q.LeafFraction,
				PerCrowd: q.PerCrowding, Allowed: allowed,
			})
			of = append(of, i)
		}
	}
	if len(asked) == 0 {
		return ctx.Err()
	}
	out, ok := s.pool.Get().(*ann.Results)
	if !ok {
		out = &ann.Results{}
	}
	defer s.pool.Put(out)
	if err := s.SearchContext(ctx, asked, f.view.hidden[at], out); err != nil {
		return err
	}
	for n, i := range of {
		for _, x := range out.At(n) {
			f.dense[i] = append(f.dense[i], candidate{id: s.ID(x.Row), distance: x.Distance, segment: s, row: x.Row})
		}
	}
	return ctx.Err()
}

// allowed gives nil where every row is.
func (s *segment) allowed(filter ann.Filter) *ann.Bitmap {
	if filter.Empty() {
		return nil
	}
	b := &ann.Bitmap{}
	s.Allowed(filter, b)
	return b
}

// memory looks through what was streamed. A row whose datapoint has changed since the
// view was made is left out for what is in memory.
func (f *finder) memory() {
	v := f.view
	unlock := v.rlock()
	defer unlock()
	if len(v.mem.byID) == 0 && v.frozen == nil {
		return
	}
	old := func(c candidate) bool { return v.shadowed(c.id) }
	for i, q := range f.queries {
		f.dense[i], f.sparse[i] = slices.DeleteFunc(f.dense[i], old), slices.DeleteFunc(f.sparse[i], old)
		pass := func(e *entry) bool { return f.filters[i].Empty() || f.filters[i].Match(e.row) }
		if isDense(q) {
			f.scan(i, pass)
		}
		if isSparse(q) {
			v.each(func(_ *memory, _ int, e *entry) {
				if e.point == nil || !pass(e) {
					return
				}
				if score, ok := f.weights[i].dot(e.point.GetSparseEmbedding()); ok {
					f.sparse[i] = append(f.sparse[i], candidate{id: e.id, sparse: score, entry: new(*e)})
				}
			})
		}
	}
}

// scan compares the vectors in memory, and keeps the nearest.
func (f *finder) scan(i int, pass func(*entry) bool) {
	q := f.queries[i]
	v := q.Point.GetFeatureVector()
	for n, m := range f.view.memories() {
		pass := pass
		if n > 0 {
			all := pass
			pass = func(e *entry) bool {
				_, newer := f.view.mem.byID[e.id]
				return !newer && all(e)
			}
		}
		visit := func(h hit) {
			e := m.entries[h.at]
			f.dense[i] = append(f.dense[i], candidate{id: e.id, distance: h.distance, entry: &e})
		}
		if q.PerCrowding > 0 {
			m.each(v, pass, visit)
		} else {
			m.scan(v, depth(q), pass, visit)
		}
	}
}

// answer ranks the candidates of a query.
func (f *finder) answer(i int) ([]vector.Neighbor, error) {
	q := f.queries[i]
	nearer := func(a, b candidate) int { return cmp.Or(cmp.Compare(a.distance, b.distance), cmp.Compare(a.id, b.id)) }
	greater := func(a, b candidate) int { return cmp.Or(cmp.Compare(b.sparse, a.sparse), cmp.Compare(a.id, b.id)) }
	slices.SortFunc(f.dense[i], nearer)
	slices.SortFunc(f.sparse[i], greater)
	ranked := f.dense[i]
	switch {
	case isDense(q) && isSparse(q):
		ranked = vector.Fuse(f.dense[i], f.sparse[i], f.queries[i].Alpha, depth(f.queries[i]), func(c candidate) string { return c.id })
	case isSparse(q):
		ranked = f.sparse[i]
	}
	out := make([]vector.Neighbor, 0, min(q.Neighbors, len(ranked)))
	crowd := map[string]int{}
	for _, c := range ranked {
		if len(out) == q.Neighbors {
			break
		}
		row, err := c.attributes()
		if err != nil {
			return nil, err
		}
		if q.PerCrowding > 0 && row.Crowding != "" {
			if crowd[row.Crowding] == q.PerCrowding {
				continue
			}
			crowd[row.Crowding]++
		}
		n, err := f.neighbor(i, c, row)
		if err != nil {
			return nil, err
		}
		if err := f.size.Take(n.Datapoint); err != nil {
			return nil, err
		}
		out = append(out, n)
	}
	return out, nil
}

func (c *candidate) attributes() (ann.Row, error) {
	if c.segment == nil {
		return c.entry.row, nil
	}
	return c.segment.Get(c.row)
}

func (c *candidate) point(row ann.Row) (*pb.IndexDatapoint, error) {
	if c.segment == nil {
		return c.entry.point, nil
	}
	return toPoint(row)
}

// neighbor makes the answer of a candidate. In a query of both kinds each neighbour
// has both distances, by whichever ranking it was found.
func (f *finder) neighbor(i int, c candidate, row ann.Row) (vector.Neighbor, error) {
	q := f.queries[i]
	n := vector.Neighbor{Datapoint: &pb.IndexDatapoint{DatapointId: c.id, CrowdingTag: tagOf(row)}}
	both := isDense(q) && isSparse(q)
	if f.full || both {
		p, err := c.point(row)
		if err != nil {
			return n, err
		}
		if f.full {
			n.Datapoint = p
		}
		if both {
			if len(p.GetFeatureVector()) > 0 {
				c.distance = f.measure.Between(q.Point.GetFeatureVector(), p.GetFeatureVector())
			} else {
				c.distance = 0
			}
			c.sparse, _ = f.weights[i].dot(p.GetSparseEmbedding())
		}
	}
	n.Distance, n.SparseDistance = float64(c.distance), float64(c.sparse)
	if f.measure.Distance == ann.DotProduct && c.distance != 0 {
		n.Distance = -n.Distance
	}
	return n, nil
}

// Get implements vector.Backend.
func (b *Backend) Get(ctx context.Context, index vector.Index, ids []string) ([]*pb.IndexDatapoint, error) {
	v, err := b.table(index).use(ctx)
	if err != nil {
		return nil, err
	}
	defer v.leave()
	unlock := v.rlock()
	defer unlock()
	out := make([]*pb.IndexDatapoint, len(ids))
	size := vector.NewBudget("ids")
	for i, id := range ids {
		if out[i], err = v.get(id); err != nil {
			return nil, err
		}
		if err := size.Take(out[i]); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// get gives the datapoint of an id, nil for none. The caller holds the memories' locks.
func (v *view) get(id string) (*pb.IndexDatapoint, error) {
	for _, m := range v.memories() {
		if at, ok := m.byID[id]; ok {
			return m.entries[at].point, nil
		}
	}
	for i, s := range v.segments {
		row, ok := s.Row(id)
		if !ok || v.dead[i] != nil && v.dead[i].Has(row) {
			continue
		}
		r, err := s.Get(row)
		if err != nil {
			return nil, err
		}
		return toPoint(r)
	}
	return nil, nil
}

// Scan implements vector.Backend.
func (b *Backend) Scan(ctx context.Context, index vector.Index, after string, limit int) ([]*pb.IndexDatapoint, error) {
	v, err := b.table(index).use(ctx)
	if err != nil {
		return nil, err
	}
	defer v.leave()
	unlock := v.rlock()
	defer unlock()
	found := v.idsAfter(after, limit)
	out := make([]*pb.IndexDatapoint, 0, len(found))
	size := vector.NewBudget("limit")
	for _, id := range found {
		p, err := v.get(id)
		if err == nil {
			err = size.Take(p)
		}
		if err != nil {
			return nil, err
		}
		if p != nil {
			out = append(out, p)
		}
	}
	return out, ctx.Err()
}

// idsAfter gives the first ids after one, in order. The caller holds the locks.
func (v *view) idsAfter(after string, limit int) []string {
	var all []string
	v.each(func(_ *memory, _ int, e *entry) {
		if e.point != nil && e.id > after {
			all = append(all, e.id)
		}
	})
	for i, s := range v.segments {
		n := 0
		for row := range s.Scan(after) {
			if v.dead[i] != nil && v.dead[i].Has(row) {
				continue
			}
			id := s.ID(row)
			if v.shadowed(id) {
				continue
			}
			all = append(all, id)
			if n++; n == limit {
				break
			}
		}
	}
	slices.Sort(all)
	all = slices.Compact(all)
	return all[:min(limit, len(all))]
}

// Stats implements vector.Backend. An index that is not in memory comes there only
// where its log has changes that its manifest cannot know.
func (b *Backend) Stats(ctx context.Context, index vector.Index) (vector.Stats, error) {
	t := b.table(index)
	if v := t.acquire(); v != nil {
		defer v.leave()
		return v.stats(), nil
	}
	return t.restingStats(ctx)
}
