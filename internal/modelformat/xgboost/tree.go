package xgboost

import (
	"fmt"
	"math"
	"slices"
	"strconv"
)

// treeText holds the columns of one tree of a file, a value for each node.
type treeText struct {
	id, at int // place among the trees, and in the file

	left, right, feature []int32
	missingLeft          []int32
	cond                 []float32 // the value of a leaf
	kind                 []int32   // 1: categorical; empty in old files

	// Categorical splits: the node, and its part of categories.
	setNode, setFrom, setSize []int32
	categories                []int32

	targets     int       // values of a leaf, when more than 1
	nodeVectors []float32 // base_weights: of each node, before 3.2
	leafVectors []float32 // leaf_weights: of the leaf that right names, from 3.2 on
}

func (t *treeText) read(s source, key string) (err error) {
	switch key {
	case "left_children":
		t.left, err = s.integers(nil)
	case "right_children":
		t.right, err = s.integers(nil)
	case "split_indices":
		t.feature, err = s.integers(nil)
	case "split_conditions":
		t.cond, err = s.floats(nil)
	case "default_left":
		t.missingLeft, err = s.integers(nil)
	case "split_type":
		t.kind, err = s.integers(nil)
	case "categories_nodes":
		t.setNode, err = s.integers(nil)
	case "categories_segments":
		t.setFrom, err = s.integers(nil)
	case "categories_sizes":
		t.setSize, err = s.integers(nil)
	case "categories":
		t.categories, err = s.integers(nil)
	case "base_weights":
		t.nodeVectors, err = s.floats(nil)
	case "leaf_weights":
		t.leafVectors, err = s.floats(nil)
	case "id":
		var id int64
		if id, err = s.integer(); err == nil {
			t.id = int(id)
		}
	case "tree_param":
		return s.object(func(key string) error {
			if key != "size_leaf_vector" {
				return s.skip()
			}
			text, err := s.text()
			if err != nil {
				return err
			}
			if t.targets, err = strconv.Atoi(text); err != nil || t.targets < 0 || t.targets > maxOutputs {
				return s.fail("%q is not between 0 and %d", text, maxOutputs)
			}
			return nil
		})
	default:
		err = s.skip()
	}
	return err
}

func (t *treeText) fail(field, format string, args ...any) error {
	return &SyntaxError{
		Field: fmt.Sprintf("trees[%d].%s", t.id, field), Offset: t.at, Err: fmt.Errorf(format, args...),
	}
}

// treesOf assembles the trees and what belongs to them.
func (f *file) treesOf(m *Model) error {
	n := len(f.trees)
	if len(f.groups) != n {
		return f.fail("tree_info", "%d entries for %d trees", len(f.groups), n)
	}
	ordered := make([]*treeText, n)
	for i := range f.trees {
		t := &f.trees[i]
		if t.id < 0 || t.id >= n || ordered[t.id] != nil {
			return t.fail("id", "%d is not the number of one of %d trees, or twice", t.id, n)
		}
		ordered[t.id] = t
	}
	for i, t := range ordered {
		if g := f.groups[i]; g < 0 || int(g) >= m.groups {
			return f.fail("tree_info", "tree %d: there is no output %d", i, g)
		}
		if err := m.addTree(t, f.groups[i]); err != nil {
			return err
		}
		*t = treeText{}
	}
	if m.booster == dart {
		if len(f.weights) != n {
			return f.fail("weight_drop", "%d weights for %d trees", len(f.weights), n)
		}
		m.weights = f.weights
		for i, v := range m.values {
			m.values[i] = v + 0 // the library adds each to a zero first: no negative zero is left
		}
	}
	return f.rounds(m)
}

