package lightgbm

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
)

// Bits of decision_type, tree.h.
const (
	categoricalMask = 1
	defaultLeftMask = 2
	missingShift    = 2
	missingZero     = 1
	missingNaN      = 2
)

// treeText reads the fields of one tree.
type treeText struct {
	fields map[string]field
	tree   field
}

func (t treeText) fail(key string, err error) error {
	line := t.tree.line
	if f, ok := t.fields[key]; ok {
		line = f.line
	}
	return at(line, fmt.Errorf("tree %s: %s: %w", t.tree.text, key, err))
}

// numbers reads the values of key; want < 0 takes any count.
func numbers[T any](t treeText, key string, want int, parse func(string) (T, error)) ([]T, error) {
	words := strings.Fields(t.fields[key].text)
	if want >= 0 && len(words) != want {
		return nil, t.fail(key, fmt.Errorf("%d values, want %d", len(words), want))
	}
	values := make([]T, len(words))
	for i, w := range words {
		v, err := parse(w)
		if err != nil {
			return nil, t.fail(key, fmt.Errorf("value %d, %q, is not a number of its kind", i, w))
		}
		values[i] = v
	}
	return values, nil
}

func integer(s string) (int32, error) {
	v, err := strconv.ParseInt(s, 10, 32)
	return int32(v), err
}

func word(s string) (uint32, error) {
	v, err := strconv.ParseUint(s, 10, 32)
	return uint32(v), err
}

// real reads a double as C's printf writes it.
func real64(s string) (float64, error) {
	if s == "-nan" {
		return math.NaN(), nil
	}
	v, err := strconv.ParseFloat(s, 64)
	if errors.Is(err, strconv.ErrRange) {
		err = nil // the nearest representable value, as strtod gives it
	}
	return v, err
}

// endTree checks the tree that was read and appends it to the model.
func (p *parser) endTree() error {
	t := treeText{fields: p.current, tree: p.tree}
	m := p.model
	counts, err := numbers(t, "num_leaves", 1, integer)
	if err != nil {
		return err
	}
	leaves := int(counts[0])
	if leaves < 1 {
		return t.fail("num_leaves", fmt.Errorf("%d leaves", leaves))
	}
	values, err := numbers(t, "leaf_value", leaves, real64)
	if err != nil {
		return err
	}
	tr := tree{leaf: int32(len(m.leaves)), linear: -1, nodes: span{from: int32(len(m.nodes))}}
	m.leaves = append(m.leaves, values...)
	if t.fields["is_linear"].text == "1" {
		tr.linear = int32(len(m.linear))
		if err := p.linearLeaves(t, leaves); err != nil {
			return err
		}
	}
	if err := p.splits(t, leaves); err != nil {
		return err
	}
	tr.nodes.to = int32(len(m.nodes))
	if len(m.leaves) > math.MaxInt32 || len(m.nodes) > math.MaxInt32 || len(m.termFeature) > math.MaxInt32 {
		return t.fail("num_leaves", errors.New("the model is too large"))
	}
	m.trees = append(m.trees, tr)
	return nil
}

func (p *parser) linearLeaves(t treeText, leaves int) error {
	m := p.model
	constants, err := numbers(t, "leaf_const", leaves, real64)
	if err != nil {
		return err
	}
	counts, err := numbers(t, "num_features", leaves, integer)
	if err != nil {
		return err
	}
	features, err := numbers(t, "leaf_features", -1, integer)
	if err != nil {
		return err
	}
	coefficients, err := numbers(t, "leaf_coeff", len(features), real64)
	if err != nil {
		return err
	}
	for i, f := range features {
		if f < 0 || int(f) >= len(m.features) {
			return t.fail("leaf_features", fmt.Errorf("value %d: there is no feature %d", i, f))
		}
	}
	from := len(m.termFeature)
	m.termFeature = append(m.termFeature, features...)
	m.termCoefficient = append(m.termCoefficient, coefficients...)
	for i, n := range counts {
		if n < 0 || from+int(n) > len(m.termFeature) {
			return t.fail("num_features", fmt.Errorf("leaf %d has %d features, more than are listed", i, n))
		}
		m.linear = append(m.linear, linearLeaf{constants[i], span{int32(from), int32(from + int(n))}})
		from += int(n)
	}
	if from != len(m.termFeature) {
		return t.fail("leaf_features", errors.New("more features than num_features says"))
	}
	return nil
}

