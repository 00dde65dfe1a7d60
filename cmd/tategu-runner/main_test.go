package main

import (
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"tategu/internal/runner/runnertest"
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
		{[]string{"--engine", "tract", "m.onnx"}, []string{"TATEGU_SITE_PACKAGES=" + empty}, exitUnavailable, "install the Python package tract"},
		{[]string{"--engine", "tract", "--library", os.Args[0], "m.onnx"}, nil, exitUnavailable, ""},
		{[]string{"m.onnx"}, []string{"TATEGU_ONNX_ENGINE=torch"}, exitUsage, `"torch"`},
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
	made, err := runnertest.Make()
	if missing, ok := errors.AsType[*runnertest.MissingError](err); ok {
		t.Skip(missing.What)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(made.Dir) })
	dir, site := t.TempDir(), "TATEGU_SITE_PACKAGES="+filepath.Dir(made.Package)
	whole, err := os.ReadFile(made.Path("network"))
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
		for _, engine := range []string{"onnxruntime", "tract"} {
			code, out := start(t, []string{"--engine", engine, path}, site)
			if code == exitUnavailable && engine == "tract" {
				t.Skip("the Python package tract is not there: " + out)
			}
			if code != exitModel || !strings.Contains(out, "tategu-runner: "+name+"-damaged.onnx cannot be served: ") {
				t.Errorf("%s, %s: exit %d, %s", engine, name, code, out)
			}
		}
	}
}
