package xgboost

import (
	"encoding/binary"
	"math"
	"strconv"
)

// ubjSource reads UBJSON, draft 12, in the subset that the library writes and
// reads: containers without a type but for lists of numbers.
type ubjSource struct{ cursor }

// bytes takes n bytes.
func (s *ubjSource) bytes(n int64) ([]byte, error) {
	if n < 0 || n > int64(len(s.data)-s.pos) {
		return nil, s.fail("the file is cut off: want %d more bytes", n)
	}
	b := s.data[s.pos : s.pos+int(n)]
	s.pos += int(n)
	return b, nil
}

func (s *ubjSource) marker() (byte, error) {
	b, err := s.bytes(1)
	if err != nil {
		return 0, err
	}
	return b[0], nil
}

// take passes over a marker if it is here.
func (s *ubjSource) take(c byte) bool {
	if s.pos < len(s.data) && s.data[s.pos] == c {
		s.pos++
		return true
	}
	return false
}

// width gives the size of a number.
func width(kind byte) int64 {
	switch kind {
	case 'i', 'U', 'C':
		return 1
	case 'I':
		return 2
	case 'l', 'd':
		return 4
	case 'L', 'D':
		return 8
	}
	return 0
}

// whole decodes an integer.
func whole(kind byte, b []byte) int64 {
	switch kind {
	case 'i':
		return int64(int8(b[0]))
	case 'U', 'C':
		return int64(b[0])
	case 'I':
		return int64(int16(binary.BigEndian.Uint16(b)))
	case 'l':
		return int64(int32(binary.BigEndian.Uint32(b)))
	}
	return int64(binary.BigEndian.Uint64(b))
}

// decode decodes any number.
func decode(kind byte, b []byte) float32 {
	switch kind {
	case 'd':
		return math.Float32frombits(binary.BigEndian.Uint32(b))
	case 'D':
		return float32(math.Float64frombits(binary.BigEndian.Uint64(b)))
	}
	return float32(whole(kind, b))
}

// integerOf reads an integer after its marker.
func (s *ubjSource) integerOf(kind byte) (int64, error) {
	switch kind {
	case 'T':
		return 1, nil
	case 'F':
		return 0, nil
	case 'd', 'D':
		return 0, s.failAt(s.pos-1, "a fraction is not an integer")
	}
	n := width(kind)
	if n == 0 {
		return 0, s.failAt(s.pos-1, "marker %q is not that of an integer", kind)
	}
	b, err := s.bytes(n)
	if err != nil {
		return 0, err
	}
	return whole(kind, b), nil
}

func (s *ubjSource) integer() (int64, error) {
	kind, err := s.marker()
	if err != nil {
		return 0, err
	}
	return s.integerOf(kind)
}

// string reads a length and as many bytes.
func (s *ubjSource) string() (string, error) {
	n, err := s.integer()
	if err != nil {
		return "", err
	}
	b, err := s.bytes(n)
	return string(b), err
}

func (s *ubjSource) text() (string, error) {
	if !s.take('S') {
		return "", s.fail("want a string")
	}
	return s.string()
}

func (s *ubjSource) object(f func(key string) error) error {
	if !s.take('{') {
		return s.fail("want an object")
	}
	if s.pos < len(s.data) && (s.data[s.pos] == '#' || s.data[s.pos] == '$') {
		return s.fail("objects that tell their size are not read")
	}
	for !s.take('}') {
		key, err := s.string()
		if err != nil {
			return err
		}
		if err := s.within("."+key, func() error { return f(key) }); err != nil {
			return err
		}
	}
	return nil
}

