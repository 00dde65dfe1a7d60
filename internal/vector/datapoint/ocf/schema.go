package ocf

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// kind of a type, as the specification names them.
type kind string

const (
	kindNull    kind = "null"
	kindBoolean kind = "boolean"
	kindInt     kind = "int"
	kindLong    kind = "long"
	kindFloat   kind = "float"
	kindDouble  kind = "double"
	kindBytes   kind = "bytes"
	kindString  kind = "string"
	kindRecord  kind = "record"
	kindEnum    kind = "enum"
	kindArray   kind = "array"
	kindMap     kind = "map"
	kindFixed   kind = "fixed"
	kindUnion   kind = "union"
)

// schema is one type. Named types are shared by those who refer to them, so that one
// may hold itself.
type schema struct {
	kind    kind
	fields  []field   // of a record
	symbols []string  // of an enum
	items   *schema   // of an array or a map
	size    int       // of a fixed
	members []*schema // of a union

	known  bool
	fewest int // see least
}

type field struct {
	name string
	of   *schema
}

// maxTypes and maxNesting bound what a header can ask for.
const (
	maxTypes   = 10_000
	maxNesting = 64
)

// parser reads one schema.
type parser struct {
	named map[string]*schema
	types int
}

func parseSchema(text []byte) (*schema, error) {
	p := parser{named: map[string]*schema{}}
	s, err := p.parse(text, "", 0)
	if err != nil {
		return nil, fmt.Errorf("the schema: %w", err)
	}
	return s, nil
}

func (p *parser) parse(text []byte, space string, depth int) (*schema, error) {
	if p.types++; p.types > maxTypes || depth > maxNesting {
		return nil, errors.New("it has too many types, or nests them too deep")
	}
	var name string
	var union []json.RawMessage
	switch {
	case json.Unmarshal(text, &name) == nil:
		return p.byName(name, space)
	case json.Unmarshal(text, &union) == nil:
		s := &schema{kind: kindUnion}
		for _, member := range union {
			m, err := p.parse(member, space, depth+1)
			if err != nil {
				return nil, err
			}
			s.members = append(s.members, m)
		}
		return s, nil
	}
	return p.complex(text, space, depth)
}

func (p *parser) byName(name, space string) (*schema, error) {
	if primitive := []kind{kindNull, kindBoolean, kindInt, kindLong, kindFloat, kindDouble, kindBytes, kindString}; slices.Contains(primitive, kind(name)) {
		return &schema{kind: kind(name)}, nil
	}
	if s := p.named[fullName(name, space)]; s != nil {
		return s, nil
	}
	return nil, fmt.Errorf("%.80q is no type that was defined before", name)
}

func fullName(name, space string) string {
	if space == "" || strings.Contains(name, ".") {
		return name
	}
	return space + "." + name
}

// complex reads a type that is an object.
func (p *parser) complex(text []byte, space string, depth int) (*schema, error) {
	var o struct {
		Type      json.RawMessage
		Name      string
		Namespace *string
		Fields    []struct {
			Name string
			Type json.RawMessage
		}
		Symbols       []string
		Items, Values json.RawMessage
		Size          int
	}
	if err := json.Unmarshal(text, &o); err != nil {
		return nil, err
	}
	var name string
	if json.Unmarshal(o.Type, &name) != nil {
		return p.parse(o.Type, space, depth+1) // {"type": {"type": ...}}
	}
	s := &schema{kind: kind(name), symbols: o.Symbols, size: o.Size}
	if o.Namespace != nil {
		space = *o.Namespace
	}
	full := fullName(o.Name, space)
	if i := strings.LastIndexByte(full, '.'); i >= 0 {
		space = full[:i]
	}
	var err error
	switch s.kind {
	case kindRecord:
		p.named[full] = s
		for _, f := range o.Fields {
			of, err := p.parse(f.Type, space, depth+1)
			if err != nil {
				return nil, fmt.Errorf("field %.80q: %w", f.Name, err)
			}
			s.fields = append(s.fields, field{f.Name, of})
		}
	case kindEnum:
		p.named[full] = s
	case kindFixed:
		p.named[full] = s
		if s.size < 0 {
			err = errors.New("a fixed has a negative size")
		}
	case kindArray:
		s.items, err = p.parse(o.Items, space, depth+1)
	case kindMap:
		s.items, err = p.parse(o.Values, space, depth+1)
	default: // a primitive type, perhaps with a logical one
		return p.byName(name, space)
	}
	return s, err
}

// least is how few bytes a value has; one that holds itself counts as one byte there.
func (s *schema) least() int {
	if s.known {
		return s.fewest
	}
	s.known, s.fewest = true, 1
	switch s.kind {
	case kindNull:
		s.fewest = 0
	case kindFloat:
		s.fewest = 4
	case kindDouble:
		s.fewest = 8
	case kindFixed:
		s.fewest = s.size
	case kindRecord:
		sum := 0
		for _, f := range s.fields {
			sum = min(sum+f.of.least(), maxBlock)
		}
		s.fewest = sum
	default: // a byte at least: of a number, a length, an index
	}
	return s.fewest
}
