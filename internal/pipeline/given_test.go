package pipeline

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"
)

const givenSpec = `{"schemaVersion": "2.1.0", "pipelineInfo": {"name": "p"}, "root": {"inputDefinitions": {"parameters": {
	"n": {"parameterType": "NUMBER_INTEGER"}, "rate": {"parameterType": "NUMBER_DOUBLE"}, "on": {"parameterType": "BOOLEAN"},
	"word": {"parameterType": "STRING"}, "rows": {"parameterType": "LIST"}, "map": {"parameterType": "STRUCT"}}}, "dag": {"tasks": {}}}}`

func TestGiven(t *testing.T) {
	t.Parallel()
	plan, err := ParseJSON([]byte(givenSpec))
	if err != nil {
		t.Fatal(err)
	}
	got, err := plan.Given(map[string]string{"n": "3", "rate": "0.5", "on": "True", "word": "3", "rows": `["a", 1]`, "map": `{"a": null}`})
	want := map[string]any{"n": 3.0, "rate": 0.5, "on": true, "word": "3", "rows": []any{"a", 1.0}, "map": map[string]any{"a": nil}}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %v, %v, want %v", got, err, want)
	}
	for name, text := range map[string]string{"n": "1.5", "rate": "fast", "on": "perhaps", "rows": "{}", "map": "[]", "other": "1"} {
		if _, err := plan.Given(map[string]string{name: text}); err == nil || !strings.Contains(err.Error(), `"`+name+`"`) {
			t.Errorf("%s=%s: %v", name, text, err)
		}
	}
}

// FuzzGiven reads any text as a parameter: what it takes has the declared type.
func FuzzGiven(f *testing.F) {
	plan, err := ParseJSON([]byte(givenSpec))
	if err != nil {
		f.Fatal(err)
	}
	for _, text := range []string{"3", "0.5", "true", "[1]", `{"a": 1}`, "", "null", "1e400"} {
		f.Add("n", text)
		f.Add("rows", text)
	}
	types := inputTypes(plan.root.comp)
	f.Fuzz(func(t *testing.T, name, text string) {
		got, err := plan.Given(map[string]string{name: text})
		if err != nil {
			return
		}
		if err := checkType(got[name], types[name]); err != nil {
			t.Errorf("%s=%q: %v", name, text, err)
		}
		if _, err := json.Marshal(got); err != nil {
			t.Errorf("%s=%q: %v", name, text, err)
		}
	})
}
