package xgboost

import (
	"math"
	"slices"
)

// lanes walks go side by side: a step of one waits for memory while the next is
// computed, and no branch has to be guessed.
const lanes = 64

// fewRows is the count below which walks through several trees go side by side,
// instead of those of several rows.
const fewRows = 8

// evenDepth is the depth up to which all lanes take as many steps as the deepest
// tree has levels; deeper trees are rarely even.
const evenDepth = 12

// sumTrees adds the values of the rounds' trees to the intercepts.
func (m *Model) sumTrees(rows, out []float32, o Options) {
	if m.late {
		clear(out)
	} else {
		for at := 0; at < len(out); at += m.groups {
			copy(out[at:], m.base)
		}
	}
	begin, end := m.iterations[o.Begin], m.iterations[len(m.iterations)-1]
	if o.End > 0 {
		end = m.iterations[o.End]
	}
	for len(out) > 0 {
		n := min(lanes, len(out)/m.groups)
		block, scores := rows[:n*m.features], out[:n*m.groups]
		if n < fewRows {
			m.sumFew(block, scores, begin, end)
		} else {
			m.sumBlock(block, scores, begin, end)
		}
		if m.late {
			for i := range scores {
				scores[i] += m.base[i%m.groups]
			}
		}
		rows, out = rows[n*m.features:], out[n*m.groups:]
	}
}

// sumBlock takes up to lanes rows through one tree after the other.
func (m *Model) sumBlock(rows, out []float32, begin, end int32) {
	var at [lanes]int32
	n := len(out) / m.groups
	var wide []float32
	if slices.ContainsFunc(rows, func(v float32) bool { return v != v }) {
		buffer := m.widen(rows)
		defer m.buffers.Put(buffer)
		wide = *buffer
	}
	for i := begin; i < end; i++ {
		t := &m.trees[i]
		switch {
		case t.categorical || t.depth > evenDepth:
			for r := range n {
				at[r] = m.find(t, rows[r*m.features:(r+1)*m.features])
			}
		case wide != nil:
			m.walkWide(t, at[:n], wide)
		default:
			m.walk(t, at[:n], rows)
		}
		for r, leaf := range at[:n] {
			m.add(i, leaf, out[r*m.groups:])
		}
	}
}

// widen gives rows of twice the width. A missing value is NaN in a row's first
// half, which leads to the left, and infinite in the second, which leads to the
// right; a node reads the half that it wants. So a step has no case of its own for
// missing values.
func (m *Model) widen(rows []float32) *[]float32 {
	buffer, ok := m.buffers.Get().(*[]float32)
	if !ok {
		b := make([]float32, 0, 2*lanes*m.features)
		buffer = &b
	}
	wide := (*buffer)[:2*len(rows)]
	for to := wide; len(rows) > 0; rows, to = rows[m.features:], to[2*m.features:] {
		for f, v := range rows[:m.features] {
			to[f] = v
			if v != v {
				v = float32(math.Inf(1))
			}
			to[m.features+f] = v
		}
	}
	*buffer = wide
	return buffer
}

// walk takes rows to their leaves in one tree, four side by side. No value is missing.
func (m *Model) walk(t *tree, at []int32, rows []float32) {
	nodes, width := m.nodes, m.features
	for ; len(at) >= 4; at, rows = at[4:], rows[4*width:] {
		a, b, c, d := rows[:width], rows[width:2*width], rows[2*width:3*width], rows[3*width:4*width]
		i, j, k, l := t.root, t.root, t.root, t.root
		for range t.depth {
			i = nodes[i].next(a)
			j = nodes[j].next(b)
			k = nodes[k].next(c)
			l = nodes[l].next(d)
		}
		at[0], at[1], at[2], at[3] = i, j, k, l
	}
	for ; len(at) > 0; at, rows = at[1:], rows[width:] {
		at[0] = m.find(t, rows[:width])
	}
}

