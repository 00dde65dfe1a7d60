// Package lightgbm evaluates LightGBM text models (versions v2 to v4) in plain
// Go. Raw scores are equal to the library's bit for bit; transformed scores
// differ by at most a few units in the last place, because exp comes from Go's
// math package. It knows nothing of serving, JSON or storage.
//
// What a model file means follows include/LightGBM/tree.h and
// src/boosting/gbdt_model_text.cpp of the LightGBM sources.
package lightgbm

// rowBlock rows pass through one tree before the next tree is read, so that a
// big model stays in the cache while many rows are evaluated.
const rowBlock = 64

// zeroThreshold is kZeroThreshold (1e-35f) of LightGBM's meta.h.
const zeroThreshold = float64(float32(1e-35))

type splitKind uint8

const (
	numeric     splitKind = iota // value <= threshold goes left
	zeroMissing                  // as numeric, but zero counts as missing
	categorical                  // in the category set goes left
)

// node is one split. Children >= 0 are nodes, below 0 the leaf ^child; both are
// relative to the tree.
type node struct {
	threshold   float64 // numeric kinds
	feature     int32
	left, right int32
	set         int32 // categorical: index into Model.sets
	kind        splitKind
	missingLeft bool // where a missing value goes
}

// span is a part of a flat array.
type span struct{ from, to int32 }

// tree points into the model's flat arrays.
type tree struct {
	nodes  span
	leaf   int32 // first leaf in Model.leaves
	linear int32 // first leaf in Model.linear, -1 = constant leaves
}

// linearLeaf is a leaf with a linear model: constant + sum of coefficients times values.
type linearLeaf struct {
	constant float64
	terms    span // in Model.termFeature and Model.termCoefficient
}

// Model is a parsed model. It is immutable: any number of goroutines may use it.
type Model struct {
	features  []string
	outputs   int
	average   bool // average_output (random forests)
	objective objective

	trees  []tree
	nodes  []node
	leaves []float64
	sets   []span // category sets, in bits
	bits   []uint32

	linear          []linearLeaf
	termFeature     []int32
	termCoefficient []float64
}

// Features gives the names of the features, in the order of a row's values.
func (m *Model) Features() []string { return m.features }

// Outputs is the number of scores of one row: 1, or the number of classes.
func (m *Model) Outputs() int { return m.outputs }

// Trees is the number of trees.
func (m *Model) Trees() int { return len(m.trees) }

// Predict evaluates rows, a row-major matrix of len(Features()) columns in which
// NaN is a missing value, into out, row-major with Outputs() columns. With raw
// set it gives the sums of the leaves, as LightGBM's raw_score does: without the
// objective's transformation and without a forest's average. It allocates
// nothing. It panics when the lengths do not fit.
func (m *Model) Predict(rows, out []float64, raw bool) {
	width := len(m.features)
	count := len(out) / m.outputs
	if len(rows) != count*width || len(out) != count*m.outputs {
		panic("lightgbm: the lengths of rows and out do not fit the model")
	}
	clear(out)
	for start := 0; start < count; start += rowBlock {
		end := min(start+rowBlock, count)
		m.sum(rows[start*width:end*width], out[start*m.outputs:end*m.outputs], width)
	}
	if !raw {
		m.transform(out)
	}
}

// sum adds every tree's value to the scores of one block of rows.
func (m *Model) sum(rows, out []float64, width int) {
	class := 0
	for t := range m.trees {
		tr := &m.trees[t]
		nodes, leaves := m.nodes[tr.nodes.from:tr.nodes.to], m.leaves[tr.leaf:]
		for at, to := 0, class; to < len(out); at, to = at+width, to+m.outputs {
			row := rows[at : at+width]
			leaf := m.find(nodes, row)
			if tr.linear < 0 {
				out[to] += leaves[leaf]
			} else {
				out[to] += m.evaluate(m.linear[tr.linear+leaf], leaves[leaf], row)
			}
		}
		if class++; class == m.outputs {
			class = 0
		}
	}
}

// find walks from the root to a leaf (Tree::GetLeaf, NumericalDecision and
// CategoricalDecision of tree.h).
func (m *Model) find(nodes []node, row []float64) int32 {
	if len(nodes) == 0 {
		return 0
	}
	at := int32(0)
	for at >= 0 {
		n := &nodes[at]
		v := row[n.feature]
		left := v <= n.threshold
		if n.kind != numeric {
			left = m.special(n, v)
		} else if v != v { // NaN
			left = n.missingLeft
		}
		if left {
			at = n.left
		} else {
			at = n.right
		}
	}
	return ^at
}

func (m *Model) special(n *node, v float64) bool {
	if n.kind == categorical {
		// A missing, negative or huge category is in no set. The truncation to an
		// integer is the library's: -0.5 is category 0.
		return v > -1 && v < 1<<31 && m.contains(m.sets[n.set], uint32(int32(v)))
	}
	if !(v < -zeroThreshold || v > zeroThreshold) { // also true of NaN
		return n.missingLeft
	}
	return v <= n.threshold
}

func (m *Model) contains(set span, category uint32) bool {
	words := m.bits[set.from:set.to]
	w := int(category / 32)
	return w < len(words) && words[w]>>(category%32)&1 != 0
}

// evaluate gives the value of a linear leaf, or the constant one when a value
// that it needs is missing (Tree::Predict of tree.h).
func (m *Model) evaluate(l linearLeaf, constant float64, row []float64) float64 {
	sum := l.constant
	coefficients := m.termCoefficient[l.terms.from:l.terms.to]
	for i, f := range m.termFeature[l.terms.from:l.terms.to] {
		v := row[f]
		if v != v { // NaN
			return constant
		}
		// The conversion keeps the product rounded: no fused multiply-add.
		sum += float64(coefficients[i] * v)
	}
	return sum
}
