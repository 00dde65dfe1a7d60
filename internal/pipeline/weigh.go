package pipeline

import (
	"bytes"
	"encoding/json"
	"slices"

	"tategu/internal/resource"
)

// A request with a pipeline is weighed before it is decoded: decoded, it takes many
// times its size, and the bounds of a pipeline can be told from its text in one pass
// that keeps nothing but the names of its components. What is wrong in another way
// is left to Parse, which has the last word on the bounds too: it sees components
// that are used several times.

// meter follows a pipeline spec as it is read: which object is open, and what in it
// counts.
type meter struct {
	path  []string // keys of the open objects, an item of a list has "", at most pathKept
	depth int      // open objects and lists
	tasks int
	refs  map[string][]string // components of the tasks of a component; "" is the root's own
}

// pathKept is as deep as anything lies that counts:
// components NAME dag tasks NAME parameterIterator items raw.
const pathKept = 8

func newMeter() *meter { return &meter{refs: map[string][]string{}} }

func (m *meter) open(key string) error {
	if m.depth++; m.depth <= pathKept {
		m.path = append(m.path, key)
	}
	if component, rest, ok := m.inTasks(); ok && len(rest) == 1 {
		if m.tasks++; m.tasks > maxTasks {
			return resource.Invalid(field, "the pipeline has more than %d tasks", maxTasks)
		}
		if m.refs[component] == nil {
			m.refs[component] = []string{}
		}
	}
	return nil
}

func (m *meter) close() {
	if m.depth <= pathKept {
		m.path = m.path[:max(0, len(m.path)-1)]
	}
	m.depth--
}

// inTasks gives the component whose tasks the path lies in, and what comes below.
func (m *meter) inTasks() (component string, rest []string, ok bool) {
	p := m.path
	switch {
	case len(p) > 2 && p[0] == "root" && p[1] == "dag" && p[2] == "tasks":
		return "", p[3:], true
	case len(p) > 4 && p[0] == "components" && p[2] == "dag" && p[3] == "tasks":
		return p[1], p[4:], true
	}
	return "", nil, false
}

// wants reports whether a text by this key is one that counts.
func (m *meter) wants(key string) bool {
	if m.depth > pathKept || key != "name" && key != "raw" {
		return false
	}
	_, rest, ok := m.inTasks()
	switch {
	case !ok:
		return false
	case key == "name":
		return len(rest) == 2 && (rest[1] == "componentRef" || rest[1] == "component_ref")
	default:
		return len(rest) == 3 && (rest[1] == "parameterIterator" || rest[1] == "parameter_iterator") && rest[2] == "items"
	}
}

// text takes a text that was wanted.
func (m *meter) text(key, value string) error {
	component, rest, _ := m.inTasks()
	if key == "name" {
		m.refs[component] = append(m.refs[component], value)
		return nil
	}
	if n := countItems([]byte(value)); n > maxIterations {
		where := field + ".root.dag.tasks"
		if component != "" {
			where = field + ".components[" + component + "].dag.tasks"
		}
		return resource.Invalid(where+"["+rest[0]+"].parameterIterator.items.raw",
			"task %q: its %d iterations are too many: the loops of a run have at most %d together", rest[0], n, maxIterations)
	}
	return nil
}

// end is called when the whole spec was seen.
func (m *meter) end() error {
	height := map[string]int{} // of graphs below a component, itself included
	var walk func(name string, above []string) (int, error)
	walk = func(name string, above []string) (int, error) {
		refs, graph := m.refs[name]
		if !graph || slices.Contains(above, name) { // a program; or a cycle, which Parse names
			return 0, nil
		}
		if h, ok := height[name]; ok && len(above)+h <= maxDepth {
			return h, nil
		}
		if len(above) >= maxDepth {
			return 0, resource.Invalid(field+".components["+name+"]", "components are nested more than %d deep", maxDepth)
		}
		most := 0
		for _, ref := range refs {
			h, err := walk(ref, append(slices.Clip(above), name))
			if err != nil {
				return 0, err
			}
			most = max(most, h)
		}
		height[name] = most + 1
		return most + 1, nil
	}
	_, err := walk("", nil)
	return err
}

// holders are the fields that lead to a pipeline_spec.
var holders = []string{"pipelineJob", "pipeline_job", "schedule", "createPipelineJobRequest", "create_pipeline_job_request"} //nolint:gochecknoglobals // a constant

// WeighJSON checks the bounds of the pipeline in the body of a request: a
// PipelineJob, a Schedule, or what holds one. Text that is no JSON passes.
func WeighJSON(text []byte) error {
	s := &scanner{text: text}
	return s.holder(len(holders))
}

