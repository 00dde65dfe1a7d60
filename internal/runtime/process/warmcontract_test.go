package process_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"tategu/internal/runtime"
	"tategu/internal/runtime/process"
	"tategu/internal/runtime/runtimetest"
)

// pythonic starts what the contract starts from a Python script, so that it can be
// forked; what does not exist, or has a script of its own, is left alone.
type pythonic struct{ *process.Runtime }

func (p pythonic) Start(ctx context.Context, w runtime.Workload) (runtime.Instance, error) {
	if w.Python == nil && len(w.Command) > 0 && w.Command[0] == "sh" {
		w.Python = &runtime.Python{Version: "3.11", Script: "import os, sys\nos.execvp(sys.argv[1], sys.argv[1:])\n"}
		w.Command, w.Args = nil, slices.Concat(w.Command, w.Args)
	}
	return p.Runtime.Start(ctx, w)
}

// TestWarmContract: the contract holds for programs that are forked.
func TestWarmContract(t *testing.T) {
	for _, name := range []string{"TATEGU_SECRET", "AWS_SECRET_ACCESS_KEY", "GOOGLE_APPLICATION_CREDENTIALS"} {
		t.Setenv(name, "secret")
	}
	shared, _ := pythonConfig(t, nil)
	first := open(t, shared) // makes the environment that all share
	if exit := runToEnd(t, first, script("first", "pass\n")); !exit.OK() {
		t.Fatalf("%+v", exit)
	}
	small := smallWrapper(t)
	for name, noMounts := range map[string]bool{"Mounted": false, "Hook": true} {
		t.Run(name, func(t *testing.T) {
			var runs sync.Mutex
			var all []*process.Runtime
			t.Cleanup(func() {
				warm := 0
				for _, a := range all {
					warm += a.Starts().Warm
				}
				if warm == 0 {
					t.Error("no program was forked")
				}
			})
			runtimetest.Run(t, func(t *testing.T, o runtimetest.Options) runtimetest.Adapter {
				t.Helper()
				a, ok := contractAdapter(t, o, func(c *process.Config) {
					c.NoMounts, c.Zygotes, c.CacheDir, c.Wrapper = noMounts, zygoteDir(*c), shared.CacheDir, small
				}).(*process.Runtime)
				if !ok {
					t.Fatal("another adapter")
				}
				runs.Lock()
				defer runs.Unlock()
				all = append(all, a)
				return pythonic{a}
			})
		})
	}
}

// TestWarmMany: so many at once leave nothing behind.
func TestWarmMany(t *testing.T) {
	t.Parallel()
	cfg := warmConfig(t)
	cfg.Wrapper = smallWrapper(t)
	r := open(t, cfg)
	warmUp(t, r, script("up", "import os, random\n"))
	const many = 200
	var all sync.WaitGroup
	for i := range many {
		all.Go(func() {
			in, err := r.Start(t.Context(), script(fmt.Sprintf("many-%d", i), "import os, random\nif os.fork() == 0: os._exit(0)\nprint(random.random())\n"))
			if err != nil {
				t.Error(err)
				return
			}
			if exit, err := in.Wait(t.Context()); err != nil || !exit.OK() {
				t.Errorf("%+v, %v", exit, err)
			}
		})
	}
	all.Wait()
	if s := r.Starts(); s.Warm < many || s.Failed > 0 {
		t.Errorf("%+v", s)
	}
	seen := map[string]bool{}
	for i := range many {
		text := output(t, cfg, fmt.Sprintf("many-%d", i))
		_, text, _ = strings.Cut(text, "0.") // after what the queue says
		if text == "" || seen[text] {
			t.Errorf("two programs have the random number %s", text)
		}
		seen[text] = true
	}
	left := zygotes(t, cfg)
	if len(left) != 1 {
		t.Errorf("zygotes %v", left)
	}
	await(t, func() bool { return len(processesOf(t, cfg)) == 0 })
}

// processesOf finds what runs of a runtime's workloads.
func processesOf(t *testing.T, cfg process.Config) []string {
	t.Helper()
	links, err := filepath.Glob("/proc/[0-9]*/cwd")
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	buf := make([]byte, 4096)
	for _, link := range links {
		n, err := syscall.Readlink(link, buf)
		if at := string(buf[:max(n, 0)]); err == nil && strings.HasPrefix(at, cfg.Dir) {
			out = append(out, link)
		}
	}
	return out
}

