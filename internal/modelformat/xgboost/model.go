// Package xgboost evaluates XGBoost models in plain Go: JSON and UBJSON files of
// any version that writes them, and the binary files of versions before 3.1. It
// knows nothing of serving, requests or storage.
//
// Margins are equal bit for bit to those that Booster.predict of the x86-64
// library computes: sums are float32, in the library's order, from the intercept
// on. So are predictions, as the exponential is the C library's own (see
// math.go).
//
// What a file means follows src/learner.cc, src/gbm, src/tree and src/predictor
// of the XGBoost sources.
package xgboost

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
)

// set is where the categories of a split are in Model.bits: a bit of each, or of a
// sparse set their sorted numbers.
type set struct {
	from, to int32
	sparse   bool
}

// node is a split or a leaf. A row goes on to node left, or to left+1 if its value
// is not below cond; nodes are numbered over all trees. A leaf leads to itself
// whatever the value is: its cond is NaN.
type node struct {
	cond    float32 // of a categorical split: the number of its set
	feature int32
	left    int32
	wide    int32 // feature; plus the number of features if a missing value goes to left+1
}

// tree is one tree of the model.
type tree struct {
	root        int32
	depth       int32
	group       int32 // the output it adds to; of a vector tree: the first of all outputs
	categorical bool
	vector      bool // a leaf has a value for each output
}

// Model is a parsed model. It is immutable: any number of goroutines may use it.
type Model struct {
	version    version
	booster    string
	features   int
	names      []string // nil where the file has none
	index      map[string]int
	groups     int
	objective  objective
	base       []float32 // the intercept of each group, as a margin
	late       bool      // the intercept is added after the trees, as old versions do
	best       int       // best_iteration, -1 without early stopping
	iterations []int32   // the first tree of each boosting round, and their number

	trees      []tree
	nodes      []node
	categories []bool    // of each node: is it a categorical split; nil without any
	values     []float32 // of each leaf
	places     []int32   // of each leaf of a vector tree, where in vectors its values begin; nil without any
	vectors    []float32
	sets       []set // of categories that go right
	bits       []uint32
	weights    []float32 // of each tree (dart), nil otherwise
	linear     []float32 // gblinear: of each feature and group, then of each group

	exp     *expTable
	buffers sync.Pool // of *[]float32: a block of rows, see widen
}

// Features is the number of values in a row.
func (m *Model) Features() int { return m.features }

// Feature names feature i, as the library does where the file has no names.
func (m *Model) Feature(i int) string {
	if m.names != nil {
		return m.names[i]
	}
	return "f" + strconv.Itoa(i)
}

// Index finds a feature by its name.
func (m *Model) Index(name string) (int, bool) {
	if m.names != nil {
		i, ok := m.index[name]
		return i, ok
	}
	digits, ok := strings.CutPrefix(name, "f")
	i, err := strconv.ParseUint(digits, 10, 31)
	if !ok || err != nil || int(i) >= m.features || digits[0] == '0' && i > 0 || len(digits) > 1 && i == 0 {
		return 0, false
	}
	return int(i), true
}

// Groups is the number of margins of a row: 1, the number of classes or that of targets.
func (m *Model) Groups() int { return m.groups }

// Outputs is the number of predictions of a row. It is Groups, but multi:softmax
// predicts one class.
func (m *Model) Outputs() int {
	if m.objective.link == argmax {
		return 1
	}
	return m.groups
}

// Trees is the number of trees, 0 for a linear model.
func (m *Model) Trees() int { return len(m.trees) }

// Rounds is the number of boosting rounds.
func (m *Model) Rounds() int { return max(0, len(m.iterations)-1) }

// Best is the round after which early stopping saw no improvement; ok is false
// when the model was trained without it.
func (m *Model) Best() (round int, ok bool) { return m.best, m.best >= 0 }

// Booster is gbtree, dart or gblinear.
func (m *Model) Booster() string { return m.booster }

// Objective is the objective's name, such as binary:logistic.
func (m *Model) Objective() string { return m.objective.name }

// Version is that of the library which wrote the file; 0.0.0 before 1.0.
func (m *Model) Version() string {
	return fmt.Sprintf("%d.%d.%d", m.version[0], m.version[1], m.version[2])
}

// version is that of a library.
type version [3]int

func (v version) before(major, minor int) bool {
	return v[0] < major || v[0] == major && v[1] < minor
}

// Options say what to predict; the zero value is Booster.predict without arguments.
type Options struct {
	Margin bool // the margins (output_margin)
	// Begin and End are boosting rounds (iteration_range); End 0 is all of them.
	Begin, End int
}

// Check says whether the rounds exist.
func (m *Model) Check(o Options) error {
	if m.booster == gblinear {
		if o.Begin != 0 || o.End != 0 {
			return errors.New("a linear model has no iteration_range")
		}
		return nil
	}
	end := o.End
	if end == 0 {
		end = m.Rounds()
	}
	if o.Begin < 0 || o.Begin > end || end > m.Rounds() {
		return fmt.Errorf("iteration_range %d to %d is not within the %d boosting rounds of the model", o.Begin, o.End, m.Rounds())
	}
	return nil
}

// Predict evaluates rows, a row-major matrix of Features() columns in which NaN is
// a missing value, into out, row-major with Groups() columns. Predictions of
// multi:softmax are in the first of them. It allocates nothing but working memory
// that is used again. It panics when the
// lengths do not fit or Check would fail.
func (m *Model) Predict(rows, out []float32, o Options) {
	count := len(out) / m.groups
	if len(rows) != count*m.features || len(out) != count*m.groups {
		panic("xgboost: the lengths of rows and out do not fit the model")
	}
	if err := m.Check(o); err != nil {
		panic("xgboost: " + err.Error())
	}
	if m.booster == gblinear {
		m.sumLinear(rows, out)
	} else {
		m.sumTrees(rows, out, o)
	}
	if !o.Margin {
		m.transform(out)
	}
}

// sumLinear follows GBLinear::Pred, which takes the first group's intercept for all.
func (m *Model) sumLinear(rows, out []float32) {
	bias := m.linear[m.features*m.groups:]
	for len(out) > 0 {
		for g := range m.groups {
			sum := bias[g] + m.base[0]
			for f, v := range rows[:m.features] {
				if v == v { // not missing
					sum += float32(v * m.linear[f*m.groups+g])
				}
			}
			out[g] = sum
		}
		rows, out = rows[m.features:], out[m.groups:]
	}
}
