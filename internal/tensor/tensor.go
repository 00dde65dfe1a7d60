// Package tensor is the value that prediction protocols carry and model runtimes
// take: an array of one element type and any number of dimensions. It knows no
// protocol and computes nothing.
package tensor

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"unsafe"
)

// Type is the type of a tensor's elements.
type Type uint8

// The types. The zero value is none.
const (
	Invalid Type = iota
	Bool
	Uint8
	Uint16
	Uint32
	Uint64
	Int8
	Int16
	Int32
	Int64
	Float16
	BFloat16
	Float32
	Float64
	String
)

// Size is the bytes of one element, 0 for strings.
func (t Type) Size() int {
	switch t {
	case Bool, Uint8, Int8:
		return 1
	case Uint16, Int16, Float16, BFloat16:
		return 2
	case Uint32, Int32, Float32:
		return 4
	case Uint64, Int64, Float64:
		return 8
	case Invalid, String:
	}
	return 0
}

// String is the name as ONNX and numpy write it: float32, int64, string.
func (t Type) String() string {
	names := [...]string{"invalid", "bool", "uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64", "float16", "bfloat16", "float32", "float64", "string"}
	if int(t) < len(names) {
		return names[t]
	}
	return "type " + strconv.Itoa(int(t))
}

// Tensor is an array. Its elements lie in row-major order in Data, little-endian, a
// bool being a byte of 0 or 1; those of strings in Strings.
type Tensor struct {
	Type    Type
	Shape   []int64
	Data    []byte
	Strings [][]byte
}

// Elements is the number of elements of a shape without unknown dimensions; false
// when a dimension is negative or the number is more than an int.
func Elements(shape []int64) (int, bool) {
	n := int64(1)
	for _, d := range shape {
		if d < 0 || d > 0 && n > math.MaxInt/d {
			return 0, false
		}
		n *= d
	}
	return int(n), true
}

// Bytes makes n bytes at an address that holds any element.
func Bytes(n int) []byte {
	if n == 0 {
		return []byte{}
	}
	words := make([]uint64, (n+7)/8)
	return unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(words))), n) //nolint:gosec // the words are as long
}

// Aligned gives data at an address that holds elements of t, copied where it has to be.
func Aligned(t Type, data []byte) []byte {
	if size := t.Size(); size < 2 || uintptr(unsafe.Pointer(unsafe.SliceData(data)))%uintptr(size) == 0 { //nolint:gosec // looked at alone
		return data
	}
	out := Bytes(len(data))
	copy(out, data)
	return out
}

// Check says what is wrong with a tensor whose parts come from different places.
func (t Tensor) Check() error {
	n, ok := Elements(t.Shape)
	switch {
	case !ok:
		return fmt.Errorf("the shape %s is none", Shape(t.Shape))
	case t.Type == String && len(t.Strings) != n:
		return fmt.Errorf("shape %s has %d elements, and there are %d", Shape(t.Shape), n, len(t.Strings))
	case t.Type == Invalid:
		return errors.New("the type is missing")
	case t.Type != String && (len(t.Data)%t.Type.Size() != 0 || len(t.Data)/t.Type.Size() != n):
		return fmt.Errorf("shape %s of %s has %d elements, and there are %d bytes", Shape(t.Shape), t.Type, n, len(t.Data))
	}
	return nil
}

// Rows is the part of t with the given indexes of the first dimension; it shares
// t's memory.
func (t Tensor) Rows(from, to int) Tensor {
	shape := append([]int64{int64(to - from)}, t.Shape[1:]...)
	n, _ := Elements(t.Shape[1:]) // of a tensor that is there
	if t.Type == String {
		return Tensor{Type: t.Type, Shape: shape, Strings: t.Strings[from*n : to*n]}
	}
	n *= t.Type.Size()
	return Tensor{Type: t.Type, Shape: shape, Data: t.Data[from*n : to*n]}
}

// Concat puts tensors of the same type and of shapes that differ in the first
// dimension alone after each other.
func Concat(parts []Tensor) Tensor {
	if len(parts) == 1 {
		return parts[0]
	}
	out := Tensor{Type: parts[0].Type, Shape: append([]int64{0}, parts[0].Shape[1:]...)}
	size := 0
	for _, p := range parts {
		out.Shape[0] += p.Shape[0]
		size += len(p.Data)
		out.Strings = append(out.Strings, p.Strings...)
	}
	if out.Type == String {
		return out
	}
	out.Data = Bytes(size)[:0]
	for _, p := range parts {
		out.Data = append(out.Data, p.Data...)
	}
	return out
}

// Shape writes a shape for people: [?, 3] where the first dimension is unknown.
type Shape []int64

func (s Shape) String() string {
	var b strings.Builder
	b.WriteByte('[')
	for i, d := range s {
		if i > 0 {
			b.WriteString(", ")
		}
		if d < 0 {
			b.WriteByte('?')
		} else {
			b.WriteString(strconv.FormatInt(d, 10))
		}
	}
	b.WriteByte(']')
	return b.String()
}
