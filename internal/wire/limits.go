package wire

import (
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/reflect/protoreflect"

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

func tooManyValues() error {
	return resource.Invalid("body", "the request holds more than %d values", maxValues).
		WithHint("send it in parts, or put large inputs into a bucket")
}

// checkJSON counts the values of a JSON text; a short one need not be looked at.
func checkJSON(text []byte) error {
	if len(text) < maxValues {
		return nil
	}
	if countJSON(text) > maxValues {
		return tooManyValues()
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
func checkWire(data []byte, d protoreflect.MessageDescriptor) error {
	if len(data) < 2*maxValues { // a value has two bytes or more
		return nil
	}
	left := maxValues
	countValues(data, d, &left, maxNesting)
	if left < 0 {
		return tooManyValues()
	}
	return nil
}

func countValues(data []byte, d protoreflect.MessageDescriptor, left *int, depth int) {
	for len(data) > 0 && *left >= 0 && depth > 0 {
		number, kind, n := protowire.ConsumeTag(data)
		if n < 0 {
			return
		}
		size := protowire.ConsumeFieldValue(number, kind, data[n:])
		if size < 0 {
			return
		}
		*left--
		f := d.Fields().ByNumber(number)
		if f != nil && f.Message() != nil && kind == protowire.BytesType {
			if below, n := protowire.ConsumeBytes(data[n:]); n >= 0 {
				countValues(below, f.Message(), left, depth-1)
			}
		}
		data = data[n+size:]
	}
}
