package process_test

import (
	"context"
	"errors"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"tategu/internal/resource"
	"tategu/internal/runtime"
	"tategu/internal/runtime/process"
	"tategu/internal/runtime/runtimetest"
)

// pythonConfig needs uv and Python 3.11; each test has a cache of its own.
func pythonConfig(t *testing.T, objects map[string]string) (process.Config, *runtimetest.Files) {
	t.Helper()
	cfg := config(t)
	uv, err := exec.LookPath("uv")
	if err != nil {
		t.Skip("uv is not on this machine")
	}
	if err := exec.CommandContext(t.Context(), uv, "python", "find", "--system", "--no-python-downloads", "3.11").Run(); err != nil {
		t.Skip("Python 3.11 is not on this machine")
	}
	files := runtimetest.NewFiles(objects)
	cfg.UV, cfg.Files = uv, files
	return cfg, files
}

func runToEnd(t *testing.T, r *process.Runtime, w runtime.Workload) runtime.Exit {
	t.Helper()
	in, err := r.Start(t.Context(), w)
	if err != nil {
		t.Fatal(err)
	}
	exit, err := in.Wait(t.Context())
	if err != nil {
		t.Fatalf("%v, status %+v", err, in.Status())
	}
	return exit
}

// needIndex skips where packages cannot be fetched at all.
func needIndex(t *testing.T, exit runtime.Exit) {
	t.Helper()
	if exit.Cause == resource.CauseDependency || slices.ContainsFunc(exit.Tail, func(l string) bool {
		return strings.Contains(l, "Failed to establish a new connection")
	}) {
		t.Skip("no package index: " + exit.Message + strings.Join(exit.Tail, "\n"))
	}
}

const userInstall = `pip install --upgrade pip && pip3 install -q --user six==1.16.0 && python3 -c '
import six, sys
print("six", six.__version__, six.__file__)
try:
    import uv
    print("leak", uv.__file__)
except ImportError:
    print("clean")
'`

// TestUserInstall is the command that CustomJob.from_local_script makes.
func TestUserInstall(t *testing.T) {
	t.Parallel()
	cfg, _ := pythonConfig(t, nil)
	r := open(t, cfg)
	exit := runToEnd(t, r, runtime.Workload{ID: "a", Image: "python:3.11", Command: []string{"sh", "-c", userInstall}})
	needIndex(t, exit)
	text := strings.Join(exit.Tail, "\n")
	if !exit.OK() || !strings.Contains(text, "six 1.16.0 "+filepath.Join(cfg.Dir, "a", "user")) || !strings.Contains(text, "clean") {
		t.Fatalf("exit %+v", exit)
	}
	again := runToEnd(t, r, runtime.Workload{ID: "b", Image: "python:3.11", Command: []string{"python", "-c", "import six"}})
	if again.OK() || !strings.Contains(strings.Join(again.Tail, "\n"), "No module named 'six'") {
		t.Fatalf("what one program installed is seen by another: %+v", again)
	}
	if made := environmentDirs(t, cfg); len(made) != 1 {
		t.Fatalf("environments %q, want one for both", made)
	}
}

func environmentDirs(t *testing.T, cfg process.Config) []string {
	t.Helper()
	dirs, err := filepath.Glob(filepath.Join(cfg.CacheDir, "envs", "*", ".tategu-complete.json"))
	if err != nil {
		t.Fatal(err)
	}
	return dirs
}

const component = `
from kfp import dsl
from kfp.dsl import *
from typing import *

def train(rows: int, model: dsl.Output[dsl.Model], data: dsl.Input[dsl.Dataset]) -> str:
    import os
    with open(model.path, "w") as f:
        f.write(open(data.path).read() * rows)
    model.metadata["rows"] = rows
    return model.uri
`

// TestLightweight runs a kfp component as the pipeline engine does, with /gcs
// mounted and by the hook.
func TestLightweight(t *testing.T) {
	t.Parallel()
	for name, noMounts := range map[string]bool{"mounted": false, "hook": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cfg, files := pythonConfig(t, map[string]string{"gs://in/data": "row\n"})
			cfg.NoMounts = noMounts
			r := open(t, cfg)
			input := `{"inputs":{"parameterValues":{"rows":2},"artifacts":{"data":{"artifacts":[{"name":"d","type":{"schemaTitle":"system.Dataset"},"uri":"gs://in/data"}]}}},
"outputs":{"parameters":{"Output":{"outputFile":"/gcs/root/run/Output"}},"artifacts":{"model":{"artifacts":[{"name":"m","type":{"schemaTitle":"system.Model"},"uri":"gs://root/run/model"}]}},
"outputFile":"/gcs/root/run/executor_output.json"}}`
			w := runtime.Workload{
				ID: "k", Image: "python:3.11", Publish: true, Dirs: []string{"/gcs/root/run"},
				Command: []string{"python3", "-m", "kfp.dsl.executor_main", "--component_module_path", runtime.ScriptPath},
				Args:    []string{"--executor_input", input, "--function_to_execute", "train"},
				Python:  &runtime.Python{Version: "3.11", Packages: []string{"--no-deps kfp==2.17.0", "typing-extensions>=3.7.4,<5"}, Script: component},
			}
			exit := runToEnd(t, r, w)
			needIndex(t, exit)
			if !exit.OK() {
				t.Fatalf("exit %+v", exit)
			}
			if got := files.Content("gs://root/run/model"); got != "row\nrow\n" {
				t.Errorf("model = %q", got)
			}
			out := files.Content("gs://root/run/executor_output.json")
			if !strings.Contains(out, "gs://root/run/model") || strings.Contains(out, cfg.Dir) {
				t.Errorf("executor output = %q", out)
			}
		})
	}
}

