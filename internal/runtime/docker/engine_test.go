package docker_test

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"log/slog"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"tategu/internal/resource"
	"tategu/internal/runtime"
	"tategu/internal/runtime/docker"
	"tategu/internal/runtime/runtimetest"
	"tategu/internal/runtime/scheduler"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// sockets names the engines that `make test-docker` started, as NAME=PATH words.
func sockets(t *testing.T) map[string]string {
	t.Helper()
	out := map[string]string{}
	for word := range strings.FieldsSeq(os.Getenv("TATEGU_TEST_ENGINES")) {
		name, path, _ := strings.Cut(word, "=")
		out[name] = path
	}
	if len(out) == 0 {
		t.Skip("TATEGU_TEST_ENGINES names no container engine, such as docker=/run/docker.sock (make test-docker starts one of its own)")
	}
	return out
}

// eachEngine runs a test with every engine.
func eachEngine(t *testing.T, test func(t *testing.T, socket string)) {
	t.Helper()
	for name, socket := range sockets(t) {
		t.Run(name, func(t *testing.T) { test(t, socket) })
	}
}

func config(t *testing.T, socket string, kept images) docker.Config {
	t.Helper()
	return docker.Config{
		Dir: filepath.Join(t.TempDir(), "containers"), Socket: socket, ImageStore: kept, Log: slog.New(slog.NewTextHandler(t.Output(), nil)), Now: time.Now,
		Schedule: scheduler.New(runtime.Inventory{Cores: 64, MemoryBytes: 1 << 40}, time.Now, scheduler.Options{}),
	}
}

func open(t *testing.T, cfg docker.Config) *docker.Runtime {
	t.Helper()
	r, err := docker.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		list, err := r.List(ctx)
		if err != nil {
			t.Error(err)
		}
		for _, in := range list {
			if err := in.Stop(ctx, 0); err != nil {
				t.Error(err)
			}
		}
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	})
	return r
}

func runToEnd(t *testing.T, r runtime.Runtime, w runtime.Workload) runtime.Exit {
	t.Helper()
	in, err := r.Start(t.Context(), w)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	exit, err := in.Wait(ctx)
	if err != nil {
		t.Fatalf("%v, status %+v", err, in.Status())
	}
	return exit
}

// TestContract: the contract of the port, with each engine.
func TestContract(t *testing.T) {
	for _, name := range []string{"TATEGU_SECRET", "AWS_SECRET_ACCESS_KEY", "GOOGLE_APPLICATION_CREDENTIALS"} {
		t.Setenv(name, "secret")
	}
	eachEngine(t, func(t *testing.T, socket string) {
		t.Helper()
		kept := images{"shell:1": shell(t)}
		runtimetest.Run(t, func(t *testing.T, o runtimetest.Options) runtimetest.Adapter {
			t.Helper()
			cfg := config(t, socket, kept)
			cfg.Dir, cfg.Files, cfg.Credentials, cfg.Logs = filepath.Join(o.Dir, "w"), o.Files, o.Credentials, o.Logs
			if o.Schedule != nil {
				cfg.Schedule = o.Schedule
			}
			cfg.Images = []runtime.ImageRule{{Match: "shell:1", Image: true, Mounts: []string{o.Shared + ":" + o.Shared}}}
			r, err := docker.New(cfg)
			if err != nil {
				t.Fatal(err)
			}
			return contained{r}
		})
	})
}

// contained runs what names no image in ours.
type contained struct{ *docker.Runtime }

func (c contained) Start(ctx context.Context, w runtime.Workload) (runtime.Instance, error) {
	if w.Image == "" {
		w.Image = "shell:1"
	}
	return c.Runtime.Start(ctx, w)
}

// images is a store of images that tests make.
type images map[string]runtime.Image

func (m images) Image(_ context.Context, reference string) (runtime.Image, error) {
	if image, ok := m[reference]; ok {
		return image, nil
	}
	return runtime.Image{}, resource.NotFound(reference).WithHint("run `bring %s`", reference)
}

// layer makes a layer of regular files and directories, which end in a slash.
func layer(t *testing.T, files map[string][]byte) runtime.Layer {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, name := range slices.Sorted(maps.Keys(files)) {
		content := files[name]
		h := &tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o755, Size: int64(len(content))}
		if strings.HasSuffix(name, "/") {
			h.Typeflag = tar.TypeDir
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(content); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(b.Bytes())
	return runtime.Layer{
		DiffID: "sha256:" + hex.EncodeToString(sum[:]), Size: int64(b.Len()),
		Open: func(context.Context) (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(b.Bytes())), nil },
	}
}

func image(reference string, config runtime.ImageConfig, layers ...runtime.Layer) runtime.Image {
	h := sha256.New()
	io.WriteString(h, reference)
	for _, l := range layers {
		io.WriteString(h, l.DiffID)
	}
	return runtime.Image{Reference: reference, Digest: "sha256:" + hex.EncodeToString(h.Sum(nil)), Config: config, Layers: layers}
}

// shellFiles are a small Linux made of this machine's own tools and the libraries
// that they are linked with.
var shellFiles = sync.OnceValues(func() (map[string][]byte, error) {
	files := map[string][]byte{
		"tmp/": nil, "home/user/": nil,
		"etc/passwd": []byte("root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1001:u:/home/user:/bin/sh\n"),
		"etc/group":  []byte("root:x:0:\nusers:x:1001:\n"),
	}
	add := func(from, to string) error {
		b, err := os.ReadFile(from)
		files[to] = b
		return err
	}
	for _, tool := range []string{"sh", "ls", "cat", "grep", "mkdir", "env", "setsid", "sleep", "true", "id", "touch", "head", "hostname", "dd", "tail", "chmod"} {
		from, err := exec.LookPath(tool)
		if err != nil {
			continue
		}
		if err := add(from, "bin/"+tool); err != nil {
			return nil, err
		}
		out, err := exec.Command("ldd", from).Output()
		if err != nil {
			continue // linked with nothing
		}
		for _, m := range regexp.MustCompile(`(?m)(/\S+) \(0x`).FindAllSubmatch(out, -1) {
			if err := add(string(m[1]), filepath.Join(".", string(m[1]))); err != nil {
				return nil, err
			}
		}
	}
	return files, nil
})

// shell is an image with a shell.
func shell(t *testing.T) runtime.Image {
	t.Helper()
	files, err := shellFiles()
	if err != nil {
		t.Fatal(err)
	}
	return image("shell:1", runtime.ImageConfig{}, layer(t, files))
}
