package oip

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"
	"unicode/utf8"

	"tategu/internal/scan"
	"tategu/internal/tensor"
)

// Length reads the header HeaderLength: how many bytes of the body are JSON, all of
// them where there is no such header.
func Length(header string, body int) (int, error) {
	if header == "" {
		return body, nil
	}
	n, err := strconv.Atoi(header)
	if err != nil || n < 0 || n > body {
		return 0, &Error{fmt.Sprintf("%s is %q, and the body has %d bytes", HeaderLength, header, body)}
	}
	return n, nil
}

// ParseRequest reads a request whose first length bytes are JSON; what follows are
// binary tensors. The tensors share body's memory where they can. What is wrong is an
// *Error or a *scan.SyntaxError.
func ParseRequest(body []byte, length int) (*Request, error) {
	d := decoder{s: scan.Scanner{Data: body[:length]}, rest: body[length:]}
	r := &Request{}
	err := d.s.Object(func(key string) (err error) {
		switch key {
		case "id":
			r.ID, err = d.text(key)
		case "parameters":
			r.Parameters, err = d.s.Raw()
		case "inputs":
			if r.Inputs != nil {
				return &Error{"inputs are given twice"}
			}
			err = d.s.Array(func() error {
				in, err := d.input(len(r.Inputs))
				r.Inputs = append(r.Inputs, in)
				return err
			})
		case "outputs":
			err = d.s.Array(d.output)
		default:
			err = d.s.Skip() // extensions have fields of their own
		}
		return err
	})
	if err == nil {
		err = d.s.End()
	}
	if err == nil && r.Parameters != nil {
		r.Binary, err = binaryOutput(r.Parameters)
	}
	switch {
	case err != nil:
		return nil, err
	case len(r.Inputs) == 0:
		return nil, &Error{"the request has no inputs"}
	case len(d.rest) > 0:
		return nil, &Error{fmt.Sprintf("%d bytes follow the last binary tensor", len(d.rest))}
	}
	asked := make(map[string]bool, len(d.outputs))
	for _, o := range d.outputs {
		if asked[o.name] { // else a small request has one output written a million times
			return nil, &Error{fmt.Sprintf("the output %q is asked for twice", o.name)}
		}
		asked[o.name] = true
		r.Outputs = append(r.Outputs, Output{Name: o.name, Binary: o.binary || r.Binary && !o.told})
	}
	return r, nil
}

// decoder is a request on its way in.
type decoder struct {
	s       scan.Scanner
	rest    []byte // binary tensors that nobody took yet
	outputs []askedOutput
}

type askedOutput struct {
	name         string
	binary, told bool
}

func (d *decoder) text(key string) (string, error) {
	if d.s.Peek() != '"' {
		return "", &Error{key + " must be a string"}
	}
	text, err := d.s.Text()
	if err == nil && !utf8.ValidString(text) { // it becomes JSON again
		err = &Error{key + " is not UTF-8"}
	}
	return text, err
}

// binaryOutput looks for the extension's parameter of a whole request.
func binaryOutput(parameters []byte) (value bool, err error) {
	s := scan.Scanner{Data: parameters}
	if s.Literal("null") {
		return false, nil
	}
	if s.Peek() != '{' {
		return false, &Error{"parameters must be an object"}
	}
	return flag(&s, "binary_data_output")
}

// flag reads an object for one boolean.
func flag(s *scan.Scanner, name string) (value bool, err error) {
	err = s.Object(func(key string) error {
		if key != name {
			return s.Skip()
		}
		var ok bool
		if value, ok = s.Boolean(); !ok {
			return &Error{name + " must be true or false"}
		}
		return nil
	})
	return value, err
}

func (d *decoder) output() error {
	o := askedOutput{}
	err := d.s.Object(func(key string) (err error) {
		switch key {
		case "name":
			o.name, err = d.text("the name of an output")
		case "parameters":
			err = d.s.Object(func(key string) error {
				if key != "binary_data" {
					if key == "classification" {
						return &Error{"the classification extension is not supported"}
					}
					return d.s.Skip()
				}
				if o.binary, o.told = d.s.Boolean(); !o.told {
					return &Error{"binary_data must be true or false"}
				}
				return nil
			})
		default:
			err = d.s.Skip()
		}
		return err
	})
	if err == nil && o.name == "" {
		err = &Error{"an output that is asked for has no name"}
	}
	d.outputs = append(d.outputs, o)
	return err
}

// incoming is an input while its fields are read, which may come in any order.
type incoming struct {
	Named

	shaped bool
	data   []byte // JSON that could not be read yet
	size   int64  // of binary data, -1 = none
	filled bool
}

