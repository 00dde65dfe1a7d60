package process_test

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"tategu/internal/runtime"
	"tategu/internal/runtime/process"
	"tategu/internal/runtime/runtimetest"
)

// warmConfig has zygotes, and environments without packages.
func warmConfig(t *testing.T) process.Config {
	t.Helper()
	cfg, _ := pythonConfig(t, nil)
	cfg.Zygotes = zygoteDir(cfg)
	cfg.Log = slog.New(slog.NewTextHandler(t.Output(), nil))
	return cfg
}

// zygoteDir is beside the workloads.
func zygoteDir(cfg process.Config) string { return filepath.Join(filepath.Dir(cfg.Dir), "zygotes") }

// script is a workload that is a Python script.
func script(id, source string) runtime.Workload {
	return runtime.Workload{ID: id, Python: &runtime.Python{Version: "3.11", Script: source}}
}

// warmUp runs a script until it starts warm.
func warmUp(t *testing.T, r *process.Runtime, w runtime.Workload) {
	t.Helper()
	id := w.ID
	for i := 0; r.Starts().Warm == 0; i++ {
		w.ID = fmt.Sprintf("%s-%d", id, i)
		if exit := runToEnd(t, r, w); exit.Code != 0 || i > 500 {
			t.Fatalf("%+v, %+v", exit, r.Starts())
		}
	}
}

// output is all that a workload wrote.
func output(t *testing.T, cfg process.Config, id string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(cfg.Dir, id, "output"))
	if err != nil {
		t.Fatal(err)
	}
	parts := strings.Split(string(b), "[tategu] create a virtual environment\n") // twice, where pip cannot be had
	return parts[len(parts)-1]
}

// dump writes what a program sees of itself.
const dump = `
import os, sys, signal, json, resource, threading, locale, site, sysconfig, tempfile
def show(v): return repr(v)
d = {
    "environ": list(os.environ.items()), "environb": sorted(os.environb.items()), "path": sys.path, "prefix": [sys.prefix, sys.exec_prefix, sys.base_prefix],
    "executable": [sys.executable, sys._base_executable, os.readlink("/proc/self/exe")], "argv": sys.argv, "orig_argv": getattr(sys, "orig_argv", None), "flags": tuple(sys.flags)[:15],
    "cmdline": open("/proc/self/cmdline", "rb").read().rstrip(b"\0"), "comm": open("/proc/self/comm").read(),
    "mark": b"\0TATEGU_WORKLOAD_DIR=" + os.fsencode(os.environ["TATEGU_WORKLOAD_DIR"]) + b"\0" in b"\0" + open("/proc/self/environ", "rb").read(),
    "signals": [(str(s), str(signal.getsignal(s)).split(" at ")[0]) for s in signal.valid_signals()], "mask": signal.pthread_sigmask(signal.SIG_BLOCK, []),
    "caught": [l for l in open("/proc/self/status") if l.startswith(("Sig", "Cap", "NoNew", "Seccomp", "Uid", "Gid", "Groups", "Umask", "Threads")) and not l.startswith("SigQ")],
    "limits": [(n, resource.getrlimit(getattr(resource, n))) for n in dir(resource) if n.startswith("RLIMIT_")],
    "fds": sorted((n, os.readlink("/proc/self/fd/" + n)) for n in os.listdir("/proc/self/fd") if n not in os.environ["THEIRS"].split() and os.path.exists("/proc/self/fd/" + n)),
    "cwd": os.getcwd(), "group": os.getpgrp() == os.getpid(), "session": os.getsid(0) == os.getppid(), "tty": os.isatty(0),
    "main": {k: show(v).split(" at ")[0] for k, v in globals().items() if k.startswith("__") and k != "__builtins__"}, "names": "control" in globals(),
    "file": __file__, "threads": threading.active_count(), "locale": [locale.setlocale(locale.LC_ALL), sys.getfilesystemencoding(), sys.stdout.encoding],
    "unbuffered": [sys.stdout.write_through, sys.stderr.write_through, sys.stdin.isatty()], "site": [site.PREFIXES, site.USER_BASE, site.USER_SITE, site.ENABLE_USER_SITE, sysconfig.get_config_var("userbase"), sysconfig.get_path("purelib")],
    "tmp": tempfile.gettempdir(), "nice": os.nice(0), "cpus": sorted(os.sched_getaffinity(0)), "hook": sys.excepthook is sys.__excepthook__,
    "oom": open("/proc/self/oom_score_adj").read(), "mounts": [l.split()[4] for l in open("/proc/self/mountinfo") if "gcs" in l],
    "root": sorted(os.listdir("/")), "cgroup": open("/proc/self/cgroup").read(), "sitecustomize": sys.modules["sitecustomize"].__file__,
    "finders": sorted(p for p in sys.path_importer_cache if "workloads" in p and os.getcwd().rsplit("/", 1)[0] not in p),
}
print(json.dumps({k: repr(v) for k, v in d.items()}))
`

