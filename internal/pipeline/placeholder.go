package pipeline

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
)

// Placeholders are {{$}} and {{$.path}}. They are replaced in a single pass, so
// that a value which itself looks like a placeholder is never expanded.

// maxKey bounds what is looked up between "{{$" and "}}"; without it, text that
// opens placeholders and never closes them would be read again for each.
const maxKey = 4 << 10

// expand replaces what lookup knows; the rest stays as it is.
func expand(s string, lookup func(key string) (string, bool)) string {
	var b strings.Builder
	end := -1 // the next "}}" at or after what is left of s, as a position in s
	for at := 0; ; {
		begin := strings.Index(s[at:], "{{$")
		if begin < 0 {
			b.WriteString(s[at:])
			return b.String()
		}
		b.WriteString(s[at : at+begin])
		at += begin + len("{{$")
		if end < at {
			next := strings.Index(s[at:], "}}")
			if next < 0 {
				b.WriteString("{{$")
				b.WriteString(s[at:])
				return b.String()
			}
			end = at + next
		}
		if end-at <= maxKey {
			if value, ok := lookup(s[at:end]); ok {
				b.WriteString(value)
				at = end + len("}}")
				continue
			}
		}
		b.WriteString("{{$")
	}
}

// reference is a placeholder of an input or output, such as
// .inputs.artifacts['model'].metadata['k'].
type reference struct {
	output   bool
	artifact bool
	name     string
	part     string // uri, path, metadata, name, output_file or ""
	key      string // of metadata
}

// parseReference reads the text between "{{$" and "}}".
func parseReference(key string) (reference, bool) {
	var r reference
	rest, ok := strings.CutPrefix(key, ".inputs.")
	if !ok {
		if rest, ok = strings.CutPrefix(key, ".outputs."); !ok {
			return r, false
		}
		r.output = true
	}
	if after, isArtifact := strings.CutPrefix(rest, "artifacts"); isArtifact {
		r.artifact, rest = true, after
	} else if rest, ok = strings.CutPrefix(rest, "parameters"); !ok {
		return r, false
	}
	if r.name, rest, ok = subscript(rest); !ok {
		return r, false
	}
	if rest == "" {
		return r, true
	}
	if rest, ok = strings.CutPrefix(rest, "."); !ok {
		return r, false
	}
	r.part, rest = rest, ""
	if i := strings.IndexByte(r.part, '['); i >= 0 {
		r.part, rest = r.part[:i], r.part[i:]
	}
	if rest != "" {
		r.key, rest, ok = subscript(rest)
	}
	return r, ok && rest == ""
}

// subscript cuts ['name'] or ["name"] off s.
func subscript(s string) (name, rest string, ok bool) {
	for _, q := range []string{"'", `"`} {
		if inner, found := strings.CutPrefix(s, "["+q); found {
			return strings.Cut(inner, q+"]")
		}
	}
	return "", s, false
}

// scope is what placeholders mean in one instance of a task.
type scope struct {
	inputs Values
	types  map[string]paramType
	job    map[string]string // without "." before and "}}" behind

	// Set for programs only:
	outputs       map[string][]Artifact
	files         map[string]string // output_file of each output parameter
	outputFile    string
	executorInput string
	// templates are inputs whose default names placeholders: what is known when the
	// program starts is put into them where they are used.
	templates map[string]bool
	// inside says that what is looked up goes into a text within a JSON value, which
	// is escaped as a whole.
	inside bool
}

func (s *scope) lookup(key string) (string, bool) {
	key, escapes := cutEscape(key)
	value, ok := s.value(key)
	if escapes && ok && !s.inside {
		quoted := string(encode(value))
		value = quoted[1 : len(quoted)-1]
	}
	return value, ok
}

// cutEscape cuts .json_escape[1] off a key, which asks for the value as it stands
// within a JSON text; with 0 it asks for nothing.
func cutEscape(key string) (rest string, escapes bool) {
	rest, escapes = strings.CutSuffix(key, ".json_escape[1]")
	return strings.TrimSuffix(rest, ".json_escape[0]"), escapes
}

func (s *scope) value(key string) (string, bool) {
	switch key {
	case "":
		return s.executorInput, s.executorInput != ""
	case ".outputs.output_file", ".outputMetadataUri":
		return s.outputFile, s.outputFile != ""
	}
	if r, ok := parseReference(key); ok {
		return s.resolve(r)
	}
	value, ok := s.job[strings.TrimPrefix(key, ".")]
	return value, ok
}

