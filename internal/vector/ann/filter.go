package ann

import (
	"math"
	"slices"
)

// Restrict is a namespace with tokens. Of a row, they are what it has (Allow), and queries
// that it is not for (Deny); of a filter, what a row has to have, one at least, and what it
// may not have.
type Restrict struct {
	Namespace   string
	Allow, Deny []string
}

// Kind of a number. Numbers of different kinds are never compared.
type Kind uint8

// Kinds of numbers, as the API's value_int, value_float and value_double.
const (
	Int Kind = iota
	Float
	Double
)

// Number is a value of one kind: Int of Int, Float of the others.
type Number struct {
	Kind  Kind
	Int   int64
	Float float64
}

// key orders numbers of one kind as unsigned integers.
func (n Number) key() uint64 {
	if n.Kind == Int {
		return uint64(n.Int) ^ 1<<63
	}
	v := n.Float
	if n.Kind == Float {
		v = float64(float32(v))
	}
	if v == 0 {
		v = 0 // -0 is 0
	}
	b := math.Float64bits(v)
	if b>>63 != 0 {
		return ^b
	}
	return b ^ 1<<63
}

// Numeric is a number of a row in a namespace.
type Numeric struct {
	Namespace string
	Number
}

// Operator compares a row's number (left) with a filter's.
type Operator int

// Operators, as in the API's NumericRestriction.
const (
	Less Operator = iota + 1
	LessEqual
	Equal
	GreaterEqual
	Greater
	NotEqual
)

// Test is a comparison that rows have to pass. A row without a number of this kind in the
// namespace does not.
type Test struct {
	Namespace string
	Operator  Operator
	Number
}

func (t Test) holds(key uint64) bool {
	want := t.key()
	switch t.Operator {
	case Less:
		return key < want
	case LessEqual:
		return key <= want
	case Equal:
		return key == want
	case GreaterEqual:
		return key >= want
	case Greater:
		return key > want
	case NotEqual:
		return key != want
	}
	return false
}

// Filter is what rows have to pass: each namespace and each test. Within a namespace, a row
// needs one of the filter's allowed tokens (if there are any), may have none of its denied
// ones, and may not deny one that the filter allows: denial wins.
type Filter struct {
	Restricts []Restrict
	Tests     []Test
}

// Empty says that all rows pass.
func (f Filter) Empty() bool { return len(f.Restricts) == 0 && len(f.Tests) == 0 }

// Match says whether a row passes: the same as Segment.Allowed, for rows that are in no
// segment yet.
func (f Filter) Match(r Row) bool {
	for _, want := range f.Restricts {
		allowed := len(want.Allow) == 0
		for _, has := range r.Restricts {
			if has.Namespace != want.Namespace {
				continue
			}
			if meet(has.Deny, want.Allow) || meet(has.Allow, want.Deny) {
				return false
			}
			allowed = allowed || meet(has.Allow, want.Allow)
		}
		if !allowed {
			return false
		}
	}
	for _, t := range f.Tests {
		if !slices.ContainsFunc(r.Numerics, func(n Numeric) bool {
			return n.Namespace == t.Namespace && n.Kind == t.Kind && t.holds(n.key())
		}) {
			return false
		}
	}
	return true
}

func meet(a, b []string) bool {
	return slices.ContainsFunc(a, func(s string) bool { return slices.Contains(b, s) })
}