// inheritedFDs are descriptors that whoever runs the tests leaves open for all.
func inheritedFDs(t *testing.T) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "python3", "-c", "import os; print(*[n for n in os.listdir('/proc/self/fd') if int(n) > 2 and os.path.exists('/proc/self/fd/' + n)])").Output()
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(out))
}

// TestWarmEqualsCold: a program cannot tell that it was forked.
func TestWarmEqualsCold(t *testing.T) {
	t.Parallel()
	for name, noMounts := range map[string]bool{"mounted": false, "hook": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cfg := warmConfig(t)
			cfg.NoMounts, cfg.Credentials = noMounts, &runtimetest.Credentials{}
			r := open(t, cfg)
			w := script("x", dump)
			w.Args, w.Env = []string{"one", "zwei ✓"}, map[string]string{"MINE": "ä", "GCS": "/gcs/b/o", "THEIRS": inheritedFDs(t)}
			compareStarts(t, r, cfg, w)
		})
	}
}

// dumped reads a dump, with what differs by the workload's name taken out.
func dumped(t *testing.T, cfg process.Config, id string) map[string]string {
	t.Helper()
	var got map[string]string
	if err := json.Unmarshal([]byte(output(t, cfg, id)), &got); err != nil {
		t.Fatalf("%v: %s", err, output(t, cfg, id))
	}
	for k, v := range got {
		v = strings.ReplaceAll(v, filepath.Join(cfg.Dir, id), "DIR")
		got[k] = strings.ReplaceAll(v, "'"+id+"//'", "its own credential")
	}
	return got
}

