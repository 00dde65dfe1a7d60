package wire

import (
	"strings"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/reflect/protoreflect"

	"tategu/internal/api"
	"tategu/internal/resource"
)

// A request takes many times its size in memory once it is a message: a list of
// numbers about fifty times, and copies of it. These bounds keep that in hand.
// Predictions over REST do not become messages and are free of them.
const (
	maxNesting = 400     // messages in messages; a level of JSON in a Struct is two
	maxValues  = 1 << 18 // messages, texts and items of lists
	// unpackRatio is what real JSON never reaches: it bounds gzip bombs by what
	// was sent. The first bytes are free of it.
	unpackRatio = 100
	unpackFree  = 1 << 20
)

func tooManyValues(most int) error {
	return resource.Invalid("body", "the request holds more than %d values", most).
		WithHint("send it in parts, or put large inputs into a bucket")
}

// tooDeep is what a decoder's refusal of nested messages means; nil = it is about
// something else.
func tooDeep(err error) error {
	if !strings.Contains(err.Error(), "recursion depth") {
		return nil
	}
	return resource.Invalid("body", "the request is nested more than %d messages deep", maxNesting).
		WithHint("a level of JSON in a struct counts as two")
}

// valuesOf is how many values a method takes.
func valuesOf(l api.Limits) int {
	if l.Values > 0 {
		return l.Values
	}
	return maxValues
}

// checkJSON counts the values of a JSON text; a short one need not be looked at.
// The method's own bounds come first: they have names.
func checkJSON(text []byte, l api.Limits) error {
	if l.JSON != nil {
		if err := l.JSON(text); err != nil {
			return err
		}
	}
	most := valuesOf(l)
	if len(text) < most {
		return nil
	}
	if countJSON(text) > most {
		return tooManyValues(most)
	}
	return nil
}

// countJSON gives at least the number of values in a JSON text.
func countJSON(text []byte) int {
	values, quoted := 1, false
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case !quoted && (c == ',' || c == '[' || c == '{'):
			values++
		}
	}
	return values
}

// checkWire counts the values of a message in its wire form. Bytes that are no
// message are left to the parser.
func checkWire(data []byte, d protoreflect.MessageDescriptor, l api.Limits) error {
	if l.Wire != nil {
		if err := l.Wire(data, d); err != nil {
			return err
		}
	}
	most := valuesOf(l)
	if len(data) < 2*most { // a value has two bytes or more
		return nil
	}
	left := most
	countValues(data, d, &left, maxNesting)
	if left < 0 {
		return tooManyValues(most)
	}
	return nil
}

// countValues counts as countJSON does: a member of a map is one value, and so is an
// item of a list, without the key, the entry and the Value that they are wrapped in.
func countValues(data []byte, d protoreflect.MessageDescriptor, left *int, depth int) {
	wrapper := d.IsMapEntry() || d.FullName() == "google.protobuf.Value"
	for len(data) > 0 && *left >= 0 && depth > 0 {
		number, kind, n := protowire.ConsumeTag(data)
		if n < 0 {
			return
		}
		size := protowire.ConsumeFieldValue(number, kind, data[n:])
		if size < 0 {
			return
		}
		if !wrapper {
			*left--
		}
		f := d.Fields().ByNumber(number)
		if f != nil && f.Message() != nil && kind == protowire.BytesType {
			if below, n := protowire.ConsumeBytes(data[n:]); n >= 0 {
				countValues(below, f.Message(), left, depth-1)
			}
		}
		data = data[n+size:]
	}
}
