package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/structpb"

	pb "cloud.google.com/go/aiplatform/apiv1beta1/aiplatformpb"

	"tategu/internal/pipeline"
	"tategu/internal/resource"
	"tategu/internal/runtime"
)

// runSpecs mutates pipeline specs and gives them to the parser as CreatePipelineJob
// does: parsed, parameters filled in, every program checked.
func runSpecs(ctx context.Context, o options, r *report) error {
	specs, err := loadSpecs(o.shared)
	if err != nil {
		return err
	}
	if len(specs) == 0 {
		return errors.New("no pipeline specs to mutate")
	}
	r.notef("pipeline specs: %d to mutate", len(specs))
	for n := range o.specs {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		// The second stream of the seed: requests have the first.
		rnd := rand.New(rand.NewPCG(o.seed, 1<<32+uint64(n))) //nolint:gosec // G404: seeded on purpose
		text, how := specs[rnd.IntN(len(specs))], "as it is"
		if n >= len(specs) {
			text, how = mutateSpec(rnd, text)
		}
		if r.verbose && len(text) > large {
			r.notef("spec %d, %d bytes: %s", n, len(text), how)
		}
		began := time.Now()
		what := trySpec(text, r)
		if took := time.Since(began); took > time.Second && r.verbose {
			r.notef("spec %d took %.1fs: %s", n, took.Seconds(), how)
		}
		if what != "" {
			r.fail(what, fmt.Sprintf("go run ./test/mutate -n 0 -specs %d -seed %d (spec %d)", o.specs, o.seed, n), how+"\n"+clip(text, 3000))
			continue
		}
		r.pass()
	}
	return nil
}

// loadSpecs reads the pipelines of the corpus, and compiled ones where there are
// some.
func loadSpecs(shared string) ([][]byte, error) {
	_, seeds, err := loadCorpus()
	if err != nil {
		return nil, err
	}
	var specs [][]byte
	for _, s := range seeds {
		var body struct {
			PipelineSpec json.RawMessage `json:"pipelineSpec"`
		}
		if json.Unmarshal(s.body, &body) == nil && len(body.PipelineSpec) > 0 {
			specs = append(specs, body.PipelineSpec)
		}
	}
	for _, dir := range []string{"internal/pipeline/testdata", filepath.Join(shared, "conformance", "kfp")} {
		err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() || filepath.Ext(path) != ".yaml" {
				return err
			}
			text, err := readSpec(path)
			if err == nil && text != nil {
				specs = append(specs, text)
			}
			return err
		})
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
	}
	return specs, nil
}

// readSpec gives the first YAML document of a file as JSON, nil for one that has
// no JSON form.
func readSpec(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }() // opened for reading
	var doc map[string]any
	if err := yaml.NewDecoder(f).Decode(&doc); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if inner, ok := doc["pipelineSpec"].(map[string]any); ok {
		doc = inner
	}
	text, err := json.Marshal(doc)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return text, nil
}

func mutateSpec(r *rand.Rand, text []byte) ([]byte, string) {
	if r.IntN(50) == 0 {
		return bomb(r)
	}
	how := make([]string, 0, 3)
	for range 1 + r.IntN(3) {
		next, what := mutateJSON(r, text)
		how = append(how, what)
		if _, err := parseJSON(next); err != nil {
			break // no JSON any more
		}
		if text = next; len(text) > maxText {
			break
		}
	}
	return text, strings.Join(how, "; ")
}

