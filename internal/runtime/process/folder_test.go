package process_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"tategu/internal/runtime"
)

// TestFolder: the files of an image without a system are the working directory of a
// program of this machine, each workload's own.
func TestFolder(t *testing.T) {
	t.Parallel()
	cfg := config(t)
	files := layer(t, file("run.sh", []byte("#!/bin/sh\ncat data/a.txt; echo \"$1 $MODE $PORT_IS\"; echo changed > data/a.txt\n")),
		directory("data/", 0o755), file("data/a.txt", []byte("from the folder\n")))
	cfg.ImageStore = images{
		"folder:1": image("folder:1", runtime.ImageConfig{Base: runtime.BaseMachine, Entrypoint: []string{"./run.sh"}, Cmd: []string{"by-default"}, Env: []string{"MODE=image", "PORT_IS=open"}}, files),
		"bare:1":   image("bare:1", runtime.ImageConfig{Base: runtime.BaseMachine}, files),
		"bad:1":    image("bad:1", runtime.ImageConfig{Base: runtime.BaseMachine, Packages: []string{"six"}}, files),
		"away:1":   image("away:1", runtime.ImageConfig{Base: runtime.BaseMachine}, layer(t, file("../away", nil))),
	}
	r := open(t, cfg)
	for name, tc := range map[string]struct {
		w    runtime.Workload
		want string
	}{
		"entry point": {runtime.Workload{Image: "folder:1"}, "from the folder|by-default image open"},
		"arguments":   {runtime.Workload{Image: "folder:1", Args: []string{"given"}, Env: map[string]string{"MODE": "job"}}, "from the folder|given job open"},
		"command":     {runtime.Workload{Image: "bare:1", Command: []string{"cat", "data/a.txt"}}, "from the folder"},
	} {
		tc.w.ID = strings.ReplaceAll(name, " ", "-")
		if exit := runToEnd(t, r, tc.w); !exit.OK() || strings.Join(exit.Tail, "|") != tc.want {
			t.Errorf("%s: %+v, want %q", name, exit, tc.want)
		}
	}
	for id, want := range map[string]string{"bare:1": "no command", "bad:1": "Python packages"} {
		if _, err := r.Start(t.Context(), runtime.Workload{ID: "refused", Image: id}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", id, err, want)
		}
	}
	if exit := runToEnd(t, r, runtime.Workload{ID: "away", Image: "away:1", Command: []string{"true"}}); exit.OK() || !strings.Contains(exit.Message, "leads out of the image") {
		t.Errorf("a file outside: %+v", exit)
	}
	if _, err := os.Stat(filepath.Join(cfg.Dir, "away", "away")); err == nil {
		t.Error("a file was written outside of the working directory")
	}
}

// TestPythonFolder: a script with a module beside it and packages of the image.
func TestPythonFolder(t *testing.T) {
	t.Parallel()
	cfg, _ := pythonConfig(t, nil)
	files := layer(t, file("train.py", []byte("import helper, six\nprint(helper.name, six.__version__)\n")), file("helper.py", []byte("name = 'beside'\n")))
	cfg.ImageStore = images{"train:1": image("train:1", runtime.ImageConfig{Base: "python:3.11", Packages: []string{"six==1.16.0"}}, files)}
	exit := runToEnd(t, open(t, cfg), runtime.Workload{ID: "a", Image: "train:1", Command: []string{"python", "train.py"}})
	needIndex(t, exit)
	if !exit.OK() || exit.Tail[len(exit.Tail)-1] != "beside 1.16.0" {
		t.Fatalf("%+v", exit)
	}
}
