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

// readIR gives the first YAML document (or the JSON) of a file as JSON.
func readIR(t *testing.T, file string) []byte {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var doc map[string]any
	if err := yaml.NewDecoder(f).Decode(&doc); err != nil {
		t.Fatal(err)
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
	ran := 0
	for _, c := range cases {
		ir := readIR(t, filepath.Join(dir, c.file))
		if _, err := pipeline.ParseJSON(ir); err != nil {
			continue // TestConformanceParse tells why
		}
		ran++
		t.Run(c.file, func(t *testing.T) {
			id := strings.NewReplacer("/", "-", ".", "-", "_", "-").Replace(c.file)
			job := b.wait(b.submit(id, ir, conformanceArguments(c.file)))
			if got := strings.TrimPrefix(job.State.String(), "PIPELINE_STATE_"); got != c.want {
				t.Errorf("%s, want %s: %v", got, c.want, job.Error.GetMessage())
			}
		})
	}
	t.Logf("%d of %d files ran", ran, len(cases))
}

// conformanceArguments are the required parameters of the files that have some.
func conformanceArguments(file string) map[string]any {
	switch file {
	case "arguments_parameters.yaml":
		return map[string]any{"param1": "hello", "param2": "world"}
	default:
		return nil
	}
}