// splitText holds the columns of a tree's splits.
type splitText struct {
	feature, decision, left, right []int32
	threshold                      []float64
}

func readSplits(t treeText, count int) (s splitText, err error) {
	for _, column := range []struct {
		key string
		to  *[]int32
	}{{"split_feature", &s.feature}, {"decision_type", &s.decision}, {"left_child", &s.left}, {"right_child", &s.right}} {
		if *column.to, err = numbers(t, column.key, count, integer); err != nil {
			return s, err
		}
	}
	s.threshold, err = numbers(t, "threshold", count, real64)
	return s, err
}

func (p *parser) splits(t treeText, leaves int) error {
	if leaves == 1 {
		return nil
	}
	m := p.model
	s, err := readSplits(t, leaves-1)
	if err != nil {
		return err
	}
	firstSet := len(m.sets)
	if err := p.categorySets(t); err != nil {
		return err
	}
	from := len(m.nodes)
	for i := range s.feature {
		if f := s.feature[i]; f < 0 || int(f) >= len(m.features) {
			return t.fail("split_feature", fmt.Errorf("value %d: there is no feature %d", i, f))
		}
		n := node{feature: s.feature[i], left: s.left[i], right: s.right[i], threshold: s.threshold[i]}
		decision := s.decision[i]
		switch missing := decision >> missingShift & 3; {
		case decision&categoricalMask != 0:
			set := s.threshold[i]
			if !(set >= 0 && set < float64(len(m.sets)-firstSet)) {
				return t.fail("threshold", fmt.Errorf("value %d: there is no category set %v", i, set))
			}
			n.kind, n.set, n.threshold = categorical, int32(firstSet)+int32(set), 0
		case missing == missingZero:
			n.kind, n.missingLeft = zeroMissing, decision&defaultLeftMask != 0
		case missing == missingNaN:
			n.missingLeft = decision&defaultLeftMask != 0
		default: // NaN counts as zero
			n.missingLeft = n.threshold >= 0
		}
		m.nodes = append(m.nodes, n)
	}
	return checkShape(t, m.nodes[from:], leaves)
}

// categorySets reads the bit sets of the tree's categorical splits.
func (p *parser) categorySets(t treeText) error {
	m := p.model
	if _, ok := t.fields["cat_boundaries"]; !ok {
		return nil
	}
	bounds, err := numbers(t, "cat_boundaries", -1, integer)
	if err != nil {
		return err
	}
	words, err := numbers(t, "cat_threshold", -1, word)
	if err != nil {
		return err
	}
	base := int32(len(m.bits))
	m.bits = append(m.bits, words...)
	for i := 1; i < len(bounds); i++ {
		if bounds[i-1] < 0 || bounds[i] < bounds[i-1] || int(bounds[i]) > len(words) {
			return t.fail("cat_boundaries", fmt.Errorf("value %d, %d, is out of order or range", i, bounds[i]))
		}
		m.sets = append(m.sets, span{base + bounds[i-1], base + bounds[i]})
	}
	return nil
}

// checkShape makes sure that every walk from the root ends at a leaf of the tree:
// each node is reached once and each leaf exists.
func checkShape(t treeText, nodes []node, leaves int) error {
	seen := make([]bool, len(nodes))
	open := []int32{0}
	for len(open) > 0 {
		at := open[len(open)-1]
		open = open[:len(open)-1]
		if int(at) >= len(nodes) {
			return t.fail("left_child", fmt.Errorf("there is no node %d", at))
		}
		if seen[at] {
			return t.fail("left_child", fmt.Errorf("node %d is reached twice", at))
		}
		seen[at] = true
		for _, child := range []int32{nodes[at].left, nodes[at].right} {
			if child >= 0 {
				open = append(open, child)
			} else if int(^child) >= leaves {
				return t.fail("left_child", fmt.Errorf("there is no leaf %d", ^child))
			}
		}
	}
	return nil
}