// rounds reads the first tree of each boosting round; older files do not have it
// (MakeIndptr of gbtree_model.cc).
func (f *file) rounds(m *Model) error {
	n := int32(len(m.trees))
	if f.iterations == nil {
		groups := int32(0)
		for _, g := range f.groups {
			groups = max(groups, g+1)
		}
		m.iterations = []int32{0}
		size := int64(groups) * int64(f.parallel)
		for at := size; at > 0 && at <= int64(n); at += size {
			m.iterations = append(m.iterations, int32(at))
		}
		if m.iterations[len(m.iterations)-1] != n {
			return f.fail("trees", "%d trees do not make whole rounds of %d", n, size)
		}
		return nil
	}
	last := int32(0)
	for i, at := range f.iterations {
		if at < last || i == 0 && at != 0 {
			return f.fail("iteration_indptr", "round %d begins at tree %d, before the round ahead of it", i, at)
		}
		last = at
	}
	if len(f.iterations) == 0 || last != n {
		return f.fail("iteration_indptr", "the rounds have %d trees, the model has %d", last, n)
	}
	m.iterations = f.iterations
	return nil
}

// addTree checks a tree and appends it, renumbered level by level, so that the
// children of a node are neighbours and the upper levels are together.
func (m *Model) addTree(t *treeText, group int32) error {
	count := len(t.left)
	for _, c := range []struct {
		field string
		n     int
	}{{"right_children", len(t.right)}, {"split_indices", len(t.feature)}, {"split_conditions", len(t.cond)}, {"default_left", len(t.missingLeft)}} {
		if c.n != count {
			return t.fail(c.field, "%d values for %d nodes", c.n, count)
		}
	}
	if count == 0 {
		return t.fail("left_children", "the tree has no nodes")
	}
	if len(m.nodes)+count > math.MaxInt32/2 {
		return t.fail("left_children", "the model has too many nodes")
	}
	sets, err := m.addSets(t)
	if err != nil {
		return err
	}
	b := builder{m: m, t: t, sets: sets, root: int32(len(m.nodes)), seen: make([]bool, count)}
	tr := tree{root: b.root, group: group, categorical: len(sets) > 0, vector: t.targets > 1}
	if tr.vector {
		if m.booster == dart {
			return t.fail("tree_param", "dart has no trees with several outputs")
		}
		if t.targets != m.groups {
			return t.fail("tree_param", "the leaves have %d values, the model %d outputs", t.targets, m.groups)
		}
		values := t.nodeVectors
		if t.leafVectors != nil {
			values = t.leafVectors
		}
		if len(m.vectors)+len(values) > math.MaxInt32 {
			return t.fail("leaf_weights", "the model is too large")
		}
		b.vector, b.vectors = len(m.vectors), len(values)/t.targets
		m.vectors = append(m.vectors, values...)
	}
	if tr.depth, err = b.build(); err != nil {
		return err
	}
	m.trees = append(m.trees, tr)
	return nil
}

// addSets reads the category sets of a tree, by node.
func (m *Model) addSets(t *treeText) (map[int32]int, error) {
	if len(t.kind) != 0 && len(t.kind) != len(t.left) {
		return nil, t.fail("split_type", "%d values for %d nodes", len(t.kind), len(t.left))
	}
	if len(t.setFrom) != len(t.setNode) || len(t.setSize) != len(t.setNode) {
		return nil, t.fail("categories_nodes", "%d nodes, %d segments and %d sizes", len(t.setNode), len(t.setFrom), len(t.setSize))
	}
	sets, total := make(map[int32]int, len(t.setNode)), 0
	for i, at := range t.setNode {
		from, size := int(t.setFrom[i]), int(t.setSize[i])
		if from < 0 || size < 1 || from > len(t.categories) || size > len(t.categories)-from {
			return nil, t.fail("categories_segments", "set %d, of %d from %d, is not within the %d categories", i, size, from, len(t.categories))
		}
		// Sets that share categories would make much of a small file.
		if total += size; total > len(t.categories) {
			return nil, t.fail("categories_sizes", "set %d: the sets so far have %d categories, there are %d", i, total, len(t.categories))
		}
		words, sparse, err := categorySet(t.categories[from : from+size])
		if err != nil {
			return nil, t.fail("categories", "set %d: %w", i, err)
		}
		start := int32(len(m.bits))
		if len(m.bits)+len(words) > math.MaxInt32 || len(m.sets) >= maxCategory {
			return nil, t.fail("categories", "the model has too many categories")
		}
		m.bits = append(m.bits, words...)
		sets[at] = len(m.sets)
		m.sets = append(m.sets, set{start, int32(len(m.bits)), sparse})
	}
	return sets, nil
}

