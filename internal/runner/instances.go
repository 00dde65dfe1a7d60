package runner

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"tategu/internal/scan"
	"tategu/internal/tensor"
)

// requestError is a request that is wrong; its text is for the client.
type requestError struct{ text string }

func (e *requestError) Error() string { return e.text }

// part is consecutive instances that can be run together: all of the same shapes.
type part struct {
	inputs []tensor.Tensor
	rows   int // instances
}

// instances is a request on its way in. Its memory serves one request after another.
type instances struct {
	model    *Model
	builders []tensor.Builder
	dims     [][]int64 // of the last instance, by input
	shape    [][]int64 // of the part that is open
	begin    []int     // its first element, by input
	last     []int     // the first element of the last instance
	given    []bool    // inputs of an object
	rows     int       // instances of the open part
	parts    []part
	count    int
}

func newInstances(m *Model) *instances {
	n := len(m.inputs)
	in := &instances{
		model: m, builders: make([]tensor.Builder, n), dims: make([][]int64, n), shape: make([][]int64, n),
		begin: make([]int, n), last: make([]int, n), given: make([]bool, n),
	}
	for i := range n {
		in.dims[i], in.shape[i] = slices.Clone(m.rowShape(i)), slices.Clone(m.rowShape(i))
	}
	return in
}

// read takes a whole body of the form {"instances": [...]}.
func (in *instances) read(body []byte) error {
	for i := range in.builders {
		in.builders[i].Reset(in.model.inputs[i].Type)
		in.begin[i] = 0
	}
	in.parts, in.rows, in.count = in.parts[:0], 0, 0
	s := &scan.Scanner{Data: body}
	seen := false
	if s.Peek() != '{' {
		return &requestError{`the request is not an object of the form {"instances": [...]}`}
	}
	err := s.Object(func(key string) error {
		switch key {
		case "instances":
			if seen {
				return &requestError{"instances are given twice"}
			}
			seen = true
			if s.Peek() != '[' {
				return &requestError{"instances must be a list"}
			}
			return s.Array(func() error { return in.instance(s) })
		case "parameters":
			return noParameters(s)
		case "labels":
			return s.Skip()
		}
		return &requestError{fmt.Sprintf("field %q is not known: want instances", key)}
	})
	if err == nil {
		err = s.End()
	}
	if err == nil && !seen {
		err = &requestError{"the request has no instances"}
	}
	in.cut()
	return err
}

func noParameters(s *scan.Scanner) error {
	if s.Literal("null") {
		return nil
	}
	return s.Object(func(key string) error {
		return &requestError{fmt.Sprintf("parameter %q is not known: ONNX models take none", key)}
	})
}

// instance reads one and adds it to the open part, or opens another.
func (in *instances) instance(s *scan.Scanner) error {
	for i := range in.model.inputs {
		in.last[i] = in.builders[i].Len()
		copy(in.dims[i], in.model.rowShape(i))
	}
	err := in.values(s)
	if bad, ok := errors.AsType[*requestError](err); ok {
		return &requestError{"instance " + strconv.Itoa(in.count) + bad.text}
	}
	if err != nil {
		return err
	}
	in.count++
	if in.rows > 0 && (in.model.mode == Whole || !in.same()) {
		in.cutBefore()
	}
	if in.rows == 0 {
		for i := range in.dims {
			copy(in.shape[i], in.dims[i])
		}
	}
	in.rows++
	return nil
}

func (in *instances) same() bool {
	for i := range in.dims {
		if !slices.Equal(in.dims[i], in.shape[i]) {
			return false
		}
	}
	return true
}

// cutBefore closes the part that is open; the last instance begins the next.
func (in *instances) cutBefore() {
	p := part{rows: in.rows, inputs: make([]tensor.Tensor, len(in.builders))}
	for i := range in.builders {
		size := in.last[i] - in.begin[i]
		p.inputs[i] = in.tensor(i, size)
		in.begin[i] = in.last[i]
	}
	in.parts, in.rows = append(in.parts, p), 0
}

// cut closes the part that is open.
func (in *instances) cut() {
	if in.rows == 0 {
		return
	}
	for i := range in.builders {
		in.last[i] = in.builders[i].Len()
	}
	in.cutBefore()
}

// tensor takes an input of the open part: its rows, or all of it. The builder's memory
// may move while it grows, which leaves what was taken where it was.
func (in *instances) tensor(i, size int) tensor.Tensor {
	shape := slices.Clone(in.shape[i])
	if in.model.mode != Whole {
		shape = slices.Insert(shape, 0, int64(in.rows))
	}
	return in.builders[i].Part(in.begin[i], in.begin[i]+size, shape)
}

