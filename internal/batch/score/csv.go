package score

import (
	"bytes"
	"errors"
)

// cell is one field of a CSV record. What is quoted is text, whatever it looks like.
type cell struct {
	text   []byte
	quoted bool
}

var errQuote = errors.New("a quote in the middle of a field that is not quoted, or one that is not closed")

// record cuts the first record off data, as RFC 4180 has it. The cells are views of
// data, but for those with doubled quotes. rest is what follows its line break, also
// after an error.
func record(data []byte, cells []cell) (_ []cell, rest []byte, err error) {
	cells = cells[:0]
	at := 0
	for {
		c, end, bad := field(data, at)
		if bad {
			return cells, data[recordEnd(data):], errQuote
		}
		cells = append(cells, c)
		switch {
		case end == len(data):
			return cells, nil, nil
		case data[end] == ',':
			at = end + 1
		case data[end] == '\r': // before a line feed: field ends nowhere else
			return cells, data[end+2:], nil
		default:
			return cells, data[end+1:], nil
		}
	}
}

// field reads one field; end is the comma, the line break or the end of data.
func field(data []byte, at int) (c cell, end int, bad bool) {
	if at < len(data) && data[at] == '"' {
		return quotedField(data, at+1)
	}
	for end = at; end < len(data); end++ {
		b := data[end]
		if b == ',' || b == '\n' || b == '\r' && end+1 < len(data) && data[end+1] == '\n' {
			break
		}
		if b == '"' {
			return c, end, true
		}
	}
	return cell{text: data[at:end]}, end, false
}

func quotedField(data []byte, at int) (c cell, end int, bad bool) {
	c.quoted = true
	start, doubled := at, false
	for {
		i := bytes.IndexByte(data[at:], '"')
		if i < 0 {
			return c, len(data), true
		}
		at += i + 1
		if at == len(data) || data[at] != '"' {
			break
		}
		doubled = true
		at++
	}
	c.text = data[start : at-1]
	if doubled {
		c.text = bytes.ReplaceAll(c.text, []byte(`""`), []byte(`"`))
	}
	end = at
	ok := end == len(data) || data[end] == ',' || data[end] == '\n' || data[end] == '\r' && end+1 < len(data) && data[end+1] == '\n'
	return c, end, !ok
}

// recordEnd is where the next record begins: after the first line break outside of
// quotes.
func recordEnd(data []byte) int {
	quotes := 0
	for at := 0; ; {
		i := bytes.IndexByte(data[at:], '\n')
		if i < 0 {
			return len(data)
		}
		quotes += bytes.Count(data[at:at+i], []byte{'"'})
		at += i + 1
		if quotes%2 == 0 {
			return at
		}
	}
}

// Columns reads the header of a CSV file.
func Columns(head []byte) ([]string, error) {
	cells, _, err := record(bytes.TrimPrefix(head, []byte("\xef\xbb\xbf")), nil)
	if err != nil {
		return nil, err
	}
	names := make([]string, len(cells))
	for i, c := range cells {
		names[i] = string(c.text)
	}
	return names, nil
}

// appendCell writes a cell as JSON: a number where it is one, null where it is empty.
func appendCell(b []byte, c cell) []byte {
	switch text := bytes.TrimSpace(c.text); {
	case c.quoted:
		return appendText(b, c.text)
	case len(text) == 0:
		return append(b, "null"...)
	case isNumber(text):
		return append(b, text...)
	case string(text) == "true" || string(text) == "false":
		return append(b, text...)
	}
	return appendText(b, c.text)
}

// isNumber reports a JSON number.
func isNumber(text []byte) bool {
	at := 0
	digits := func() bool {
		start := at
		for at < len(text) && text[at] >= '0' && text[at] <= '9' {
			at++
		}
		return at > start
	}
	if text[at] == '-' {
		at++
	}
	first := at
	if !digits() || text[first] == '0' && at > first+1 {
		return false
	}
	if at < len(text) && text[at] == '.' {
		if at++; !digits() {
			return false
		}
	}
	if at < len(text) && text[at]|0x20 == 'e' {
		if at++; at < len(text) && (text[at] == '+' || text[at] == '-') {
			at++
		}
		if !digits() {
			return false
		}
	}
	return at == len(text)
}

// appendField writes a field of an output file.
func appendField(b, text []byte) []byte {
	if !bytes.ContainsAny(text, ",\"\r\n") && len(text) > 0 {
		return append(b, text...)
	}
	b = append(b, '"')
	for _, c := range text {
		if c == '"' {
			b = append(b, '"')
		}
		b = append(b, c)
	}
	return append(b, '"')
}
