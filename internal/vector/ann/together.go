package ann

import "context"

// Queries of one call share scans of leaves: each leaf's codes are brought near once for all
// queries that look there, which counts where codes are more than the processor keeps near.
const together = 64

// batch is what queries that are answered together need. It is used again.
type batch struct {
	all   []*scratch
	heads []int32 // of each leaf: the last of its visits
	next  []int32 // of each visit: the one before
	by    []uint8 // of each visit: the query
}

func (s *Segment) takeBatch() *batch {
	select {
	case b := <-s.batches:
		return b
	default:
		return &batch{heads: make([]int32, s.Leaves)}
	}
}

func (s *Segment) giveBatch(b *batch) {
	for _, sc := range b.all {
		sc.query, sc.dead, sc.filter, sc.done = nil, nil, nil, nil
	}
	select {
	case s.batches <- b:
	default:
	}
}

// answer answers up to `together` queries of a segment of leaves.
func (b *batch) answer(ctx context.Context, s *Segment, queries []Query, dead *Bitmap, out *Results) {
	for len(b.all) < len(queries) {
		b.all = append(b.all, newScratch(s))
	}
	for i := range b.heads {
		b.heads[i] = -1
	}
	b.next, b.by = b.next[:0], b.by[:0]
	for i := range queries {
		sc := b.all[i]
		sc.until(ctx)
		sc.prepare(&queries[i], dead)
		sc.shares = false
		switch {
		case queries[i].K <= 0 || s.Rows == 0:
		case sc.alone():
			sc.run()
		default:
			sc.shares = true
			b.visit(sc, uint8(i))
		}
	}
	for leaf, at := range b.heads {
		for ; at >= 0; at = b.next[at] {
			b.all[b.by[at]].scanRows(int(s.leaves[leaf]), int(s.leaves[leaf+1]))
		}
	}
	for _, sc := range b.all[:len(queries)] {
		if sc.shares {
			sc.endScan()
			sc.rerank(sc.query.K)
		}
		out.found = append(out.found, sc.best...)
		out.ends = append(out.ends, len(out.found))
	}
}

// alone says that a query does not share: it limits crowds, or looks at all leaves, or compares
// all rows that are allowed. If it shares, its leaves are chosen.
func (sc *scratch) alone() bool {
	leaves := sc.leavesFor(sc.query, sc.query.K)
	if sc.query.PerCrowd > 0 || sc.query.Exact || sc.few(leaves) {
		return true
	}
	sc.choose(leaves)
	return sc.chosen == sc.s.Rows || sc.cheap(sc.chosen)
}

// visit scans the best leaf, for a threshold, and notes the others.
func (b *batch) visit(sc *scratch, query uint8) {
	s, q := sc.s, sc.query
	sc.best = sc.best[:0]
	sc.pool.reset(min(sc.compared(max(q.K, sc.candidatesFor(q))), s.Rows))
	sc.beginRows()
	for i, leaf := range sc.probe.rows[:sc.probe.n] {
		if i == 0 {
			sc.scanRows(int(s.leaves[leaf]), int(s.leaves[leaf+1]))
			sc.pool.shrink()
			continue
		}
		b.next = append(b.next, b.heads[leaf])
		b.by = append(b.by, query)
		b.heads[leaf] = int32(len(b.next) - 1)
	}
}
