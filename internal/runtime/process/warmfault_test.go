package process_test

import (
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"tategu/internal/resource"
	"tategu/internal/runtime"
	"tategu/internal/runtime/process"
)

// memoryGroup makes a control group with a limit, that a program may put itself
// into by writing its number to the file.
func memoryGroup(t *testing.T, bytes int64) (join string) {
	t.Helper()
	for _, g := range []struct{ parent, limit, swap string }{
		{"/sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.swappiness"},
		{"/sys/fs/cgroup", "memory.max", "memory.swap.max"},
	} {
		dir := filepath.Join(g.parent, "tategu-test-"+strconv.Itoa(os.Getpid()))
		if err := os.Mkdir(dir, 0o755); err != nil {
			continue
		}
		t.Cleanup(func() {
			if err := os.Remove(dir); err != nil {
				t.Error(err)
			}
		})
		if os.WriteFile(filepath.Join(dir, g.limit), []byte(strconv.FormatInt(bytes, 10)), 0o600) == nil {
			_ = os.WriteFile(filepath.Join(dir, g.swap), []byte("0"), 0o600) // there may be no swap
			return filepath.Join(dir, "cgroup.procs")
		}
	}
	t.Skip("no control group with a limit of memory can be made here")
	return ""
}

// TestWarmFaults: a program that memory or its own native code ends says so, and the
// process that it was forked from lives and forks the next one.
func TestWarmFaults(t *testing.T) {
	t.Parallel()
	cfg := warmConfig(t)
	r := open(t, cfg)
	warmUp(t, r, script("up", "import ctypes, os\n"))
	parents := zygotes(t, cfg)
	for _, tt := range []struct {
		id, source     string
		signal, reason string
		cause          resource.Cause
	}{
		{"crash", "import ctypes\nctypes.string_at(0)\n", "SIGSEGV", "CRASHED", resource.CauseUserCode},
		{"abort", "import os\nos.abort()\n", "SIGABRT", "CRASHED", resource.CauseUserCode},
		{
			"memory", "import os\nopen(%q, 'w').write(str(os.getpid()))\nkept = []\nwhile True:\n    kept.append(bytearray(os.urandom(1 << 20)))\n",
			"SIGKILL", "OUT_OF_MEMORY", resource.CauseResource,
		},
	} {
		t.Run(tt.id, func(t *testing.T) {
			if strings.Contains(tt.source, "%q") {
				tt.source = fmt.Sprintf(tt.source, memoryGroup(t, 64<<20))
			}
			before := r.Starts()
			exit := runToEnd(t, r, script(tt.id, tt.source))
			if exit.Signal != tt.signal || exit.Reason != tt.reason || exit.Cause != tt.cause {
				t.Errorf("%+v", exit)
			}
			if next := runToEnd(t, r, script("after-"+tt.id, "import ctypes\nprint('well')\n")); !next.OK() {
				t.Errorf("the next one: %+v", next)
			}
			if now := r.Starts(); now.Warm != before.Warm+2 || now.Failed != before.Failed {
				t.Errorf("%+v, before %+v", now, before)
			}
			if now := zygotes(t, cfg); !slices.Equal(now, parents) {
				t.Errorf("parents %v, before %v", now, parents)
			}
		})
	}
}

// TestWarmThreads: numpy is loaded beforehand although its OpenBLAS has threads, and
// these work in each program.
func TestWarmThreads(t *testing.T) {
	t.Parallel()
	cfg := warmConfig(t)
	r := open(t, cfg)
	const source = `
import sys
loaded = "numpy" in getattr(sys, "modules") # as a word it would have nothing loaded beforehand
import numpy as np
import os
a = np.arange(360000.0).reshape(600, 600) % 7
b = a @ a
print(loaded, int(b.sum()), float(np.random.random()))
print("threads", len(os.listdir("/proc/self/task")))
`
	w := func(id string) runtime.Workload {
		w := script(id, source)
		w.Python.Packages = []string{"numpy"}
		w.Env = map[string]string{"OPENBLAS_NUM_THREADS": "2"}
		return w
	}
	cold := runToEnd(t, r, w("cold"))
	needIndex(t, cold)
	if !cold.OK() || !strings.HasPrefix(cold.Tail[len(cold.Tail)-2], "False ") {
		t.Fatalf("%+v", cold)
	}
	warmUp(t, r, w("up"))
	seen := map[string]bool{}
	for i := range 3 {
		exit := runToEnd(t, r, w(fmt.Sprintf("warm-%d", i)))
		if !exit.OK() {
			t.Fatalf("%+v", exit)
		}
		said := strings.Fields(exit.Tail[len(exit.Tail)-2])
		want := strings.Fields(cold.Tail[len(cold.Tail)-2])
		if said[0] != "True" || said[1] != want[1] {
			t.Errorf("warm %q, cold %q", said, want)
		}
		if threads := exit.Tail[len(exit.Tail)-1]; threads != cold.Tail[len(cold.Tail)-1] {
			t.Errorf("warm %s, cold %s", threads, cold.Tail[len(cold.Tail)-1])
		}
		seen[said[2]] = true
	}
	if len(seen) != 3 {
		t.Errorf("the same random numbers in several programs: %v", seen)
	}
}

