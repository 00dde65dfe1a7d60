package resource

import (
	"cmp"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/structpb"
)

func itoa(n int) string { return strconv.Itoa(n) }

// restriction compares the values at a path.
type restriction struct {
	path valuePath
	// test answers for one value; negate turns the answer for all of them.
	test   func(protoreflect.Value) bool
	negate bool
}

func (r restriction) match(m protoreflect.Message, _ CallFunc) (bool, error) {
	return r.path.visit(m, r.test) != r.negate, nil
}

// compare builds the restriction "segments op value".
func compare(s Schema, segments []string, op string, value literal) (node, error) {
	path, err := s.find(segments)
	if err != nil {
		return nil, err
	}
	r := restriction{path: path, negate: op == "!="}
	if r.negate {
		op = "="
	}
	if op == ":" && value.text == "*" && !value.quoted {
		r.test = present
		return r, nil
	}
	r.test, err = leafTest(path, op, value.text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", strings.Join(segments, "."), err)
	}
	return r, nil
}

// find resolves a path of fields or an alias.
func (s Schema) find(segments []string) (valuePath, error) {
	alias, ok := s.Aliases[segments[0]]
	if !ok || FieldByName(s.Message, segments[0]) != nil {
		return findPath(s.Message, segments)
	}
	target, byID := strings.CutSuffix(alias, "/")
	p, err := findPath(s.Message, append(strings.Split(target, "."), segments[1:]...))
	p.lastSegment = byID
	return p, err
}

// present is "field:*": set, and for scalars not the default.
func present(v protoreflect.Value) bool {
	switch x := v.Interface().(type) {
	case string:
		return x != ""
	case bool:
		return x
	case int32:
		return x != 0
	case int64:
		return x != 0
	case protoreflect.EnumNumber:
		return x != 0
	case protoreflect.Message:
		if val, ok := x.Interface().(*structpb.Value); ok {
			_, null := val.GetKind().(*structpb.Value_NullValue)
			return !null
		}
		return true
	default:
		return true
	}
}

// leafTest compares by the type of the field; the text is read once.
func leafTest(p valuePath, op, text string) (func(protoreflect.Value) bool, error) {
	fd := p.leaf
	switch {
	case fd == nil:
		return func(v protoreflect.Value) bool { return dynamicTest(v, op, text) }, nil
	case fd.IsMap() && len(p.steps) > 0 && p.steps[len(p.steps)-1].fd == fd:
		if op != ":" {
			return nil, errors.New("a map is compared by key (labels.key=value) or by has (labels:key)")
		}
		return func(v protoreflect.Value) bool { return v.String() == text }, nil
	}
	switch fd.Kind() {
	case protoreflect.StringKind:
		return textTest(op, text, p.lastSegment), nil
	case protoreflect.EnumKind:
		return enumTest(fd.Enum(), op, text)
	case protoreflect.BoolKind:
		want, err := strconv.ParseBool(strings.ToLower(text))
		if err != nil || op != "=" && op != ":" {
			return nil, fmt.Errorf("a boolean is compared by = or != with true or false, not %s %q", op, text)
		}
		return func(v protoreflect.Value) bool { return v.Bool() == want }, nil
	case protoreflect.MessageKind:
		return messageTest(fd.Message(), op, text)
	case protoreflect.BytesKind, protoreflect.GroupKind:
		return nil, errors.New("this field cannot be filtered by")
	default:
		return numberTest(op, text)
	}
}

func textTest(op, text string, byID bool) func(protoreflect.Value) bool {
	return func(v protoreflect.Value) bool {
		s := v.String()
		if byID {
			s = lastSegment(s)
		}
		return textMatches(s, op, text)
	}
}

func textMatches(s, op, text string) bool {
	if op == "=" || op == ":" {
		return matchWildcard(text, s)
	}
	return holds(op, strings.Compare(s, text))
}

func enumTest(ed protoreflect.EnumDescriptor, op, text string) (func(protoreflect.Value) bool, error) {
	want := protoreflect.EnumNumber(0)
	if n, err := strconv.ParseInt(text, 10, 32); err == nil {
		want = protoreflect.EnumNumber(n)
	} else {
		ev := ed.Values().ByName(protoreflect.Name(text))
		if ev == nil {
			return nil, fmt.Errorf("%q is not a value of %s", text, ed.Name())
		}
		want = ev.Number()
	}
	return func(v protoreflect.Value) bool { return holds(op, cmp.Compare(v.Enum(), want)) }, nil
}

