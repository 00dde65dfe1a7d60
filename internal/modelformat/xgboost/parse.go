package xgboost

import (
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
)

// maxFile bounds a model file: indexes have 31 bits.
const maxFile = 1<<31 - 1

// maxFeatures and maxOutputs bound what a small file may claim.
const (
	maxFeatures = 1 << 20
	maxOutputs  = 1 << 16
)

// Boosters.
const (
	gbtree   = "gbtree"
	dart     = "dart"
	gblinear = "gblinear"
)

// Format is how a model file is written.
type Format int

// Formats, by the first bytes of a file.
const (
	Unknown Format = iota
	JSON
	UBJSON
	Binary
)

// HeadSize is how much of a file Detect wants to see.
const HeadSize = 256

// Detect tells the format from the beginning of a file, whatever its name is. A
// JSON or UBJSON object counts if it begins with a key that a model has first.
func Detect(head []byte) Format {
	if len(head) < 2 {
		return Unknown
	}
	if head[0] == '{' {
		if head[1] == 'L' && len(head) > 10 {
			return knownKey(string(head[10:]), UBJSON)
		}
		rest, ok := strings.CutPrefix(strings.TrimLeft(string(head[1:]), " \t\r\n"), `"`)
		if !ok {
			return Unknown
		}
		return knownKey(rest, JSON)
	}
	if _, ok := binaryHeader(head); ok {
		return Binary
	}
	return Unknown
}

func knownKey(text string, f Format) Format {
	if strings.HasPrefix(text, "learner") || strings.HasPrefix(text, "version") {
		return f
	}
	return Unknown
}

// file is what a model file says, before anything of it is checked.
type file struct {
	version    version
	params     map[string]string // learner_model_param
	number     map[string]int64  // the same, of a binary file
	base       []float32         // base_score, of a binary file
	objective  string
	booster    string
	names      []string
	best       int
	parallel   int
	iterations []int32
	groups     []int32 // tree_info
	trees      []treeText
	weights    []float32 // weight_drop
	linear     []float32
	rawMargin  bool // base_score is a margin already
	at         map[string]int
}

// Parse reads a model in any of the formats. Every index in the file is checked,
// so that Predict cannot fail, and what is allocated is bounded by the file's size.
func Parse(r io.Reader) (*Model, error) {
	data, err := io.ReadAll(io.LimitReader(r, maxFile+1))
	if err != nil {
		return nil, fmt.Errorf("read model: %w", err)
	}
	if len(data) > maxFile {
		return nil, &SyntaxError{Err: errors.New("the file is larger than 2 GiB")}
	}
	f := &file{params: map[string]string{}, at: map[string]int{}, best: -1, parallel: 1}
	switch Detect(data[:min(len(data), HeadSize)]) {
	case JSON:
		err = f.read(&jsonSource{cursor{data: data}})
	case UBJSON:
		err = f.read(&ubjSource{cursor{data: data}})
	case Binary:
		err = f.readBinary(data)
	case Unknown:
		err = &SyntaxError{Err: errors.New("not an XGBoost model: neither JSON nor UBJSON nor binary")}
	}
	if err != nil {
		return nil, err
	}
	return f.model()
}

func (f *file) read(s source) error {
	if err := s.object(func(key string) error {
		switch key {
		case "learner":
			return s.object(func(key string) error { return f.learner(s, key) })
		case "version":
			return s.array(func(i int) error {
				v, err := s.integer()
				if err == nil && i < len(f.version) {
					f.version[i] = int(v)
				}
				return err
			})
		}
		return s.skip()
	}); err != nil {
		return err
	}
	return s.end()
}

// note remembers where a field stood, for what is wrong with it later.
func (f *file) note(field string, s source) { f.at[field] = s.at() }

func (f *file) learner(s source, key string) (err error) {
	f.note(key, s)
	switch key {
	case "learner_model_param":
		return s.object(func(key string) error {
			f.note(key, s)
			f.params[key], err = s.text()
			return err
		})
	case "objective":
		return s.object(func(key string) error {
			if key != "name" {
				return s.skip()
			}
			f.objective, err = s.text()
			return err
		})
	case "attributes":
		return s.object(func(key string) error {
			text, err := s.text()
			if key == "best_iteration" && err == nil {
				f.attribute(text)
			}
			return err
		})
	case "feature_names":
		return s.array(func(int) error {
			name, err := s.text()
			f.names = append(f.names, name)
			return err
		})
	case "gradient_booster":
		return s.object(func(key string) error { return f.gradientBooster(s, key, true) })
	}
	return s.skip()
}

// attribute reads best_iteration, which is the caller's to set: what is no number
// is no round.
func (f *file) attribute(text string) {
	if n, err := strconv.Atoi(text); err == nil && n >= 0 {
		f.best = n
	}
}

func (f *file) gradientBooster(s source, key string, outer bool) (err error) {
	switch {
	case key == "name" && outer:
		f.booster, err = s.text()
		return err
	case key == "gbtree" && outer: // of dart
		return s.object(func(key string) error { return f.gradientBooster(s, key, false) })
	case key == "weight_drop":
		f.note(key, s)
		f.weights, err = s.floats(nil)
		return err
	case key == "model":
		return s.object(func(key string) error { return f.boosterModel(s, key) })
	}
	return s.skip()
}

