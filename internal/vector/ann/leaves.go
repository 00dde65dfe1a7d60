package ann

import "tategu/internal/vector/ann/kernel"

// choose fills probe with the leaves that a query looks at, the best first, and counts their
// rows. All leaves are told by sc.all, and are then not in probe.
//
// Where a filter keeps rows out, leaves of which none passes are left out too, and so many are
// taken that as many rows pass as would be scanned without a filter: rows that pass may be
// spread evenly, or lie together anywhere, near the query or far from it. Seen from afar they
// are about equally distant, and which leaf is nearest says less: up to twice as many are then
// scanned. Dead rows are as those that a filter keeps out, where many are near the query.
func (sc *scratch) choose(leaves int) {
	s := sc.s
	sc.chosen, sc.all, sc.spread = s.Rows, leaves >= s.Leaves, 1
	if sc.all {
		return
	}
	if sc.filter == nil {
		sc.nearest(leaves)
		if !sc.deadAround(sc.probe.rows[:sc.probe.n]) {
			sc.chosen = leaves * (s.Rows / s.Leaves)
			return
		}
		sc.bury()
	}
	sc.nearest(s.Leaves)
	p := &sc.probe
	selectBest(p.rows[:p.n], p.scores[:p.n], leaves)
	near := sc.rowsOf(p.rows[:leaves])
	wanted := max(near, perNeighbor*sc.query.K)
	if even := float64(near) * float64(sc.allowed) / float64(s.Rows); even > 0 {
		more := 1.0
		if sc.dead != nil { // the query may be in the middle of a hole, whose edges are all about equally far
			more = aroundHole
		}
		sc.spread = 1 + more*max(0, 1-float64(sc.passingIn(p.rows[:leaves]))/even)
		wanted = int(float64(wanted) * sc.spread)
	}
	kept := 0
	for i, leaf := range p.rows[:p.n] {
		if sc.filter.countIn(s.leaves[leaf], s.leaves[leaf+1]) > 0 {
			p.rows[kept], p.scores[kept] = leaf, p.scores[i]
			kept++
		}
	}
	p.n = sc.reach(kept, min(kept, leaves), wanted)
	sc.all = p.n == kept
	p.lead()
	sc.chosen = sc.rowsOf(p.rows[:p.n])
}

// aroundHole is how many times as many rows are scanned, beyond the first, around rows that are dead.
const aroundHole = 8

// deadAround says that more than a sixth of the rows of some leaves are dead.
func (sc *scratch) deadAround(leaves []uint32) bool {
	if sc.dead == nil {
		return false
	}
	dead := 0
	for _, leaf := range leaves {
		dead += sc.dead.countIn(sc.s.leaves[leaf], sc.s.leaves[leaf+1])
	}
	return 6*dead > sc.rowsOf(leaves)
}

func (sc *scratch) passingIn(leaves []uint32) int {
	n := 0
	for _, leaf := range leaves {
		n += sc.filter.countIn(sc.s.leaves[leaf], sc.s.leaves[leaf+1])
	}
	return n
}

func (sc *scratch) rowsOf(leaves []uint32) int {
	n := 0
	for _, leaf := range leaves {
		n += int(sc.s.leaves[leaf+1] - sc.s.leaves[leaf])
	}
	return n
}

// reach moves the best of the first n leaves of probe to the front, at least so many, until
// enough rows pass in them; it gives their number.
func (sc *scratch) reach(n, least, wanted int) int {
	p := &sc.probe
	done, passing := 0, 0
	for next := least; done < n; {
		if next < n {
			selectBest(p.rows[done:n], p.scores[done:n], next-done)
		}
		passing += sc.passingIn(p.rows[done:next])
		if done = next; passing >= wanted {
			break
		}
		step := max(1, done/8, done*(wanted-passing)/passing)
		next = min(n, done+min(step, 2*done))
	}
	return done
}

// compared is how many candidates are compared exactly: more around a hole, where rows are about
// equally far and codes tell them apart less well.
func (sc *scratch) compared(candidates int) int {
	const hole = 800
	if sc.dead != nil && sc.spread > 1.5 {
		return max(candidates, hole)
	}
	return candidates
}

// scanLeaves fills the pool with the rows of the chosen leaves that score highest.
func (sc *scratch) scanLeaves(candidates int) {
	s, p := sc.s, &sc.pool
	p.reset(min(sc.compared(candidates), s.Rows))
	if sc.chosen == s.Rows {
		sc.beginRows()
		sc.scanRows(0, s.Rows)
		sc.endScan()
		return
	}
	sc.beginRows()
	for i, leaf := range sc.probe.rows[:sc.probe.n] {
		sc.scanRows(int(s.leaves[leaf]), int(s.leaves[leaf+1]))
		if i == 0 {
			p.shrink()
		}
	}
	sc.endScan()
}

