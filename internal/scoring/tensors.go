package scoring

import (
	"bytes"
	"slices"
	"strings"

	"tategu/internal/resource"
	"tategu/internal/scan"
	"tategu/internal/tensor"
)

// Named is a tensor with its name.
type Named struct {
	Name string
	tensor.Tensor
}

// Instances writes the request of a model for tensors whose first dimension is the
// batch: the rows of one tensor are the instances; of several, each instance is an
// object by their names. Rows of one element in a column are that element.
func Instances(inputs []Named, parameters []byte) ([]byte, error) {
	if len(inputs) == 0 {
		return nil, resource.Invalid("inputs", "the request has no inputs")
	}
	size, written := 64+len(parameters), 0
	for _, in := range inputs {
		if len(in.Shape) == 0 {
			return nil, resource.Invalid("inputs", "the input %q has no dimensions: the first one counts the instances", in.Name)
		}
		if in.Shape[0] != inputs[0].Shape[0] {
			return nil, resource.Invalid("inputs", "the input %q is of %d instances, %q of %d", inputs[0].Name, inputs[0].Shape[0], in.Name, in.Shape[0])
		}
		if n, ok := tensor.Elements(in.Shape); !ok || n == 0 && in.Shape[0] > 0 {
			return nil, resource.Invalid("inputs", "the input %q has instances without elements", in.Name)
		}
		size += 8 * len(in.Data)
		written += 2 * lists(in.Shape)
	}
	if err := bounded(written); err != nil {
		return nil, err
	}
	out := append(make([]byte, 0, size), `{"instances":[`...)
	for i := range int(inputs[0].Shape[0]) {
		if i > 0 {
			out = append(out, ',')
		}
		if len(inputs) == 1 {
			out = row(inputs[0].Tensor, i, inputs[0].Shape[1:]).AppendJSON(out)
			if err := bounded(len(out)); err != nil {
				return nil, err
			}
			continue
		}
		out = append(out, '{')
		for k, in := range inputs {
			if k > 0 {
				out = append(out, ',')
			}
			shape := in.Shape[1:]
			if len(shape) == 1 && shape[0] == 1 {
				shape = nil
			}
			out = append(tensor.AppendString(out, []byte(in.Name)), ':')
			out = row(in.Tensor, i, shape).AppendJSON(out)
		}
		out = append(out, '}')
		if err := bounded(len(out)); err != nil {
			return nil, err
		}
	}
	out = append(out, ']')
	if parameters != nil {
		out = append(append(out, `,"parameters":`...), parameters...)
	}
	return append(out, '}'), nil
}

// lists counts the lists that a tensor of this shape, which has elements, is written as.
func lists(shape []int64) (n int) {
	each := 1
	for _, d := range shape {
		n += each
		each *= int(d)
	}
	return n
}

func row(t tensor.Tensor, i int, shape []int64) tensor.Tensor {
	r := t.Rows(i, i+1)
	r.Shape = shape
	return r
}

// Predictions gives the list in an answer, {"predictions": [...]}.
func Predictions(answer []byte) ([]byte, error) {
	s := scan.Scanner{Data: answer}
	var list []byte
	err := s.Object(func(key string) (err error) {
		if key != "predictions" {
			return s.Skip()
		}
		if s.Peek() != '[' {
			return resource.Invalid("predictions", "predictions is no list")
		}
		list, err = s.Raw()
		return err
	})
	if err == nil {
		err = s.End()
	}
	if err == nil && list == nil {
		err = resource.Invalid("predictions", "there are no predictions")
	}
	return list, err
}

// Output is the name of a model's only output.
const Output = "predictions"

// Tensors gives predictions as tensors. A list of numbers or of equal lists of numbers
// is one called Output: of whole numbers INT64, unless floats says that the model
// always gives floats, and FP64 otherwise; booleans and strings likewise. Objects with
// the same keys give a tensor for each key. Whatever else there is becomes strings that
// hold the JSON of each prediction.
func Tensors(predictions []byte, floats bool) ([]Named, error) {
	found := survey{}
	s := scan.Scanner{Data: predictions}
	if err := found.value(&s, 0); err != nil {
		return nil, err
	}
	if found.columns() {
		return columns(predictions, floats)
	}
	t, err := found.read(predictions, floats)
	if err != nil {
		return nil, err
	}
	return []Named{{Output, t}}, nil
}