func numberTest(op, text string) (func(protoreflect.Value) bool, error) {
	want, err := strconv.ParseFloat(text, 64)
	if err != nil {
		return nil, fmt.Errorf("%q is not a number", text)
	}
	return func(v protoreflect.Value) bool { return holds(op, cmp.Compare(number(v), want)) }, nil
}

func number(v protoreflect.Value) float64 {
	switch x := v.Interface().(type) {
	case int32:
		return float64(x)
	case int64:
		return float64(x)
	case uint32:
		return float64(x)
	case uint64:
		return float64(x)
	case float32:
		return float64(x)
	case float64:
		return x
	default:
		return 0
	}
}

func messageTest(md protoreflect.MessageDescriptor, op, text string) (func(protoreflect.Value) bool, error) {
	switch md.FullName() {
	case "google.protobuf.Timestamp":
		want, err := parseTime(text)
		if err != nil {
			return nil, err
		}
		return func(v protoreflect.Value) bool {
			sec, nanos := secondsOf(v.Message())
			return holds(op, time.Unix(sec, nanos).Compare(want))
		}, nil
	case "google.protobuf.Duration":
		want, err := time.ParseDuration(text)
		if err != nil {
			return nil, fmt.Errorf("%q is not a duration such as 30s", text)
		}
		return func(v protoreflect.Value) bool {
			sec, nanos := secondsOf(v.Message())
			return holds(op, cmp.Compare(time.Duration(sec)*time.Second+time.Duration(nanos), want))
		}, nil
	}
	return nil, fmt.Errorf("a %s is not compared as a whole: name one of its fields", md.Name())
}

func parseTime(text string) (time.Time, error) {
	for _, layout := range []string{time.RFC3339Nano, "2006-01-02T15:04:05.999999999", time.DateOnly} {
		if t, err := time.Parse(layout, text); err == nil {
			return t, nil
		}
	}
	return time.Time{}, fmt.Errorf("%q is not a time such as 2026-01-31T10:00:00Z", text)
}

// secondsOf reads a Timestamp or a Duration.
func secondsOf(m protoreflect.Message) (sec, nanos int64) {
	fields := m.Descriptor().Fields()
	return m.Get(fields.ByNumber(1)).Int(), m.Get(fields.ByNumber(2)).Int()
}

// dynamicTest compares a google.protobuf.Value by the type it has now.
func dynamicTest(v protoreflect.Value, op, text string) bool {
	switch k := dynamicValue(v.Message()).GetKind().(type) {
	case *structpb.Value_StringValue:
		return textMatches(k.StringValue, op, text)
	case *structpb.Value_NumberValue:
		want, err := strconv.ParseFloat(text, 64)
		return err == nil && holds(op, cmp.Compare(k.NumberValue, want))
	case *structpb.Value_BoolValue:
		want, err := strconv.ParseBool(text)
		return err == nil && (op == "=" || op == ":") && k.BoolValue == want
	case *structpb.Value_ListValue:
		for _, e := range k.ListValue.GetValues() {
			if dynamicTest(protoreflect.ValueOfMessage(e.ProtoReflect()), op, text) {
				return true
			}
		}
	case *structpb.Value_StructValue:
		_, has := k.StructValue.GetFields()[text]
		return op == ":" && has
	}
	return false
}

func holds(op string, order int) bool {
	switch op {
	case "<":
		return order < 0
	case "<=":
		return order <= 0
	case ">":
		return order > 0
	case ">=":
		return order >= 0
	default: // "=" and ":"
		return order == 0
	}
}

// matchWildcard matches s against a pattern in which "*" is any run and "\*" a
// star. It backtracks to the last star only, so it is O(len(pattern)*len(s)).
func matchWildcard(pattern, s string) bool {
	type mark struct{ p, s int }
	var star *mark
	p, i := 0, 0
	for i < len(s) || p < len(pattern) {
		switch {
		case p < len(pattern) && pattern[p] == '*':
			star = &mark{p + 1, i}
			p++
			continue
		case p < len(pattern) && i < len(s):
			width := 1
			if pattern[p] == '\\' && p+1 < len(pattern) && pattern[p+1] == '*' {
				width = 2
			}
			if pattern[p+width-1] == s[i] {
				p, i = p+width, i+1
				continue
			}
		}
		if star == nil || star.s >= len(s) {
			return false
		}
		star.s++
		p, i = star.p, star.s
	}
	return true
}
