package process_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

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
