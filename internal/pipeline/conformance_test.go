package pipeline_test

import (
	"bufio"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
	"google.golang.org/grpc/codes"

	"tategu/internal/pipeline"
	"tategu/internal/resource"
)

// conformanceCase is one compiled IR file and how a run of it should end.
type conformanceCase struct{ file, want string }

// conformanceDir finds compiled pipelines that are not ours and are never copied
// into the project.
func conformanceDir(t *testing.T) string {
	t.Helper()
	shared := os.Getenv("TATEGU_SHARED")
	if shared == "" {
		shared = "../../../shared"
	}
	dir := filepath.Join(shared, "conformance", "kfp")
	if _, err := os.Stat(filepath.Join(dir, "expected.tsv")); err != nil {
		t.Skipf("no conformance cases: %v", err)
	}
	return dir
}

func conformanceCases(t *testing.T) (dir string, cases []conformanceCase) {
	t.Helper()
	dir = conformanceDir(t)
	f, err := os.Open(filepath.Join(dir, "expected.tsv"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		fields := strings.Split(s.Text(), "\t")
		if len(fields) >= 2 && !strings.HasPrefix(fields[0], "#") {
			cases = append(cases, conformanceCase{fields[0], fields[1]})
		}
	}
	return dir, cases
}

// readIR gives the YAML documents (or the JSON) of a file as one JSON object.
func readIR(t *testing.T, file string) []byte {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var doc, platforms map[string]any
	documents := yaml.NewDecoder(f)
	if err := documents.Decode(&doc); err != nil {
		t.Fatal(err)
	}
	if err := documents.Decode(&platforms); err == nil {
		doc["platforms"] = platforms["platforms"]
	}
	if inner, ok := doc["pipelineSpec"].(map[string]any); ok {
		doc = inner
	}
	text, err := json.Marshal(doc)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// TestConformanceParse: every file is read, or refused by name because it needs a
// part of the IR that is not there yet.
func TestConformanceParse(t *testing.T) {
	t.Parallel()
	dir, cases := conformanceCases(t)
	read := 0
	for _, c := range cases {
		_, err := pipeline.ParseJSON(readIR(t, filepath.Join(dir, c.file)))
		switch {
		case err == nil:
			read++
		case resource.CodeOf(err) == codes.Unimplemented:
			t.Logf("%s: %v", c.file, err)
		default:
			t.Errorf("%s: %v", c.file, err)
		}
	}
	t.Logf("%d of %d files are runnable", read, len(cases))
}

// TestConformanceRun runs the files whose features are there, with the real
// runtime, and compares the state that each run ends in.
func TestConformanceRun(t *testing.T) {
	t.Parallel()
	dir, cases := conformanceCases(t)
	needPython(t)
	b := newBench(t, processRuntime(t))
	b.stop() // and again, with the secrets that files name
	secret := map[string]string{"username": "u", "password": "p"}
	b.secrets = vault{"p/test-secret-1": secret, "p/test-secret-2": secret, "p/test-secret-3": secret}
	b.start()
	b.object("gs://ml-pipeline-playground/shakespeare1.txt", "To be, or not to be")
	b.object("gs://ml-pipeline-playground/shakespeare2.txt", "that is the question")
	names := map[string]string{}
	for _, c := range cases {
		ir := readIR(t, filepath.Join(dir, c.file))
		if _, err := pipeline.ParseJSON(ir); err != nil {
			continue // TestConformanceParse tells why
		}
		args := conformanceArguments(t, ir)
		if c.file == "env-var.yaml" {
			args["env_var"] = "PATH"
		}
		id := strings.NewReplacer("/", "-", ".", "-", "_", "-").Replace(c.file)
		if names[c.file] = ""; conformanceNeeds(c.file) == "" {
			names[c.file] = b.submit(id, ir, args)
		}
	}
	for _, c := range cases {
		if _, ok := names[c.file]; !ok {
			continue
		}
		t.Run(c.file, func(t *testing.T) {
			if why := conformanceNeeds(c.file); why != "" {
				t.Skip(why)
			}
			job := b.wait(names[c.file])
			if strings.Contains(job.Error.GetMessage(), "ask for less") {
				t.Skip(job.Error.GetMessage())
			}
			if got := strings.TrimPrefix(job.State.String(), "PIPELINE_STATE_"); got != c.want {
				t.Errorf("%s, want %s: %v", got, c.want, job.Error.GetMessage())
			}
		})
	}
	t.Logf("%d of %d files were run", len(names), len(cases))
}

// conformanceNeeds says what a file needs that no run here can have.
func conformanceNeeds(file string) string {
	switch file {
	case "critical/pipeline_with_artifact_custom_path.yaml":
		return "pins kfp 2.14.3 and calls Artifact.set_path, which that release does not have"
	case "essential/embedded_artifact.yaml":
		return "pins kfp 2.14.3 and uses dsl.EmbeddedInput, which that release does not have"
	case "containerized_python_component.yaml":
		return "needs the image kfp-image"
	case "input_artifact.yaml":
		return "needs an input artifact; TestInputArtifact has one"
	default:
		return ""
	}
}

// conformanceArguments gives a value for each required parameter.
func conformanceArguments(t *testing.T, ir []byte) map[string]any {
	t.Helper()
	var spec struct {
		Root struct {
			InputDefinitions struct {
				Parameters map[string]struct {
					ParameterType string
					DefaultValue  any
					IsOptional    bool
				}
			}
		}
	}
	if err := json.Unmarshal(ir, &spec); err != nil {
		t.Fatal(err)
	}
	args := map[string]any{}
	for k, p := range spec.Root.InputDefinitions.Parameters {
		if p.DefaultValue != nil || p.IsOptional {
			continue
		}
		switch p.ParameterType {
		case "STRING":
			args[k] = filepath.Join(t.TempDir(), "x") // some parameters are paths
		case "NUMBER_INTEGER", "NUMBER_DOUBLE":
			args[k] = 3
		case "BOOLEAN":
			args[k] = true
		case "LIST":
			args[k] = []any{"a", "b"}
		default:
			args[k] = map[string]any{"key": "value"}
		}
	}
	return args
}
