// Package scan reads JSON in one pass without building values. Prediction requests
// are nearly all numbers, and a general decoder spends its time on what a tensor does
// not need.
package scan

import (
	"encoding/json"
	"math"
	"strconv"
	"unsafe"
)

// Scanner reads the values of Data in order. Its strings are views of Data, which
// must not change while they are used. A Scanner is used by one goroutine.
type Scanner struct {
	Data  []byte
	pos   int
	depth int
}

// SyntaxError says what the JSON should have had, and where.
type SyntaxError struct {
	Want string
	At   int // byte
}

func (e *SyntaxError) Error() string {
	return "the request is not valid JSON: want " + e.Want + " at byte " + strconv.Itoa(e.At)
}

// maxDepth bounds nesting in values that are skipped.
const maxDepth = 100

// Syntax is the error that something else was wanted here.
func (s *Scanner) Syntax(want string) error { return &SyntaxError{want, s.pos} }

// At is the byte that comes next.
func (s *Scanner) At() int { return s.pos }

// Peek gives the next byte that is not white space, 0 at the end.
func (s *Scanner) Peek() byte {
	for s.pos < len(s.Data) {
		switch c := s.Data[s.pos]; c {
		case ' ', '\t', '\n', '\r':
			s.pos++
		default:
			return c
		}
	}
	return 0
}

// Take passes over the byte c, if it is next.
func (s *Scanner) Take(c byte) bool {
	if s.Peek() != c {
		return false
	}
	s.pos++
	return true
}

// End is an error unless nothing but white space is left.
func (s *Scanner) End() error {
	if s.Peek() != 0 || s.pos < len(s.Data) {
		return s.Syntax("the end")
	}
	return nil
}

// Literal passes over a word such as true, if it is next.
func (s *Scanner) Literal(word string) bool {
	s.Peek()
	rest := s.Data[s.pos:]
	if len(rest) < len(word) || string(rest[:len(word)]) != word {
		return false
	}
	s.pos += len(word)
	return true
}

// Boolean reads true or false; otherwise it stays before the value.
func (s *Scanner) Boolean() (value, ok bool) {
	if s.Literal("true") {
		return true, true
	}
	return false, s.Literal("false")
}

// Object calls f with each key; f reads the value. The key is valid during f.
func (s *Scanner) Object(f func(key string) error) error {
	if !s.Take('{') {
		return s.Syntax("an object")
	}
	if s.Take('}') {
		return nil
	}
	for {
		key, err := s.Text()
		if err != nil {
			return err
		}
		if !s.Take(':') {
			return s.Syntax("a colon")
		}
		if err := f(key); err != nil {
			return err
		}
		if s.Take('}') {
			return nil
		}
		if !s.Take(',') {
			return s.Syntax("a comma or }")
		}
	}
}

// Array calls f before each element; f reads it.
func (s *Scanner) Array(f func() error) error {
	if !s.Take('[') {
		return s.Syntax("a list")
	}
	if s.Take(']') {
		return nil
	}
	for {
		if err := f(); err != nil {
			return err
		}
		if s.Take(']') {
			return nil
		}
		if !s.Take(',') {
			return s.Syntax("a comma or ]")
		}
	}
}

// Text reads a string. Without escapes it is a view of the data, no copy.
func (s *Scanner) Text() (string, error) {
	if !s.Take('"') {
		return "", s.Syntax("a string")
	}
	for i := s.pos; i < len(s.Data); i++ {
		switch c := s.Data[i]; {
		case c == '"':
			t := s.Data[s.pos:i]
			s.pos = i + 1
			return unsafe.String(unsafe.SliceData(t), len(t)), nil //nolint:gosec // the body outlives the request's parsing
		case c == '\\':
			return s.escaped()
		case c < ' ':
			s.pos = i
			return "", s.Syntax("no control character in a string")
		}
	}
	return "", s.Syntax("a closing quote")
}

func (s *Scanner) escaped() (string, error) {
	for i := s.pos; i < len(s.Data); i++ {
		switch s.Data[i] {
		case '\\':
			i++
		case '"':
			var t string
			if err := json.Unmarshal(s.Data[s.pos-1:i+1], &t); err != nil {
				return "", s.Syntax("a string")
			}
			s.pos = i + 1
			return t, nil
		}
	}
	return "", s.Syntax("a closing quote")
}

// Number reads a number or what stands for one; otherwise it stays before the value.
func (s *Scanner) Number() (float64, bool) {
	switch c := s.Peek(); {
	case c >= '0' && c <= '9':
		return s.digits()
	case c == '-':
		if s.Literal("-Infinity") { // as Python writes it
			return math.Inf(-1), true
		}
		return s.digits()
	case c == 'n':
		return math.NaN(), s.Literal("null")
	case c == 'N':
		return math.NaN(), s.Literal("NaN")
	case c == 'I':
		return math.Inf(1), s.Literal("Infinity")
	case c == 't':
		return 1, s.Literal("true")
	case c == 'f':
		return 0, s.Literal("false")
	}
	return 0, false
}

