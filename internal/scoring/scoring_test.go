package scoring

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/codes"

	"tategu/internal/resource"
	"tategu/internal/tensor"
)

func TestRequest(t *testing.T) {
	t.Parallel()
	const js, csv = "application/json", "text/csv; charset=utf-8"
	for name, c := range map[string]struct{ kind, body, want string }{
		"split":           {js, `{"dataframe_split": {"index": [7], "columns": ["a", "b"], "data": [[1, "x"], [null, [2]]]}}`, `[{"a":1,"b":"x"},{"a":null,"b":[2]}]`},
		"split, data 1st": {js, `{"dataframe_split": {"data": [[1, 2]], "columns": ["a", "b\""]}}`, `[{"a":1,"b\"":2}]`},
		"split, numbers":  {js, `{"dataframe_split": {"columns": [0, 1], "data": [[1, 2]]}}`, `[[1,2]]`},
		"split, bare":     {js, `{"dataframe_split": {"data": [[1, 2], [3]]}}`, `[[1,2],[3]]`},
		"records":         {js, `{"dataframe_records": [{"a": 1}]}`, `[{"a": 1}]`},
		"instances":       {"", `{"signature_name": "x", "instances": [1, "a"]}`, `[1, "a"]`},
		"columns":         {js, `{"inputs": {"a": [1, 2], "b": [[3], [4]]}}`, `[{"a":1,"b":[3]},{"a":2,"b":[4]}]`},
		"inputs":          {js, `{"inputs": [[1]]}`, `[[1]]`},
		"no rows":         {js, `{"inputs": {}}`, `[]`},
		"csv":             {csv, "1,-2.5e3,,x\n.5,+1,NaN,\"y\"\"\"\n", `[{"1":0.5,"-2.5e3":1,"":null,"x":"y\""}]`},
		"csv, header":     {csv, "a,b\n1,\n", `[{"a":1,"b":null}]`},
		"csv, numbers":    {csv, "1,-2.5e3,,007\n.5,+1,NaN,NA\n", `[[1,-2.5e3,null,7],[0.5,1,null,null]]`},
		"csv, nothing":    {csv, "", `[]`},
		"lines":           {"application/jsonlines", "[1]\n{\"a\":2}\n", `[[1],{"a":2}]`},
	} {
		got, err := Request(c.kind, []byte(c.body))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		var v struct{ Instances json.RawMessage }
		if err := json.Unmarshal(got, &v); err != nil {
			t.Errorf("%s: %v: %s", name, err, got)
		}
		if diff := cmp.Diff(parsed(t, c.want), parsed(t, string(v.Instances))); diff != "" {
			t.Errorf("%s (-want +got)\n%s", name, diff)
		}
	}
	got, err := Request(js, []byte(`{"params": {"raw_score": true}, "instances": []}`))
	if err != nil || string(got) != `{"instances":[],"parameters":{"raw_score": true}}` {
		t.Errorf("parameters: %s, %v", got, err)
	}
}

func parsed(t *testing.T, text string) (v any) {
	t.Helper()
	if err := json.Unmarshal([]byte(text), &v); err != nil {
		t.Fatalf("%v: %s", err, text)
	}
	return v
}