func (d *decoder) input(index int) (Named, error) {
	in := incoming{size: -1}
	err := d.s.Object(func(key string) (err error) {
		switch key {
		case "name":
			in.Name, err = d.text("the name of an input")
		case "datatype":
			err = d.datatype(&in)
		case "shape":
			if in.shaped {
				return &Error{"the shape is given twice"}
			}
			in.Shape, err = d.shape()
			in.shaped = true
		case "parameters":
			in.size, err = d.binarySize()
		case "data":
			if in.filled || in.data != nil {
				return &Error{"data is given twice"}
			}
			if in.shaped && in.Type != tensor.Invalid {
				return in.read(&d.s)
			}
			in.data, err = d.s.Raw()
		default:
			err = d.s.Skip()
		}
		return err
	})
	if err == nil {
		err = d.finish(&in)
	}
	if bad, ok := errors.AsType[*Error](err); ok {
		name := strconv.Itoa(index)
		if in.Name != "" {
			name = strconv.Quote(in.Name)
		}
		err = &Error{"input " + name + ": " + bad.text}
	}
	return in.Named, err
}

func (d *decoder) datatype(in *incoming) error {
	if in.Type != tensor.Invalid {
		return &Error{"the datatype is given twice"}
	}
	name, err := d.text("datatype")
	if err != nil {
		return err
	}
	ok := false
	if in.Type, ok = Type(name); !ok {
		return &Error{fmt.Sprintf("datatype %q is not known: want BOOL, UINT8 to UINT64, INT8 to INT64, FP16, BF16, FP32, FP64 or BYTES", name)}
	}
	return nil
}

// mostDimensions bounds a shape: tensors are written and read by recursion over it, and
// each dimension of length one adds brackets to every element.
const mostDimensions = 32

func (d *decoder) shape() ([]int64, error) {
	shape := []int64{}
	err := d.s.Array(func() error {
		if len(shape) == mostDimensions {
			return &Error{fmt.Sprintf("the shape has more than %d dimensions", mostDimensions)}
		}
		n, ok := d.s.Integer()
		if !ok || n < 0 {
			return &Error{"shape must be a list of integers that are not negative"}
		}
		shape = append(shape, n)
		return nil
	})
	return shape, err
}

func (d *decoder) binarySize() (int64, error) {
	size := int64(-1)
	err := d.s.Object(func(key string) error {
		if key != "binary_data_size" {
			if key == "shared_memory_region" {
				return &Error{"the shared memory extension is not supported"}
			}
			return d.s.Skip()
		}
		n, ok := d.s.Integer()
		if !ok || n < 0 {
			return &Error{"binary_data_size must be an integer that is not negative"}
		}
		size = n
		return nil
	})
	return size, err
}

// finish brings together what came in any order.
func (d *decoder) finish(in *incoming) error {
	switch {
	case in.Name == "":
		return &Error{"the name is missing"}
	case in.Type == tensor.Invalid:
		return &Error{"the datatype is missing"}
	case !in.shaped:
		return &Error{"the shape is missing"}
	case in.size >= 0 && (in.filled || in.data != nil):
		return &Error{"it has both data and binary_data_size"}
	case in.size >= 0:
		return d.binary(in)
	case in.filled:
		return nil
	case in.data == nil:
		return &Error{"it has no data"}
	}
	return in.read(&scan.Scanner{Data: in.data})
}

// read takes elements as one list or as nested ones.
func (in *incoming) read(s *scan.Scanner) error {
	n, ok := tensor.Elements(in.Shape)
	if !ok {
		return &Error{"shape " + tensor.Shape(in.Shape).String() + " is too large"}
	}
	dims := []int64{int64(n)}
	if nested(s) {
		dims = append([]int64{}, in.Shape...)
	}
	b := tensor.Builder{}
	b.Reset(in.Type)
	err := b.Read(s, dims)
	if bad, ok := errors.AsType[*tensor.MismatchError](err); ok {
		return &Error{"data: want " + bad.Want + ", got " + bad.Got}
	}
	if err != nil {
		return err
	}
	in.filled, in.Tensor = true, b.Tensor(0, in.Shape)
	return nil
}

// nested looks whether a list begins with a list.
func nested(s *scan.Scanner) bool {
	ahead := *s
	return ahead.Take('[') && ahead.Peek() == '['
}

// binary takes the next bytes after the JSON.
func (d *decoder) binary(in *incoming) error {
	if in.size > int64(len(d.rest)) {
		return &Error{fmt.Sprintf("binary_data_size is %d, and %d bytes are left", in.size, len(d.rest))}
	}
	data := d.rest[:in.size]
	d.rest = d.rest[in.size:]
	if in.Type == tensor.String {
		for len(data) > 0 {
			if len(data) < 4 {
				return &Error{"binary data ends in the length of a string"}
			}
			n := int64(binary.LittleEndian.Uint32(data))
			if data = data[4:]; n > int64(len(data)) {
				return &Error{fmt.Sprintf("a string of %d bytes begins where %d bytes of binary data are left", n, len(data))}
			}
			in.Strings = append(in.Strings, data[:n:n])
			data = data[n:]
		}
	} else {
		in.Data = tensor.Aligned(in.Type, data)
	}
	if err := in.Check(); err != nil {
		return &Error{err.Error()}
	}
	if in.Type == tensor.Bool {
		for i, v := range in.Data {
			if v > 1 {
				return &Error{fmt.Sprintf("binary data: byte %d of a BOOL is %d", i, v)}
			}
		}
	}
	return nil
}