// beginRows sets the scan up for codes of rows.
func (sc *scratch) beginRows() {
	s := sc.s
	sc.scan = kernel.Scan{Query: &sc.code[0], Groups: s.groups, Beta: sc.beta}
	sc.kernel = s.kernels.Scan
	if s.Bits == 4 {
		sc.scan.Query, sc.scan.Groups, sc.scan.Beta = &sc.half[0], halfLines(s.meta.Dimensions), sc.beta4
		sc.kernel = s.kernels.Half
	}
}

func (sc *scratch) endScan() {
	if sc.pool.n > sc.pool.want {
		sc.pool.shrink()
	}
}

// nearest fills probe with the leaves whose centres score highest, the best first.
func (sc *scratch) nearest(leaves int) {
	s, p, a := sc.s, &sc.probe, &sc.scan
	*a = kernel.Scan{Query: &sc.code[0], Groups: s.groups, Beta: sc.beta}
	p.reset(leaves)
	blocks := (s.Leaves + kernel.Lanes - 1) / kernel.Lanes
	const step = 256 / kernel.Lanes
	for b := 0; b < blocks; b += step {
		a.Blocks, a.First, a.Threshold = min(step, blocks-b), uint32(b*kernel.Lanes), p.threshold
		a.Codes = &s.centroids[b*64*s.groups]
		a.Norms = nil
		if s.centroidNorms != nil {
			a.Norms = &s.centroidNorms[b*kernel.Lanes]
		}
		a.Rows, a.Scores = p.room()
		p.n += s.kernels.Scan(a)
		if b+step >= blocks { // the last block has room for more leaves than there are
			p.drop(uint32(s.Leaves))
		}
		if p.n >= 2*p.want {
			p.shrink()
		}
	}
	if p.n > p.want {
		p.shrink()
	}
	p.lead()
}

// lead moves the row that scores highest to the front.
func (p *pool) lead() {
	top := 0
	for i, v := range p.scores[:p.n] {
		if v > p.scores[top] {
			top = i
		}
	}
	if p.n > 0 {
		p.rows[0], p.rows[top] = p.rows[top], p.rows[0]
		p.scores[0], p.scores[top] = p.scores[top], p.scores[0]
	}
}

// drop takes out rows from a number on, which are at the end.
func (p *pool) drop(from uint32) {
	for p.n > 0 && p.rows[p.n-1] >= from {
		p.n--
	}
}

// scanRows scans the codes of rows [lo, hi) into the pool.
func (sc *scratch) scanRows(lo, hi int) {
	s, p, a := sc.s, &sc.pool, &sc.scan
	for b := lo / kernel.Lanes; b*kernel.Lanes < hi && !sc.ended(); b += chunk / kernel.Lanes {
		end := min((hi+kernel.Lanes-1)/kernel.Lanes, b+chunk/kernel.Lanes)
		a.Blocks, a.First, a.Threshold = end-b, uint32(b*kernel.Lanes), p.threshold
		a.Codes = &s.codes[b*64*a.Groups]
		a.Norms = nil
		if s.norms != nil {
			a.Norms = &s.norms[b*kernel.Lanes]
		}
		a.Rows, a.Scores = p.room()
		n := sc.kernel(a)
		sc.admit(n, uint32(lo), uint32(hi))
		if p.n >= 2*p.want {
			p.shrink()
		}
	}
}

// admit keeps those of the n rows just found that are of the leaf and pass.
func (sc *scratch) admit(n int, lo, hi uint32) {
	p := &sc.pool
	rows, scores := p.rows[p.n:p.n+n], p.scores[p.n:p.n+n]
	for len(rows) > 0 && rows[len(rows)-1] >= hi {
		rows = rows[:len(rows)-1]
	}
	skip := 0
	for skip < len(rows) && rows[skip] < lo {
		skip++
	}
	if sc.filter == nil && sc.dead == nil {
		if skip > 0 {
			copy(rows, rows[skip:])
			copy(scores, scores[skip:len(rows)])
		}
		p.n += len(rows) - skip
		return
	}
	k := 0
	for i := skip; i < len(rows); i++ {
		if sc.passes(rows[i]) {
			rows[k], scores[k] = rows[i], scores[i]
			k++
		}
	}
	p.n += k
}

// rerank compares the pool's rows exactly.
func (sc *scratch) rerank(k int) {
	rows := sc.pool.rows[:sc.pool.n]
	for len(rows) > 0 {
		n := min(len(rows), chunk)
		sc.compare(rows[:n], k)
		rows = rows[n:]
	}
}
