package main

import (
	"context"
	"encoding/json"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// The test binary is the runner when this is set.
const asRunner = "TATEGU_TEST_AS_RUNNER"

func TestMain(m *testing.M) {
	if os.Getenv(asRunner) != "" {
		main()
		return
	}
	os.Exit(m.Run())
}

// start runs the program until it ends, which must be soon.
func start(t *testing.T, args []string, env ...string) (code int, out string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, os.Args[0], args...)
	cmd.Env = append([]string{asRunner + "=1", "AIP_HTTP_PORT=0", "PATH=" + os.Getenv("PATH")}, env...)
	b, err := cmd.CombinedOutput()
	if ctx.Err() != nil {
		t.Fatalf("%v goes on and on: %s", args, b)
	}
	if err == nil {
		return 0, string(b)
	}
	return cmd.ProcessState.ExitCode(), string(b)
}

func TestWhatIsMissingIsTold(t *testing.T) {
	t.Parallel()
	empty := t.TempDir()
	for _, c := range []struct {
		args, env []string
		code      int
		want      string
	}{
		{nil, nil, exitUsage, "name one model file"},
		{[]string{"m.onnx"}, []string{"TATEGU_ONNX_MAX_BATCH=0"}, exitUsage, `TATEGU_ONNX_MAX_BATCH is "0"`},
		{[]string{"m.onnx"}, []string{"TATEGU_ONNX_MAX_BATCH_DELAY=5"}, exitUsage, `not a duration such as 5ms`},
		{[]string{"m.onnx"}, []string{"TATEGU_SITE_PACKAGES=" + empty}, exitUnavailable, "install the Python package onnxruntime"},
		{[]string{"--library", filepath.Join(empty, "none.so"), "m.onnx"}, nil, exitUnavailable, "load ONNX Runtime"},
		{[]string{"--library", os.Args[0], "m.onnx"}, nil, exitUnavailable, ""},
		{[]string{"--version"}, nil, 0, "dev"},
	} {
		code, out := start(t, c.args, c.env...)
		last := out[strings.LastIndexByte(strings.TrimSpace(out), '\n')+1:]
		if code != c.code || !strings.Contains(last, c.want) {
			t.Errorf("%v %v: exit %d, %s", c.args, c.env, code, out)
		}
	}
}

func TestSamplesWarmUp(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if got := samples(dir); got != nil {
		t.Errorf("%s", got)
	}
	lines := `{"instance":[1,2],"prediction":3}` + "\n\n" + `{"prediction":1,"instance":{"a":"é"},"tolerance":1}` + "\ntorn"
	if err := os.WriteFile(filepath.Join(dir, "tategu-samples.jsonl"), []byte(lines), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := string(samples(dir)); got != `{"instances":[[1,2],{"a":"é"}]}` {
		t.Error(got)
	}
}

// TestDamagedModels: a file that is cut or changed ends the program, with the reason in
// its last line wherever the library gives one. It never serves nothing for ever.
func TestDamagedModels(t *testing.T) {
	t.Parallel()
	python := os.Getenv("TATEGU_TEST_PYTHON")
	if python == "" || exec.Command(python, "-c", "import onnxruntime, onnx, skl2onnx, pandas").Run() != nil {
		t.Skip("TATEGU_TEST_PYTHON names no Python with onnxruntime, onnx, skl2onnx and pandas")
	}
	dir := t.TempDir()
	if out, err := exec.Command(python, "../../internal/runner/onnxruntime/testdata/models.py", dir).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	var made struct{ Package string }
	b, err := os.ReadFile(filepath.Join(dir, "cases.json"))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(b, &made); err != nil {
		t.Fatal(err)
	}
	site := "TATEGU_SITE_PACKAGES=" + filepath.Dir(made.Package)
	whole, err := os.ReadFile(filepath.Join(dir, "forest.onnx"))
	if err != nil {
		t.Fatal(err)
	}
	damaged := map[string][]byte{"empty": {}, "text": []byte("not a model"), "half": whole[:len(whole)/2], "short": whole[:40]}
	random := rand.New(rand.NewPCG(1, 2))
	noise := make([]byte, 4096)
	for i := range noise {
		noise[i] = byte(random.Uint32())
	}
	damaged["noise"] = noise
	for name, content := range damaged {
		path := filepath.Join(dir, name+"-damaged.onnx")
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		code, out := start(t, []string{path}, site)
		if code != exitModel || !strings.Contains(out, "tategu-runner: "+name+"-damaged.onnx cannot be served: ") {
			t.Errorf("%s: exit %d, %s", name, code, out)
		}
	}
}
