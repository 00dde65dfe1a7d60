package pipeline

import (
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/txtar"
	"go.yaml.in/yaml/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/structpb"

	"tategu/internal/resource"
	"tategu/internal/runtime"
)

// slowExpand is expand as its definition reads: at each "{{$", what stands before
// the next "}}" is looked up.
func slowExpand(s string, lookup func(string) (string, bool)) string {
	before, rest, found := strings.Cut(s, "{{$")
	if !found {
		return s
	}
	if key, after, closed := strings.Cut(rest, "}}"); closed && len(key) <= maxKey {
		if value, ok := lookup(key); ok {
			return before + value + slowExpand(after, lookup)
		}
	}
	return before + "{{$" + slowExpand(rest, lookup)
}

// FuzzPlaceholder compares expand with its definition.
func FuzzPlaceholder(f *testing.F) {
	for _, s := range []string{"", "{{$}}", "a{{$.x}}b{{$.y}}c", "{{${{$.x}}}}", "{{${{${{$", "{{$.x}", "}}{{$.x}}", "{{$.x}}{{$.x}}", "{{$.no}}{{$.x}}"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		lookup := func(key string) (string, bool) { return "<" + key + ">", len(key)%2 == 0 }
		if got, want := expand(s, lookup), slowExpand(s, lookup); got != want {
			t.Fatalf("expand(%q) = %q, want %q", s, got, want)
		}
	})
}

// TestOpenPlaceholders: text that opens placeholders without an end is read once;
// reading it again for each took minutes for a megabyte.
func TestOpenPlaceholders(t *testing.T) {
	t.Parallel()
	s := strings.Repeat("{{$", 400_000)
	looked := 0
	got := expand(s+"}}", func(string) (string, bool) { looked++; return "", false })
	if got != s+"}}" || looked > maxKey {
		t.Errorf("%d look-ups, %d bytes of %d", looked, len(got), len(s))
	}
}

// FuzzQuantity: a quantity is a number that can be compared and converted.
func FuzzQuantity(f *testing.F) {
	for _, s := range []string{"500m", "2", "1.5G", "512Mi", "inf", "nan", "1e999", "0x1p3", "9999999999Ei", "-1", "1_0"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		v, err := quantity(s)
		if err == nil && (math.IsNaN(v) || v < 0 || v > math.MaxInt64/2) {
			t.Fatalf("quantity(%q) = %v", s, v)
		}
	})
}

// FuzzCondition: whatever compiles answers true, false or an error, within the
// limit on its cost.
func FuzzCondition(f *testing.F) {
	for _, s := range []string{
		"inputs.parameter_values['x'] == 'q'", "int(inputs.parameter_values['n']) > 3 && !(1.5 == 1.0)", "inputs.parameters['n'].int_value == 1",
		"parseJson('{\"a\":1}')['a'] == 1.0", "[1,2,3].all(x, x > 0)", "[1,2].map(x, [1,2].map(y, y)) == []", "1/0 == 1", "inputs.parameter_values['list'].size() > 1",
		"'a'.matches('(a*)*b')", "string(inputs) == ''", "parseJson('" + strings.Repeat("[", 200) + "') == null",
	} {
		f.Add(s)
	}
	exprs, err := newExpressions()
	if err != nil {
		f.Fatal(err)
	}
	params := map[string]any{"x": "q", "n": 3.0, "nan": math.NaN(), "nil": nil, "list": []any{1.0, "a", nil, map[string]any{"k": true}}, "b": true}
	f.Fuzz(func(_ *testing.T, s string) {
		if p, err := compile(exprs.conditions, s); err == nil {
			_, _ = evalCondition(p, params) // must return
		}
		if p, err := compile(exprs.selectors, s); err == nil {
			_, _ = evalSelector(p, params["list"]) // the same
		}
	})
}

// FuzzPlan runs every pipeline that is accepted against programs that succeed at
// once and write nothing: the run ends, in a bounded number of steps.
func FuzzPlan(f *testing.F) {
	for _, ir := range machinePipelines(f) {
		f.Add(ir)
	}
	f.Fuzz(func(t *testing.T, ir []byte) {
		plan, err := ParseJSON(ir)
		if err != nil {
			if code := resource.CodeOf(err); code != codes.InvalidArgument && code != codes.Unimplemented {
				t.Fatalf("%s: %v", code, err)
			}
			return
		}
		if plan.root.size > 200 {
			return // long, not deep
		}
		if err := plan.Check(func(runtime.Workload) error { return nil }); err != nil {
			t.Fatal(err)
		}
		params, err := plan.Parameters(nil)
		if err != nil {
			return
		}
		runToEnd(t, plan, params)
	})
}