// columns takes a list of objects apart; one of other keys makes strings of all.
func columns(predictions []byte, floats bool) ([]Named, error) {
	var names []string
	var values [][]byte
	s := scan.Scanner{Data: predictions}
	first, same := true, true
	err := s.Array(func() error {
		seen := 0
		err := s.Object(func(key string) error {
			at := slices.Index(names, key)
			if first && at < 0 {
				at = len(names)
				names, values = append(names, strings.Clone(key)), append(values, []byte{'['})
			}
			value, err := s.Raw()
			if err != nil || at < 0 {
				same = false
				return err
			}
			if !first {
				values[at] = append(values[at], ',')
			}
			values[at] = append(values[at], value...)
			seen++
			return nil
		})
		same = same && seen == len(names) && seen > 0
		first = false
		return err
	})
	if err != nil {
		return nil, err
	}
	if !same {
		t, err := texts(predictions)
		return []Named{{Output, t}}, err
	}
	out := make([]Named, len(names))
	for i, name := range names {
		values[i] = append(values[i], ']')
		list := values[i]
		found := survey{}
		if err := found.value(&scan.Scanner{Data: list}, 0); err != nil {
			return nil, err // two values of one key
		}
		t, err := found.read(list, floats)
		if err != nil {
			return nil, err
		}
		out[i] = Named{name, t}
	}
	return out, nil
}

// survey is what a list of lists holds.
type survey struct {
	shape   []int64
	kind    tensor.Type // Invalid while nothing was seen
	deep    int         // of the elements, from 1
	objects int         // right in the list
	uneven  bool        // no tensor
}

// mostDimensions bounds lists in lists that become a tensor.
const mostDimensions = 8

func (v *survey) value(s *scan.Scanner, depth int) error {
	switch c := s.Peek(); {
	case c == '[' && depth < mostDimensions:
		n := int64(0)
		if depth == len(v.shape) {
			v.shape = append(v.shape, -1)
		}
		if err := s.Array(func() error { n++; return v.value(s, depth+1) }); err != nil {
			return err
		}
		if v.shape[depth] >= 0 && v.shape[depth] != n {
			v.uneven = true
		}
		v.shape[depth] = n
		return nil
	case c == '{' || c == '[':
		if depth == 1 && c == '{' {
			v.objects++
		}
		v.uneven = true
		return s.Skip()
	case c == '"':
		_, err := s.Text()
		v.element(tensor.String, depth)
		return err
	case c == 't' || c == 'f':
		v.element(tensor.Bool, depth)
		return s.Skip()
	}
	raw, err := s.Raw()
	kind := tensor.Int64
	if len(raw) > 18 || bytes.ContainsAny(raw, ".eEnN") { // null and NaN, too
		kind = tensor.Float64
	}
	v.element(kind, depth)
	return err
}

func (v *survey) element(kind tensor.Type, depth int) {
	if v.deep == 0 {
		v.deep = depth
	}
	switch {
	case v.deep != depth:
		v.uneven = true
	case v.kind == tensor.Invalid || v.kind == kind:
		v.kind = kind
	case v.kind == tensor.Int64 && kind == tensor.Float64, v.kind == tensor.Float64 && kind == tensor.Int64:
		v.kind = tensor.Float64
	default:
		v.uneven = true
	}
}

func (v *survey) columns() bool {
	return v.objects > 0 && len(v.shape) == 1 && int64(v.objects) == v.shape[0]
}

// read gives the list that was surveyed as one tensor.
func (v *survey) read(list []byte, floats bool) (tensor.Tensor, error) {
	if v.uneven || v.deep != 0 && v.deep != len(v.shape) {
		return texts(list)
	}
	kind := v.kind
	if kind == tensor.Invalid || floats && kind == tensor.Int64 {
		kind = tensor.Float64
	}
	var b tensor.Builder
	b.Reset(kind)
	shape := slices.Clone(v.shape)
	s := scan.Scanner{Data: list}
	if err := b.Read(&s, shape); err != nil {
		return tensor.Tensor{}, err
	}
	return b.Tensor(0, shape), nil
}

// texts keeps the JSON of each element.
func texts(list []byte) (tensor.Tensor, error) {
	t := tensor.Tensor{Type: tensor.String}
	s := scan.Scanner{Data: list}
	err := s.Array(func() error {
		raw, err := s.Raw()
		t.Strings = append(t.Strings, raw)
		return err
	})
	t.Shape = []int64{int64(len(t.Strings))}
	return t, err
}
