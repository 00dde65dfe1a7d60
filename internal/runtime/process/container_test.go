package process_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"tategu/internal/runtime"
	"tategu/internal/runtime/process"
	"tategu/internal/runtime/runtimetest"
)

// needContainers skips where this machine cannot run any, and says why.
func needContainers(t *testing.T, r *process.Runtime) {
	t.Helper()
	if err := r.Check(runtime.Workload{ID: "probe", Image: "shell:1", Command: []string{"true"}}); err != nil {
		t.Skip(err)
	}
}

// inImages opens a runtime that keeps images.
func inImages(t *testing.T, kept images) *process.Runtime {
	t.Helper()
	cfg := config(t)
	kept["shell:1"] = shell(t)
	cfg.ImageStore = kept
	r := open(t, cfg)
	needContainers(t, r)
	return r
}

// TestContainerContract: the contract of the port, in an image.
func TestContainerContract(t *testing.T) {
	for _, name := range []string{"TATEGU_SECRET", "AWS_SECRET_ACCESS_KEY", "GOOGLE_APPLICATION_CREDENTIALS"} {
		t.Setenv(name, "secret")
	}
	containerContract(t, func(*process.Config) {})
}

func containerContract(t *testing.T, set func(*process.Config)) {
	t.Helper()
	kept := images{"shell:1": shell(t)}
	inImages(t, images{})
	cache := t.TempDir()
	runtimetest.Run(t, func(t *testing.T, o runtimetest.Options) runtimetest.Adapter {
		t.Helper()
		cfg := config(t)
		cfg.Dir, cfg.CacheDir, cfg.Files, cfg.Credentials, cfg.Logs = filepath.Join(o.Dir, "w"), cache, o.Files, o.Credentials, o.Logs
		cfg.Schedule = o.Schedule
		cfg.ImageStore = kept
		cfg.Images = []runtime.ImageRule{{Match: "shell:1", Image: true, Mounts: []string{o.Shared + ":" + o.Shared}}}
		set(&cfg)
		r, err := process.New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		return contained{r}
	})
}

// contained runs what names no image in ours.
type contained struct{ *process.Runtime }

func (c contained) Start(ctx context.Context, w runtime.Workload) (runtime.Instance, error) {
	if w.Image == "" {
		w.Image = "shell:1"
	}
	return c.Runtime.Start(ctx, w)
}

// TestContainerConfig: what an image says of its process holds, and what a
// workload says goes before it.
func TestContainerConfig(t *testing.T) {
	t.Parallel()
	kept := images{}
	r := inImages(t, kept)
	base := kept["shell:1"].Layers
	kept["app:1"] = image("app:1", runtime.ImageConfig{
		Env: []string{"FROM_IMAGE=yes", "GIVEN=image"}, User: "user", WorkingDir: "/srv/app",
		Entrypoint: []string{"sh", "-c"}, Cmd: []string{`echo default`},
	}, base...)
	tests := map[string]struct {
		w    runtime.Workload
		want string
	}{
		"default":   {want: "default"},
		"arguments": {w: runtime.Workload{Args: []string{`echo "$FROM_IMAGE $GIVEN $(pwd) $HOME"`}, Env: map[string]string{"GIVEN": "workload"}}, want: "yes workload /srv/app /home/user"},
		"command":   {w: runtime.Workload{Command: []string{"env"}}, want: "FROM_IMAGE=yes"},
		"user":      {w: runtime.Workload{Args: []string{`id -u; id -g; id -G; touch /gcs/x /tmp/x /tategu/work/x && echo writes`}}, want: "1000\n1001\n1001 1002\nwrites"},
		"host name": {w: runtime.Workload{Args: []string{`hostname`}}, want: "hostname"},
		"stdout":    {w: runtime.Workload{Args: []string{`echo again > /dev/stdout`}}, want: "again"},
	}
	for name, tc := range tests {
		w := tc.w
		w.ID, w.Image = strings.ReplaceAll(name, " ", ""), "app:1"
		exit := runToEnd(t, r, w)
		if name == "user" && os.Geteuid() != 0 {
			continue // one id, which is root's
		}
		if got := strings.Join(exit.Tail, "\n"); !exit.OK() || !strings.Contains(got, tc.want) {
			t.Errorf("%s: exit %+v, want output with %q", name, exit, tc.want)
		}
	}
}