func TestRequestRefusals(t *testing.T) {
	t.Parallel()
	for body, want := range map[string]string{
		`{}`:                                 "none of dataframe_split",
		`{"instances": [], "inputs": []}`:    "want one of them",
		`{"dataframe_split": []}`:            "no object",
		`{"dataframe_split": {}}`:            "no data",
		`{"dataframe_split": {"data": 1}}`:   "no list of rows",
		`{"dataframe_split": {"data": [1]}}`: "row 0 is no list",
		`{"dataframe_split": {"columns": ["a"], "data": [[1, 2]]}}`: "2 values for 1 columns",
		`{"dataframe_records": {}}`:                                 "no list of rows",
		`{"instances": 1}`:                                          "no list of rows",
		`{"inputs": {"a": 1}}`:                                      `column "a" is no list`,
		`{"inputs": {"a": [1], "b": []}}`:                           `"a" has 1 values, "b" has 0`,
		`{"instances": [`:                                           "not valid JSON",
		`[]`:                                                        "not valid JSON",
		"{\"inputs\": {\"caf\xe9\": [1]}}":                          "is not UTF-8",
		"{\"dataframe_split\": {\"columns\": [\"caf\xe9\"], \"data\": [[1]]}}": "is not UTF-8",
	} {
		_, err := Request("application/json", []byte(body))
		if resource.CodeOf(err) != codes.InvalidArgument || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", body, err, want)
		}
	}
	for kind, body := range map[string]string{"text/csv": "a,b\n1\n", "text/csv; charset=latin1": "caf\xe9,b\n1,2\n", "text/html": "", "application/jsonlines": "[1] x", ";": ""} {
		if _, err := Request(kind, []byte(body)); resource.CodeOf(err) != codes.InvalidArgument {
			t.Errorf("%s: %v", kind, err)
		}
	}
}

func TestCSV(t *testing.T) {
	t.Parallel()
	got, err := CSV([]byte(`[1.5, [1, "a,b"], null, {"a": 1}]`))
	if want := "1.5\n1,\"a,b\"\nnull\n\"{\"\"a\"\": 1}\"\n"; err != nil || string(got) != want {
		t.Errorf("%q, %v", got, err)
	}
}

func floats(shape ...int64) tensor.Tensor {
	n, _ := tensor.Elements(shape)
	return tensor.Tensor{Type: tensor.Float64, Shape: shape, Data: tensor.Bytes(8 * n)}
}

func flags(rows int64, shape ...int64) tensor.Tensor {
	t := tensor.Tensor{Type: tensor.Bool, Shape: append([]int64{rows}, shape...)}
	n, _ := tensor.Elements(t.Shape)
	t.Data = make([]byte, n)
	return t
}

func ones(n int) []int64 { return slices.Repeat([]int64{1}, n) }