// TestWarmEnds: however a program ends, the end is that of a cold start.
func TestWarmEnds(t *testing.T) {
	t.Parallel()
	cfg := warmConfig(t)
	r := open(t, cfg)
	warmUp(t, r, script("up", "import os\n"))
	coldCfg := cfg
	coldCfg.Dir, coldCfg.Zygotes = filepath.Join(t.TempDir(), "workloads"), ""
	cold := open(t, coldCfg)
	for name, source := range map[string]string{
		"exit":      "import sys\nsys.exit(7)\n",
		"text":      "import sys\nsys.exit('why')\n",
		"none":      "import sys\nsys.exit()\n",
		"big":       "raise SystemExit(300)\n",
		"at-once":   "import os\nos._exit(9)\n",
		"crash":     "import os\nos.kill(os.getpid(), 11)\n",
		"oom":       "import os\nos.kill(os.getpid(), 9)\n",
		"ctrl-c":    "raise KeyboardInterrupt\n",
		"error":     "def f():\n    raise ValueError('x')\ntry:\n    f()\nexcept ValueError as e:\n    raise RuntimeError('y') from e\n",
		"syntax":    "x = = 1\n",
		"atexit":    "import atexit, sys\natexit.register(print, 'bye')\nprint('hi')\n1/0\n",
		"thread":    "import threading, time\nthreading.Thread(target=lambda: (time.sleep(0.1), print('late'))).start()\nprint('main')\n",
		"fork":      "import os\np = os.fork()\nif p == 0:\n    print('child'); os._exit(3)\nprint(os.waitstatus_to_exitcode(os.waitpid(p, 0)[1]))\n",
		"hook":      "import sys\nsys.excepthook = lambda *a: print('hooked', a[0].__name__, a[2].tb_frame.f_code.co_name)\n1/0\n",
		"processes": "import multiprocessing as m\ndef f(x): return x * x\nif __name__ == '__main__':\n    for how in ('fork', 'spawn'):\n        with m.get_context(how).Pool(2) as p: print(p.map(f, [1, 2, 3]))\n",
		"buffer":    "f = open(1, 'w', closefd=False)\nf.write('left in a buffer')\n",
		"replaced":  "import io, sys\nsys.stdout.reconfigure(write_through=False)\nprint('left in a buffer')\nsys.stdout = io.StringIO()\n",
		"del":       "class A:\n    def __del__(self): print('gone')\na = A()\n",
		"cycle":     "class A:\n    def __del__(self): print('gone')\na = A()\na.a = a\ndel a\n",
		"kept":      "import os\nclass A:\n    def __del__(self): print('gone', os.getpid() > 0)\nos.kept = A()\n",
		"frozen":    "import gc\nclass A:\n    def __del__(self): print('gone')\na = A()\ngc.freeze()\n",
		"generator": "def g():\n    try:\n        yield\n    finally:\n        print('closed')\nx = g()\nnext(x)\n",
		"callback":  "import weakref\nclass A: pass\nr = []\na = A()\nr.append(weakref.ref(a, lambda _: print('gone')))\n",
		"library":   "import ctypes\nlibc = ctypes.CDLL(None)\nlibc.printf(b'in a buffer of C')\n",
		"daemon":    "import threading, time\nthreading.Thread(target=time.sleep, args=(1000,), daemon=True).start()\nprint('main')\n",
		"closed":    "import sys\nsys.stdout.close()\n",
		"exits":     "import atexit, os\natexit.register(os._exit, 4)\natexit.register(lambda: 1/0)\n",
		"pickle":    "import pickle\nclass A: pass\nprint(pickle.loads(pickle.dumps(A())).__class__.__module__)\n",
		"orphan":    "import os\nif os.fork() == 0:\n    os.setsid()\n    import time\n    time.sleep(1000)\nprint('left one')\n",
	} {
		w := script(name, source)
		warm, started := runToEnd(t, r, w), r.Starts()
		want := runToEnd(t, cold, w)
		clean := func(s, dir string) string {
			return regexp.MustCompile(`0x[0-9a-f]+`).ReplaceAllString(strings.ReplaceAll(s, filepath.Join(dir, name), "DIR"), "0x")
		}
		if warm.Code != want.Code || warm.Signal != want.Signal || warm.Cause != want.Cause {
			t.Errorf("%s: warm %+v, cold %+v", name, warm, want)
		}
		if a, b := clean(output(t, cfg, name), cfg.Dir), clean(output(t, coldCfg, name), coldCfg.Dir); a != b {
			t.Errorf("%s wrote\n%s\ncold\n%s", name, a, b)
		}
		if started.Failed > 0 {
			t.Errorf("%s: %+v", name, started)
		}
	}
}

// zygotes finds the parents of a runtime's programs.
func zygotes(t *testing.T, cfg process.Config) []int {
	t.Helper()
	links, err := filepath.Glob("/proc/[0-9]*/cwd")
	if err != nil {
		t.Fatal(err)
	}
	var out []int
	for _, link := range links {
		if at, err := os.Readlink(link); err == nil && strings.HasPrefix(at, zygoteDir(cfg)+"/") {
			pid, err := strconv.Atoi(filepath.Base(filepath.Dir(link)))
			if err != nil {
				t.Fatal(err)
			}
			out = append(out, pid)
		}
	}
	return out
}

