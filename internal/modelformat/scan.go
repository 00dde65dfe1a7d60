package modelformat

import (
	"encoding/json"
	"math"
	"strconv"
	"unsafe"

	"tategu/internal/resource"
)

// scanner reads JSON in one pass, without building values: prediction requests
// are nearly all numbers.
type scanner struct {
	data  []byte
	pos   int
	depth int
}

// maxDepth bounds nesting in values that are skipped.
const maxDepth = 100

func (s *scanner) syntax(want string) error {
	return resource.Invalid("", "the request is not valid JSON: want %s at byte %d", want, s.pos)
}

// peek gives the next byte that is not white space, 0 at the end.
func (s *scanner) peek() byte {
	for s.pos < len(s.data) {
		switch c := s.data[s.pos]; c {
		case ' ', '\t', '\n', '\r':
			s.pos++
		default:
			return c
		}
	}
	return 0
}

func (s *scanner) take(c byte) bool {
	if s.peek() != c {
		return false
	}
	s.pos++
	return true
}

func (s *scanner) end() error {
	if s.peek() != 0 || s.pos < len(s.data) {
		return s.syntax("the end")
	}
	return nil
}

func (s *scanner) literal(word string) bool {
	s.peek()
	rest := s.data[s.pos:]
	if len(rest) < len(word) || string(rest[:len(word)]) != word {
		return false
	}
	s.pos += len(word)
	return true
}

func (s *scanner) boolean() (value, ok bool) {
	if s.literal("true") {
		return true, true
	}
	return false, s.literal("false")
}

// object calls f with each key; f reads the value. The key is valid during f.
func (s *scanner) object(f func(key string) error) error {
	if !s.take('{') {
		return s.syntax("an object")
	}
	if s.take('}') {
		return nil
	}
	for {
		key, err := s.text()
		if err != nil {
			return err
		}
		if !s.take(':') {
			return s.syntax("a colon")
		}
		if err := f(key); err != nil {
			return err
		}
		if s.take('}') {
			return nil
		}
		if !s.take(',') {
			return s.syntax("a comma or }")
		}
	}
}

// array calls f before each element; f reads it.
func (s *scanner) array(f func() error) error {
	if !s.take('[') {
		return s.syntax("a list")
	}
	if s.take(']') {
		return nil
	}
	for {
		if err := f(); err != nil {
			return err
		}
		if s.take(']') {
			return nil
		}
		if !s.take(',') {
			return s.syntax("a comma or ]")
		}
	}
}

// text reads a string. Without escapes it is a view of the data, no copy.
func (s *scanner) text() (string, error) {
	if !s.take('"') {
		return "", s.syntax("a string")
	}
	for i := s.pos; i < len(s.data); i++ {
		switch c := s.data[i]; {
		case c == '"':
			t := s.data[s.pos:i]
			s.pos = i + 1
			return unsafe.String(unsafe.SliceData(t), len(t)), nil //nolint:gosec // the body outlives the request's parsing
		case c == '\\':
			return s.escaped()
		case c < ' ':
			s.pos = i
			return "", s.syntax("no control character in a string")
		}
	}
	return "", s.syntax("a closing quote")
}

func (s *scanner) escaped() (string, error) {
	for i := s.pos; i < len(s.data); i++ {
		switch s.data[i] {
		case '\\':
			i++
		case '"':
			var t string
			if err := json.Unmarshal(s.data[s.pos-1:i+1], &t); err != nil {
				return "", s.syntax("a string")
			}
			s.pos = i + 1
			return t, nil
		}
	}
	return "", s.syntax("a closing quote")
}

// number reads a number or what stands for one; otherwise it stays before the value.
func (s *scanner) number() (float64, bool) {
	switch c := s.peek(); {
	case c == '-' || c >= '0' && c <= '9':
		return s.digits()
	case c == 'n':
		return math.NaN(), s.literal("null")
	case c == 'N':
		return math.NaN(), s.literal("NaN")
	case c == 't':
		return 1, s.literal("true")
	case c == 'f':
		return 0, s.literal("false")
	}
	return 0, false
}

// digits reads a JSON number. Up to 15 digits and a small exponent are exact in
// a double, so that one division rounds correctly; the rest goes to strconv.
func (s *scanner) digits() (float64, bool) {
	start, pos := s.pos, s.pos
	if s.data[pos] == '-' {
		pos++
	}
	var mantissa uint64
	count, scale := 0, 0
	first := pos
	for ; pos < len(s.data) && isDigit(s.data[pos]); pos++ {
		mantissa = mantissa*10 + uint64(s.data[pos]-'0')
		count++
	}
	if count == 0 || count > 1 && s.data[first] == '0' {
		return 0, false
	}
	if pos < len(s.data) && s.data[pos] == '.' {
		for pos++; pos < len(s.data) && isDigit(s.data[pos]); pos++ {
			mantissa = mantissa*10 + uint64(s.data[pos]-'0')
			count++
			scale++
		}
		if scale == 0 {
			return 0, false
		}
	}
	simple := count <= 15
	if pos < len(s.data) && (s.data[pos]|0x20 == 'e') {
		simple = false
		pos++
		if pos < len(s.data) && (s.data[pos] == '+' || s.data[pos] == '-') {
			pos++
		}
		digits := pos
		for pos < len(s.data) && isDigit(s.data[pos]) {
			pos++
		}
		if pos == digits {
			return 0, false
		}
	}
	if simple {
		s.pos = pos
		v := float64(mantissa) / pow10(scale)
		if s.data[start] == '-' {
			v = -v
		}
		return v, true
	}
	t := s.data[start:pos]
	v, err := strconv.ParseFloat(unsafe.String(unsafe.SliceData(t), len(t)), 64) //nolint:gosec // not kept
	if err != nil {
		return 0, false // too large for a double
	}
	s.pos = pos
	return v, true
}

func isDigit(c byte) bool { return c >= '0' && c <= '9' }

func pow10(n int) float64 {
	v := 1.0
	for range n {
		v *= 10 // exact up to 1e22
	}
	return v
}

// skip passes over any value.
func (s *scanner) skip() error {
	if s.depth++; s.depth > maxDepth {
		return s.syntax("less nesting")
	}
	defer func() { s.depth-- }()
	switch s.peek() {
	case '{':
		return s.object(func(string) error { return s.skip() })
	case '[':
		return s.array(s.skip)
	case '"':
		_, err := s.text()
		return err
	}
	if _, ok := s.number(); !ok {
		return s.syntax("a value")
	}
	return nil
}
