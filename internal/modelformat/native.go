package modelformat

import (
	"math"
	"strconv"
	"sync"

	"tategu/internal/modelformat/lightgbm"
	"tategu/internal/resource"
)

// Native evaluates a model inside this process. It answers the JSON contract of
// a prediction container: {"instances": [...], "parameters": {...}} in,
// {"predictions": [...]} out.
//
// An instance is a list of numbers in the order of the model's features, or an
// object by feature name (further keys are ignored). null and NaN are missing
// values, true is 1 and false 0. parameters.raw_score asks for raw scores. A
// prediction is a number, or a list of them for several classes; one that is
// not finite is null.
type Native struct {
	model   *lightgbm.Model
	index   map[string]int
	buffers sync.Pool // of *matrix
}

// matrix is the working memory of one request.
type matrix struct{ rows, out []float64 }

func newNative(m *lightgbm.Model) *Native {
	n := &Native{model: m, index: make(map[string]int, len(m.Features()))}
	for i, name := range m.Features() {
		n.index[name] = i
	}
	n.buffers.New = func() any { return &matrix{} }
	return n
}

// Describe says in a few words what serves.
func (n *Native) Describe() string {
	return "LightGBM in process: " + strconv.Itoa(n.model.Trees()) + " trees, " + strconv.Itoa(len(n.model.Features())) + " features"
}

// Predict answers one request body.
func (n *Native) Predict(body []byte) ([]byte, error) {
	m, ok := n.buffers.Get().(*matrix)
	if !ok {
		m = &matrix{}
	}
	defer n.buffers.Put(m)
	s := scanner{data: body}
	raw, err := n.request(&s, m)
	if err != nil {
		return nil, err
	}
	count := 0
	if width := len(n.model.Features()); width > 0 {
		count = len(m.rows) / width
	}
	m.out = grow(m.out, count*n.model.Outputs())
	n.model.Predict(m.rows, m.out, raw)
	return n.answer(m.out), nil
}

func grow(s []float64, n int) []float64 {
	if cap(s) < n {
		return make([]float64, n)
	}
	return s[:n]
}

func (n *Native) answer(out []float64) []byte {
	classes := n.model.Outputs()
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
func (n *Native) request(s *scanner, m *matrix) (raw bool, err error) {
	m.rows = m.rows[:0]
	seen := false
	err = s.object(func(key string) error {
		switch key {
		case "instances":
			seen, m.rows = true, m.rows[:0]
			i := 0
			return s.array(func() error {
				err := n.instance(s, m, i)
				i++
				return err
			})
		case "parameters":
			if s.literal("null") {
				return nil
			}
			return s.object(func(key string) error {
				if key != "raw_score" {
					return resource.Invalid("parameters", "parameter %q is not known to a LightGBM model: want raw_score", key)
				}
				var ok bool
				if raw, ok = s.boolean(); !ok {
					return resource.Invalid("parameters", "raw_score must be true or false")
				}
				return nil
			})
		case "labels":
			return s.skip()
		}
		return resource.Invalid(key, "field %q is not known: want instances and parameters", key)
	})
	if err == nil {
		err = s.end()
	}
	if err == nil && !seen {
		err = resource.Invalid("instances", "the request has no instances")
	}
	return raw, err
}

// instance appends row i.
func (n *Native) instance(s *scanner, m *matrix, i int) error {
	width := len(n.model.Features())
	start := len(m.rows)
	switch s.peek() {
	case '[':
		err := s.array(func() error {
			k := len(m.rows) - start
			if k == width {
				return resource.Invalid("instances", "instance %d has more than %d values", i, width)
			}
			v, ok := s.number()
			if !ok {
				return n.badValue(s, i, k)
			}
			m.rows = append(m.rows, v)
			return nil
		})
		if k := len(m.rows) - start; err == nil && k < width {
			err = resource.Invalid("instances", "instance %d has %d values, the model has %d features: feature %q and those after it are missing", i, k, width, n.model.Features()[k])
		}
		return err
	case '{':
		return n.named(s, m, i)
	}
	return resource.Invalid("instances", "instance %d is neither a list of numbers nor an object by feature name", i)
}

// unset marks a feature that an object has not given: a NaN that no number has.
const unset = 0x7ff8_7467_0000_0001

func (n *Native) named(s *scanner, m *matrix, i int) error {
	features := n.model.Features()
	start := len(m.rows)
	for range features {
		m.rows = append(m.rows, math.Float64frombits(unset))
	}
	row := m.rows[start:]
	next := 0
	err := s.object(func(key string) error {
		k := next // most clients keep the features' order
		if k >= len(features) || features[k] != key {
			var ok bool
			if k, ok = n.index[key]; !ok {
				return s.skip()
			}
		}
		v, ok := s.number()
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
			return resource.Invalid("instances", "instance %d has no feature %q", i, features[k]).WithHint("send null for a missing value")
		}
	}
	return nil
}

func (n *Native) badValue(s *scanner, i, k int) error {
	err := resource.Invalid("instances", "instance %d: feature %q is not a number", i, n.model.Features()[k])
	if s.peek() == '"' {
		return err.WithHint("a LightGBM text model takes the number of a category, not its name")
	}
	return err
}
