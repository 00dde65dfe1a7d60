package modelformat

import (
	"errors"
	"math"
	"strconv"
	"sync"

	"tategu/internal/resource"
	"tategu/internal/scan"
)

// Native evaluates a model inside this process. It answers the JSON contract of
// a prediction container: {"instances": [...], "parameters": {...}} in,
// {"predictions": [...]} out.
//
// An instance is a list of numbers in the order of the model's features, or an
// object by feature name (further keys are ignored). null and NaN are missing
// values, true is 1 and false 0. Parameters are the library's own: raw_score of
// LightGBM; output_margin, iteration_range and best_iteration of XGBoost. A
// prediction is a number, or a list of them for several classes or targets; one
// that is not finite is null.
type Native struct {
	model   evaluator
	buffers sync.Pool // of *matrix
}

// matrix is the working memory of one request.
type matrix struct {
	rows, out     []float64
	rows32, out32 []float32
}

// maxValues bounds the predictions of one request: a model with very many classes
// makes much of few bytes.
const maxValues = 1 << 25

func newNative(m evaluator) *Native {
	n := &Native{model: m}
	n.buffers.New = func() any { return &matrix{} }
	return n
}

// Describe says in a few words what serves.
func (n *Native) Describe() string { return n.model.describe() }

// Shape is how many numbers an instance and its prediction have.
func (n *Native) Shape() (features, outputs int) {
	return n.model.features(), n.model.outputs(options{})
}

// Predict answers one request body.
func (n *Native) Predict(body []byte) ([]byte, error) {
	m, ok := n.buffers.Get().(*matrix)
	if !ok {
		m = &matrix{}
	}
	defer n.buffers.Put(m)
	s := scan.Scanner{Data: body}
	o, err := n.request(&s, m)
	if bad, ok := errors.AsType[*scan.SyntaxError](err); ok {
		return nil, resource.Invalid("", "%w", bad)
	}
	if err != nil {
		return nil, err
	}
	count, outputs := 0, n.model.outputs(o)
	if width := n.model.features(); width > 0 {
		count = len(m.rows) / width
	}
	if count > maxValues/outputs {
		return nil, resource.Invalid("instances", "%d instances with %d predictions each are too many for one request", count, outputs).WithHint("send fewer")
	}
	m.out = grow(m.out, count*outputs)
	if err := n.model.predict(m, m.out, o); err != nil {
		return nil, err
	}
	return answer(m.out, outputs), nil
}

func grow[T any](s []T, n int) []T {
	if cap(s) < n {
		return make([]T, n)
	}
	return s[:n]
}

func answer(out []float64, classes int) []byte {
	b := make([]byte, 0, len(out)*22+32)
	b = append(b, `{"predictions":[`...)
	for i, v := range out {
		if i > 0 {
			b = append(b, ',')
		}
		if classes > 1 && i%classes == 0 {
			b = append(b, '[')
		}
		if math.IsNaN(v) || math.IsInf(v, 0) {
			b = append(b, "null"...)
		} else {
			b = strconv.AppendFloat(b, v, 'g', -1, 64)
		}
		if classes > 1 && i%classes == classes-1 {
			b = append(b, ']')
		}
	}
	return append(b, "]}"...)
}

// request reads the whole body into m.rows.
func (n *Native) request(s *scan.Scanner, m *matrix) (o options, err error) {
	m.rows = m.rows[:0]
	seen := false
	err = s.Object(func(key string) error {
		switch key {
		case "instances":
			seen, m.rows = true, m.rows[:0]
			i := place(0)
			return s.Array(func() error {
				err := n.instance(s, m, i)
				i++
				return err
			})
		case "parameters":
			if s.Literal("null") {
				return nil
			}
			return s.Object(func(key string) error { return n.model.parameter(s, key, &o) })
		case "labels":
			return s.Skip()
		}
		return resource.Invalid(key, "field %q is not known: want instances and parameters", key)
	})
	if err == nil {
		err = s.End()
	}
	if err == nil && !seen {
		err = resource.Invalid("instances", "the request has no instances")
	}
	return o, err
}

// place is where an instance stands in its request.
type place int

// alone is the place of one that came by itself.
const alone place = -1

func (p place) String() string {
	if p == alone {
		return "the instance"
	}
	return "instance " + strconv.Itoa(int(p))
}

// instance appends row i.
func (n *Native) instance(s *scan.Scanner, m *matrix, i place) error {
	width := n.model.features()
	start := len(m.rows)
	switch s.Peek() {
	case '[':
		err := s.Array(func() error {
			k := len(m.rows) - start
			if k == width {
				return resource.Invalid("instances", "%v has more than %d values", i, width)
			}
			v, ok := s.Number()
			if !ok {
				return n.badValue(s, i, k)
			}
			m.rows = append(m.rows, v)
			return nil
		})
		if k := len(m.rows) - start; err == nil && k < width {
			err = resource.Invalid("instances", "%v has %d values, the model has %d features: feature %q and those after it are missing", i, k, width, n.model.feature(k))
		}
		return err
	case '{':
		return n.named(s, m, i)
	}
	return resource.Invalid("instances", "%v is neither a list of numbers nor an object by feature name", i)
}

// unset marks a feature that an object has not given: a NaN that no number has.
const unset = 0x7ff8_7467_0000_0001

func (n *Native) named(s *scan.Scanner, m *matrix, i place) error {
	start := len(m.rows)
	for range n.model.features() {
		m.rows = append(m.rows, math.Float64frombits(unset))
	}
	row := m.rows[start:]
	next := 0 // most clients keep the features' order
	err := s.Object(func(key string) error {
		k, ok := n.model.index(key, next)
		if !ok {
			return s.Skip()
		}
		v, ok := s.Number()
		if !ok {
			return n.badValue(s, i, k)
		}
		row[k], next = v, k+1
		return nil
	})
	if err != nil {
		return err
	}
	for k, v := range row {
		if math.Float64bits(v) == unset {
			return resource.Invalid("instances", "%v has no feature %q", i, n.model.feature(k)).WithHint("send null for a missing value")
		}
	}
	return nil
}

func (n *Native) badValue(s *scan.Scanner, i place, k int) error {
	err := resource.Invalid("instances", "%v: feature %q is not a number", i, n.model.feature(k))
	if s.Peek() == '"' {
		return err.WithHint("%s", n.model.hint())
	}
	return err
}