// dense is how many words of bits a set has besides those for its categories before
// it is a list instead: what is kept is a small multiple of the file's.
const dense = 32

// categorySet gives the bits of a set of categories, or of one that is far from
// filling them the categories themselves, sorted.
func categorySet(categories []int32) (words []uint32, sparse bool, err error) {
	largest := int32(0)
	for _, c := range categories {
		if c < 0 || c >= maxCategory {
			return nil, false, fmt.Errorf("%d is not a category", c)
		}
		largest = max(largest, c)
	}
	if int(largest)/32 >= dense+2*len(categories) {
		for _, c := range categories {
			words = append(words, uint32(c))
		}
		slices.Sort(words)
		return words, true, nil
	}
	words = make([]uint32, largest/32+1)
	for _, c := range categories {
		words[c/32] |= 1 << (c % 32)
	}
	return words, false, nil
}

// builder renumbers one tree.
type builder struct {
	m    *Model
	t    *treeText
	sets map[int32]int
	root int32
	// The values of leaves begin at vector in Model.vectors and are of so many leaves.
	vector, vectors int

	seen []bool
	// queue has the nodes of the file in the order of their new numbers.
	queue []int32
}

// build appends the nodes and gives the tree's depth.
func (b *builder) build() (int32, error) {
	if err := b.enter(0); err != nil {
		return 0, err
	}
	depth := int32(0)
	for level := 0; level < len(b.queue); {
		end := len(b.queue)
		for ; level < end; level++ {
			if err := b.add(b.queue[level]); err != nil {
				return 0, err
			}
		}
		if len(b.queue) > end {
			depth++
		}
	}
	return depth, nil
}

// enter takes a node into the queue, once.
func (b *builder) enter(at int32) error {
	if at < 0 || int(at) >= len(b.seen) {
		return b.t.fail("left_children", "there is no node %d", at)
	}
	if b.seen[at] {
		return b.t.fail("left_children", "node %d is reached twice", at)
	}
	b.seen[at] = true
	b.queue = append(b.queue, at)
	return nil
}

func (b *builder) add(at int32) error {
	m, t := b.m, b.t
	if t.left[at] == -1 {
		return b.leaf(at)
	}
	f := t.feature[at]
	if f < 0 || int(f) >= m.features {
		return t.fail("split_indices", "node %d: there is no feature %d", at, f)
	}
	n := node{cond: t.cond[at], feature: f, left: b.root + int32(len(b.queue)), wide: f}
	if t.missingLeft[at] == 0 {
		n.wide += int32(m.features)
	}
	if n.cond != n.cond { // no value is below NaN
		n.cond = float32(math.Inf(-1))
	}
	number, categorical := b.sets[at]
	if kind := len(t.kind) > 0 && t.kind[at] != 0; kind != categorical {
		return t.fail("split_type", "node %d: the kind of split and the set of categories do not agree", at)
	}
	if categorical {
		n.cond = float32(number)
		if m.categories == nil {
			m.categories = make([]bool, len(m.nodes))
		}
	}
	b.append(n, 0, categorical)
	if err := b.enter(t.left[at]); err != nil {
		return err
	}
	return b.enter(t.right[at])
}

// leaf appends a leaf.
func (b *builder) leaf(at int32) error {
	m, t := b.m, b.t
	n := node{cond: float32(math.NaN()), left: int32(len(m.nodes))}
	if t.targets <= 1 {
		b.append(n, t.cond[at], false)
		return nil
	}
	place := int(at)
	if t.leafVectors != nil {
		place = int(t.right[at])
	}
	if place < 0 || place >= b.vectors {
		return t.fail("leaf_weights", "node %d: there are no values of leaf %d", at, place)
	}
	if m.places == nil {
		m.places = make([]int32, len(m.nodes))
	}
	b.append(n, 0, false)
	m.places[len(m.nodes)-1] = int32(b.vector + place*t.targets)
	return nil
}

func (b *builder) append(n node, value float32, categorical bool) {
	m := b.m
	m.nodes, m.values = append(m.nodes, n), append(m.values, value)
	if m.categories != nil {
		m.categories = append(m.categories, categorical)
	}
	if m.places != nil {
		m.places = append(m.places, 0)
	}
}
