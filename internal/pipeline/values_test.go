package pipeline

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	ps "tategu/internal/pipeline/pipelinespec"
)

func TestNumbersAreWrittenByTheirType(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		value any
		typ   paramType
		want  string
	}{
		{21.0, ps.ParameterType_NUMBER_DOUBLE, "21.0"},
		{21.0, ps.ParameterType_NUMBER_INTEGER, "21"},
		{0.5, ps.ParameterType_NUMBER_DOUBLE, "0.5"},
		{1e21, ps.ParameterType_NUMBER_DOUBLE, "1e+21"},
		{1e14, ps.ParameterType_NUMBER_INTEGER, "100000000000000"},
		{true, ps.ParameterType_BOOLEAN, "true"},
		{"<a&b>", ps.ParameterType_STRING, "<a&b>"},
		{[]any{"<", 1.0, 2.5, nil}, ps.ParameterType_LIST, `["<",1,2.5,null]`},
		{map[string]any{"b": 1.0, "a": "x"}, ps.ParameterType_STRUCT, `{"a":"x","b":1}`},
		{nil, ps.ParameterType_STRING, "null"},
	} {
		if got := text(tt.value, tt.typ); got != tt.want {
			t.Errorf("text(%v, %s) = %s, want %s", tt.value, tt.typ, got, tt.want)
		}
	}
}

func TestConvert(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		value any
		typ   paramType
		want  any // a string that starts with "!" is part of the error
	}{
		{3.0, ps.ParameterType_STRING, "3"},
		{[]any{1.0}, ps.ParameterType_STRING, "[1]"},
		{"3", ps.ParameterType_NUMBER_INTEGER, 3.0},
		{"3.5", ps.ParameterType_NUMBER_INTEGER, "!NUMBER_INTEGER"},
		{"True", ps.ParameterType_BOOLEAN, true},
		{`{"a":[1]}`, ps.ParameterType_STRUCT, map[string]any{"a": []any{1.0}}},
		{"nonsense", ps.ParameterType_LIST, "!nonsense"},
		{true, ps.ParameterType_NUMBER_DOUBLE, "!boolean true"},
		{"y", ps.ParameterType_STRING, "y"},
	} {
		got, err := convert(tt.value, tt.typ)
		if want, ok := tt.want.(string); ok && strings.HasPrefix(want, "!") {
			if err == nil || !strings.Contains(err.Error(), want[1:]) {
				t.Errorf("convert(%v, %s) = %v, %v; want an error with %q", tt.value, tt.typ, got, err, want[1:])
			}
			continue
		}
		if diff := cmp.Diff(tt.want, got); diff != "" || err != nil {
			t.Errorf("convert(%v, %s): %v %s", tt.value, tt.typ, err, diff)
		}
	}
}

func testScope() *scope {
	return &scope{
		inputs: Values{
			Parameters: map[string]any{"s": "a {{$.inputs.parameters['f']}} b", "f": 21.0, "n": 3.0},
			Artifacts: map[string][]Artifact{"m": {{
				Name: "name", URI: "gs://b/x y/m", Schema: Schema{Title: "system.Model", Version: "0.0.1"}, Metadata: map[string]any{"k": 2.0, "l": []any{1.0}},
			}}},
		},
		types: map[string]paramType{"f": ps.ParameterType_NUMBER_DOUBLE, "n": ps.ParameterType_NUMBER_INTEGER},
		job:   map[string]string{"pipeline_job_name": "job"}, files: map[string]string{"o": "/gcs/b/o"},
		outputs: map[string][]Artifact{"out": {{URI: "gs://b/out"}}}, outputFile: "/gcs/b/executor_output.json", executorInput: `{"a":"b"}`,
	}
}

func TestPlaceholders(t *testing.T) {
	t.Parallel()
	s := testScope()
	for in, want := range map[string]string{
		"plain":                            "plain",
		"{{$}}":                            `{"a":"b"}`,
		"{{$.json_escape[1]}}":             `{\"a\":\"b\"}`,
		"{{$.inputs.parameters['f']}}":     "21.0",
		`x={{$.inputs.parameters["n"]}};`:  "x=3;",
		"{{$.inputs.parameters['s']}}":     "a {{$.inputs.parameters['f']}} b", // a value is never expanded
		"{{$.inputs.parameters['gone']}}":  "null",
		"{{$.inputs.artifacts['m'].uri}}":  "gs://b/x y/m",
		"{{$.inputs.artifacts['m'].path}}": "/gcs/b/x y/m",
		"{{$.inputs.artifacts['m'].name}}": "name",
		"{{$.outputs.artifacts['out'].uri}}{{$.outputs.output_file}}": "gs://b/out/gcs/b/executor_output.json",
		"{{$.inputs.artifacts['m'].metadata['k']}}":                   "2",
		"{{$.inputs.artifacts['m'].metadata['l']}}":                   "[1]",
		"{{$.inputs.artifacts['m'].metadata}}":                        `{"k":2,"l":[1]}`,
		"{{$.outputs.parameters['o'].output_file}}":                   "/gcs/b/o",
		"{{$.pipeline_job_name}}/{{$.unknown}}":                       "job/{{$.unknown}}",
		"{{$.inputs":                                                  "{{$.inputs",
	} {
		if got := expand(in, s.lookup); got != want {
			t.Errorf("expand(%s) = %s, want %s", in, got, want)
		}
	}
}

