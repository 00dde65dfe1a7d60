package pipeline

import (
	"reflect"
	"strings"

	ps "tategu/internal/pipeline/pipelinespec"
)

// Components of google-cloud-pipeline-components have defaults that name
// placeholders: the project of the run, and whole worker pools with the command of a
// component in them. What is known of the run is put in with the inputs, the rest
// when the program is made. A value from elsewhere is never looked at.

// templatesOf gives the inputs with such a default, as values of their types.
func templatesOf(c *ps.ComponentSpec) map[string]any {
	var out map[string]any
	for k, def := range c.GetInputDefinitions().GetParameters() {
		d := def.GetDefaultValue()
		if d == nil || !strings.Contains(plainText(d.AsInterface()), "{{$") {
			continue
		}
		value, err := convert(d.AsInterface(), typeOf(def))
		if err != nil {
			continue // told when the default is used
		}
		if out == nil {
			out = map[string]any{}
		}
		out[k] = value
	}
	return out
}

// templatesAmong tells which inputs are such defaults.
func (t *task) templatesAmong(inputs Values, job map[string]string) map[string]bool {
	var out map[string]bool
	for k, template := range t.templates {
		if !reflect.DeepEqual(inputs.Parameters[k], ofRun(template, job)) {
			continue
		}
		if out == nil {
			out = map[string]bool{}
		}
		out[k] = true
	}
	return out
}

// ofRun replaces the placeholders about the run and the task, which are known before
// the program is.
func ofRun(value any, job map[string]string) any {
	return mapTexts(value, func(text string) string {
		return expand(text, func(key string) (string, bool) {
			v, ok := job[strings.TrimPrefix(key, ".")]
			return v, ok
		})
	})
}

// mapTexts changes every text within a JSON value.
func mapTexts(v any, change func(string) string) any {
	switch v := v.(type) {
	case string:
		return change(v)
	case []any:
		out := make([]any, len(v))
		for i := range v {
			out[i] = mapTexts(v[i], change)
		}
		return out
	case map[string]any:
		out := make(map[string]any, len(v))
		for k, item := range v {
			out[k] = mapTexts(item, change)
		}
		return out
	default:
		return v
	}
}

// fill replaces what is left in a template once the program is known. What it puts in
// is not looked at again.
func (s *scope) fill(template any) any {
	once := *s
	once.templates = nil
	if str, ok := template.(string); ok {
		return expand(str, once.lookup)
	}
	once.inside = true
	return once.fillIn(template)
}

// fillIn is expandAll for a command within a template: an item of a list may stand
// for none, one or several.
func (s *scope) fillIn(v any) any {
	switch v := v.(type) {
	case []any:
		out := make([]any, 0, len(v))
		for _, item := range v {
			out = append(out, s.words(item)...)
		}
		return out
	case map[string]any:
		out := make(map[string]any, len(v))
		for k, item := range v {
			out[k] = s.fillIn(item)
		}
		return out
	default:
		return expandAll(v, s)
	}
}

func (s *scope) words(item any) []any {
	str, _ := item.(string)
	if structure, ok := parseStructure(str); ok {
		if args, err := s.structure(structure); err == nil {
			out := make([]any, len(args))
			for i := range args {
				out[i] = args[i]
			}
			return out
		}
	}
	return []any{s.fillIn(item)}
}
