// Package shadow compares the answers of a deployed model with those of another one
// that got copies of its requests.
package shadow

import (
	"bytes"
	"encoding/json"
	"io"
	"math"
	"strconv"
	"strings"
)

// tolerance of numbers, relative and absolute: models that do the same in another
// order differ in the last digits.
const (
	relative = 1e-6
	absolute = 1e-9
)

// Difference is one place in which two answers are not the same.
type Difference struct {
	Path   string // such as predictions[].score
	Ours   string // JSON, shortened; "" = not there
	Theirs string
}

// most differences of one pair of answers are told.
const most = 20

// Compare gives the differences of two answers; none = they are equal.
func Compare(ours, theirs []byte) []Difference {
	a, okA := parse(ours)
	b, okB := parse(theirs)
	if !okA || !okB {
		if bytes.Equal(ours, theirs) {
			return nil
		}
		return []Difference{{Path: "(not JSON)", Ours: short(string(ours)), Theirs: short(string(theirs))}}
	}
	c := &comparison{}
	c.compare("", a, b)
	return c.found
}

func parse(text []byte) (v any, ok bool) {
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.UseNumber()
	if err := dec.Decode(&v); err != nil {
		return nil, false
	}
	_, err := dec.Token()
	return v, err == io.EOF
}

type comparison struct{ found []Difference }

func (c *comparison) differ(path string, a, b any) {
	if len(c.found) < most {
		c.found = append(c.found, Difference{Path: upTo(path, longPath), Ours: text(a), Theirs: text(b)})
	}
}

// compare walks both values; lists of one place count as one path.
func (c *comparison) compare(path string, a, b any) {
	switch a := a.(type) {
	case map[string]any:
		if b, ok := b.(map[string]any); ok {
			c.objects(path, a, b)
			return
		}
	case []any:
		if b, ok := b.([]any); ok {
			c.lists(path, a, b)
			return
		}
	case json.Number:
		if b, ok := b.(json.Number); ok && near(a, b) {
			return
		}
	default: // string, bool, nil
		if a == b {
			return
		}
	}
	c.differ(path, a, b)
}

func (c *comparison) objects(path string, a, b map[string]any) {
	join := func(key string) string {
		if path == "" {
			return key
		}
		return path + "." + key
	}
	for key, v := range a {
		if w, ok := b[key]; ok {
			c.compare(join(key), v, w)
		} else {
			c.differ(join(key), v, absent{})
		}
	}
	for key, w := range b {
		if _, ok := a[key]; !ok {
			c.differ(join(key), absent{}, w)
		}
	}
}

func (c *comparison) lists(path string, a, b []any) {
	if len(a) != len(b) {
		c.differ(path+"[] (length)", json.Number(strconv.Itoa(len(a))), json.Number(strconv.Itoa(len(b))))
		return
	}
	for i := range a {
		c.compare(path+"[]", a[i], b[i])
	}
}

func near(a, b json.Number) bool {
	if a == b {
		return true
	}
	x, errX := a.Float64()
	y, errY := b.Float64()
	if errX != nil || errY != nil {
		return false // beyond a double, and not the same text
	}
	return math.Abs(x-y) <= max(absolute, relative*max(math.Abs(x), math.Abs(y)))
}

// absent is a value that is not there.
type absent struct{}

func text(v any) string {
	if _, ok := v.(absent); ok {
		return ""
	}
	b, err := json.Marshal(v)
	if err != nil {
		return "?" // what was read as JSON is written as such
	}
	return short(string(b))
}

// longPath bounds what is told of where a difference is: it is kept, and answers can
// have any keys.
const longPath = 250

func short(s string) string {
	const long = 80
	return upTo(s, long)
}

func upTo(s string, long int) string {
	if len(s) <= long {
		return s
	}
	return strings.ToValidUTF8(s[:long], "") + "..."
}