// machinePipelines gives the pipelines of the machine's own cases as JSON.
func machinePipelines(f *testing.F) [][]byte {
	f.Helper()
	files, err := filepath.Glob("testdata/machine/*.txtar")
	if err != nil {
		f.Fatal(err)
	}
	var out [][]byte
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		for _, part := range txtar.Parse(text).Files {
			var doc map[string]any
			if part.Name != "pipeline.yaml" {
				continue
			}
			if err := yaml.Unmarshal(part.Data, &doc); err != nil {
				f.Fatal(err)
			}
			out = append(out, encode(doc))
		}
	}
	return out
}

func runToEnd(t *testing.T, plan *Plan, params map[string]any) {
	t.Helper()
	m := newMachine(plan, run{name: "projects/p/locations/l/pipelineJobs/j", id: "j", number: "1", root: "gs://b/r", parameters: params, artifacts: map[string][]Artifact{}})
	now := time.Unix(1, 0)
	queue := []event{began{}}
	for steps := 0; len(queue) > 0 && !m.done(); steps++ {
		if steps > 20_000 {
			t.Fatal("the run does not end")
		}
		ev := queue[0]
		queue = queue[1:]
		now = now.Add(time.Second)
		for _, a := range m.step(now, ev) {
			switch a := a.(type) {
			case lookup:
				queue = append(queue, looked{path: a.path})
			case find:
				queue = append(queue, found{path: a.path})
			case grow:
				queue = append(queue, grown(a))
			case start:
				queue = append(queue, ended{path: a.path, attempt: a.attempt})
			case wake:
				if n := m.nodes[a.path]; n == nil || n.Attempt < 20 { // retries may be many
					queue = append(queue, due{path: a.path})
				}
			default:
			}
		}
	}
}

// TestBombs: specs that are small to write and large to run are refused.
func TestBombs(t *testing.T) {
	t.Parallel()
	const head = `{"schemaVersion":"2.1.0","pipelineInfo":{"name":"b"},"deploymentSpec":{"executors":{"e":{"container":{"image":"i","command":["c"]}}}},"root":{"dag":{"tasks":{"a":{"componentRef":{"name":"x0"}}}}},"components":{"z":{"executorLabel":"e"}`
	chain, double := &strings.Builder{}, &strings.Builder{}
	for i := range 2000 {
		last := "x" + itoa(i+1)
		if i == 1999 {
			last = "z"
		}
		chain.WriteString(`,"x` + itoa(i) + `":{"dag":{"tasks":{"t":{"componentRef":{"name":"` + last + `"}}}}}`)
	}
	for i := range 40 {
		last := "x" + itoa(i+1)
		if i == 39 {
			last = "z"
		}
		double.WriteString(`,"x` + itoa(i) + `":{"dag":{"tasks":{"s":{"componentRef":{"name":"` + last + `"}},"t":{"componentRef":{"name":"` + last + `"}}}}}`)
	}
	for name, c := range map[string]struct{ components, want string }{
		"chain":  {chain.String(), "nested more than"},
		"double": {double.String(), "more than 20000 tasks"},
		"cycle":  {`,"x0":{"dag":{"tasks":{"t":{"componentRef":{"name":"x0"}}}}}`, "contains itself"},
	} {
		if _, err := ParseJSON([]byte(head + c.components + "}}")); resource.CodeOf(err) != codes.InvalidArgument || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestSpecTooLong: the size is told before the spec is read.
func TestSpecTooLong(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", maxSpec+1)
	spec := &structpb.Struct{Fields: map[string]*structpb.Value{"a": structpb.NewStringValue(long)}}
	if _, err := Parse(spec); resource.CodeOf(err) != codes.InvalidArgument || !strings.Contains(err.Error(), "16 MiB") {
		t.Error(err)
	}
	if _, err := ParseJSON([]byte(long)); resource.CodeOf(err) != codes.InvalidArgument || !strings.Contains(err.Error(), "16 MiB") {
		t.Error(err)
	}
}

func itoa(n int) string { return string(encode(float64(n))) }
