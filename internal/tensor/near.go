package tensor

import (
	"bytes"
	"encoding/binary"
	"math"
	"math/rand/v2"
	"slices"
)

// Near says whether b has the shape of t, and values that differ by at most part of
// the largest one. All but floats must be equal; NaN equals NaN.
func (t Tensor) Near(b Tensor, part float64) bool {
	if t.Type != b.Type || !slices.Equal(t.Shape, b.Shape) {
		return false
	}
	switch t.Type {
	case Float16, BFloat16, Float32, Float64:
	case String:
		return slices.EqualFunc(t.Strings, b.Strings, bytes.Equal)
	default:
		return bytes.Equal(t.Data, b.Data)
	}
	most, n := 0.0, len(t.Data)/t.Type.Size()
	for i := range n {
		if v := math.Abs(t.float(i)); !math.IsInf(v, 0) && v > most {
			most = v
		}
	}
	for i := range n {
		x, y := t.float(i), b.float(i)
		if x != y && !(math.IsNaN(x) && math.IsNaN(y)) && !(math.Abs(x-y) <= part*most) {
			return false
		}
	}
	return true
}

// float is an element of a tensor of floats.
func (t Tensor) float(i int) float64 {
	switch t.Type {
	case Float16:
		return float64(FromFloat16(binary.LittleEndian.Uint16(t.Data[2*i:])))
	case BFloat16:
		return float64(FromBFloat16(binary.LittleEndian.Uint16(t.Data[2*i:])))
	case Float32:
		return float64(math.Float32frombits(binary.LittleEndian.Uint32(t.Data[4*i:])))
	default:
		return math.Float64frombits(binary.LittleEndian.Uint64(t.Data[8*i:]))
	}
}

// Invent appends an element: a float below 1, an integer or bool of 0 or 1, a letter.
func (b *Builder) Invent(random *rand.Rand) {
	switch b.t {
	case Float16, BFloat16, Float32, Float64:
		b.float(random.Float64())
	case String:
		b.strings = append(b.strings, []byte{'a' + byte(random.IntN(2))})
	default:
		b.integer(random.Uint64N(2))
	}
}
