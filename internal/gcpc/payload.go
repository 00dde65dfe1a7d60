package gcpc

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"strings"

	"tategu/internal/resource"
)

// DecodePayload reads the JSON object of a launcher's argument. The components put
// it together from text, so that values bring control characters into strings;
// those are taken as they are (json.loads with strict=False does the same). Numbers
// stay as they are written.
func DecodePayload(argument, text string) (map[string]any, error) {
	d := json.NewDecoder(bytes.NewReader(escapeControls(text)))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil {
		return nil, malformed(argument, text, err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, resource.Invalid(argument, "%s goes on after its JSON object", argument).WithHint(quoteHint)
	}
	object, ok := v.(map[string]any)
	if !ok {
		return nil, resource.Invalid(argument, "%s is JSON, but not an object: %.80s", argument, text)
	}
	return object, nil
}

// quoteHint is the usual mistake: the components do not escape what they are given.
const quoteHint = `an input of the component with a quotation mark or a backslash in it breaks the JSON around it: escape it, or leave it out`

func malformed(argument, text string, err error) error {
	if strings.TrimSpace(text) == "" {
		return resource.Invalid(argument, "%s is empty: want a JSON object", argument)
	}
	e := resource.Invalid(argument, "%s is not JSON: %v", argument, err)
	if syntax, ok := errors.AsType[*json.SyntaxError](err); ok {
		escaped := escapeControls(text)
		at := min(int(syntax.Offset), len(escaped))
		e = resource.Invalid(argument, "%s is not JSON: %v, after %s", argument, err, strings.ToValidUTF8(string(escaped[max(0, at-60):at]), ""))
	}
	return e.WithHint(quoteHint)
}

// escapeControls writes the control characters within strings as JSON wants them.
func escapeControls(text string) []byte {
	var b bytes.Buffer
	inside, escaped := false, false
	for i := range len(text) {
		c := text[i]
		switch {
		case inside && c < 0x20:
			fmt.Fprintf(&b, `\u%04x`, c)
			escaped = false
			continue
		case escaped:
			escaped = false
		case inside && c == '\\':
			escaped = true
		case c == '"':
			inside = !inside
		}
		b.WriteByte(c)
	}
	return b.Bytes()
}

// Compact removes what a component wrote for inputs that were not given: its
// payload names every field, and false, 0, "" and whatever is empty mean that nobody
// set it. Elements of lists that are numbers, texts or booleans stay.
func Compact(object map[string]any) map[string]any {
	out, _ := compact(object).(map[string]any)
	if out == nil {
		out = map[string]any{}
	}
	// Outputs of an explanation may well be empty (gcp_launcher/utils/json_util.py).
	if outputs, ok := at(object, "explanation_spec", "metadata")["outputs"]; ok {
		put(out, outputs, "explanation_spec", "metadata", "outputs")
	}
	return out
}

// compact gives nil for what is to be removed.
func compact(v any) any {
	switch v := v.(type) {
	case map[string]any:
		out := map[string]any{}
		for k, item := range v {
			if kept := compact(item); kept != nil {
				out[k] = kept
			}
		}
		if len(out) == 0 {
			return nil
		}
		return out
	case []any:
		var out []any
		for _, item := range v {
			switch item.(type) {
			case map[string]any, []any, nil:
				item = compact(item)
			}
			if item != nil {
				out = append(out, item)
			}
		}
		if len(out) == 0 {
			return nil
		}
		return out
	case string:
		if v == "" {
			return nil
		}
	case bool:
		if !v {
			return nil
		}
	case json.Number:
		if f, err := v.Float64(); err == nil && f == 0 {
			return nil
		}
	case float64:
		if v == 0 {
			return nil
		}
	}
	return v
}

// at gives the object at a path of keys, nil when there is none.
func at(object map[string]any, path ...string) map[string]any {
	for _, key := range path {
		object, _ = object[key].(map[string]any)
	}
	return object
}

// put sets the value at a path of keys, making objects on the way.
func put(object map[string]any, value any, path ...string) {
	for _, key := range path[:len(path)-1] {
		next, ok := object[key].(map[string]any)
		if !ok {
			next = map[string]any{}
			object[key] = next
		}
		object = next
	}
	object[path[len(path)-1]] = value
}

// AddLabels gives what is to be made the labels of its run besides its own, which
// win. labels is the variable VERTEX_AI_PIPELINES_RUN_LABELS; what cannot be read is
// left out, as there.
func AddLabels(object map[string]any, labels string) {
	all := map[string]any{}
	var ofRun map[string]string
	if json.Unmarshal([]byte(labels), &ofRun) == nil {
		for k, v := range ofRun {
			all[k] = v
		}
	}
	own, _ := object["labels"].(map[string]any)
	maps.Copy(all, own)
	object["labels"] = all
}