// values reads the inputs of an instance. The text of its errors goes on after
// "instance 5".
func (in *instances) values(s *scan.Scanner) error {
	m := in.model
	if s.Peek() != '{' || len(m.inputs) == 1 && in.isBase64(s) {
		if len(m.inputs) > 1 {
			return &requestError{" must be an object by input name: the model has " + names(m.inputs)}
		}
		return in.value(s, 0)
	}
	clear(in.given)
	next := 0 // most clients keep the inputs' order
	err := s.Object(func(key string) error {
		i := next
		if i >= len(m.inputs) || m.inputs[i].Name != key {
			i = slices.IndexFunc(m.inputs, func(spec Spec) bool { return spec.Name == key })
		}
		switch {
		case i < 0:
			return &requestError{fmt.Sprintf(": the model has no input %q, it has %s", key, names(m.inputs))}
		case in.given[i]:
			return &requestError{fmt.Sprintf(": input %q is given twice", key)}
		}
		in.given[i], next = true, i+1
		return in.value(s, i)
	})
	if err != nil {
		return err
	}
	if i := slices.Index(in.given, false); i >= 0 {
		return &requestError{fmt.Sprintf(": input %q is missing", m.inputs[i].Name)}
	}
	return nil
}

// isBase64 tells {"b64": ...} from an object by input name.
func (in *instances) isBase64(s *scan.Scanner) bool {
	if t := in.model.inputs[0].Type; t != tensor.String && t != tensor.Uint8 || in.model.inputs[0].Name == "b64" {
		return false
	}
	ahead := *s
	if !ahead.Take('{') {
		return false
	}
	key, err := ahead.Text()
	return err == nil && key == "b64"
}

func (in *instances) value(s *scan.Scanner, i int) error {
	b, dims := &in.builders[i], in.dims[i]
	var err error
	if len(dims) == 1 && (dims[0] == 1) && s.Peek() != '[' {
		err = b.Read(s, nil) // a column of its own: 3 is [3]
	} else {
		err = b.Read(s, dims)
	}
	if bad, ok := errors.AsType[*tensor.MismatchError](err); ok {
		return &requestError{fmt.Sprintf(": input %q (%s %s): want %s, got %s", in.model.inputs[i].Name, in.model.inputs[i].Type, tensor.Shape(in.model.rowShape(i)), bad.Want, bad.Got)}
	}
	return err
}

func names(specs []Spec) string {
	quoted := make([]string, len(specs))
	for i, s := range specs {
		quoted[i] = strconv.Quote(s.Name)
	}
	return strings.Join(quoted, ", ")
}

// predictions writes the answers to the parts of a request.
func (m *Model) predictions(b []byte, parts []part, answers [][]Value) []byte {
	b = append(b, `{"predictions":[`...)
	first := true
	for p, values := range answers {
		for r := range parts[p].rows {
			if !first {
				b = append(b, ',')
			}
			first = false
			b = m.prediction(b, values, r)
		}
	}
	return append(b, "]}"...)
}

// prediction is the row of the only output, or an object by output name.
func (m *Model) prediction(b []byte, values []Value, row int) []byte {
	if len(values) == 1 {
		return m.appendRow(b, values[0], row)
	}
	b = append(b, '{')
	for i, v := range values {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(tensor.AppendString(b, []byte(m.outputs[i].Name)), ':')
		b = m.appendRow(b, v, row)
	}
	return append(b, '}')
}

func (m *Model) appendRow(b []byte, v Value, row int) []byte {
	switch {
	case v.Maps != nil && m.mode == Whole:
		b = append(b, '[')
		for i, entries := range v.Maps {
			if i > 0 {
				b = append(b, ',')
			}
			b = entries.appendJSON(b)
		}
		return append(b, ']')
	case v.Maps != nil:
		return v.Maps[row].appendJSON(b)
	case m.mode == Whole:
		return v.AppendJSON(b)
	}
	return v.AppendRow(b, row)
}

// appendJSON writes an object; keys that are numbers become strings.
func (e Map) appendJSON(b []byte) []byte {
	n, _ := tensor.Elements(e.Keys.Shape) // of a tensor that is there
	b = append(b, '{')
	for i := range n {
		if i > 0 {
			b = append(b, ',')
		}
		if e.Keys.Type == tensor.String {
			b = tensor.AppendString(b, []byte(strings.ToValidUTF8(string(e.Keys.Strings[i]), "�")))
		} else {
			b = append(e.Keys.AppendElement(append(b, '"'), i), '"')
		}
		b = e.Values.AppendElement(append(b, ':'), i)
	}
	return append(b, '}')
}