// pythonOn gives the search path on which a version of Python is found: that of the
// machine, or with one that pyenv has.
func pythonOn(t *testing.T, version string) (path string, ok bool) {
	t.Helper()
	path = os.Getenv("PATH")
	dirs := []string{""}
	if root, err := exec.CommandContext(t.Context(), "pyenv", "root").Output(); err == nil {
		found, err := filepath.Glob(filepath.Join(strings.TrimSpace(string(root)), "versions", version+".*", "bin"))
		if err != nil {
			t.Fatal(err)
		}
		dirs = append(dirs, found...)
	}
	for _, dir := range dirs {
		on := strings.TrimPrefix(dir+string(filepath.ListSeparator)+path, string(filepath.ListSeparator))
		cmd := exec.CommandContext(t.Context(), "uv", "python", "find", "--system", "--no-python-downloads", version)
		cmd.Env = append(os.Environ(), "PATH="+on)
		if cmd.Run() == nil {
			return on, true
		}
	}
	return path, false
}

// TestWarmVersions: other versions of Python fork as well, and nothing shows there
// either.
func TestWarmVersions(t *testing.T) {
	versions := []string{"3.10", "3.12", "3.13"}
	here := map[string]bool{}
	for _, version := range versions {
		path, ok := pythonOn(t, version)
		t.Setenv("PATH", path)
		here[version] = ok
	}
	for _, version := range versions {
		t.Run(version, func(t *testing.T) {
			t.Parallel()
			cfg := warmConfig(t)
			if !here[version] {
				t.Skipf("Python %s is not on this machine", version)
			}
			r := open(t, cfg)
			w := script("x", dump)
			w.Python.Version = version
			w.Env = map[string]string{"THEIRS": inheritedFDs(t)}
			compareStarts(t, r, cfg, w)
			w.ID, w.Python = "which", &runtime.Python{Version: version, Script: "import sys\nprint('%d.%d' % sys.version_info[:2])\nsys.exit(3)\n"}
			if exit := runToEnd(t, r, w); exit.Code != 3 || exit.Tail[len(exit.Tail)-1] != version {
				t.Errorf("%+v", exit)
			}
			w.ID, w.Python = "fails", &runtime.Python{Version: version, Script: "def f():\n    raise ValueError('x')\nf()\n"}
			if exit := runToEnd(t, r, w); exit.Code != 1 || exit.Tail[len(exit.Tail)-1] != "ValueError: x" || strings.Contains(strings.Join(exit.Tail, "\n"), "<tategu>") {
				t.Errorf("%+v", exit)
			}
		})
	}
}

// TestWarmIgnored: what a server ignores, as behind nohup, its programs do not.
func TestWarmIgnored(t *testing.T) {
	cfg := warmConfig(t)
	ignored := []os.Signal{syscall.SIGHUP, syscall.SIGINT, syscall.SIGTERM}
	signal.Ignore(ignored...)
	defer signal.Reset(ignored...)
	w := script("x", dump)
	w.Env = map[string]string{"THEIRS": inheritedFDs(t)}
	compareStarts(t, open(t, cfg), cfg, w)
}

// compareStarts runs a dump cold and warm, and compares what the programs saw.
func compareStarts(t *testing.T, r *process.Runtime, cfg process.Config, w runtime.Workload) {
	t.Helper()
	seen := map[string]map[string]string{}
	for _, id := range []string{"c", "d"} {
		if id == "d" {
			w.ID = "up"
			warmUp(t, r, w)
		}
		w.ID = id
		if exit := runToEnd(t, r, w); !exit.OK() {
			t.Fatalf("%+v", exit)
		}
		seen[id] = dumped(t, cfg, id)
	}
	for k, cold := range seen["c"] {
		if warm := seen["d"][k]; warm != cold {
			t.Errorf("%s\ncold %s\nwarm %s", k, cold, warm)
		}
	}
	if len(seen["c"]) < 30 {
		t.Errorf("%d things compared", len(seen["c"]))
	}
}