// bomb makes a spec that is small to write and large to hold or slow to read.
func bomb(r *rand.Rand) ([]byte, string) {
	n := []int{100, 3000, 15_000, 100_000}[r.IntN(4)]
	var b strings.Builder
	b.WriteString(`{"schemaVersion":"2.1.0","pipelineInfo":{"name":"bomb"},"deploymentSpec":{"executors":{"e":{"container":{"image":"i","command":["c"]}}}},"components":{"c":{"executorLabel":"e"}`)
	var tasks, how string
	switch r.IntN(6) {
	case 0:
		how = fmt.Sprintf("a chain of %d components", n)
		for i := range n {
			fmt.Fprintf(&b, `,"x%d":{"dag":{"tasks":{"t":{"componentRef":{"name":"x%d"}}}}}`, i, i+1)
		}
		fmt.Fprintf(&b, `,"x%d":{"executorLabel":"e"}`, n)
		tasks = `"a":{"componentRef":{"name":"x0"}}`
	case 1:
		how = fmt.Sprintf("%d levels that double", min(n, 300))
		for i := range min(n, 300) {
			fmt.Fprintf(&b, `,"x%d":{"dag":{"tasks":{"s":{"componentRef":{"name":"x%d"}},"t":{"componentRef":{"name":"x%d"}}}}}`, i, i+1, i+1)
		}
		fmt.Fprintf(&b, `,"x%d":{"executorLabel":"e"}`, min(n, 300))
		tasks = `"a":{"componentRef":{"name":"x0"}}`
	case 2:
		how = fmt.Sprintf("%d tasks", n)
		var t strings.Builder
		for i := range n {
			fmt.Fprintf(&t, `"t%d":{"componentRef":{"name":"c"}},`, i)
		}
		tasks = strings.TrimSuffix(t.String(), ",")
	case 3:
		how = fmt.Sprintf("a cycle of %d tasks", min(n, 9000))
		var t strings.Builder
		for i := range min(n, 9000) {
			fmt.Fprintf(&t, `"t%d":{"componentRef":{"name":"c"},"dependentTasks":["t%d"]},`, i, (i+1)%min(n, 9000))
		}
		tasks = strings.TrimSuffix(t.String(), ",")
	case 4:
		how = fmt.Sprintf("%d placeholders that never end", n)
		b.WriteString(`,"d":{"executorLabel":"f"}`)
		tasks = fmt.Sprintf(`"a":{"componentRef":{"name":"c"},"inputs":{"parameters":{"p":{"runtimeValue":{"constant":%q}}}}}`, strings.Repeat("{{$", n))
		text := strings.Replace(b.String(), `"command":["c"]`, fmt.Sprintf(`"command":[%q]`, strings.Repeat("{{$", n)), 1)
		b.Reset()
		b.WriteString(text)
	default:
		how = fmt.Sprintf("a task that waits %d times for each of 500", n/500)
		var t strings.Builder
		for i := range 500 {
			fmt.Fprintf(&t, `"t%d":{"componentRef":{"name":"c"}},`, i)
		}
		t.WriteString(`"a":{"componentRef":{"name":"c"},"dependentTasks":[`)
		for i := range n {
			fmt.Fprintf(&t, `"t%d",`, i%500)
		}
		tasks = strings.TrimSuffix(t.String(), ",") + "]}"
	}
	b.WriteString(`},"root":{"dag":{"tasks":{` + tasks + `}}}}`)
	return []byte(b.String()), how
}

// trySpec says what is wrong with how a spec is taken or refused.
func trySpec(text []byte, r *report) (what string) {
	defer func() {
		if p := recover(); p != nil {
			what = fmt.Sprintf("panic: %v\n%s", p, debug.Stack())
		}
	}()
	if bytes.Count(text, []byte(","))+bytes.Count(text, []byte("{"))+bytes.Count(text, []byte("[")) > pipeline.MaxValues {
		r.count("spec:too many values for a request")
		return ""
	}
	spec := &structpb.Struct{}
	if err := spec.UnmarshalJSON(text); err != nil {
		r.count("spec:no JSON")
		return ""
	}
	err := createChecks(spec)
	code := resource.CodeOf(err)
	r.count("spec:" + code.String())
	switch code {
	case codes.OK:
	case codes.InvalidArgument:
		if len(err.Error()) > 64<<10 {
			return fmt.Sprintf("a message of %d bytes: %s", len(err.Error()), clip([]byte(err.Error()), 300))
		}
	case codes.Unimplemented:
		r.refused("pipeline: " + clip([]byte(err.Error()), 80))
	default:
		return fmt.Sprintf("%s: %v", code, err)
	}
	return ""
}

// createChecks is what CreatePipelineJob checks of a spec.
func createChecks(spec *structpb.Struct) error {
	plan, err := pipeline.Parse(spec)
	if err != nil {
		return err
	}
	return errors.Join(parameters(plan), plan.Check(func(w runtime.Workload) error {
		_, err := runtime.Resolve([]runtime.ImageRule{{Match: "*", Command: []string{"true"}}}, w.Image)
		return err
	}))
}

// parameters gives values for the parameters of the corpus, and then none.
func parameters(plan *pipeline.Plan) error {
	config := &pb.PipelineJob_RuntimeConfig{ParameterValues: map[string]*structpb.Value{"s": structpb.NewStringValue("x")}}
	if _, err := plan.Parameters(config); err == nil {
		return plan.CheckInputArtifacts(config)
	}
	_, err := plan.Parameters(&pb.PipelineJob_RuntimeConfig{})
	return err
}