func (s *scope) resolve(r reference) (string, bool) {
	switch {
	case !r.artifact && !r.output && s.templates[r.name]:
		return text(s.fill(s.inputs.Parameters[r.name]), s.types[r.name]), true
	case !r.artifact && !r.output:
		return text(s.inputs.Parameters[r.name], s.types[r.name]), true
	case !r.artifact:
		file, ok := s.files[r.name]
		return file, ok && r.part == "output_file"
	case r.output:
		return artifactPart(s.outputs[r.name], r), true
	default:
		return artifactPart(s.inputs.Artifacts[r.name], r), true
	}
}

func artifactPart(list []Artifact, r reference) string {
	if r.part == "" {
		return string(encode(executorArtifacts(list).Artifacts))
	}
	if len(list) == 0 {
		return ""
	}
	a := list[0]
	switch r.part {
	case "uri":
		return a.URI
	case "path":
		return a.path()
	case "name":
		return a.Name
	case "metadata":
		if r.key != "" {
			return plainText(a.Metadata[r.key])
		}
		return string(encode(a.Metadata))
	default:
		return ""
	}
}

// arguments turns the strings of a command into arguments: a string that is a
// Concat or IfPresent structure becomes none, one or several.
func (s *scope) arguments(strs []string) ([]string, error) {
	var out []string
	for _, str := range strs {
		structure, ok := parseStructure(str)
		if !ok {
			out = append(out, expand(str, s.lookup))
			continue
		}
		args, err := s.structure(structure)
		if err != nil {
			return nil, err
		}
		out = append(out, args...)
	}
	return out, nil
}

// parseStructure recognises {"Concat": ...} and {"IfPresent": ...}.
func parseStructure(s string) (any, bool) {
	if !strings.HasPrefix(s, `{"Concat"`) && !strings.HasPrefix(s, `{"IfPresent"`) {
		return nil, false
	}
	var v any
	return v, json.Unmarshal([]byte(s), &v) == nil
}

// structure gives the arguments that a part of a structure stands for.
func (s *scope) structure(v any) ([]string, error) {
	switch v := v.(type) {
	case string:
		return []string{expand(v, s.lookup)}, nil
	case []any:
		var out []string
		for _, item := range v {
			args, err := s.structure(item)
			if err != nil {
				return nil, err
			}
			out = append(out, args...)
		}
		return out, nil
	case map[string]any:
		if parts, ok := v["Concat"]; ok {
			args, err := s.structure(parts)
			return []string{strings.Join(args, "")}, err
		}
		if c, ok := v["IfPresent"].(map[string]any); ok {
			return s.ifPresent(c)
		}
	case nil:
		return nil, nil
	}
	return nil, fmt.Errorf("a command holds %s, which is neither Concat nor IfPresent", clip(string(encode(v)), 80))
}

func (s *scope) ifPresent(c map[string]any) ([]string, error) {
	name, _ := c["InputName"].(string)
	_, present := s.inputs.Parameters[name]
	if present || len(s.inputs.Artifacts[name]) > 0 {
		return s.structure(c["Then"])
	}
	return s.structure(c["Else"])
}

// checkPlaceholders refuses a command that names an input or output which its
// component does not have.
func checkPlaceholders(g *graph, t *task) error {
	c := t.container()
	for i, str := range c.GetCommand() {
		if err := checkString(g, t, "container.command["+strconv.Itoa(i)+"]", str); err != nil {
			return err
		}
	}
	for i, str := range c.GetArgs() {
		if err := checkString(g, t, "container.args["+strconv.Itoa(i)+"]", str); err != nil {
			return err
		}
	}
	for _, e := range c.GetEnv() {
		if err := checkString(g, t, "container.env["+e.GetName()+"]", e.GetValue()); err != nil {
			return err
		}
	}
	return nil
}

func checkString(g *graph, t *task, where, str string) error {
	var err error
	expand(str, func(key string) (string, bool) {
		if err == nil {
			err = checkKey(g, t, where, key)
		}
		return "", true
	})
	return err
}

func checkKey(g *graph, t *task, where, key string) error {
	key, _ = cutEscape(key)
	r, ok := parseReference(key)
	if !ok || declared(t, r) {
		return nil
	}
	return invalid(g, t.name, where, "{{$%s}} is not an input or output of its component", key)
}

func declared(t *task, r reference) bool {
	in, out := t.comp.GetInputDefinitions(), t.comp.GetOutputDefinitions()
	switch {
	case r.artifact && r.output:
		return out.GetArtifacts()[r.name] != nil
	case r.artifact:
		return in.GetArtifacts()[r.name] != nil
	case r.output:
		return out.GetParameters()[r.name] != nil
	default:
		return in.GetParameters()[r.name] != nil || t.spec.GetInputs().GetParameters()[r.name] != nil
	}
}