// open reads the beginning of a list: the kind of its elements when they share
// one, and their number, -1 when a ] ends it.
func (s *ubjSource) open() (kind byte, n int64, err error) {
	if !s.take('[') {
		return 0, 0, s.fail("want a list")
	}
	if s.take('$') {
		if kind, err = s.marker(); err != nil {
			return 0, 0, err
		}
		if width(kind) == 0 {
			return 0, 0, s.failAt(s.pos-1, "lists of marker %q are not read", kind)
		}
		if s.pos >= len(s.data) || s.data[s.pos] != '#' {
			return 0, 0, s.fail("want the number of elements")
		}
	}
	if !s.take('#') {
		return 0, -1, nil
	}
	if n, err = s.integer(); err != nil {
		return 0, 0, err
	}
	if size := max(1, width(kind)); n < 0 || n > int64(len(s.data)-s.pos)/size {
		return 0, 0, s.fail("the file is cut off: %d elements do not fit into the %d bytes that follow", n, len(s.data)-s.pos)
	}
	return kind, n, nil
}

// array reads lists whose elements have markers; those of numbers are floats and integers.
func (s *ubjSource) array(f func(i int) error) error {
	kind, n, err := s.open()
	if err != nil {
		return err
	}
	if kind != 0 && n > 0 {
		return s.fail("want a list of values, not one of numbers")
	}
	for i := 0; n < 0 && !s.take(']') || int64(i) < n; i++ {
		if err := s.within("["+strconv.Itoa(i)+"]", func() error { return f(i) }); err != nil {
			return err
		}
	}
	return nil
}

// numbers reads a list of numbers, with one kind or with markers, and gives each
// to value.
func (s *ubjSource) numbers(value func(kind byte, b []byte) error) error {
	kind, n, err := s.open()
	if err != nil {
		return err
	}
	for i := int64(0); n < 0 && !s.take(']') || i < n; i++ {
		k := kind
		if k == 0 {
			if k, err = s.marker(); err != nil {
				return err
			}
			if k == 'T' || k == 'F' {
				if err := value('U', []byte{map[byte]byte{'T': 1}[k]}); err != nil {
					return err
				}
				continue
			}
			if width(k) == 0 {
				return s.failAt(s.pos-1, "marker %q is not that of a number", k)
			}
		}
		b, err := s.bytes(width(k))
		if err != nil {
			return err
		}
		if err := value(k, b); err != nil {
			return err
		}
	}
	return nil
}

func (s *ubjSource) floats(into []float32) ([]float32, error) {
	err := s.numbers(func(kind byte, b []byte) error {
		into = append(into, decode(kind, b))
		return nil
	})
	return into, err
}

func (s *ubjSource) integers(into []int32) ([]int32, error) {
	err := s.numbers(func(kind byte, b []byte) error {
		if kind == 'd' || kind == 'D' {
			return s.fail("a fraction is not an integer")
		}
		v := whole(kind, b)
		if int64(int32(v)) != v {
			return s.fail("%d has more than 32 bits", v)
		}
		into = append(into, int32(v))
		return nil
	})
	return into, err
}

func (s *ubjSource) skip() error {
	if s.pos >= len(s.data) {
		return s.fail("the file is cut off: want a value")
	}
	switch kind := s.data[s.pos]; kind {
	case '{':
		return s.object(func(string) error { return s.skip() })
	case '[':
		kind, n, err := s.open()
		if err != nil {
			return err
		}
		if kind != 0 {
			_, err := s.bytes(n * width(kind))
			return err
		}
		return s.within("[]", func() error {
			for i := int64(0); n < 0 && !s.take(']') || i < n; i++ {
				if err := s.skip(); err != nil {
					return err
				}
			}
			return nil
		})
	case 'S':
		_, err := s.text()
		return err
	case 'Z', 'T', 'F':
		s.pos++
		return nil
	default:
		n := width(kind)
		if n == 0 {
			return s.fail("marker %q is not that of a value", kind)
		}
		_, err := s.bytes(1 + n)
		return err
	}
}

func (s *ubjSource) end() error {
	if s.pos < len(s.data) {
		return s.fail("more follows the end of the model")
	}
	return nil
}
