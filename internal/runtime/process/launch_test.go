package process_test

import (
	"bytes"
	"compress/gzip"
	"os"
	"os/exec"
	"path/filepath"
	goruntime "runtime"
	"strconv"
	"strings"
	"testing"

	"tategu/internal/runtime"
	"tategu/internal/runtime/process"
	"tategu/internal/runtime/runtimetest"
)

// smallWrapper builds the wrapper as the Makefile does.
func smallWrapper(t *testing.T) []byte {
	t.Helper()
	if goruntime.GOOS != "linux" {
		t.Skip("programs in memory need Linux")
	}
	path := filepath.Join(t.TempDir(), "wrapper")
	cmd := exec.CommandContext(t.Context(), "go", "build", "-o", path, "tategu/cmd/wrapper")
	cmd.Env = append(cmd.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var packed bytes.Buffer
	w := gzip.NewWriter(&packed)
	if _, err := w.Write(b); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return packed.Bytes()
}

// TestSmallWrapper: the contract holds with the small wrapper too, with /gcs mounted
// and in a container.
func TestSmallWrapper(t *testing.T) {
	for _, name := range []string{"TATEGU_SECRET", "AWS_SECRET_ACCESS_KEY", "GOOGLE_APPLICATION_CREDENTIALS"} {
		t.Setenv(name, "secret")
	}
	small := smallWrapper(t)
	t.Run("Mounted", func(t *testing.T) {
		runtimetest.Run(t, func(t *testing.T, o runtimetest.Options) runtimetest.Adapter {
			t.Helper()
			return contractAdapter(t, o, func(c *process.Config) { c.Wrapper = small })
		})
	})
	t.Run("Container", func(t *testing.T) {
		containerContract(t, func(c *process.Config) { c.Wrapper = small })
	})
}

// TestWhatProgramsInherit: a program gets three descriptors and nothing of the
// wrapper's, which runs from memory where it can.
func TestWhatProgramsInherit(t *testing.T) {
	t.Parallel()
	small := smallWrapper(t)
	for name, packed := range map[string][]byte{"small": small, "whole": nil, "unusable": []byte("no gzip")} {
		for _, image := range []string{"", "shell:1"} {
			t.Run(name+" "+image, func(t *testing.T) {
				t.Parallel()
				cfg := config(t)
				cfg.Wrapper, cfg.ImageStore = packed, images{"shell:1": shell(t)}
				r := open(t, cfg)
				if image != "" {
					needContainers(t, r)
				}
				in, err := r.Start(t.Context(), runtime.Workload{ID: "a", Image: image, Command: []string{"sh", "-c", "echo /proc/self/fd/*; read line"}})
				if err != nil {
					t.Fatal(err)
				}
				exit, err := in.Wait(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				// The shell's own descriptor of the directory is there while it looks.
				if got := strings.Join(exit.Tail, "\n"); strings.Contains(got, "/4") || !strings.Contains(got, "/0 ") || !strings.Contains(got, "/2") {
					t.Errorf("descriptors %q", got)
				}
			})
		}
	}
}

// TestRunsFromMemory: it is the small wrapper that runs, and its content is sealed.
func TestRunsFromMemory(t *testing.T) {
	t.Parallel()
	cfg := config(t)
	cfg.Wrapper = smallWrapper(t)
	r := open(t, cfg)
	in, err := r.Start(t.Context(), runtime.Workload{ID: "a", Command: []string{"sleep", "1000"}})
	if err != nil {
		t.Fatal(err)
	}
	await(t, func() bool { return in.Status().Phase == runtime.Running })
	exe := "/proc/" + strconv.Itoa(in.Status().PID) + "/exe"
	if link, err := os.Readlink(exe); err != nil || !strings.Contains(link, "memfd:tategu-wrapper") {
		t.Errorf("it runs %q, %v", link, err)
	}
	if f, err := os.OpenFile(exe, os.O_WRONLY, 0); err == nil {
		t.Error("the wrapper can be opened for writing")
		f.Close()
	}
	if err := in.Stop(t.Context(), 0); err != nil {
		t.Fatal(err)
	}
}
