package docker_test

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/registry"

	"tategu/internal/resource"
	"tategu/internal/runtime"
	"tategu/internal/runtime/docker"
	"tategu/internal/runtime/runtimetest"
)

// TestConfig: what an image says of its process holds, and what a workload says
// goes before it.
func TestConfig(t *testing.T) {
	eachEngine(t, func(t *testing.T, socket string) {
		t.Helper()
		kept := images{}
		base := shell(t).Layers
		kept["app:1"] = image("app:1", runtime.ImageConfig{
			Env: []string{"FROM_IMAGE=yes", "GIVEN=image"}, User: "user", WorkingDir: "/srv/app",
			Entrypoint: []string{"sh", "-c"}, Cmd: []string{`echo default`},
		}, append(base, layer(t, map[string][]byte{"srv/app/": nil, "srv/app/file": []byte("upper")}))...)
		files := runtimetest.NewFiles(map[string]string{"gs://bk/in": "fetched"})
		cfg := config(t, socket, kept)
		certificate := filepath.Join(t.TempDir(), "ca.pem")
		if err := os.WriteFile(certificate, []byte("PEM"), 0o644); err != nil {
			t.Fatal(err)
		}
		kept["alone:1"] = kept["app:1"]
		cfg.Images = []runtime.ImageRule{{Match: "alone:*", Image: true, Network: "none"}}
		cfg.Volumes = t.TempDir()
		cfg.Credentials = &runtimetest.Credentials{}
		cfg.Files, cfg.ExtraEnv = files, map[string]string{"SSL_CERT_FILE": certificate, "PROXY": "x"}
		r := open(t, cfg)
		tests := map[string]struct {
			w    runtime.Workload
			want string
		}{
			"default":     {want: "default"},
			"arguments":   {runtime.Workload{Args: []string{`echo "$FROM_IMAGE $GIVEN $(pwd) $(cat file)"`}, Env: map[string]string{"GIVEN": "workload"}}, "yes workload /srv/app upper"},
			"command":     {runtime.Workload{Command: []string{"env"}}, "FROM_IMAGE=yes"},
			"user":        {runtime.Workload{Args: []string{`id -u; id -g; touch /tmp/x /tategu/work/x && echo writes`}}, "1000\n1001\nwrites"},
			"objects":     {runtime.Workload{Args: []string{`cat /gcs/bk/in && echo -n new > /gcs/bk/in && echo -n made > /gcs/bk/deep/er/out`}, Dirs: []string{"/gcs/bk/deep/er"}, Publish: true}, "fetched"},
			"host":        {runtime.Workload{Args: []string{`hostname`}}, "host"},
			"certificate": {runtime.Workload{Args: []string{`cat $SSL_CERT_FILE; echo $PROXY`}}, "PEMx"},
			"privileges":  {runtime.Workload{Args: []string{`grep -E '^(CapBnd|NoNewPrivs)' /proc/self/status`}}, "CapBnd:\t00000000000005fb\nNoNewPrivs:\t1"},
			"limits":      {runtime.Workload{Args: []string{`cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/memory.max 2>/dev/null; true`}, Resources: runtime.Resources{MemoryBytes: 64 << 20, Cores: 1}}, "67108864"},
			"network":     {runtime.Workload{Args: []string{`env | grep -c TEST_CREDENTIAL; grep -c : /proc/net/dev`}}, "1\n"},
			"alone":       {runtime.Workload{Image: "alone:1", Args: []string{`env | grep -c TEST_CREDENTIAL; grep -c : /proc/net/dev`}}, "0\n1"},
			"volume":      {runtime.Workload{Args: []string{`echo kept > /mnt/shared/file && ls /mnt/own && echo seen`}, Volumes: []runtime.Volume{{Name: "v", SubPath: "deep", Path: "/mnt/shared"}, {Path: "/mnt/own"}}}, "seen"},
			"script":      {runtime.Workload{Command: []string{"cat", runtime.ScriptPath}, Python: &runtime.Python{Script: "print(1)"}}, "print(1)"},
		}
		for name, tc := range tests {
			w := tc.w
			w.ID, w.Image = name, cmp.Or(w.Image, "app:1")
			exit := runToEnd(t, r, w)
			if got := strings.Join(exit.Tail, "\n"); !exit.OK() || !strings.Contains(got, tc.want) {
				t.Errorf("%s: exit %+v, want output with %q", name, exit, tc.want)
			}
		}
		if b, err := os.ReadFile(filepath.Join(cfg.Volumes, "v", "deep", "file")); err != nil || string(b) != "kept\n" {
			t.Errorf("the volume holds %q, %v", b, err)
		}
		if err := r.Check(runtime.Workload{ID: "served", Image: "alone:1", Port: true}); err == nil || !strings.Contains(err.Error(), "without a network") {
			t.Errorf("a port without a network: %v", err)
		}
		if files.Content("gs://bk/in") != "new" || files.Content("gs://bk/deep/er/out") != "made" {
			t.Errorf("uploads %q", files.Uploads())
		}
	})
}

