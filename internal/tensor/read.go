package tensor

import (
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"tategu/internal/scan"
)

// MismatchError says that a JSON value is not the tensor that was wanted.
type MismatchError struct {
	Want string // "shape [2, 3]", "a float32"
	Got  string // "shape [3]", "a string"
}

func (e *MismatchError) Error() string { return "want " + e.Want + ", got " + e.Got }

// Builder collects elements of one type from JSON values. Its memory may be used
// again after Reset, when nothing uses the tensors that it gave any more.
type Builder struct {
	t       Type
	data    []byte
	strings [][]byte
}

// Reset begins a tensor of another type.
func (b *Builder) Reset(t Type) {
	b.t, b.data, b.strings = t, b.data[:0], b.strings[:0]
}

// Len is the number of elements so far.
func (b *Builder) Len() int {
	if b.t == String {
		return len(b.strings)
	}
	return len(b.data) / b.t.Size()
}

// Tensor gives the elements from the given one on; a view of the builder's memory.
func (b *Builder) Tensor(from int, shape []int64) Tensor { return b.Part(from, b.Len(), shape) }

// Part is Tensor with an end. What was given stays what it is while more is read.
func (b *Builder) Part(from, to int, shape []int64) Tensor {
	if b.t == String {
		return Tensor{Type: b.t, Shape: shape, Strings: b.strings[from:to:to]}
	}
	size := b.t.Size()
	return Tensor{Type: b.t, Shape: shape, Data: Aligned(b.t, b.data[from*size:to*size:to*size])}
}

// Read reads one value of nested lists as deep as dims is long, and appends its
// elements. An unknown dimension, -1, takes the length that is found and keeps it. A
// value of another shape or type is a *MismatchError, one that is no JSON a
// *scan.SyntaxError.
//
// Numbers stand for themselves; for floats null is NaN, and for integers 3.0 is 3.
// Strings are strings, or {"b64": "..."}, which gives the elements of uint8 too: the
// rest of the tensor at once.
func (b *Builder) Read(s *scan.Scanner, dims []int64) error {
	from, asked := s.At(), slices.Clone(dims)
	err := b.value(s, dims)
	if _, mismatch := err.(*MismatchError); mismatch && len(dims) > 0 { //nolint:errorlint // it is ours, unwrapped
		again := scan.Scanner{Data: s.Data[from:]}
		if given, ok := shapeOf(&again, 0); ok && !fits(given, asked) {
			return &MismatchError{"shape " + Shape(asked).String(), "shape " + given.String()}
		}
	}
	for i, d := range dims {
		dims[i] = max(d, 0) // below a list without elements
	}
	return err
}

func fits(given, asked []int64) bool {
	return slices.EqualFunc(given, asked, func(g, a int64) bool { return a < 0 || g == a })
}

func (b *Builder) value(s *scan.Scanner, dims []int64) error {
	if len(dims) == 0 {
		return b.element(s)
	}
	switch s.Peek() {
	case '[':
	case '{':
		if b.t == Uint8 {
			return b.bytes(s, dims)
		}
		return &MismatchError{"shape " + Shape(dims).String(), describe(s)}
	default:
		return &MismatchError{"shape " + Shape(dims).String(), describe(s)}
	}
	n := int64(0)
	err := s.Array(func() error {
		if n == dims[0] {
			return &MismatchError{strconv.FormatInt(n, 10) + " elements", "more"}
		}
		n++
		if len(dims) == 1 {
			return b.element(s)
		}
		return b.value(s, dims[1:])
	})
	if err != nil {
		return err
	}
	if dims[0] >= 0 && n != dims[0] {
		return &MismatchError{strconv.FormatInt(dims[0], 10) + " elements", strconv.FormatInt(n, 10)}
	}
	dims[0] = n
	return nil
}

// element reads one.
func (b *Builder) element(s *scan.Scanner) error {
	ok := false
	switch b.t {
	case Float32, Float64, Float16, BFloat16:
		var v float64
		if v, ok = s.Number(); ok {
			b.float(v)
		}
	case Int8, Int16, Int32, Int64:
		var v int64
		size := b.t.Size() * 8
		if v, ok = s.Integer(); ok {
			if v < -1<<(size-1) || v > 1<<(size-1)-1 {
				return &MismatchError{"an " + b.t.String(), strconv.FormatInt(v, 10)}
			}
			b.integer(uint64(v))
		}
	case Uint8, Uint16, Uint32, Uint64:
		var v uint64
		if v, ok = s.Unsigned(); ok {
			if size := b.t.Size() * 8; size < 64 && v>>size > 0 {
				return &MismatchError{"a " + b.t.String(), strconv.FormatUint(v, 10)}
			}
			b.integer(v)
		}
	case Bool:
		var v bool
		if v, ok = boolean(s); ok {
			b.data = append(b.data, map[bool]byte{true: 1}[v])
		}
	case String:
		return b.text(s)
	case Invalid:
	}
	if !ok {
		return &MismatchError{article(b.t), describe(s)}
	}
	return nil
}