func TestEnvironmentErrors(t *testing.T) {
	t.Parallel()
	cfg, _ := pythonConfig(t, nil)
	cfg.Images = []runtime.ImageRule{{Match: "any", Python: "2.99", PythonMatch: "any"}}
	r := open(t, cfg)
	tests := map[string]struct {
		w     runtime.Workload
		cause resource.Cause
		say   string
	}{
		"version": {runtime.Workload{ID: "version", Image: "python:2.99", Command: []string{"python"}}, resource.CauseDependency, "Python 2.99"},
		"package": {runtime.Workload{ID: "package", Command: []string{"python"}, Python: &runtime.Python{Version: "3.11", Packages: []string{"six==0.0.0.1"}}}, resource.CauseInput, "six==0.0.0.1"},
		"bad":     {runtime.Workload{ID: "bad", Command: []string{"python"}, Python: &runtime.Python{Version: "3.11", Packages: []string{"not a requirement !"}}}, resource.CauseInput, "not a requirement !"},
	}
	for name, tc := range tests {
		exit := runToEnd(t, r, tc.w)
		if exit.OK() || exit.Cause != tc.cause || !strings.Contains(exit.Message, tc.say) {
			t.Errorf("%s: exit %+v", name, exit)
		}
	}
	if made := environmentDirs(t, cfg); len(made) != 0 {
		t.Errorf("failed environments count as made: %q", made)
	}
	in, err := r.Start(t.Context(), runtime.Workload{ID: "any", Image: "any", Command: []string{"sh", "-c", "python -V; echo $TATEGU_VENV; sleep 1000"}})
	if err != nil {
		t.Fatal(err)
	}
	await(t, func() bool { return in.Status().Phase != runtime.Preparing })
	if st := in.Status(); !strings.Contains(st.Message, "instead of 2.99") {
		t.Errorf("status %+v does not say that another Python runs", st)
	}
	if err := in.Stop(t.Context(), 0); err != nil {
		t.Fatal(err)
	}
}

// await polls what has no event.
func await(t *testing.T, is func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !is() {
		select {
		case <-t.Context().Done():
			t.Fatal("the test ended first")
		case <-tick.C:
		}
	}
}

// TestInstallUV: uv is got when the first program needs an environment, not when
// the runtime opens, and once; without it pip does.
func TestInstallUV(t *testing.T) {
	t.Parallel()
	cfg := config(t)
	var asked atomic.Int64
	cfg.InstallUV = func(context.Context) (string, error) {
		asked.Add(1)
		return "", errors.New("there is no network")
	}
	r := open(t, cfg)
	if exit := runToEnd(t, r, runtime.Workload{ID: "plain", Command: []string{"true"}}); !exit.OK() || asked.Load() != 0 {
		t.Fatalf("exit %+v, asked for uv %d times", exit, asked.Load())
	}
	for _, id := range []string{"first", "second"} {
		exit := runToEnd(t, r, runtime.Workload{ID: id, Python: &runtime.Python{Script: "print('ran')"}})
		needIndex(t, exit)
		if !exit.OK() || asked.Load() != 1 {
			t.Fatalf("%s: exit %+v, asked for uv %d times", id, exit, asked.Load())
		}
	}
}

// TestStopWhilePreparing: a stop does not wait for packages.
func TestStopWhilePreparing(t *testing.T) {
	t.Parallel()
	cfg, _ := pythonConfig(t, nil)
	slow := filepath.Join(t.TempDir(), "uv")
	writeScript(t, slow, "#!/bin/sh\ncase \"$1\" in python) exec "+cfg.UV+" \"$@\";; esac\nexec sleep 1000\n")
	cfg.UV = slow
	r := open(t, cfg)
	in, err := r.Start(t.Context(), runtime.Workload{ID: "a", Image: "python:3.11", Command: []string{"true"}})
	if err != nil {
		t.Fatal(err)
	}
	await(t, func() bool { return strings.Contains(in.Status().Message, "creating") })
	if err := in.Stop(t.Context(), time.Hour); err != nil {
		t.Fatal(err)
	}
	if exit := in.Status().Exit; exit == nil || exit.Message != "stopped" || exit.OK() {
		t.Fatalf("exit %+v", exit)
	}
}