// TestZygoteKilled: its end harms no program that runs, and the next ones start cold
// until there is another.
func TestZygoteKilled(t *testing.T) {
	t.Parallel()
	for name, sig := range map[string]syscall.Signal{"killed": syscall.SIGKILL, "hangs": syscall.SIGSTOP} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cfg := warmConfig(t)
			r := open(t, cfg)
			warmUp(t, r, script("up", "pass\n"))
			flag := filepath.Join(t.TempDir(), "go")
			in, err := r.Start(t.Context(), script("runs", "import os, time\nwhile not os.path.exists("+strconv.Quote(flag)+"): time.sleep(0.02)\nprint('went on')\n"))
			if err != nil {
				t.Fatal(err)
			}
			await(t, func() bool { return in.Status().Phase == runtime.Running })
			if note := in.Status().Message; !strings.HasPrefix(note, "warm start") {
				t.Fatalf("note %q", note)
			}
			found := zygotes(t, cfg)
			if len(found) != 1 {
				t.Fatalf("zygotes %v", found)
			}
			if err := syscall.Kill(found[0], sig); err != nil {
				t.Fatal(err)
			}
			if exit := runToEnd(t, r, script("next", "print('cold')\n")); !exit.OK() {
				t.Errorf("%+v", exit)
			}
			if err := os.WriteFile(flag, nil, 0o600); err != nil {
				t.Fatal(err)
			}
			if exit, err := in.Wait(t.Context()); err != nil || !exit.OK() || exit.Tail[0] != "went on" {
				t.Errorf("%+v, %v", exit, err)
			}
		})
	}
}

// child is the one child of a process; 0 = there is none yet.
func child(t *testing.T, parent int) int {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", parent, parent))
	if err != nil {
		return 0 // it has just ended, or not begun
	}
	pids := strings.Fields(string(b))
	if len(pids) != 1 {
		return 0
	}
	pid, err := strconv.Atoi(pids[0])
	if err != nil {
		t.Fatal(err)
	}
	return pid
}

// TestSpareKilled: the fork that waits for the next program may go; there is another.
func TestSpareKilled(t *testing.T) {
	t.Parallel()
	cfg := warmConfig(t)
	r := open(t, cfg)
	warmUp(t, r, script("up", "pass\n"))
	found := zygotes(t, cfg)
	if len(found) != 1 {
		t.Fatalf("zygotes %v", found)
	}
	var spare int
	await(t, func() bool { // until it has a program, which has closed what is not its own
		spare = child(t, found[0])
		files, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", child(t, spare)))
		return spare > 0 && err == nil && len(files) == 4
	})
	if err := syscall.Kill(spare, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	await(t, func() bool { return syscall.Kill(spare, 0) != nil })
	before := r.Starts()
	if exit := runToEnd(t, r, script("next", "print('warm')\n")); !exit.OK() {
		t.Errorf("%+v", exit)
	}
	if after := r.Starts(); after.Warm != before.Warm+1 || after.Failed > 0 {
		t.Errorf("before %+v, after %+v", before, after)
	}
}

// TestSpareEndsWithServer: what waits for a task ends with the zygote, and what it has
// forked with it.
func TestSpareEndsWithServer(t *testing.T) {
	t.Parallel()
	cfg := warmConfig(t)
	r := open(t, cfg)
	warmUp(t, r, script("up", "pass\n"))
	found := zygotes(t, cfg)
	if len(found) != 1 {
		t.Fatalf("zygotes %v", found)
	}
	var spare, program int
	await(t, func() bool {
		spare = child(t, found[0])
		program = child(t, spare)
		return spare > 0 && program > 0
	})
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	gone := func(pid int) bool { // collected or not
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		return err != nil || len(text) == 0
	}
	await(t, func() bool { return gone(found[0]) && gone(spare) && gone(program) })
}

// TestZygoteEndsWithServer: nothing but the programs is left, and they are adopted.
func TestZygoteEndsWithServer(t *testing.T) {
	t.Parallel()
	cfg := warmConfig(t)
	r := open(t, cfg)
	warmUp(t, r, script("up", "pass\n"))
	in, err := r.Start(t.Context(), script("runs", "import time\nprint('up')\ntime.sleep(1000)\n"))
	if err != nil {
		t.Fatal(err)
	}
	await(t, func() bool { return in.Status().Phase == runtime.Running })
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	await(t, func() bool { return len(zygotes(t, cfg)) == 0 })
	again := open(t, cfg)
	found, err := again.Find(t.Context(), "runs")
	if err != nil || again.Adopted() != 1 {
		t.Fatalf("adopted %d, %v", again.Adopted(), err)
	}
	if err := found.Stop(t.Context(), time.Minute); err != nil {
		t.Fatal(err)
	}
	if exit := found.Status().Exit; exit.Message != "stopped" || exit.Signal != "SIGTERM" {
		t.Errorf("%+v", exit)
	}
}
