package main

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// file of an image.
type file struct {
	name    string
	mode    int64
	content []byte
}

// pack makes a layer.
func pack(files ...file) ([]byte, error) {
	var b bytes.Buffer
	t := tar.NewWriter(&b)
	for _, f := range files {
		h := &tar.Header{Name: f.name, Mode: f.mode, Size: int64(len(f.content)), Typeflag: tar.TypeReg}
		if err := t.WriteHeader(h); err != nil {
			return nil, err
		}
		if _, err := t.Write(f.content); err != nil {
			return nil, err
		}
	}
	return b.Bytes(), t.Close()
}

// push puts an image of one layer into the registry and gives its name.
func (w *world) push(ctx context.Context, s *server, layer []byte, arch string, config v1.Config) (string, error) {
	img, err := mutate.AppendLayers(empty.Image, static.NewLayer(layer, types.OCIUncompressedLayer))
	if err != nil {
		return "", err
	}
	c, err := img.ConfigFile()
	if err != nil {
		return "", err
	}
	c = c.DeepCopy()
	c.OS, c.Architecture, c.Config = "linux", arch, config
	if img, err = mutate.ConfigFile(img, c); err != nil {
		return "", err
	}
	called := w.name("image") + ":v1"
	ref, err := name.ParseReference(s.address+"/"+called, name.Insecure)
	if err != nil {
		return "", err
	}
	return called, remote.Write(ref, img, remote.WithContext(ctx))
}

// image is one to push, and what to do with it then.
type image struct {
	layer  func(w *world) ([]byte, error)
	arch   string // "" = this machine's
	config v1.Config
	after  func(w *world, layer []byte) error
	task   map[string]any // of the container of a task; nil = a custom job
}

// inImage makes a fault of an image that runs.
func inImage(i image) func(context.Context, *world) ([]shown, error) {
	return func(ctx context.Context, w *world) ([]shown, error) {
		if err := w.containers(ctx); err != nil {
			return nil, err
		}
		layer, err := i.layer(w)
		if err != nil {
			return nil, err
		}
		arch := i.arch
		if arch == "" {
			arch = runtime.GOARCH
		}
		called, err := w.push(ctx, w.server, layer, arch, i.config)
		if err != nil {
			return nil, err
		}
		if i.after != nil {
			if err := i.after(w, layer); err != nil {
				return nil, err
			}
		}
		if i.task != nil {
			container := map[string]any{"image": called}
			maps.Copy(container, i.task)
			return w.run(ctx, container, nil)
		}
		return w.job(ctx, spec{image: called})
	}
}

// containers skips where a sound image does not run either, with what it says.
func (w *world) containers(ctx context.Context) error {
	w.probing.Lock()
	defer w.probing.Unlock()
	if w.probed {
		return w.boxes
	}
	layer, err := theProgram(0o755)(w)
	if err != nil {
		return err
	}
	called, err := w.push(ctx, w.server, layer, runtime.GOARCH, v1.Config{Entrypoint: []string{"/program"}, Cmd: []string{"exit"}})
	if err != nil {
		return err
	}
	told, err := w.job(ctx, spec{image: called})
	if err != nil {
		return err
	}
	w.probed = true
	if info := told[0].info(); info.Metadata["exitCode"] != "5" {
		w.boxes = skipError{"no container runs here: " + told[0].Message}
	}
	return w.boxes
}

// theProgram is a layer with the misbehaving program as /program.
func theProgram(mode int64) func(w *world) ([]byte, error) {
	return func(w *world) ([]byte, error) {
		content, err := os.ReadFile(w.program)
		if err != nil {
			return nil, err
		}
		return pack(file{"program", mode, content})
	}
}

func oneFile(content string) func(*world) ([]byte, error) {
	return func(*world) ([]byte, error) { return pack(file{"program", 0o755, []byte(content)}) }
}

// random is a layer that nothing else has.
func random(size int) func(*world) ([]byte, error) {
	return func(*world) ([]byte, error) {
		content := make([]byte, size)
		_, _ = rand.Read(content) // never fails
		return pack(file{"program", 0o755, content})
	}
}

func garbage(*world) ([]byte, error) { return bytes.Repeat([]byte("this is no tar. "), 5000), nil }

// damage flips a bit of a layer where the server keeps it.
func damage(w *world, layer []byte) error {
	want := sha256.Sum256(layer)
	files, err := filepath.Glob(filepath.Join(w.server.data, "objects", "*", "*"))
	if err != nil {
		return err
	}
	for _, path := range files {
		content, err := os.ReadFile(path)
		if err != nil || sha256.Sum256(content) != want {
			continue // another one, or one that was removed meanwhile
		}
		content[len(content)/2] ^= 1
		return os.WriteFile(path, content, 0o600) //nolint:gosec // a file of the server under test
	}
	return fmt.Errorf("no file holds the layer sha256:%s", hex.EncodeToString(want[:]))
}

// outOfMemory runs the program in an image with a memory limit.
func outOfMemory(ctx context.Context, w *world) ([]shown, error) {
	told, err := inImage(image{
		layer: theProgram(0o755), config: v1.Config{Entrypoint: []string{"/program"}},
		task: map[string]any{"args": []string{"memory"}, "resources": map[string]any{"resourceMemoryLimit": "64Mi"}},
	})(ctx, w)
	if err == nil && len(told) > 0 && told[0].empty() {
		return nil, skipError{"control groups are not writable here: the limit was not enforced"}
	}
	return told, err
}

// inPull makes a fault of a registry that answers every request with a status; 0
// is one that does not answer.
func inPull(status int) func(context.Context, *world) ([]shown, error) {
	return func(ctx context.Context, w *world) ([]shown, error) {
		address := "127.0.0.1:1"
		if status > 0 {
			registry := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
				if r.URL.Path == "/v2/" && status == http.StatusNotFound {
					return // there is a registry, and it has no such image
				}
				http.Error(rw, `{"errors": []}`, status)
			}))
			defer registry.Close()
			address = strings.TrimPrefix(registry.URL, "http://")
		}
		out, err := w.server.command(ctx, "image", "pull", address+"/team/app:v1")
		if err == nil {
			return nil, fmt.Errorf("the pull went well: %s", out)
		}
		return []shown{{"command line", spoken(out)}}, nil
	}
}
