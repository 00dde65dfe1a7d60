package process_test

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"tategu/internal/runtime"
	"tategu/internal/runtime/process"
)

// pythonConfig shares one environment cache between the tests of this run.
func pythonConfig(t *testing.T) process.Config {
	t.Helper()
	cfg := config(t)
	uv, err := exec.LookPath("uv")
	if err != nil {
		t.Skip("uv is not on this machine")
	}
	cfg.UV = uv
	cfg.CacheDir = filepath.Join(os.TempDir(), "tategu-process-test-cache")
	return cfg
}

func runToEnd(t *testing.T, r *process.Runtime, w runtime.Workload) runtime.Exit {
	t.Helper()
	in, err := r.Start(t.Context(), w)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	exit, err := in.Wait(ctx)
	if err != nil {
		t.Fatalf("%v, status %+v", err, in.Status())
	}
	return exit
}

func TestPythonUserInstall(t *testing.T) {
	t.Parallel()
	cfg := pythonConfig(t)
	r := open(t, cfg)
	exit := runToEnd(t, r, runtime.Workload{ID: "a", Image: "python:3.11", Command: []string{
		"sh", "-c",
		`pip install --upgrade pip && pip3 install -q --user six && python3 -c '
import six, sys, site
print(six.__file__)
print(sys.path)
try:
    import numpy
    print("numpy leaks in from", numpy.__file__)
except ImportError: print("clean")
'`,
	}})
	t.Log(strings.Join(exit.Tail, "\n"), exit)
}