// TestContainerStopWithoutRoom: on a full disk stop.json has a name and no content.
// The wrapper takes it for Stop; a signal alone may be of the program itself.
func TestContainerStopWithoutRoom(t *testing.T) {
	t.Parallel()
	cfg := config(t)
	cfg.ImageStore = images{"shell:1": shell(t)}
	logs := runtimetest.NewLogs()
	cfg.Logs = logs
	r := open(t, cfg)
	needContainers(t, r)
	in, err := r.Start(t.Context(), runtime.Workload{ID: "a", Image: "shell:1", Command: []string{"sh", "-c", "kill -TERM 1; echo began; sleep 1000"}})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := logs.Await(ctx, "a", "began"); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(cfg.Dir, "a", "stop.json"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(in.Status().PID, syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if exit, err := in.Wait(ctx); err != nil || exit.Message != "stopped" {
		t.Errorf("%+v, %v", exit, err)
	}
}

// TestContainerOutputsOutlast: the overlay of a container is volatile: nothing of it
// is synced. What the program wrote is published all the same, also by the next
// server, after the wrapper has ended.
func TestContainerOutputsOutlast(t *testing.T) {
	t.Parallel()
	cfg := config(t)
	cfg.ImageStore = images{"shell:1": shell(t)}
	files := runtimetest.NewFiles(map[string]string{})
	cfg.Files = files
	r := open(t, cfg)
	needContainers(t, r)
	dir := filepath.Join(cfg.Dir, "a")
	w := runtime.Workload{
		ID: "a", Image: "shell:1", Publish: true, Dirs: []string{"/gcs/b/run"}, ExecutorOutput: "/gcs/b/run/said.json",
		Command: []string{"sh", "-c", `
set -e
echo overlay > /made && cat /made > /gcs/b/run/copied
echo elsewhere > /tmp/elsewhere
echo '{"artifacts":{"a":{"artifacts":[{"uri":"gs://b/run/elsewhere","custom_path":"/tmp/elsewhere"}]}}}' > /gcs/b/run/said.json
until [ -e /tmp/go ]; do sleep 0.01; done
echo last > /gcs/b/run/last`},
	}
	if _, err := r.Start(t.Context(), w); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	waitFile(ctx, t, filepath.Join(dir, "gcs/b/run/said.json"))
	// The server is gone while the program writes the last of it, and its end.
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "tmp/go"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	waitFile(ctx, t, filepath.Join(dir, "exit.json"))
	in, err := open(t, cfg).Find(ctx, "a")
	if err != nil {
		t.Fatal(err)
	}
	if exit, err := in.Wait(ctx); err != nil || !exit.OK() {
		t.Fatalf("%+v, %v", exit, err)
	}
	for name, want := range map[string]string{"copied": "overlay", "elsewhere": "elsewhere", "last": "last"} {
		if got := files.Content("gs://b/run/" + name); got != want+"\n" {
			t.Errorf("%s = %q", name, got)
		}
	}
	// Of the overlay itself everything is on the machine's side, too.
	if b, err := os.ReadFile(filepath.Join(dir, "box/upper/made")); err != nil || string(b) != "overlay\n" {
		t.Errorf("the overlay has %q, %v", b, err)
	}
}

func waitFile(ctx context.Context, t *testing.T, path string) {
	t.Helper()
	for tick := time.Tick(time.Millisecond); ; {
		if _, err := os.Stat(path); err == nil {
			return
		}
		select {
		case <-tick:
		case <-ctx.Done():
			t.Fatalf("%s did not come", path)
		}
	}
}
