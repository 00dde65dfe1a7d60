package resource

import (
	"slices"
	"strings"
	"unicode/utf8"

	"google.golang.org/protobuf/reflect/protoreflect"
)

// Limits of a filter, so that no text makes the server work for long.
const (
	maxFilterLen   = 64 << 10
	maxFilterDepth = 64
)

// Schema says what a filter or an order may name.
type Schema struct {
	Message protoreflect.MessageDescriptor
	// Aliases maps a name that is not a field to a path; a path ending in "/"
	// stands for the last segment of the resource name in that field.
	Aliases map[string]string
	// Calls are names answered by the caller of Match: in_context("x"), or
	// parent_contexts:"a","b".
	Calls []string
}

// Filter is a checked AIP-160 filter over the fields of one message type:
//
//	display_name="a*" AND (state=JOB_STATE_FAILED OR create_time>"2026-01-01T00:00:00Z") AND NOT labels.team:*
//
// The operators are = != < <= > >= and : (has). As AIP-160 says, OR binds
// tighter than AND, terms side by side are joined by AND, "*" in a text stands
// for any run of characters, and "-" negates like NOT. a != b is the negation of
// a = b, so it holds for a label that is not there.
type Filter struct{ root node }

type node interface {
	match(m protoreflect.Message, call CallFunc) (bool, error)
}

// CallFunc answers the Calls of a Schema for the message under test.
type CallFunc func(name string, args []string) (bool, error)

// ParseFilter checks text. Errors name the place, the field or the value at fault.
func ParseFilter(text string, s Schema) (*Filter, error) {
	if strings.TrimSpace(text) == "" {
		return &Filter{}, nil
	}
	if len(text) > maxFilterLen || !utf8.ValidString(text) {
		return nil, Invalid("filter", "the filter is not UTF-8 text of at most %d bytes", maxFilterLen)
	}
	p := &filterParser{text: text, schema: s}
	root, err := p.expression(0)
	if err == nil && p.pos < len(p.text) {
		err = p.fail("%q is not expected here", p.rest())
	}
	if err != nil {
		return nil, err
	}
	return &Filter{root: root}, nil
}

// Empty reports a filter that every message passes.
func (f *Filter) Empty() bool { return f.root == nil }

// Match reports whether m passes. call may be nil when the schema has no Calls.
func (f *Filter) Match(m protoreflect.Message, call CallFunc) (bool, error) {
	if f.root == nil {
		return true, nil
	}
	return f.root.match(m, call)
}

type (
	allOf   []node
	anyOf   []node
	notNode struct{ node }
	callTo  struct {
		name string
		args []string
	}
)

func (a allOf) match(m protoreflect.Message, call CallFunc) (bool, error) {
	for _, n := range a {
		if ok, err := n.match(m, call); !ok || err != nil {
			return false, err
		}
	}
	return true, nil
}

func (a anyOf) match(m protoreflect.Message, call CallFunc) (bool, error) {
	for _, n := range a {
		if ok, err := n.match(m, call); ok || err != nil {
			return ok, err
		}
	}
	return false, nil
}

func (n notNode) match(m protoreflect.Message, call CallFunc) (bool, error) {
	ok, err := n.node.match(m, call)
	return !ok && err == nil, err
}

func (c callTo) match(_ protoreflect.Message, call CallFunc) (bool, error) {
	return call(c.name, c.args)
}

type filterParser struct {
	text   string
	pos    int
	schema Schema
}

func (p *filterParser) fail(format string, args ...any) error {
	e := Invalid("filter", format, args...)
	e.Message = "filter, at character " + itoa(utf8.RuneCountInString(p.text[:p.pos])+1) + ": " + e.Message
	return e
}

// rest is what follows, cut short for a message.
func (p *filterParser) rest() string {
	r := []rune(p.text[p.pos:min(len(p.text), p.pos+80)])
	return string(r[:min(len(r), 20)])
}

func (p *filterParser) space() {
	p.pos += len(p.text[p.pos:]) - len(strings.TrimLeft(p.text[p.pos:], " \t\r\n"))
}

// keyword takes AND, OR or NOT when it stands alone.
func (p *filterParser) keyword(word string) bool {
	p.space()
	rest, ok := strings.CutPrefix(p.text[p.pos:], word)
	if !ok || rest != "" && !strings.ContainsRune(" \t\r\n(", rune(rest[0])) {
		return false
	}
	p.pos += len(word)
	return true
}

func (p *filterParser) take(prefix string) bool {
	if !strings.HasPrefix(p.text[p.pos:], prefix) {
		return false
	}
	p.pos += len(prefix)
	return true
}

// expression = factor { [AND] factor }.
func (p *filterParser) expression(depth int) (node, error) {
	if depth > maxFilterDepth {
		return nil, p.fail("more than %d parentheses are nested", maxFilterDepth)
	}
	var all allOf
	for {
		n, err := p.factor(depth)
		if err != nil {
			return nil, err
		}
		all = append(all, n)
		if p.keyword("AND") {
			continue
		}
		if p.space(); p.pos == len(p.text) || p.text[p.pos] == ')' {
			break
		}
	}
	if len(all) == 1 {
		return all[0], nil
	}
	return all, nil
}

