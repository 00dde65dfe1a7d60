package pipeline

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	pb "cloud.google.com/go/aiplatform/apiv1beta1/aiplatformpb"
	"go.yaml.in/yaml/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"

	"tategu/internal/resource"
)

// weighed asks both forms of a request, which must agree, and gives the error.
func weighed(t *testing.T, spec *structpb.Struct) error {
	t.Helper()
	text, err := spec.MarshalJSON()
	if err != nil {
		t.Fatal(err)
	}
	req := &pb.CreatePipelineJobRequest{Parent: "p", PipelineJob: &pb.PipelineJob{DisplayName: "x", PipelineSpec: spec}}
	data, err := proto.Marshal(req)
	if err != nil {
		t.Fatal(err)
	}
	byText := WeighJSON([]byte(`{"displayName": "x\"", "labels": {"a": "{"}, "pipelineSpec": ` + string(text) + `, "runtimeConfig": {}}`))
	byWire := WeighWire(data, req.ProtoReflect().Descriptor())
	if (byText == nil) != (byWire == nil) || byText != nil && len(text) < maxSpec && byText.Error() != byWire.Error() {
		t.Fatalf("JSON: %v; wire: %v", byText, byWire)
	}
	sched := []byte(`{"createPipelineJobRequest": {"parent": "p", "pipeline_job": {"pipeline_spec": ` + string(text) + `}}}`)
	if again := WeighJSON(sched); (again == nil) != (byText == nil) {
		t.Fatalf("in a schedule: %v; alone: %v", again, byText)
	}
	return byText
}

// written makes a pipeline of text.
func written(t *testing.T, root, components string) *structpb.Struct {
	t.Helper()
	s := &structpb.Struct{}
	if err := s.UnmarshalJSON([]byte(`{"schemaVersion":"2.1.0","pipelineInfo":{"name":"b"},"deploymentSpec":{"executors":{"e":{"container":{"image":"i","command":["c"]}}}},
"root":{"dag":{"tasks":{` + root + `}}},"components":{"z":{"executorLabel":"e"}` + components + `}}`)); err != nil {
		t.Fatal(err)
	}
	return s
}

func nested(levels int) string {
	var b strings.Builder
	for i := range levels {
		last := fmt.Sprintf("x%d", i+1)
		if i == levels-1 {
			last = "z"
		}
		fmt.Fprintf(&b, `,"x%d":{"dag":{"tasks":{"t":{"componentRef":{"name":%q}}, "u":{"componentRef":{"name":"z"}}}}}`, i, last)
	}
	return b.String()
}

func tasks(n int) string {
	list := make([]string, n)
	for i := range list {
		list[i] = fmt.Sprintf(`"t%d":{"componentRef":{"name":"z"},"inputs":{"parameters":{"a":{"runtimeValue":{"constant":{"dag":{"tasks":{"no":{}}}}}}}}}`, i)
	}
	return strings.Join(list, ",")
}

func looped(n int) string {
	items := "[" + strings.TrimSuffix(strings.Repeat(`{"a": [1, "],["]}, `, n), ", ") + "]"
	return fmt.Sprintf(`"l":{"componentRef":{"name":"z"},"parameterIterator":{"itemInput":"i","items":{"raw":%q}}}`, items)
}

// TestWeigh: each bound is told by its name, in both forms, and at exactly the
// place where Parse has it.
func TestWeigh(t *testing.T) {
	t.Parallel()
	start := `"a":{"componentRef":{"name":"x0"}}`
	for name, c := range map[string]struct {
		spec *structpb.Struct
		want string // "" = it passes
	}{
		"tasks":           {written(t, tasks(maxTasks), ""), ""},
		"a task more":     {written(t, tasks(maxTasks+1), ""), "the pipeline has more than 20000 tasks"},
		"below":           {written(t, start, `,"x0":{"dag":{"tasks":{`+tasks(maxTasks)+`}}}`), "the pipeline has more than 20000 tasks"},
		"nested":          {written(t, start, nested(maxDepth-1)), ""},
		"a level more":    {written(t, start, nested(maxDepth)), "components are nested more than 64 deep"},
		"very deep":       {written(t, start, nested(5000)), "components are nested more than 64 deep"},
		"itself":          {written(t, start, `,"x0":{"dag":{"tasks":{"t":{"componentRef":{"name":"x0"}}}}}`), ""},
		"iterations":      {written(t, looped(maxIterations), ""), ""},
		"an iteration":    {written(t, looped(maxIterations+1), ""), `task "l": its 100001 iterations are too many: the loops of a run have at most 100000 together`},
		"an iteration in": {written(t, start, `,"x0":{"dag":{"tasks":{`+looped(maxIterations+1)+`}}}`), `task "l": its 100001 iterations are too many`},
		"long":            {written(t, `"a":{"taskInfo":{"name":"`+strings.Repeat("n", maxSpec)+`"}}`, ""), "16777216 (16 MiB) is the most"},
	} {
		err := weighed(t, c.spec)
		switch {
		case c.want == "" && err != nil:
			t.Errorf("%s: %v", name, err)
		case c.want != "" && (resource.CodeOf(err) != codes.InvalidArgument || !strings.Contains(err.Error(), c.want)):
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
		if name == "nested" {
			if _, err := Parse(c.spec); err != nil {
				t.Errorf("%s: Parse: %v", name, err)
			}
		}
	}
}

// TestWeighEverything: what compilers write passes.
func TestWeighEverything(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("testdata/*/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var doc map[string]any
		if err := yaml.Unmarshal(text, &doc); err != nil {
			continue // it has another form
		}
		if err := WeighJSON(encode(map[string]any{"pipelineSpec": doc})); err != nil {
			t.Errorf("%s: %v", file, err)
		}
	}
}

// FuzzWeigh: both forms agree, whatever comes; what is no JSON ends.
func FuzzWeigh(f *testing.F) {
	for _, ir := range machinePipelines(f) {
		f.Add(ir, 3)
	}
	f.Add([]byte(`{"root":{"dag":{"tasks":{"a":{"componentRef":{"name":"a\u0062"},"parameterIterator":{"items":{"raw":"[1,[2,3],{}]"}}}}}}}`), 0)
	f.Add([]byte(`{"root":[{]}}"`), 1)
	f.Fuzz(func(t *testing.T, text []byte, cut int) {
		_ = WeighJSON(append([]byte(`{"pipelineSpec":`), text...)) // must return
		_ = countItems(text)
		if cut >= 0 && cut < len(text) {
			_ = WeighJSON(text[cut:])
			_ = WeighWire(text[cut:], (&pb.CreateScheduleRequest{}).ProtoReflect().Descriptor())
		}
		spec := &structpb.Struct{}
		if spec.UnmarshalJSON(text) != nil {
			return
		}
		data, err := proto.Marshal(spec)
		if err != nil {
			return
		}
		ours, theirs := newMeter(), newMeter()
		plain, err := spec.MarshalJSON()
		if err != nil {
			return
		}
		if err := (&scanner{text: plain}).walk(ours); err != nil {
			return
		}
		if err := walkStruct(data, theirs, maxWalk); err != nil {
			t.Fatal(err)
		}
		if ours.tasks != theirs.tasks || len(ours.refs) != len(theirs.refs) {
			t.Fatalf("JSON: %d tasks, %d components; wire: %d, %d", ours.tasks, len(ours.refs), theirs.tasks, len(theirs.refs))
		}
	})
}
