package pipeline

import (
	"maps"
	"slices"
	"strings"

	"tategu/internal/resource"
)

// Given makes parameters of a run out of text as people type it: what the pipeline
// declares says how each is read. Lists and structs are JSON.
func (p *Plan) Given(text map[string]string) (map[string]any, error) {
	types := inputTypes(p.root.comp)
	out := map[string]any{}
	for _, k := range sortedKeys(text) {
		t, declared := types[k]
		if !declared {
			return nil, resource.Invalid("parameters", "the pipeline %s has no parameter %q", p.Name, k).WithHint("%s", p.known())
		}
		v, err := fromText(text[k], t)
		if err != nil {
			return nil, resource.Invalid("parameters", "parameter %q: %v", k, err).WithHint("%s", spelled(t.String()))
		}
		out[k] = v
	}
	return out, nil
}

// known lists the parameters with their types.
func (p *Plan) known() string {
	types := inputTypes(p.root.comp)
	names := slices.Sorted(maps.Keys(types))
	if len(names) == 0 {
		return "it takes no parameters"
	}
	for i, k := range names {
		names[i] = k + " (" + types[k].String() + ")"
	}
	return "its parameters are: " + strings.Join(names, ", ")
}

func spelled(t string) string {
	switch t {
	case "LIST":
		return `write a list as JSON: '["a", "b"]'`
	case "STRUCT":
		return `write a struct as JSON: '{"a": 1}'`
	case "BOOLEAN":
		return "write true or false"
	}
	return "write a number"
}