// factor = term { OR term }.
func (p *filterParser) factor(depth int) (node, error) {
	var alternatives anyOf
	for {
		n, err := p.term(depth)
		if err != nil {
			return nil, err
		}
		alternatives = append(alternatives, n)
		if !p.keyword("OR") {
			break
		}
	}
	if len(alternatives) == 1 {
		return alternatives[0], nil
	}
	return alternatives, nil
}

// term = [NOT | -] ( "(" expression ")" | restriction ).
func (p *filterParser) term(depth int) (node, error) {
	negate := p.keyword("NOT")
	p.space()
	if !negate {
		negate = p.take("-")
	}
	n, err := p.simple(depth)
	if err != nil || !negate {
		return n, err
	}
	return notNode{n}, nil
}

func (p *filterParser) simple(depth int) (node, error) {
	if !p.take("(") {
		return p.restriction()
	}
	n, err := p.expression(depth + 1)
	if err != nil {
		return nil, err
	}
	if p.space(); !p.take(")") {
		return nil, p.fail("a closing parenthesis is missing")
	}
	return n, nil
}

// restriction = path [ "(" args ")" | operator value ].
func (p *filterParser) restriction() (node, error) {
	start := p.pos
	segments, err := p.path()
	if err != nil {
		return nil, err
	}
	isCall := len(segments) == 1 && slices.Contains(p.schema.Calls, segments[0])
	if p.take("(") {
		if !isCall {
			p.pos = start
			return nil, p.fail("there is no function %q here", strings.Join(segments, "."))
		}
		args, err := p.values()
		if err != nil {
			return nil, err
		}
		if p.space(); !p.take(")") {
			return nil, p.fail("a closing parenthesis is missing")
		}
		return callTo{segments[0], args}, nil
	}
	op, err := p.operator(segments)
	if err != nil {
		return nil, err
	}
	if isCall {
		args, err := p.values()
		if err != nil {
			return nil, err
		}
		if op == "!=" {
			return notNode{callTo{segments[0], args}}, nil
		}
		return callTo{segments[0], args}, nil
	}
	p.space()
	value, err := p.value()
	if err != nil {
		return nil, err
	}
	n, err := compare(p.schema, segments, op, value)
	if err != nil {
		p.pos = start
		return nil, p.fail("%w", err)
	}
	return n, nil
}

func (p *filterParser) operator(segments []string) (string, error) {
	p.space()
	for _, op := range []string{"!=", "<=", ">=", "=", "<", ">", ":"} {
		if p.take(op) {
			return op, nil
		}
	}
	return "", p.fail("an operator (= != < <= > >= :) must follow %q", strings.Join(segments, "."))
}

// path = segment { "." segment }, where a segment may be quoted.
func (p *filterParser) path() ([]string, error) {
	var segments []string
	for {
		var seg string
		if p.pos < len(p.text) && (p.text[p.pos] == '"' || p.text[p.pos] == '\'') {
			quoted, err := p.quoted()
			if err != nil {
				return nil, err
			}
			seg = quoted
		} else {
			n := strings.IndexAny(p.text[p.pos:], " \t\r\n()=!<>:,.\"'")
			if n < 0 {
				n = len(p.text) - p.pos
			}
			seg = p.text[p.pos : p.pos+n]
			p.pos += n
		}
		if seg == "" {
			if p.pos == len(p.text) {
				return nil, p.fail("a field name is missing at the end")
			}
			return nil, p.fail("a field name is expected before %q", p.rest())
		}
		segments = append(segments, seg)
		if !p.take(".") {
			return segments, nil
		}
	}
}

// values = value { "," value }.
func (p *filterParser) values() ([]string, error) {
	var out []string
	for {
		p.space()
		v, err := p.value()
		if err != nil {
			return nil, err
		}
		out = append(out, v.text)
		if p.space(); !p.take(",") {
			return out, nil
		}
	}
}

// literal is a value as written; only an unquoted one may be a bare "*".
type literal struct {
	text   string
	quoted bool
}

func (p *filterParser) value() (literal, error) {
	if p.pos < len(p.text) && (p.text[p.pos] == '"' || p.text[p.pos] == '\'') {
		text, err := p.quoted()
		return literal{text: text, quoted: true}, err
	}
	n := strings.IndexAny(p.text[p.pos:], " \t\r\n(),\"")
	if n < 0 {
		n = len(p.text) - p.pos
	}
	if n == 0 {
		return literal{}, p.fail("a value is missing")
	}
	text := p.text[p.pos : p.pos+n]
	p.pos += n
	return literal{text: text}, nil
}

// quoted takes a string in single or double quotes; a backslash escapes the next
// character, except "*", which stays escaped for the wildcard.
func (p *filterParser) quoted() (string, error) {
	quote := p.text[p.pos]
	var b strings.Builder
	for i := p.pos + 1; i < len(p.text); i++ {
		switch c := p.text[i]; {
		case c == quote:
			p.pos = i + 1
			return b.String(), nil
		case c == '\\' && i+1 < len(p.text):
			i++
			if p.text[i] == '*' {
				b.WriteByte('\\')
			}
			b.WriteByte(p.text[i])
		default:
			b.WriteByte(c)
		}
	}
	return "", p.fail("a quote is not closed")
}
