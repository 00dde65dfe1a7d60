package process_test

import (
	"archive/zip"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"tategu/internal/runtime"
	"tategu/internal/runtime/process"
	"tategu/internal/runtime/runtimetest"
)

// torchPython is an interpreter whose torch can reach a GPU.
type torchPython struct{ Version, Site string }

func needTorch(t *testing.T) torchPython {
	t.Helper()
	python := os.Getenv("TATEGU_TEST_TORCH")
	if python == "" {
		t.Skip("TATEGU_TEST_TORCH names no Python with torch and a GPU (make test-gpu)")
	}
	const ask = `
import json, os, sys, torch
assert torch.cuda.is_available(), "torch sees no GPU"
print(json.dumps({"Version": "%d.%d" % sys.version_info[:2], "Site": os.path.dirname(os.path.dirname(torch.__file__))}))
`
	out, err := exec.CommandContext(t.Context(), python, "-c", ask).CombinedOutput()
	var p torchPython
	if err != nil || json.Unmarshal(out, &p) != nil {
		t.Skipf("%s: %v: %s", python, err, out)
	}
	return p
}

// eager takes the GPU when it is imported, as some libraries do.
const eager = "import torch\nheld = torch.ones(4, device='cuda')\n"

// lend makes a package that lends the interpreter's packages to an environment.
func lend(t *testing.T, p torchPython) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "torchlent-1.0-py3-none-any.whl")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	z := zip.NewWriter(f)
	for _, part := range [][2]string{
		{"torchlent.pth", p.Site + "\n"},
		{"torcheager.py", eager},
		{"torchlent-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: torchlent\nVersion: 1.0\n"},
		{"torchlent-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"},
		{"torchlent-1.0.dist-info/RECORD", "torchlent.pth,,\ntorcheager.py,,\ntorchlent-1.0.dist-info/METADATA,,\ntorchlent-1.0.dist-info/WHEEL,,\ntorchlent-1.0.dist-info/RECORD,,\n"},
	} {
		w, err := z.Create(part[0])
		if err == nil {
			_, err = w.Write([]byte(part[1]))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	return path
}

// cudaRuntime has zygotes, for the interpreter with torch.
func cudaRuntime(t *testing.T) (*process.Runtime, func(id, source string) runtime.Workload) {
	t.Helper()
	p := needTorch(t)
	cfg := config(t)
	cfg.UV, _ = exec.LookPath("uv")
	cfg.Files = runtimetest.NewFiles(nil)
	cfg.Zygotes = zygoteDir(cfg)
	cfg.Credentials = &runtimetest.Credentials{}
	cfg.Log = slog.New(slog.NewTextHandler(t.Output(), nil))
	lent := lend(t, p)
	return open(t, cfg), func(id, source string) runtime.Workload {
		return runtime.Workload{ID: id, Resources: runtime.Resources{GPUs: 1}, Python: &runtime.Python{Version: p.Version, Script: source, Packages: []string{"torchlent @ file://" + lent}}}
	}
}

// TestWarmCUDA: torch is loaded beforehand, the GPU is not, and a forked program
// computes on it what one that was started cold computes.
func TestWarmCUDA(t *testing.T) {
	t.Parallel()
	r, w := cudaRuntime(t)
	const source = `
import sys
loaded = "torch" in getattr(sys, "modules") # as a word it would have nothing loaded beforehand
import torch
a = (torch.arange(250000, dtype=torch.float64, device="cuda") % 7).reshape(500, 500)
print(loaded, int((a @ a).sum().item()), torch.cuda.get_device_name(0))
`
	cold := runToEnd(t, r, w("cold", source))
	if !cold.OK() || !strings.HasPrefix(last(cold), "False ") {
		t.Fatalf("%+v", cold)
	}
	want := strings.Replace(last(cold), "False", "True", 1)
	warmUp(t, r, w("up", source))
	for i := range 3 {
		exit := runToEnd(t, r, w(fmt.Sprintf("warm-%d", i), source))
		if !exit.OK() || last(exit) != want {
			t.Fatalf("want %q: %+v", want, exit)
		}
	}
	t.Logf("%s, %+v", want, r.Starts())
}

// TestWarmEagerCUDA: a module that takes the GPU when it is imported is left to the
// program, for a fork could not use the GPU; what else it imports is still forked.
func TestWarmEagerCUDA(t *testing.T) {
	t.Parallel()
	r, w := cudaRuntime(t)
	const source = `
import sys
loaded = [name for name in ("json", "torcheager") if name in getattr(sys, "modules")]
import json
import torcheager
print(json.dumps(loaded), int(torcheager.held.sum().item()))
`
	warmUp(t, r, w("up", source))
	for i := range 3 {
		exit := runToEnd(t, r, w(fmt.Sprintf("eager-%d", i), source))
		if !exit.OK() || last(exit) != `["json"] 4` {
			t.Fatalf("%+v", exit)
		}
	}
	t.Logf("%+v", r.Starts())
}

func last(e runtime.Exit) string {
	if len(e.Tail) == 0 {
		return ""
	}
	return e.Tail[len(e.Tail)-1]
}