// scanner reads JSON without keeping it. It trusts nothing and reports nothing: what
// is no JSON ends it.
type scanner struct {
	text []byte
	at   int
}

// next gives the next byte that is no space; 0 = the end.
func (s *scanner) next() byte {
	for s.at < len(s.text) {
		switch c := s.text[s.at]; c {
		case ' ', '\t', '\r', '\n', ',', ':':
			s.at++
		default:
			return c
		}
	}
	return 0
}

// quoted reads a text with its quotes; nil = it has no end.
func (s *scanner) quoted() []byte {
	from := s.at
	for i := from + 1; i < len(s.text); i++ {
		switch s.text[i] {
		case '\\':
			i++
		case '"':
			s.at = i + 1
			return s.text[from:s.at]
		}
	}
	s.at = len(s.text)
	return nil
}

// unquoted is the text between quotes.
func unquoted(quoted []byte) string {
	if bytes.IndexByte(quoted, '\\') < 0 && len(quoted) >= 2 {
		return string(quoted[1 : len(quoted)-1])
	}
	var text string
	if json.Unmarshal(quoted, &text) != nil {
		return "" // the decoder will say so
	}
	return text
}

// skip passes over one value.
func (s *scanner) skip() {
	for depth := 0; ; {
		switch s.next() {
		case 0:
			return
		case '{', '[':
			depth++
			s.at++
		case '}', ']':
			if depth == 0 {
				return // the end of what is around it
			}
			depth--
			s.at++
		case '"':
			s.quoted()
		default:
			s.word()
		}
		if depth == 0 {
			return
		}
	}
}

// word passes over a number or a name.
func (s *scanner) word() {
	for s.at < len(s.text) && bytes.IndexByte([]byte(" \t\r\n,:{}[]\""), s.text[s.at]) < 0 {
		s.at++
	}
}

// holder looks for pipeline specs in an object, at most so many levels down.
func (s *scanner) holder(levels int) error {
	if s.next() != '{' {
		return nil
	}
	s.at++
	for {
		switch s.next() {
		case '"':
		case '}':
			s.at++
			return nil
		default:
			return nil
		}
		key := unquoted(s.quoted())
		var err error
		switch {
		case key == "pipelineSpec" || key == "pipeline_spec":
			err = s.spec()
		case levels > 0 && slices.Contains(holders, key) && s.next() == '{':
			err = s.holder(levels - 1)
		default:
			s.skip()
		}
		if err != nil {
			return err
		}
	}
}

// spec weighs one pipeline spec.
func (s *scanner) spec() error {
	s.next()
	from := s.at
	s.skip()
	if n := s.at - from; n > maxSpec {
		return tooBig(n)
	}
	inner, m := &scanner{text: s.text[from:s.at]}, newMeter()
	if err := inner.walk(m); err != nil {
		return err
	}
	return m.end()
}

// walk shows the meter the objects and the texts of a value.
func (s *scanner) walk(m *meter) error {
	var objects []bool // what is open: objects and lists
	key, haveKey := "", false
	for {
		c := s.next()
		inObject := len(objects) > 0 && objects[len(objects)-1]
		switch {
		case c == 0:
			return nil
		case c == '}' || c == ']':
			s.at++
			if len(objects) == 0 {
				return nil
			}
			if objects = objects[:len(objects)-1]; len(objects) > 0 {
				m.close()
			}
			haveKey = false
		case c == '{' || c == '[':
			s.at++
			if len(objects) > 0 {
				if err := m.open(key); err != nil {
					return err
				}
			}
			objects = append(objects, c == '{')
			key, haveKey = "", false
		case c == '"' && inObject && !haveKey:
			quoted := s.quoted()
			key, haveKey = "", true
			if m.depth < pathKept {
				key = unquoted(quoted)
			}
		case c == '"':
			quoted := s.quoted()
			if m.wants(key) {
				if err := m.text(key, unquoted(quoted)); err != nil {
					return err
				}
			}
			haveKey = false
		default:
			from := s.at
			if s.word(); s.at == from {
				s.at++
			}
			haveKey = false
		}
	}
}

// countItems gives the number of items of a JSON list.
func countItems(text []byte) int {
	s := &scanner{text: text}
	if s.next() != '[' {
		return 0
	}
	s.at++
	n := 0
	for c := s.next(); c != 0 && c != ']' && c != '}'; c = s.next() {
		from := s.at
		s.skip()
		if s.at == from {
			break
		}
		n++
	}
	return n
}