// Digits reads a JSON number and nothing else.
func (s *Scanner) Digits() (float64, bool) {
	if c := s.Peek(); c != '-' && !isDigit(c) {
		return 0, false
	}
	return s.digits()
}

// Integer reads a number without a fraction that an int64 holds, such as 3, -7 or
// 3.0; otherwise it stays before the value.
func (s *Scanner) Integer() (int64, bool) {
	start := s.pos
	negative, magnitude, ok := s.integer()
	switch {
	case !ok:
	case negative && magnitude <= 1<<63:
		return -int64(magnitude), true // 1<<63 is its own negative
	case !negative && magnitude < 1<<63:
		return int64(magnitude), true
	}
	s.pos = start
	return 0, false
}

// Unsigned is Integer for uint64.
func (s *Scanner) Unsigned() (uint64, bool) {
	start := s.pos
	negative, magnitude, ok := s.integer()
	if !ok || negative && magnitude > 0 {
		s.pos = start
		return 0, false
	}
	return magnitude, true
}

// integer reads sign and magnitude. Digits alone are exact; anything else must be
// whole as a double and below 2^53, above which doubles are not all there.
func (s *Scanner) integer() (negative bool, magnitude uint64, ok bool) {
	s.Peek()
	start, pos := s.pos, s.pos
	if pos < len(s.Data) && s.Data[pos] == '-' {
		negative = true
		pos++
	}
	first := pos
	for ; pos < len(s.Data) && isDigit(s.Data[pos]); pos++ {
		if pos-first < 19 { // any 19 digits fit
			magnitude = magnitude*10 + uint64(s.Data[pos]-'0')
		}
	}
	switch count := pos - first; {
	case count == 0 || count > 1 && s.Data[first] == '0':
		return false, 0, false
	case pos < len(s.Data) && (s.Data[pos] == '.' || s.Data[pos]|0x20 == 'e'):
		v, ok := s.digits()
		if magnitude = uint64(math.Abs(v)); !ok || float64(magnitude) != math.Abs(v) || math.Abs(v) >= 1<<53 {
			s.pos = start
			return false, 0, false
		}
		return negative, magnitude, true
	case count > 19:
		v, err := strconv.ParseUint(string(s.Data[first:pos]), 10, 64)
		if err != nil {
			return false, 0, false
		}
		magnitude = v
	}
	s.pos = pos
	return negative, magnitude, true
}

// Raw passes over any value and gives its bytes, a view of Data.
func (s *Scanner) Raw() ([]byte, error) {
	s.Peek()
	start := s.pos
	if err := s.Skip(); err != nil {
		return nil, err
	}
	return s.Data[start:s.pos], nil
}

// digits reads a JSON number. Up to 15 digits and a small exponent are exact in
// a double, so that one division rounds correctly; the rest goes to strconv.
func (s *Scanner) digits() (float64, bool) {
	start, pos := s.pos, s.pos
	if s.Data[pos] == '-' {
		pos++
	}
	var mantissa uint64
	count, scale := 0, 0
	first := pos
	for ; pos < len(s.Data) && isDigit(s.Data[pos]); pos++ {
		mantissa = mantissa*10 + uint64(s.Data[pos]-'0')
		count++
	}
	if count == 0 || count > 1 && s.Data[first] == '0' {
		return 0, false
	}
	if pos < len(s.Data) && s.Data[pos] == '.' {
		for pos++; pos < len(s.Data) && isDigit(s.Data[pos]); pos++ {
			mantissa = mantissa*10 + uint64(s.Data[pos]-'0')
			count++
			scale++
		}
		if scale == 0 {
			return 0, false
		}
	}
	simple := count <= 15
	if pos < len(s.Data) && (s.Data[pos]|0x20 == 'e') {
		simple = false
		pos++
		if pos < len(s.Data) && (s.Data[pos] == '+' || s.Data[pos] == '-') {
			pos++
		}
		digits := pos
		for pos < len(s.Data) && isDigit(s.Data[pos]) {
			pos++
		}
		if pos == digits {
			return 0, false
		}
	}
	if simple {
		s.pos = pos
		v := float64(mantissa) / powers[scale]
		if s.Data[start] == '-' {
			v = -v
		}
		return v, true
	}
	t := s.Data[start:pos]
	v, err := strconv.ParseFloat(unsafe.String(unsafe.SliceData(t), len(t)), 64) //nolint:gosec // not kept
	if err != nil {
		return 0, false // too large for a double
	}
	s.pos = pos
	return v, true
}

func isDigit(c byte) bool { return c >= '0' && c <= '9' }

// powers of ten that a double holds exactly, as far as 15 digits need them.
var powers = [...]float64{1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15} //nolint:gochecknoglobals // a constant, if Go had such arrays

// Skip passes over any value.
func (s *Scanner) Skip() error {
	if s.depth++; s.depth > maxDepth {
		return s.Syntax("less nesting")
	}
	defer func() { s.depth-- }()
	switch s.Peek() {
	case '{':
		return s.Object(func(string) error { return s.Skip() })
	case '[':
		return s.Array(s.Skip)
	case '"':
		_, err := s.Text()
		return err
	}
	if _, ok := s.Number(); !ok {
		return s.Syntax("a value")
	}
	return nil
}