func TestInstances(t *testing.T) {
	t.Parallel()
	texts := tensor.Tensor{Type: tensor.String, Shape: []int64{2, 1}, Strings: [][]byte{[]byte("x"), []byte("y")}}
	for want, inputs := range map[string][]Named{
		`{"instances":[[0,0],[0,0]],"parameters":{}}`:                     {{"a", floats(2, 2)}},
		`{"instances":[0,0],"parameters":{}}`:                             {{"a", floats(2)}},
		`{"instances":[["x"],["y"]],"parameters":{}}`:                     {{"a", texts}},
		`{"instances":[{"a":0,"b":"x"},{"a":0,"b":"y"}],"parameters":{}}`: {{"a", floats(2, 1)}, {"b", texts}},
		`{"instances":[],"parameters":{}}`:                                {{"a", floats(0, 3)}},
	} {
		got, err := Instances(inputs, []byte("{}"))
		if err != nil || string(got) != want {
			t.Errorf("%s, %v, want %s", got, err, want)
		}
	}
	for want, inputs := range map[string][]Named{
		"no inputs":           nil,
		"no dimensions":       {{"a", floats()}},
		`of 2 instances, "b"`: {{"a", floats(2, 1)}, {"b", floats(3, 1)}},
		"without elements":    {{"a", floats(1e9, 0)}},
		// Brackets are many times what was sent.
		"the request as JSON": {{"a", flags(5<<20, ones(31)...)}},
		"larger than 256 MiB": {{"a", flags(1, append([]int64{5 << 20}, ones(30)...)...)}},
	} {
		if _, err := Instances(inputs, nil); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
}

func TestTensors(t *testing.T) {
	t.Parallel()
	for predictions, want := range map[string]string{
		`[1, 2.5, null]`:         `predictions FP64 [3] [1,2.5,null]`,
		`[1, 2]`:                 `predictions INT64 [2] [1,2]`,
		`[[1, 2], [3, 4]]`:       `predictions INT64 [2 2] [[1,2],[3,4]]`,
		`[[1, 2], [3]]`:          `predictions BYTES [2] ["[1, 2]","[3]"]`,
		`[true, false]`:          `predictions BOOL [2] [true,false]`,
		`["a", "b"]`:             `predictions BYTES [2] ["a","b"]`,
		`["a", 1]`:               `predictions BYTES [2] ["\"a\"","1"]`,
		`[[], []]`:               `predictions FP64 [2 0] [[],[]]`,
		`[]`:                     `predictions FP64 [0] []`,
		`[12345678901234567890]`: `predictions FP64 [1] [12345678901234567000]`,
		`[{"a": 1, "b": ["x"]}, {"b": ["y"], "a": 2.5}]`: `a FP64 [2] [1,2.5], b BYTES [2 1] [["x"],["y"]]`,
		`[{"a": 1}, {"b": 1}]`:                           `predictions BYTES [2] ["{\"a\": 1}","{\"b\": 1}"]`,
		`[{"a": {"b": 1}}]`:                              `a BYTES [1] ["{\"b\": 1}"]`,
		`[{}]`:                                           `predictions BYTES [1] ["{}"]`,
		`[[1, [2]]]`:                                     `predictions BYTES [1] ["[1, [2]]"]`,
	} {
		got, err := Tensors([]byte(predictions), false)
		if err != nil {
			t.Errorf("%s: %v", predictions, err)
			continue
		}
		var texts []string
		for _, n := range got {
			kind := map[tensor.Type]string{tensor.Float64: "FP64", tensor.Int64: "INT64", tensor.Bool: "BOOL", tensor.String: "BYTES"}[n.Type]
			texts = append(texts, n.Name+" "+kind+" "+shapeText(n.Shape)+" "+string(n.AppendJSON(nil)))
		}
		if text := strings.Join(texts, ", "); text != want {
			t.Errorf("%s: got %s, want %s", predictions, text, want)
		}
	}
	got, err := Tensors([]byte(`[1, 2]`), true)
	if err != nil || got[0].Type != tensor.Float64 {
		t.Errorf("whole numbers of a model of floats: %v, %v", got, err)
	}
}

func shapeText(shape []int64) string {
	b, _ := json.Marshal(shape)
	return strings.ReplaceAll(string(b), ",", " ")
}

// FuzzRequest: what is accepted is JSON with a list of instances, if the values that it
// was made of are.
func FuzzRequest(f *testing.F) {
	f.Add("application/json", []byte(`{"dataframe_split": {"columns": ["a"], "data": [[1], ["x"]]}, "params": {}}`))
	f.Add("application/json", []byte(`{"inputs": {"a": [1], "b": [null]}}`))
	f.Add("text/csv", []byte("a,b\n1,\"x\"\n"))
	f.Add("application/jsonlines", []byte("1\n[2]\n"))
	f.Fuzz(func(t *testing.T, kind string, body []byte) {
		out, err := Request(kind, body)
		if err != nil {
			return
		}
		if !strings.Contains(string(body), "N") && !strings.Contains(string(body), "I") && !json.Valid(out) && json.Valid(body) {
			t.Errorf("%q became %q", body, out)
		}
	})
}

// FuzzTensors: predictions that are valid JSON become tensors that hold together.
func FuzzTensors(f *testing.F) {
	for _, seed := range []string{`[1, 2.5]`, `[[1], [2]]`, `[{"a": 1}, {"a": "x"}]`, `["a", null]`, `[{"a":1,"a":2}]`, `[[[]]]`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, predictions []byte) {
		out, err := Tensors(predictions, false)
		if err != nil {
			return
		}
		for _, n := range out {
			if err := n.Check(); err != nil {
				t.Errorf("%q: %v", predictions, err)
			}
			_ = n.AppendJSON(nil)
		}
	})
}
