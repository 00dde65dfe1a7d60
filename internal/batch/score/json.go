package score

import (
	"bytes"
	"encoding/json"
)

// member is one field of an object: views of the line.
type member struct {
	name  []byte // as it is written, without quotes
	value []byte
}

// is compares a name; one with escapes is read first.
func (m member) is(name string) bool {
	if bytes.IndexByte(m.name, '\\') < 0 {
		return string(m.name) == name
	}
	var text string
	return json.Unmarshal(append(append([]byte{'"'}, m.name...), '"'), &text) == nil && text == name
}

// cursor walks over JSON that need not be valid: where it is not, walking ends, and
// whoever reads the values finds out.
type cursor struct {
	data []byte
	at   int
}

func (c *cursor) blank() {
	for c.at < len(c.data) {
		switch c.data[c.at] {
		case ' ', '\t', '\r', '\n':
			c.at++
		default:
			return
		}
	}
}

func (c *cursor) take(b byte) bool {
	c.blank()
	if c.at < len(c.data) && c.data[c.at] == b {
		c.at++
		return true
	}
	return false
}

// text passes over a string and gives what is between its quotes.
func (c *cursor) text() ([]byte, bool) {
	if !c.take('"') {
		return nil, false
	}
	start := c.at
	for c.at < len(c.data) {
		i := bytes.IndexByte(c.data[c.at:], '"')
		if i < 0 {
			return nil, false
		}
		c.at += i + 1
		slashes := 0
		for k := c.at - 2; k >= start && c.data[k] == '\\'; k-- {
			slashes++
		}
		if slashes%2 == 0 {
			return c.data[start : c.at-1], true
		}
	}
	return nil, false
}

// value passes over any value.
func (c *cursor) value() ([]byte, bool) {
	c.blank()
	start, depth := c.at, 0
	for c.at < len(c.data) {
		switch b := c.data[c.at]; b {
		case '"':
			if _, ok := c.text(); !ok {
				return nil, false
			}
			if depth == 0 {
				return c.data[start:c.at], true
			}
			continue
		case '{', '[':
			depth++
		case '}', ']', ',':
			if depth == 0 {
				return bytes.TrimRight(c.data[start:c.at], " \t\r\n"), c.at > start
			}
			if b != ',' {
				if depth--; depth == 0 {
					c.at++
					return c.data[start:c.at], true
				}
			}
		}
		c.at++
	}
	return bytes.TrimRight(c.data[start:c.at], " \t\r\n"), depth == 0 && c.at > start
}

// members calls f with each field of an object until f says that it is enough,
// or as far as it is one.
func members(line []byte, f func(member) (enough bool)) {
	c := cursor{data: line}
	if !c.take('{') || c.take('}') {
		return
	}
	for {
		var m member
		var ok bool
		if m.name, ok = c.text(); !ok || !c.take(':') {
			return
		}
		if m.value, ok = c.value(); !ok {
			return
		}
		if f(m) || !c.take(',') {
			return
		}
	}
}

// appendText writes a string.
func appendText(b, text []byte) []byte {
	plain := true
	for _, c := range text {
		if c < ' ' || c == '"' || c == '\\' || c >= 0x7f {
			plain = false
			break
		}
	}
	if plain {
		b = append(b, '"')
		b = append(b, text...)
		return append(b, '"')
	}
	quoted, err := json.Marshal(string(text))
	if err != nil { // a string always marshals
		return append(b, `""`...)
	}
	return append(b, quoted...)
}