// TestWarmImports: what programs import is loaded beforehand once it repeats, and
// what must not be is left to them.
func TestWarmImports(t *testing.T) {
	t.Parallel()
	cfg := warmConfig(t)
	r := open(t, cfg)
	folder := t.TempDir()
	for name, source := range map[string]string{
		"good.py": "import os\nparent = os.getpid()\n", "threads.py": "import threading, time\nthreading.Thread(target=time.sleep, args=(1000,), daemon=True).start()\nimport os\nparent = os.getpid()\n",
		"secret.py": "import os\nparent = os.getpid()\nvalue = os.environ.get('TMPDIR')\n", "loud.py": "import os\nparent = os.getpid()\nprint('loud')\n",
		"handler.py": "import os, signal\nparent = os.getpid()\nsignal.signal(signal.SIGUSR1, lambda *a: None)\n", "opens.py": "import os\nparent = os.getpid()\nf = open('/dev/zero')\n",
		"fails.py": "import os\nraise OSError('no')\n", "copies.py": "import os\nparent = os.getpid()\nall = dict(os.environ)\n", "more.py": "import os\nparent = os.getpid()\n",
		"walks.py": "import os\nparent = os.getpid()\nfound = [v for k, v in os.environ.items() if k.startswith('TORCH_')]\n", "hides.py": "import os\nparent = os.getpid()\ndef hide():\n    held = os.environ.copy()\n    return lambda: held\nf = hide()\n",
	} {
		writeScript(t, filepath.Join(folder, name), source)
	}
	says := "    print(m.parent != os.getpid())\n"
	body := "import os, good\ndef f():\n    import threads, secret, loud, handler, opens, copies, walks, hides\n    try:\n        import fails\n    except OSError: pass\n    for m in (good, threads, secret, loud, handler, opens, copies, walks, hides):\n    " + says + "f()\n"
	w := script("up", body)
	w.Env = map[string]string{"PYTHONPATH": folder}
	warmUp(t, r, w)
	w.ID = "warm"
	if exit := runToEnd(t, r, w); !exit.OK() {
		t.Fatalf("%+v", exit)
	}
	if got := strings.Fields(output(t, cfg, "warm")); strings.Join(got, " ") != "loud True False False False False False False True False" {
		t.Errorf("loaded beforehand: %q", got)
	}
	w.Python = &runtime.Python{Version: "3.11", Script: "import os\nimport more as m\nfor i in [1]:\n" + says}
	got := ""
	for i := 0; got != "True"; i++ {
		w.ID = fmt.Sprintf("more-%d", i)
		if exit := runToEnd(t, r, w); !exit.OK() || i > 500 {
			t.Fatalf("%+v", exit)
		}
		got = strings.TrimSpace(output(t, cfg, w.ID))
		if i == 0 && got != "False" {
			t.Errorf("loaded before it was seen: %q", got)
		}
	}
}

// TestWarmReaders: a module that keeps what variables say, and is known to do no more,
// is loaded beforehand, and each program has its own values in it.
func TestWarmReaders(t *testing.T) {
	t.Parallel()
	cfg := warmConfig(t)
	r := open(t, cfg)
	folder := t.TempDir()
	for name, source := range map[string]string{
		"google/__init__.py": "", "google/auth/__init__.py": "", "google/auth/compute_engine/__init__.py": "",
		"google/auth/compute_engine/_metadata.py": "import os\nvalue = os.getenv('TMPDIR')\ndef told(): return value\n",
		"cloud.py": "import os\nfrom google.auth.compute_engine._metadata import told\nparent = os.getpid()\n",
		"late.py":  "import os\nfrom google.auth.compute_engine import _metadata\nparent = os.getpid()\nvalue = os.getenv('TMPDIR')\n",
	} {
		file := filepath.Join(folder, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		writeScript(t, file, source)
	}
	w := script("up", "import os, tempfile, cloud, late\nprint(cloud.parent != os.getpid(), late.parent != os.getpid(), cloud.told() == tempfile.gettempdir())\n")
	w.Env = map[string]string{"PYTHONPATH": folder}
	warmUp(t, r, w)
	w.ID = "warm"
	if exit := runToEnd(t, r, w); !exit.OK() {
		t.Fatalf("%+v", exit)
	}
	if got := strings.TrimSpace(output(t, cfg, "warm")); got != "True False True" {
		t.Errorf("loaded beforehand, loaded although it reads a variable itself, with the right value: %s", got)
	}
}
