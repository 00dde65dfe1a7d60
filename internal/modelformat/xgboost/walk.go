package xgboost

import "slices"

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
	missing := slices.ContainsFunc(rows, func(v float32) bool { return v != v })
	for i := begin; i < end; i++ {
		t := &m.trees[i]
		if t.categorical || t.depth > evenDepth {
			for r := range n {
				at[r] = m.find(t, rows[r*m.features:(r+1)*m.features])
			}
		} else {
			for r := range at[:n] {
				at[r] = t.root
			}
			for range t.depth {
				if missing {
					m.stepMissing(at[:n], rows)
				} else {
					m.step(at[:n], rows)
				}
			}
		}
		for r, leaf := range at[:n] {
			m.add(i, leaf, out[r*m.groups:])
		}
	}
}

// step takes each row of a block one level down; no value is missing.
func (m *Model) step(at []int32, rows []float32) {
	nodes, width, from := m.nodes, m.features, 0
	for r, i := range at {
		n := &nodes[i]
		next := n.left
		if rows[from+int(n.feature)] >= n.cond {
			next++
		}
		at[r] = next
		from += width
	}
}

func (m *Model) stepMissing(at []int32, rows []float32) {
	nodes, width, from := m.nodes, m.features, 0
	for r, i := range at {
		n := &nodes[i]
		v := rows[from+int(n.feature)]
		right := int32(0)
		if v >= n.cond {
			right = 1
		}
		unknown := int32(0)
		if v != v {
			unknown = 1
		}
		at[r] = n.left + (right | unknown&n.missing)
		from += width
	}
}

// sumFew takes each row through up to lanes trees side by side.
func (m *Model) sumFew(rows, out []float32, begin, end int32) {
	var at [lanes]int32
	for ; len(out) > 0; rows, out = rows[m.features:], out[m.groups:] {
		row := rows[:m.features]
		for first := begin; first < end; first += lanes {
			trees := m.trees[first:min(end, first+lanes)]
			depth := int32(0)
			for i := range trees {
				at[i] = trees[i].root
				depth = max(depth, trees[i].depth)
			}
			if depth <= evenDepth && m.categories == nil {
				for range depth {
					m.stepTrees(at[:len(trees)], row)
				}
			} else {
				for i := range trees {
					at[i] = m.find(&trees[i], row)
				}
			}
			for i, leaf := range at[:len(trees)] {
				m.add(first+int32(i), leaf, out)
			}
		}
	}
}

// stepTrees takes one row one level down in each of several trees.
func (m *Model) stepTrees(at []int32, row []float32) {
	nodes := m.nodes
	for t, i := range at {
		n := &nodes[i]
		v := row[n.feature]
		right := int32(0)
		if v >= n.cond {
			right = 1
		}
		unknown := int32(0)
		if v != v {
			unknown = 1
		}
		at[t] = n.left + (right | unknown&n.missing)
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
			next += n.missing
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
func (m *Model) contains(set span, v float32) bool {
	if v < 0 || v >= maxCategory {
		return false
	}
	words, category := m.bits[set.from:set.to], uint32(v)
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
