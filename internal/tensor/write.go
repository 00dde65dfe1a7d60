package tensor

import (
	"encoding/base64"
	"encoding/binary"
	"math"
	"strconv"
	"unicode/utf8"
)

// AppendJSON writes t as nested lists, or as its value when it has no dimensions. A
// float that is not finite becomes null; a string that is not UTF-8 {"b64": "..."}.
func (t Tensor) AppendJSON(b []byte) []byte {
	b, _ = t.nested(b, t.Shape, 0)
	return b
}

// AppendFlat writes all elements of t as one list.
func (t Tensor) AppendFlat(b []byte) []byte {
	n, _ := Elements(t.Shape) // of a tensor that is there
	b, _ = t.nested(b, []int64{int64(n)}, 0)
	return b
}

func (t Tensor) nested(b []byte, shape []int64, at int) (out []byte, next int) {
	if len(shape) == 0 {
		return t.AppendElement(b, at), at + 1
	}
	b = append(b, '[')
	for i := range shape[0] {
		if i > 0 {
			b = append(b, ',')
		}
		if len(shape) == 1 {
			b = t.AppendElement(b, at)
			at++
		} else {
			b, at = t.nested(b, shape[1:], at)
		}
	}
	return append(b, ']'), at
}

// AppendElement writes the element with this index.
func (t Tensor) AppendElement(b []byte, i int) []byte {
	d := t.Data
	switch t.Type {
	case Float32:
		return appendFloat(b, float64(math.Float32frombits(binary.LittleEndian.Uint32(d[4*i:]))), 32)
	case Float64:
		return appendFloat(b, math.Float64frombits(binary.LittleEndian.Uint64(d[8*i:])), 64)
	case Float16:
		return appendFloat(b, float64(FromFloat16(binary.LittleEndian.Uint16(d[2*i:]))), 32)
	case BFloat16:
		return appendFloat(b, float64(FromBFloat16(binary.LittleEndian.Uint16(d[2*i:]))), 32)
	case Int64:
		return strconv.AppendInt(b, int64(binary.LittleEndian.Uint64(d[8*i:])), 10)
	case Int32:
		return strconv.AppendInt(b, int64(int32(binary.LittleEndian.Uint32(d[4*i:]))), 10)
	case Int16:
		return strconv.AppendInt(b, int64(int16(binary.LittleEndian.Uint16(d[2*i:]))), 10)
	case Int8:
		return strconv.AppendInt(b, int64(int8(d[i])), 10)
	case Uint64:
		return strconv.AppendUint(b, binary.LittleEndian.Uint64(d[8*i:]), 10)
	case Uint32:
		return strconv.AppendUint(b, uint64(binary.LittleEndian.Uint32(d[4*i:])), 10)
	case Uint16:
		return strconv.AppendUint(b, uint64(binary.LittleEndian.Uint16(d[2*i:])), 10)
	case Uint8:
		return strconv.AppendUint(b, uint64(d[i]), 10)
	case Bool:
		return strconv.AppendBool(b, d[i] != 0)
	case String:
		return AppendString(b, t.Strings[i])
	case Invalid:
	}
	return append(b, "null"...)
}

func appendFloat(b []byte, v float64, bits int) []byte {
	if math.IsNaN(v) || math.IsInf(v, 0) {
		return append(b, "null"...)
	}
	form := byte('f')
	if a := math.Abs(v); a > 0 && (a < 1e-6 || a >= 1e21) {
		form = 'e'
	}
	return strconv.AppendFloat(b, v, form, -1, bits)
}

// AppendString writes a JSON string, or {"b64": "..."} where it is not UTF-8.
func AppendString(b, text []byte) []byte {
	if !utf8.Valid(text) {
		b = append(b, `{"b64":"`...)
		b = base64.StdEncoding.AppendEncode(b, text)
		return append(b, `"}`...)
	}
	const hex = "0123456789abcdef"
	b = append(b, '"')
	for _, c := range text {
		switch {
		case c == '"' || c == '\\':
			b = append(b, '\\', c)
		case c < ' ':
			b = append(b, '\\', 'u', '0', '0', hex[c>>4], hex[c&0xf])
		default:
			b = append(b, c)
		}
	}
	return append(b, '"')
}

// AppendRow writes the part of t at one index of the first dimension.
func (t Tensor) AppendRow(b []byte, i int) []byte {
	n, _ := Elements(t.Shape[1:]) // of a tensor that is there
	b, _ = t.nested(b, t.Shape[1:], i*n)
	return b
}
