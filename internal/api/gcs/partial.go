package gcs

import (
	"maps"
	"strings"

	"tategu/internal/resource"
)

// chosen is a parsed fields parameter: which members of an answer are given, and
// of those that are objects or lists, which of their members. nil gives all.
type chosen map[string]chosen

// maxFieldsDepth bounds nested choices; the API's answers are less deep.
const maxFieldsDepth = 10

// parseFields reads a,b/c,d(e,f/g),*
// (cloud.google.com/storage/docs/json_api#partial-response).
func parseFields(text string) (chosen, error) {
	p := fieldsParser{rest: text}
	out, err := p.list(0)
	if err == nil && p.rest != "" {
		err = p.fail()
	}
	return out, err
}

type fieldsParser struct{ rest string }

func (p *fieldsParser) fail() error {
	return resource.Invalid("fields", "the fields parameter cannot be read at %q: want names with commas between them, as in items(name,size),nextPageToken", p.rest)
}

func (p *fieldsParser) take(c byte) bool {
	if p.rest == "" || p.rest[0] != c {
		return false
	}
	p.rest = p.rest[1:]
	return true
}

func (p *fieldsParser) list(depth int) (chosen, error) {
	out := chosen{}
	for {
		name, of, err := p.field(depth)
		if err != nil {
			return nil, err
		}
		if have, ok := out[name]; ok && have != nil && of != nil {
			maps.Copy(have, of)
		} else if !ok || of == nil {
			out[name] = of
		}
		if !p.take(',') {
			return out, nil
		}
	}
}

func (p *fieldsParser) field(depth int) (name string, of chosen, err error) {
	if depth > maxFieldsDepth {
		return "", nil, p.fail()
	}
	p.rest = strings.TrimLeft(p.rest, " ")
	end := strings.IndexAny(p.rest, ",/() ")
	if end < 0 {
		end = len(p.rest)
	}
	name = p.rest[:end]
	if name == "" {
		return "", nil, p.fail()
	}
	p.rest = strings.TrimLeft(p.rest[end:], " ")
	switch {
	case p.take('/'):
		inner, of, err := p.field(depth + 1)
		return name, chosen{inner: of}, err
	case p.take('('):
		if of, err = p.list(depth + 1); err == nil && !p.take(')') {
			err = p.fail()
		}
	}
	return name, of, err
}

// choose gives the chosen part of an answer; lists are chosen from item by item.
func (f chosen) choose(v any) any {
	if f == nil {
		return v
	}
	switch v := v.(type) {
	case map[string]any:
		out := map[string]any{}
		for name, value := range v {
			of, ok := f[name]
			if !ok {
				of, ok = f["*"]
			}
			if ok {
				out[name] = of.choose(value)
			}
		}
		return out
	case []any:
		out := make([]any, len(v))
		for i, item := range v {
			out[i] = f.choose(item)
		}
		return out
	default:
		return v
	}
}