// TestCauses: who has to act, when it is not the program that failed.
func TestCauses(t *testing.T) {
	eachEngine(t, func(t *testing.T, socket string) {
		t.Helper()
		base := shell(t).Layers
		broken := layer(t, map[string][]byte{"x": []byte("y")})
		broken.DiffID = "sha256:" + strings.Repeat("00", 32)
		kept := images{
			"shell:1": shell(t), "user:1": image("user:1", runtime.ImageConfig{User: "nobody-here"}, base...),
			"foreign:1": image("foreign:1", runtime.ImageConfig{}, layer(t, map[string][]byte{"program": []byte("\x7fELFnot a program")})),
			"broken:1":  image("broken:1", runtime.ImageConfig{}, broken),
		}
		cfg := config(t, socket, kept)
		cfg.Images = []runtime.ImageRule{{Match: "mounts:*", Image: true, Mounts: []string{"/no/such:/x"}}}
		kept["mounts:1"] = image("mounts:1", runtime.ImageConfig{}, base...)
		r := open(t, cfg)
		memory := runtime.Resources{MemoryBytes: 32 << 20}
		for name, tc := range map[string]struct {
			w     runtime.Workload
			cause resource.Cause
			say   string
		}{
			"memory":  {runtime.Workload{Image: "shell:1", Command: []string{"sh", "-c", "tail /dev/zero"}, Resources: memory}, resource.CauseResource, "memory"},
			"user":    {runtime.Workload{Image: "user:1", Command: []string{"true"}}, resource.CauseInput, "nobody-here"},
			"foreign": {runtime.Workload{Image: "foreign:1", Command: []string{"/program"}}, resource.CauseInput, "/program"},
			"broken":  {runtime.Workload{Image: "broken:1", Command: []string{"true"}}, resource.CausePlatform, "load image broken:1"},
			"mounts":  {runtime.Workload{Image: "mounts:1", Command: []string{"true"}}, resource.CauseInput, "/no/such"},
		} {
			tc.w.ID = name
			if exit := runToEnd(t, r, tc.w); exit.OK() || exit.Cause != tc.cause || !strings.Contains(exit.Message, tc.say) {
				t.Errorf("%s: %+v, want cause %q and message with %q", name, exit, tc.cause, tc.say)
			}
		}
	})
}

// TestPull: images that nobody has come from their registry.
func TestPull(t *testing.T) {
	server := httptest.NewServer(registry.New())
	defer server.Close()
	host := strings.TrimPrefix(server.URL, "http://")
	eachEngine(t, func(t *testing.T, socket string) {
		t.Helper()
		reference := push(t, socket, host)
		cfg := config(t, socket, nil)
		cfg.Pull = true
		r := open(t, cfg)
		if exit := runToEnd(t, r, runtime.Workload{ID: "pulled", Image: reference, Command: []string{"true"}}); !exit.OK() {
			t.Errorf("pulled: %+v", exit)
		}
		away := httptest.NewServer(nil)
		away.Close()
		for image, cause := range map[string]resource.Cause{
			host + "/none:1": resource.CauseInput, strings.TrimPrefix(away.URL, "http://") + "/x:1": resource.CauseDependency,
		} {
			exit := runToEnd(t, r, runtime.Workload{ID: strings.NewReplacer("/", "-", ":", "-").Replace(image), Image: image, Command: []string{"true"}})
			if exit.Cause != cause || exit.Code != -1 || !strings.Contains(exit.Message, image) {
				t.Errorf("%s: %+v, want cause %q", image, exit, cause)
			}
		}
	})
}

// push makes the engine push a shell to a registry and forget it.
func push(t *testing.T, socket, host string) string {
	t.Helper()
	program, err := exec.LookPath("docker")
	if err != nil {
		t.Skip("the docker command, which pushes the image to pull, is not installed")
	}
	files, err := shellFiles()
	if err != nil {
		t.Fatal(err)
	}
	reader, err := layer(t, files).Open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	reference := host + "/pushed:1"
	for _, args := range [][]string{{"import", "-", reference}, {"push", reference}, {"rmi", reference}} {
		cmd := exec.CommandContext(t.Context(), program, append([]string{"-H", "unix://" + socket}, args...)...)
		cmd.Stdin = reader
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("docker %v: %v\n%s", args, err, out)
		}
	}
	return reference
}

// containerOf reads the id of a workload's container.
func containerOf(t *testing.T, cfg docker.Config, id string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(cfg.Dir, id, "container.json"))
	if err != nil {
		t.Fatal(err)
	}
	var c struct{ ID string }
	if err := json.Unmarshal(b, &c); err != nil {
		t.Fatal(err)
	}
	return c.ID
}