// walkWide does the same with the rows of widen.
func (m *Model) walkWide(t *tree, at []int32, rows []float32) {
	nodes, width := m.nodes, 2*m.features
	for ; len(at) >= 4; at, rows = at[4:], rows[4*width:] {
		a, b, c, d := rows[:width], rows[width:2*width], rows[2*width:3*width], rows[3*width:4*width]
		i, j, k, l := t.root, t.root, t.root, t.root
		for range t.depth {
			i = nodes[i].nextWide(a)
			j = nodes[j].nextWide(b)
			k = nodes[k].nextWide(c)
			l = nodes[l].nextWide(d)
		}
		at[0], at[1], at[2], at[3] = i, j, k, l
	}
	for ; len(at) > 0; at, rows = at[1:], rows[width:] {
		at[0] = m.find(t, rows[:m.features])
	}
}

// next gives the node that follows; no value is missing.
func (n *node) next(row []float32) int32 {
	right := int32(0)
	if row[n.feature] >= n.cond {
		right = 1
	}
	return n.left + right
}

func (n *node) nextWide(row []float32) int32 {
	right := int32(0)
	if row[n.wide] >= n.cond {
		right = 1
	}
	return n.left + right
}

// sumFew takes each row through up to lanes trees side by side.
func (m *Model) sumFew(rows, out []float32, begin, end int32) {
	var at [lanes]int32
	buffer := m.widen(rows)
	defer m.buffers.Put(buffer)
	for wide := *buffer; len(out) > 0; wide, out = wide[2*m.features:], out[m.groups:] {
		row := wide[:2*m.features]
		for first := begin; first < end; first += lanes {
			trees := m.trees[first:min(end, first+lanes)]
			depth := int32(0)
			for i := range trees {
				at[i] = trees[i].root
				depth = max(depth, trees[i].depth)
			}
			if depth <= evenDepth && m.categories == nil {
				for range depth {
					for i, node := range at[:len(trees)] {
						at[i] = m.nodes[node].nextWide(row)
					}
				}
			} else {
				for i := range trees {
					at[i] = m.find(&trees[i], row[:m.features])
				}
			}
			for i, leaf := range at[:len(trees)] {
				m.add(first+int32(i), leaf, out)
			}
		}
	}
}

// find walks one row to its leaf in one tree.
func (m *Model) find(t *tree, row []float32) int32 {
	at := t.root
	for {
		n := &m.nodes[at]
		if n.left == at {
			return at
		}
		v := row[n.feature]
		next := n.left
		switch {
		case v != v:
			if n.wide != n.feature {
				next++
			}
		case t.categorical && m.categories[at]:
			if m.contains(m.sets[int(n.cond)], v) {
				next++
			}
		case v >= n.cond:
			next++
		}
		at = next
	}
}

// maxCategory is the first number that is no category (OutOfRangeCat).
const maxCategory = 1 << 24

// contains follows Decision of src/common/categorical.h: what is in the set goes
// right, and a value that is no category is in none.
func (m *Model) contains(s set, v float32) bool {
	if v < 0 || v >= maxCategory {
		return false
	}
	words, category := m.bits[s.from:s.to], uint32(v)
	if s.sparse {
		_, ok := slices.BinarySearch(words, category)
		return ok
	}
	return int(category/32) < len(words) && words[category/32]>>(category%32)&1 != 0
}

// add adds a leaf of tree i to the scores of a row. The conversions keep products
// rounded: no fused multiply-add.
func (m *Model) add(i, leaf int32, scores []float32) {
	t := &m.trees[i]
	switch {
	case t.vector:
		for g, v := range m.vectors[m.places[leaf]:][:m.groups] {
			scores[g] += v
		}
	case m.weights != nil:
		scores[t.group] += float32(m.values[leaf] * m.weights[i])
	default:
		scores[t.group] += m.values[leaf]
	}
}