func article(t Type) string {
	if strings.HasPrefix(t.String(), "int") {
		return "an " + t.String()
	}
	return "a " + t.String()
}

func boolean(s *scan.Scanner) (v, ok bool) {
	if v, ok = s.Boolean(); ok {
		return v, true
	}
	if c := s.Peek(); c != '0' && c != '1' {
		return false, false
	}
	n, ok := s.Integer()
	return n == 1, ok && n < 2
}

func (b *Builder) float(v float64) {
	switch b.t {
	case Float32:
		b.data = binary.LittleEndian.AppendUint32(b.data, math.Float32bits(float32(v)))
	case Float64:
		b.data = binary.LittleEndian.AppendUint64(b.data, math.Float64bits(v))
	case Float16:
		b.data = binary.LittleEndian.AppendUint16(b.data, ToFloat16(float32(v)))
	default:
		b.data = binary.LittleEndian.AppendUint16(b.data, ToBFloat16(float32(v)))
	}
}

func (b *Builder) integer(v uint64) {
	switch b.t.Size() {
	case 1:
		b.data = append(b.data, byte(v))
	case 2:
		b.data = binary.LittleEndian.AppendUint16(b.data, uint16(v))
	case 4:
		b.data = binary.LittleEndian.AppendUint32(b.data, uint32(v))
	default:
		b.data = binary.LittleEndian.AppendUint64(b.data, v)
	}
}

func (b *Builder) text(s *scan.Scanner) error {
	switch s.Peek() {
	case '"':
		t, err := s.Text()
		if err != nil {
			return err
		}
		b.strings = append(b.strings, []byte(t))
		return nil
	case '{':
		raw, err := base64Object(s)
		if err != nil {
			return err
		}
		b.strings = append(b.strings, raw)
		return nil
	}
	return &MismatchError{"a string", describe(s)}
}

// bytes takes all elements below dims from base64.
func (b *Builder) bytes(s *scan.Scanner, dims []int64) error {
	raw, err := base64Object(s)
	if err != nil {
		return err
	}
	open, known := -1, int64(1)
	for i, d := range dims {
		switch {
		case d >= 0:
			known *= d
		case open >= 0:
			return &MismatchError{"nested lists, since several dimensions of " + Shape(dims).String() + " are unknown", "base64"}
		default:
			open = i
		}
	}
	n := int64(len(raw))
	if open >= 0 && known > 0 && n%known == 0 {
		dims[open] = n / known
	} else if open >= 0 || n != known {
		return &MismatchError{"shape " + Shape(dims).String(), strconv.FormatInt(n, 10) + " bytes of base64"}
	}
	b.data = append(b.data, raw...)
	return nil
}

// base64Object reads {"b64": "..."}.
func base64Object(s *scan.Scanner) (raw []byte, err error) {
	found := false
	err = s.Object(func(key string) error {
		if key != "b64" || found {
			return &MismatchError{`{"b64": ...} alone`, fmt.Sprintf("the key %q", key)}
		}
		found = true
		if s.Peek() != '"' {
			return &MismatchError{"base64", describe(s)}
		}
		t, err := s.Text()
		if err != nil {
			return err
		}
		if raw, err = base64.StdEncoding.DecodeString(t); err != nil {
			return &MismatchError{"base64", err.Error()}
		}
		return nil
	})
	if err == nil && !found {
		err = &MismatchError{`{"b64": ...}`, "an empty object"}
	}
	return raw, err
}

// describe names what stands at s, for errors.
func describe(s *scan.Scanner) string {
	switch c := s.Peek(); c {
	case '"':
		return "a string"
	case '{':
		return "an object"
	case '[':
		return "a list"
	case 'n':
		return "null"
	case 't', 'f':
		return "a boolean"
	default:
		if v, ok := s.Digits(); ok {
			return strconv.FormatFloat(v, 'g', -1, 64)
		}
		return "no value"
	}
}

// mostDims bounds the nesting that shapeOf looks at.
const mostDims = 32

// shapeOf measures nested lists by their first elements; false when lists side by
// side are not equally long, or there is something else than lists and single values.
func shapeOf(s *scan.Scanner, depth int) (Shape, bool) {
	if c := s.Peek(); c != '[' || depth == mostDims {
		return Shape{}, s.Skip() == nil && c != '{' && c != '['
	}
	shape, n := Shape(nil), int64(0)
	even := true
	err := s.Array(func() error {
		below, ok := shapeOf(s, depth+1)
		if n == 0 {
			shape = below
		}
		even = even && ok && slices.Equal(shape, below)
		n++
		return nil
	})
	return append(Shape{n}, shape...), even && err == nil
}