func TestStructuresInCommands(t *testing.T) {
	t.Parallel()
	s := testScope()
	for in, want := range map[string][]string{
		`{"Concat": ["--n=", "{{$.inputs.parameters['n']}}"]}`:                                      {"--n=3"},
		`{"IfPresent": {"InputName": "n", "Then": ["--n", "{{$.inputs.parameters['n']}}"]}}`:        {"--n", "3"},
		`{"IfPresent": {"InputName": "gone", "Then": ["--n"], "Else": "none"}}`:                     {"none"},
		`{"IfPresent": {"InputName": "gone", "Then": ["--n"]}}`:                                     nil,
		`{"IfPresent": {"InputName": "m", "Then": "{{$.inputs.artifacts['m'].uri}}"}}`:              {"gs://b/x y/m"},
		`{"Concat": ["a", {"IfPresent": {"InputName": "n", "Then": {"Concat": ["b", "c"]}}}, "d"]}`: {"abcd"},
		`{"Other": 1}`: {`{"Other": 1}`},
	} {
		got, err := s.arguments([]string{in})
		if diff := cmp.Diff(want, got); diff != "" || err != nil {
			t.Errorf("%s: %v %s", in, err, diff)
		}
	}
}

func TestLightweightShape(t *testing.T) {
	t.Parallel()
	install := "\nif ! [ -x \"$(command -v pip)\" ]; then\n    python3 -m ensurepip || python3 -m ensurepip --user || apt-get install python3-pip\nfi\n\n" +
		"PIP_DISABLE_PIP_VERSION_CHECK=1 python3 -m pip install --quiet --no-warn-script-location --index-url https://i.example/simple --extra-index-url https://j.example 'pandas==2.2.3' 'x[y]>=1'  &&  " +
		"python3 -m pip install --quiet --no-warn-script-location --index-url https://i.example/simple --extra-index-url https://j.example 'kfp==2.17.0' '--no-deps' 'typing-extensions>=3.7.4,<5; python_version<\"3.9\"' && \"$0\" \"$@\"\n"
	run := "program_path=$(mktemp -d)\n\nprintf \"%s\" \"$0\" > \"$program_path/ephemeral_component.py\"\n_KFP_RUNTIME=true python3 -m kfp.dsl.executor_main --component_module_path \"$program_path/ephemeral_component.py\" \"$@\"\n"
	got, ok := parseLightweight([]string{"sh", "-c", install, "sh", "-ec", run, "def f(): pass"}, "docker.io/library/python:3.12-slim")
	want := lightweight{source: "def f(): pass", module: "kfp.dsl.executor_main", version: "3.12", install: pipInstall{
		packages: []string{"pandas==2.2.3", "x[y]>=1", "--no-deps kfp==2.17.0", `--no-deps typing-extensions>=3.7.4,<5; python_version<"3.9"`},
		indexes:  []string{"https://i.example/simple", "https://j.example"},
	}}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(lightweight{}, pipInstall{})); diff != "" || !ok {
		t.Errorf("%v %s", ok, diff)
	}
	if _, ok := parseLightweight([]string{"sh", "-ec", run, "def f(): pass"}, "x"); !ok {
		t.Error("a function without packages is not recognised")
	}
	for name, command := range map[string][]string{
		"program":     {"echo", "hi"},
		"own script":  {"sh", "-ec", "echo hi", "x"},
		"pip options": {"sh", "-c", "pip install -r requirements.txt", "sh", "-ec", run, "x"},
		"no pip":      {"sh", "-c", "echo hi", "sh", "-ec", run, "x"},
	} {
		if _, ok := parseLightweight(command, "x"); ok {
			t.Errorf("%s is taken for a Python function", name)
		}
	}
}

func TestQuantity(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]float64{"500m": 0.5, "2": 2, "1.5G": 1.5e9, "512Mi": 512 << 20, "4Gi": 4 << 30} {
		if got, err := quantity(in); got != want || err != nil {
			t.Errorf("quantity(%q) = %v, %v", in, got, err)
		}
	}
	for _, in := range []string{"", "x", "-1", "1Q", "1mm", "{{$.inputs.parameters['a']}}"} {
		if got, err := quantity(in); err == nil {
			t.Errorf("quantity(%q) = %v, want an error", in, got)
		}
	}
}

func FuzzExpand(f *testing.F) {
	f.Add("a{{$.inputs.parameters['n']}}{{$}}b{{$")
	f.Fuzz(func(t *testing.T, s string) {
		got := expand(s, func(string) (string, bool) { return "", false })
		if got != s {
			t.Errorf("expand(%q) = %q: unknown placeholders stay", s, got)
		}
		shellCommands(s)
	})
}