func (f *file) boosterModel(s source, key string) (err error) {
	f.note(key, s)
	switch key {
	case "gbtree_model_param":
		return s.object(func(key string) error {
			if key != "num_parallel_tree" {
				return s.skip()
			}
			text, err := s.text()
			if err != nil {
				return err
			}
			if f.parallel, err = strconv.Atoi(text); err != nil || f.parallel < 1 {
				return s.fail("%q is not a number of trees", text)
			}
			return nil
		})
	case "tree_info":
		f.groups, err = s.integers(nil)
	case "iteration_indptr":
		f.iterations, err = s.integers(nil)
	case "weights": // of gblinear
		f.linear, err = s.floats(nil)
	case "trees":
		return s.array(func(i int) error {
			t := treeText{id: i, at: s.at()}
			if err := s.object(func(key string) error { return t.read(s, key) }); err != nil {
				return err
			}
			if t.targets <= 1 {
				t.nodeVectors = nil
			}
			f.trees = append(f.trees, t)
			return nil
		})
	default:
		err = s.skip()
	}
	return err
}

// fail says what is wrong with a field that was read.
func (f *file) fail(field, format string, args ...any) error {
	return &SyntaxError{Field: field, Offset: f.at[field], Err: fmt.Errorf(format, args...)}
}

// count reads a parameter.
func (f *file) count(key string, least, most int) (int, error) {
	n, ok := f.number[key]
	if text, found := f.params[key]; found {
		v, err := strconv.ParseInt(text, 10, 64)
		if err != nil {
			return 0, f.fail(key, "%q is not an integer", text)
		}
		n, ok = v, true
	}
	if !ok {
		return least, nil
	}
	if n < int64(least) || n > int64(most) {
		return 0, f.fail(key, "%d is not between %d and %d", n, least, most)
	}
	return int(n), nil
}

// model checks and assembles what was read.
func (f *file) model() (*Model, error) {
	m := &Model{late: f.sumsFirst(), version: f.version, booster: f.booster, best: f.best, exp: newExpTable()}
	switch f.booster {
	case gbtree, dart, gblinear:
	default:
		return nil, f.fail("gradient_booster", "booster %q is not known", f.booster)
	}
	var err error
	if m.objective, err = newObjective(f.objective); err != nil {
		return nil, f.fail("objective", "%w", err)
	}
	if m.features, err = f.count("num_feature", 0, maxFeatures); err != nil {
		return nil, err
	}
	if m.features == 0 {
		return nil, f.fail("num_feature", "the model has no features")
	}
	classes, err := f.count("num_class", 0, maxOutputs)
	if err != nil {
		return nil, err
	}
	targets, err := f.count("num_target", 1, maxOutputs)
	if err != nil {
		return nil, err
	}
	m.groups = max(classes, targets, 1)
	if err := f.intercepts(m); err != nil {
		return nil, err
	}
	if err := f.featureNames(m); err != nil {
		return nil, err
	}
	if m.booster == gblinear {
		return m, f.linearWeights(m)
	}
	return m, f.treesOf(m)
}

// sumsFirst says whether the version that wrote the model added its trees first and
// then the intercept: those before 1.3, with dart before 1.4.
func (f *file) sumsFirst() bool {
	return f.version.before(1, 3) || f.booster == dart && f.version.before(1, 4)
}

func (f *file) featureNames(m *Model) error {
	if len(f.names) == 0 {
		return nil
	}
	if len(f.names) != m.features {
		return f.fail("feature_names", "%d names for %d features", len(f.names), m.features)
	}
	m.names, m.index = f.names, make(map[string]int, len(f.names))
	for i, name := range f.names {
		if _, twice := m.index[name]; twice {
			return f.fail("feature_names", "two features are called %q", name)
		}
		m.index[name] = i
	}
	return nil
}

func (f *file) linearWeights(m *Model) error {
	want := (m.features + 1) * m.groups
	if len(f.linear) != want {
		return f.fail("weights", "%d weights, want %d: one for each feature and a bias, times %d outputs", len(f.linear), want, m.groups)
	}
	m.linear = f.linear
	return nil
}

// intercepts turns base_score into margins.
func (f *file) intercepts(m *Model) error {
	scores, err := f.baseScore()
	if err != nil {
		return err
	}
	if len(scores) != 1 && len(scores) != m.groups {
		return f.fail("base_score", "%d intercepts for %d outputs", len(scores), m.groups)
	}
	m.base = make([]float32, m.groups)
	for i := range m.base {
		score := scores[min(i, len(scores)-1)]
		if !f.rawMargin {
			if score, err = m.objective.intercept(score, f.version); err != nil {
				return f.fail("base_score", "%w", err)
			}
		}
		m.base[i] = score
	}
	return nil
}

// baseScore reads one number, or from version 3.1 on a list.
func (f *file) baseScore() ([]float32, error) {
	if f.base != nil {
		return f.base, nil
	}
	text, ok := f.params["base_score"]
	if !ok {
		return nil, f.fail("learner_model_param", "there is no base_score")
	}
	list, isList := strings.CutPrefix(strings.TrimSpace(text), "[")
	if isList {
		list = strings.TrimSuffix(list, "]")
	}
	var scores []float32
	for w := range strings.SplitSeq(list, ",") {
		score, ok := parseFloat(strings.TrimSpace(w))
		if !ok || score-score != 0 {
			return nil, f.fail("base_score", "%q is not a finite number", w)
		}
		scores = append(scores, score)
	}
	return scores, nil
}
