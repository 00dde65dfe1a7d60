package xgboost

import (
	"encoding/binary"
	"math"
	"strings"
)

// Sizes of the structures of the binary format, in bytes; they did not change
// from 0.4 to 3.0, reserved fields only got meanings. All is little-endian.
const (
	headerSize     = 136 // LearnerModelParamLegacy
	gbtreeSize     = 160 // GBTreeModelParam
	gblinearSize   = 136 // GBLinearModelParam
	treeHeaderSize = 148 // TreeParam
	nodeSize       = 20  // RegTree::Node
	statSize       = 16  // RTreeNodeStat
)

// binaryHeader finds the header behind the marks that some versions put before it,
// and checks that the objective's name follows.
func binaryHeader(data []byte) (start int, ok bool) {
	if strings.HasPrefix(string(data[:min(len(data), 4)]), "binf") {
		start = 4
	}
	at := start + headerSize
	if len(data) < at+8 {
		return start, start > 0
	}
	n := binary.LittleEndian.Uint64(data[at:])
	if n == 0 || n > 64 {
		return start, false
	}
	name := data[at+8 : min(len(data), at+8+int(n))]
	for _, c := range name {
		if c != ':' && c != '_' && (c < 'a' || c > 'z') && (c < '0' || c > '9') {
			return start, false
		}
	}
	return start, strings.Contains(string(name), ":")
}

// binarySource reads the binary format.
type binarySource struct{ cursor }

// bytes takes n bytes of what field is called.
func (s *binarySource) bytes(field string, n int64) ([]byte, error) {
	if n < 0 || n > int64(len(s.data)-s.pos) {
		s.path = []string{field}
		return nil, s.fail("the file is cut off: want %d more bytes", n)
	}
	b := s.data[s.pos : s.pos+int(n)]
	s.pos += int(n)
	return b, nil
}

// list takes the number of elements and those.
func (s *binarySource) list(field string, size int64) ([]byte, error) {
	b, err := s.bytes(field, 8)
	if err != nil {
		return nil, err
	}
	n := binary.LittleEndian.Uint64(b)
	if n > uint64(len(s.data)) {
		s.path = []string{field}
		return nil, s.failAt(s.pos-8, "the file is cut off: want %d elements", n)
	}
	return s.bytes(field, int64(n)*size)
}

func word(b []byte, i int) int32 { return int32(binary.LittleEndian.Uint32(b[4*i:])) }

func floatsOf(b []byte) []float32 {
	v := make([]float32, len(b)/4)
	for i := range v {
		v[i] = math.Float32frombits(uint32(word(b, i)))
	}
	return v
}

// readBinary follows LearnerIO::LoadModel of versions before 3.1 and what it calls.
func (f *file) readBinary(data []byte) error {
	s := &binarySource{cursor{data: data}}
	start, _ := binaryHeader(data)
	s.pos = start
	h, err := s.bytes("header", headerSize)
	if err != nil {
		return err
	}
	f.header(h)
	for _, field := range []struct {
		name string
		to   *string
	}{{"objective", &f.objective}, {"gradient_booster", &f.booster}} {
		f.at[field.name] = s.pos
		b, err := s.list(field.name, 1)
		if err != nil {
			return err
		}
		*field.to = string(b)
	}
	switch f.booster {
	case gblinear:
		err = f.binaryLinear(s)
	case gbtree, dart:
		err = f.binaryTrees(s)
	default: // model says so
		return nil
	}
	if err != nil || word(h, 3) == 0 {
		return err
	}
	return f.binaryAttributes(s)
}

// header reads the fields of the learner that matter to predictions. Before 1.0
// there is no version, and base_score is a margin.
func (f *file) header(h []byte) {
	f.base = []float32{math.Float32frombits(uint32(word(h, 0)))}
	f.number = map[string]int64{"num_feature": int64(uint32(word(h, 1))), "num_class": int64(word(h, 2))}
	f.version = version{int(word(h, 5)), int(word(h, 6))}
	f.rawMargin = f.version.before(1, 0)
	if n := word(h, 7); n > 1 && !f.version.before(1, 6) {
		f.number["num_target"] = int64(n)
	}
}

func (f *file) binaryLinear(s *binarySource) error {
	if _, err := s.bytes("gblinear", gblinearSize); err != nil {
		return err
	}
	f.at["weights"] = s.pos
	b, err := s.list("weights", 4)
	f.linear = floatsOf(b)
	return err
}

func (f *file) binaryTrees(s *binarySource) error {
	p, err := s.bytes("gbtree", gbtreeSize)
	if err != nil {
		return err
	}
	count := word(p, 0)
	if count < 0 || int64(count)*(treeHeaderSize+nodeSize) > int64(len(s.data)-s.pos) {
		s.path = []string{"gbtree.num_trees"}
		return s.fail("the file is cut off: %d trees do not fit", count)
	}
	f.parallel = max(1, int(word(p, 1)))
	for i := range count {
		t := treeText{id: int(i), at: s.pos}
		if err := t.readBinary(s); err != nil {
			return err
		}
		f.trees = append(f.trees, t)
	}
	if count == 0 {
		return nil
	}
	f.at["tree_info"] = s.pos
	b, err := s.bytes("tree_info", 4*int64(count))
	if err != nil {
		return err
	}
	for i := range int(count) {
		f.groups = append(f.groups, word(b, i))
	}
	if f.booster == dart {
		f.at["weight_drop"] = s.pos
		b, err := s.list("weight_drop", 4)
		if err != nil {
			return err
		}
		f.weights = floatsOf(b)
	}
	return nil
}

func (t *treeText) readBinary(s *binarySource) error {
	h, err := s.bytes("trees.tree_param", treeHeaderSize)
	if err != nil {
		return err
	}
	count, vector := int64(word(h, 1)), word(h, 5)
	nodes, err := s.bytes("trees.nodes", count*nodeSize)
	if err != nil {
		return err
	}
	for i := range int(count) {
		n := nodes[i*nodeSize:]
		split := uint32(word(n, 3))
		t.left, t.right = append(t.left, word(n, 1)), append(t.right, word(n, 2))
		t.feature = append(t.feature, int32(split&math.MaxInt32))
		t.missingLeft = append(t.missingLeft, int32(split>>31))
		t.cond = append(t.cond, math.Float32frombits(uint32(word(n, 4))))
	}
	if _, err := s.bytes("trees.stats", count*statSize); err != nil {
		return err
	}
	if vector > 1 { // written, but never used by a prediction
		_, err = s.list("trees.leaf_vector", 4)
	}
	return err
}

// binaryAttributes reads pairs of names and values.
func (f *file) binaryAttributes(s *binarySource) error {
	b, err := s.bytes("attributes", 8)
	if err != nil {
		return err
	}
	for n := binary.LittleEndian.Uint64(b); n > 0; n-- {
		key, err := s.list("attributes", 1)
		if err != nil {
			return err
		}
		value, err := s.list("attributes", 1)
		if err != nil {
			return err
		}
		if string(key) == "best_iteration" {
			f.attribute(string(value))
		}
	}
	return nil
}
