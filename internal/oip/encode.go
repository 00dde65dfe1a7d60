package oip

import (
	"encoding/binary"
	"fmt"
	"strconv"
	"unicode/utf8"

	"tategu/internal/tensor"
)

// Append writes the response. Where an output is binary, length is that of the JSON
// part, for the header HeaderLength and ContentBinary; else it is -1. Strings that are
// not UTF-8 can only be binary: they are an *Error.
func (r *Response) Append(b []byte) (out []byte, length int, err error) {
	from := len(b)
	b = tensor.AppendString(append(b, `{"model_name":`...), []byte(r.Model))
	if r.Version != "" {
		b = tensor.AppendString(append(b, `,"model_version":`...), []byte(r.Version))
	}
	if r.ID != "" {
		b = tensor.AppendString(append(b, `,"id":`...), []byte(r.ID))
	}
	return appendTensors(append(b, `,"outputs":[`...), from, r.Outputs)
}

// Append writes the request, as clients do; length is as in Response.Append.
func (r *Request) Append(b []byte, binaryInputs bool) (out []byte, length int, err error) {
	from := len(b)
	b = append(b, '{')
	if r.ID != "" {
		b = append(tensor.AppendString(append(b, `"id":`...), []byte(r.ID)), ',')
	}
	if len(r.Parameters) > 0 {
		b = append(append(append(b, `"parameters":`...), r.Parameters...), ',')
	}
	if len(r.Outputs) > 0 {
		b = append(b, `"outputs":[`...)
		for i, o := range r.Outputs {
			if i > 0 {
				b = append(b, ',')
			}
			b = tensor.AppendString(append(b, `{"name":`...), []byte(o.Name))
			b = append(strconv.AppendBool(append(b, `,"parameters":{"binary_data":`...), o.Binary), `}}`...)
		}
		b = append(b, `],`...)
	}
	inputs := make([]Result, len(r.Inputs))
	for i, in := range r.Inputs {
		inputs[i] = Result{in, binaryInputs}
	}
	return appendTensors(append(b, `"inputs":[`...), from, inputs)
}

// appendTensors ends a message that began at from with its tensors.
func appendTensors(b []byte, from int, tensors []Result) (out []byte, length int, err error) {
	var tail []byte
	length = -1
	for i, t := range tensors {
		if i > 0 {
			b = append(b, ',')
		}
		b = tensor.AppendString(append(b, `{"name":`...), []byte(t.Name))
		b = append(append(b, `,"datatype":"`...), Datatype(t.Type)...)
		b = appendShape(append(b, `","shape":`...), t.Shape)
		if t.Binary {
			b = strconv.AppendInt(append(b, `,"parameters":{"binary_data_size":`...), int64(binarySize(t.Tensor)), 10)
			b = append(b, `}}`...)
			length, tail = 0, appendBinary(tail, t.Tensor)
			continue
		}
		for i, text := range t.Strings {
			if !utf8.Valid(text) {
				return nil, 0, &Error{fmt.Sprintf("tensor %q: string %d is not UTF-8: ask for it with binary_data", t.Name, i)}
			}
		}
		b = append(t.AppendFlat(append(b, `,"data":`...)), '}')
	}
	b = append(b, `]}`...)
	if length == 0 {
		length = len(b) - from
	}
	return append(b, tail...), length, nil
}

func appendShape(b []byte, shape []int64) []byte {
	b = append(b, '[')
	for i, d := range shape {
		if i > 0 {
			b = append(b, ',')
		}
		b = strconv.AppendInt(b, d, 10)
	}
	return append(b, ']')
}

func binarySize(t tensor.Tensor) int {
	n := len(t.Data)
	for _, s := range t.Strings {
		n += 4 + len(s)
	}
	return n
}

func appendBinary(b []byte, t tensor.Tensor) []byte {
	for _, s := range t.Strings {
		b = binary.LittleEndian.AppendUint32(b, uint32(len(s)))
		b = append(b, s...)
	}
	return append(b, t.Data...)
}
