package xgboost

import (
	"encoding/json"
	"math"
	"strconv"
	"strings"
	"unsafe"
)

// jsonSource reads JSON as the library writes it: NaN, Infinity and -Infinity are numbers.
type jsonSource struct{ cursor }

func (s *jsonSource) peek() byte {
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

func (s *jsonSource) take(c byte) bool {
	if s.peek() != c {
		return false
	}
	s.pos++
	return true
}

// want complains that something else is here, or nothing any more.
func (s *jsonSource) want(what string) error {
	if s.peek() == 0 && s.pos >= len(s.data) {
		return s.fail("the file is cut off: want %s", what)
	}
	return s.fail("want %s", what)
}

func (s *jsonSource) object(f func(key string) error) error {
	if !s.take('{') {
		return s.want("an object")
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
			return s.want("a colon")
		}
		if err := s.within("."+key, func() error { return f(key) }); err != nil {
			return err
		}
		if s.take('}') {
			return nil
		}
		if !s.take(',') {
			return s.want("a comma or }")
		}
	}
}

func (s *jsonSource) array(f func(i int) error) error {
	if !s.take('[') {
		return s.want("a list")
	}
	if s.take(']') {
		return nil
	}
	for i := 0; ; i++ {
		if err := s.within("["+strconv.Itoa(i)+"]", func() error { return f(i) }); err != nil {
			return err
		}
		if s.take(']') {
			return nil
		}
		if !s.take(',') {
			return s.want("a comma or ]")
		}
	}
}

func (s *jsonSource) text() (string, error) {
	if !s.take('"') {
		return "", s.want("a string")
	}
	for i := s.pos; i < len(s.data); i++ {
		switch s.data[i] {
		case '\\':
			i++
		case '"':
			var t string
			if err := json.Unmarshal(s.data[s.pos-1:i+1], &t); err != nil {
				return "", s.fail("not a string: %w", err)
			}
			s.pos = i + 1
			return t, nil
		}
	}
	s.pos = len(s.data)
	return "", s.want("a closing quote")
}

// word is the text of a number or a literal.
func (s *jsonSource) word() string {
	s.peek()
	start := s.pos
	for s.pos < len(s.data) {
		c := s.data[s.pos]
		if c != '+' && c != '-' && c != '.' && (c < '0' || c > '9') && (c|0x20 < 'a' || c|0x20 > 'z') {
			break
		}
		s.pos++
	}
	t := s.data[start:s.pos]
	return unsafe.String(unsafe.SliceData(t), len(t)) //nolint:gosec // a view of the file, which is not written
}

func (s *jsonSource) integer() (int64, error) {
	s.peek()
	start := s.pos
	w := s.word()
	switch w {
	case "true":
		return 1, nil
	case "false":
		return 0, nil
	}
	v, err := strconv.ParseInt(w, 10, 64)
	if err != nil {
		return 0, s.failAt(start, "%q is not an integer", strings.Clone(w))
	}
	return v, nil
}

// parseFloat reads a number as the library does: to the nearest float.
func parseFloat(w string) (float32, bool) {
	if w == "" || strings.ContainsAny(w, "xX_pP") {
		return 0, false
	}
	v, err := strconv.ParseFloat(w, 32)
	return float32(v), err == nil || math.IsInf(v, 0)
}

// list reads a list of plain values; value gets each.
func (s *jsonSource) list(value func() error) error {
	if !s.take('[') {
		return s.want("a list")
	}
	if s.take(']') {
		return nil
	}
	for {
		if err := value(); err != nil {
			return err
		}
		if s.take(']') {
			return nil
		}
		if !s.take(',') {
			return s.want("a comma or ]")
		}
	}
}

func (s *jsonSource) floats(into []float32) ([]float32, error) {
	err := s.list(func() error {
		s.peek()
		start := s.pos
		w := s.word()
		v, ok := parseFloat(w)
		if !ok {
			return s.failAt(start, "%q is not a number", strings.Clone(w))
		}
		into = append(into, v)
		return nil
	})
	return into, err
}

func (s *jsonSource) integers(into []int32) ([]int32, error) {
	err := s.list(func() error {
		s.peek()
		start := s.pos
		v, err := s.integer()
		if err != nil {
			return err
		}
		if int64(int32(v)) != v {
			return s.failAt(start, "%d has more than 32 bits", v)
		}
		into = append(into, int32(v))
		return nil
	})
	return into, err
}

func (s *jsonSource) skip() error {
	switch s.peek() {
	case '{':
		return s.object(func(string) error { return s.skip() })
	case '[':
		// Lists of numbers are most of a file; only others need a name for each element.
		if s.pos++; s.take(']') {
			return nil
		}
		for s.peek() != '{' && s.peek() != '[' {
			if err := s.skip(); err != nil {
				return err
			}
			if s.take(']') {
				return nil
			}
			if !s.take(',') {
				return s.want("a comma or ]")
			}
		}
		for i := 0; ; i++ {
			if err := s.within("["+strconv.Itoa(i)+"]", s.skip); err != nil {
				return err
			}
			if s.take(']') {
				return nil
			}
			if !s.take(',') {
				return s.want("a comma or ]")
			}
		}
	case '"':
		_, err := s.text()
		return err
	}
	start := s.pos
	switch w := s.word(); w {
	case "true", "false", "null":
	default:
		if _, ok := parseFloat(w); !ok {
			s.pos = start
			return s.want("a value")
		}
	}
	return nil
}

func (s *jsonSource) end() error {
	if s.peek() != 0 || s.pos < len(s.data) {
		return s.fail("more follows the end of the model")
	}
	return nil
}
