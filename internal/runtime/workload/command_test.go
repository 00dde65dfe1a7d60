package workload_test

import (
	"os/exec"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"tategu/internal/runtime"
	"tategu/internal/runtime/workload"
)

func TestArgv(t *testing.T) {
	t.Parallel()
	image := runtime.ImageConfig{Entrypoint: []string{"/entry"}, Cmd: []string{"default"}}
	script := &runtime.Python{Script: "print()"}
	for name, tc := range map[string]struct {
		w     runtime.Workload
		image runtime.ImageConfig
		want  []string
	}{
		"image":          {image: image, want: []string{"/entry", "default"}},
		"arguments":      {image: image, w: runtime.Workload{Args: []string{"a"}}, want: []string{"/entry", "a"}},
		"command":        {image: image, w: runtime.Workload{Command: []string{"c"}}, want: []string{"c"}},
		"both":           {image: image, w: runtime.Workload{Command: []string{"c"}, Args: []string{"--port=$(PORT)"}}, want: []string{"c", "--port=7"}},
		"script":         {image: image, w: runtime.Workload{Python: script, Args: []string{"a"}}, want: []string{"python3", "/s.py", "a"}},
		"script by name": {w: runtime.Workload{Python: script, Command: []string{"py", runtime.ScriptPath}}, want: []string{"py", "/s.py"}},
		"nothing":        {},
	} {
		got, err := workload.Argv(tc.w, tc.image, "/s.py", 7)
		if d := cmp.Diff(tc.want, got); d != "" || (err == nil) != (tc.want != nil) {
			t.Errorf("%s: %v %s", name, err, d)
		}
	}
}

// TestInstalling: a shell reads the words as they were meant, and becomes the program.
func TestInstalling(t *testing.T) {
	t.Parallel()
	w := runtime.Workload{Command: []string{"printf", "%s.", "it's", "$HOME"}, Python: &runtime.Python{
		Packages: []string{"--no-deps kfp==2", "a 'quoted' one"}, Indexes: []string{"https://first", "https://second"},
	}}
	argv, err := workload.Argv(w, runtime.ImageConfig{}, "", 0)
	if err != nil {
		t.Fatal(err)
	}
	argv[2] = `python3() { printf '<%s>' "$@"; }; ` + argv[2]
	out, err := exec.CommandContext(t.Context(), argv[0], argv[1:]...).Output()
	pip := "<-m><pip><install><--quiet><--disable-pip-version-check><--root-user-action=ignore><--index-url><https://first><--extra-index-url><https://second>"
	if want := pip + "<--no-deps><kfp==2>" + pip + "<a 'quoted' one>it's.$HOME."; err != nil || string(out) != want {
		t.Fatalf("%v\n%s\nwant\n%s", err, out, want)
	}
}

func TestHostName(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("a", 100)
	if got := workload.HostName(long); len(got) != 63 || got == workload.HostName(long+"b") || workload.HostName("x") != "x" {
		t.Fatal(got)
	}
}

// TestInside: what the image and the workload say wins over what libraries are asked for.
func TestInside(t *testing.T) {
	t.Parallel()
	env := map[string]string{"DO_NOT_TRACK": "0"} // the image's
	workload.Inside(env, workload.Accepted{Workload: runtime.Workload{Env: map[string]string{"TMPDIR": "/elsewhere"}}}, nil, true)
	for name, want := range map[string]string{"DO_NOT_TRACK": "0", "ORT_DISABLE_TELEMETRY": "1", "TMPDIR": "/elsewhere", "NO_GCE_CHECK": "true"} {
		if env[name] != want {
			t.Errorf("%s is %q, not %q", name, env[name], want)
		}
	}
}
