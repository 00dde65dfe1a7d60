package wire

import (
	"fmt"
	"slices"
	"strings"
)

// template is a parsed path of a google.api.http rule; the grammar is in
// google/api/http.proto.
type template struct {
	segments []string // literals, "*", and "**" as the last one
	verb     string   // without its colon
	vars     []variable
}

// variable binds segments[start:end] to a field path.
type variable struct {
	field      string
	start, end int
}

func parseTemplate(s string) (template, error) {
	var t template
	rest, ok := strings.CutPrefix(s, "/")
	if !ok {
		return t, fmt.Errorf("path template %q does not start with a slash", s)
	}
	if brace, colon := strings.LastIndexByte(rest, '}'), strings.LastIndexByte(rest, ':'); colon > brace {
		rest, t.verb = rest[:colon], rest[colon+1:]
		if t.verb == "" || strings.ContainsAny(t.verb, "/{}*:") {
			return t, fmt.Errorf("path template %q has a bad verb", s)
		}
	}
	for more := true; more; {
		var err error
		if strings.HasPrefix(rest, "{") {
			rest, more, err = t.variable(rest)
		} else {
			var segment string
			segment, rest, more = strings.Cut(rest, "/")
			err = t.segment(segment)
		}
		if err != nil {
			return t, fmt.Errorf("path template %q: %w", s, err)
		}
	}
	if i := slices.Index(t.segments, "**"); i >= 0 && i != len(t.segments)-1 {
		return t, fmt.Errorf("path template %q has ** before its end", s)
	}
	return t, nil
}

// variable reads {field=pattern} off rest.
func (t *template) variable(rest string) (after string, more bool, err error) {
	inside, after, ok := strings.Cut(rest[1:], "}")
	if !ok {
		return "", false, fmt.Errorf("a brace is not closed in %q", rest)
	}
	if after != "" && after[0] != '/' {
		return "", false, fmt.Errorf("%q follows a variable", after)
	}
	after, more = strings.CutPrefix(after, "/")
	field, pattern, ok := strings.Cut(inside, "=")
	if !ok {
		pattern = "*"
	}
	if field == "" || strings.ContainsAny(field, "{/*") {
		return "", false, fmt.Errorf("%q is no field", field)
	}
	start := len(t.segments)
	for segment := range strings.SplitSeq(pattern, "/") {
		if err := t.segment(segment); err != nil {
			return "", false, err
		}
	}
	t.vars = append(t.vars, variable{field: field, start: start, end: len(t.segments)})
	return after, more, nil
}

func (t *template) segment(s string) error {
	if s == "" || s != "*" && s != "**" && strings.ContainsAny(s, "*{}") {
		return fmt.Errorf("%q is no segment", s)
	}
	t.segments = append(t.segments, s)
	return nil
}