// killed opens a runtime that the test closes over its workloads.
func killed(t *testing.T, cfg docker.Config) *docker.Runtime {
	t.Helper()
	r, err := docker.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// TestKilled: servers end without a word at the moments between the engine's acts
// and our records of them.
func TestKilled(t *testing.T) {
	eachEngine(t, func(t *testing.T, socket string) {
		t.Helper()
		program, err := exec.LookPath("docker")
		if err != nil {
			t.Skip("the docker command, which changes what a server left, is not installed")
		}
		engine := func(args ...string) string {
			out, err := exec.CommandContext(t.Context(), program, append([]string{"-H", "unix://" + socket}, args...)...).Output()
			if err != nil {
				t.Fatalf("docker %v: %v", args, err)
			}
			return strings.TrimSpace(string(out))
		}
		logs := runtimetest.NewLogs()
		cfg := config(t, socket, images{"shell:1": shell(t)})
		cfg.Logs = logs
		r := killed(t, cfg)
		for _, id := range []string{"runs", "unrecorded", "unstarted", "removed"} {
			w := runtime.Workload{ID: id, Image: "shell:1", Command: []string{"sh", "-c", "echo began; sleep 1000"}}
			if _, err := r.Start(t.Context(), w); err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			if err := logs.Await(ctx, id, "began"); err != nil {
				t.Fatal(err)
			}
			cancel()
		}
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
		name := engine("inspect", "-f", "{{.Name}}", containerOf(t, cfg, "unrecorded"))
		// Made and not recorded: it has our name.
		engine("rm", "-f", containerOf(t, cfg, "unrecorded"))
		engine("create", "--name", strings.TrimPrefix(name, "/"), engine("inspect", "-f", "{{.Image}}", containerOf(t, cfg, "runs")), "false")
		for id, files := range map[string][]string{"unrecorded": {"container.json", "output", "shipped.json"}, "unstarted": {"output", "shipped.json"}} {
			for _, file := range files {
				if err := os.Remove(filepath.Join(cfg.Dir, id, file)); err != nil && !errors.Is(err, fs.ErrNotExist) {
					t.Fatal(err)
				}
			}
		}
		// Recorded and not started.
		old := containerOf(t, cfg, "unstarted")
		image := engine("inspect", "-f", "{{.Image}}", old)
		engine("rm", "-f", old)
		fresh := engine("create", "--network", "host", "--label", "dev.tategu.workload=unstarted", image, "sh", "-c", "echo began; exit 3")
		replaceInFile(t, filepath.Join(cfg.Dir, "unstarted", "container.json"), old, fresh)
		engine("rm", "-f", containerOf(t, cfg, "removed"))

		r = open(t, cfg)
		if exit := wait(t, r, "unstarted"); exit.Code != 3 {
			t.Errorf("unstarted: %+v", exit)
		}
		if exit := wait(t, r, "removed"); exit.OK() || !strings.Contains(exit.Message, "removed by somebody else") {
			t.Errorf("removed: %+v", exit)
		}
		for _, id := range []string{"runs", "unrecorded"} {
			in, err := r.Find(t.Context(), id)
			if err != nil {
				t.Fatal(err)
			}
			if err := in.Stop(t.Context(), 0); err != nil {
				t.Fatal(err)
			}
			if exit := wait(t, r, id); exit.Message != "stopped" || len(exit.Tail) != 1 {
				t.Errorf("%s: %+v", id, exit)
			}
		}
		if r.Adopted() != 3 {
			t.Errorf("%d were taken over, want 3", r.Adopted())
		}
		if left := engine("ps", "-aq", "--filter", "label=dev.tategu.workload=runs", "--filter", "name="+strings.TrimSuffix(name, "unrecorded")); left != "" {
			t.Errorf("containers are left: %s", left)
		}
	})
}

func replaceInFile(t *testing.T, path, from, to string) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(strings.ReplaceAll(string(b), from, to)), 0o600); err != nil {
		t.Fatal(err)
	}
}

func wait(t *testing.T, r runtime.Runtime, id string) runtime.Exit {
	t.Helper()
	in, err := r.Find(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	exit, err := in.Wait(ctx)
	if err != nil {
		t.Fatalf("%s: %v, %+v", id, err, in.Status())
	}
	return exit
}

// TestSweep: what has no workload any more goes.
func TestSweep(t *testing.T) {
	eachEngine(t, func(t *testing.T, socket string) {
		t.Helper()
		cfg := config(t, socket, images{"shell:1": shell(t)})
		r := killed(t, cfg)
		in, err := r.Start(t.Context(), runtime.Workload{ID: "lost", Image: "shell:1", Command: []string{"sleep", "1000"}})
		if err != nil {
			t.Fatal(err)
		}
		for in.Status().PID == 0 {
			if in.Status().Exit != nil {
				t.Fatalf("%+v", in.Status())
			}
			select {
			case <-time.After(10 * time.Millisecond):
			case <-t.Context().Done():
				t.Fatal("it does not start")
			}
		}
		pid := in.Status().PID
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
		if err := os.RemoveAll(filepath.Join(cfg.Dir, "lost")); err != nil {
			t.Fatal(err)
		}
		r = open(t, cfg)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		done := make(chan error, 1)
		go func() { done <- r.Run(ctx) }()
		for _, err := os.Stat(filepath.Join("/proc", strconv.Itoa(pid))); err == nil; _, err = os.Stat(filepath.Join("/proc", strconv.Itoa(pid))) {
			select {
			case <-time.After(10 * time.Millisecond):
			case <-ctx.Done():
				t.Fatal("the container is left")
			}
		}
		cancel()
		if err := <-done; err != nil {
			t.Fatal(err)
		}
	})
}
