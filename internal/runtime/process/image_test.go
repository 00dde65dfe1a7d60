package process_test

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"sync"
	"testing"

	"tategu/internal/resource"
	"tategu/internal/runtime"
)

// images is a store of images that tests make.
type images map[string]runtime.Image

func (m images) Image(_ context.Context, reference string) (runtime.Image, error) {
	if image, ok := m[reference]; ok {
		return image, nil
	}
	return runtime.Image{}, resource.NotFound(reference).WithHint("run `bring %s`", reference)
}

// layer makes a layer of entries; those without content are what their header says.
func layer(t *testing.T, entries ...entry) runtime.Layer {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, e := range entries {
		e.Size = int64(len(e.content))
		if e.Mode == 0 {
			e.Mode = 0o755
		}
		if err := w.WriteHeader(&e.Header); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(e.content); err != nil {
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

type entry struct {
	tar.Header
	content []byte
}

func file(name string, content []byte) entry {
	return entry{tar.Header{Name: name, Typeflag: tar.TypeReg}, content}
}

func directory(name string, mode int64) entry {
	return entry{tar.Header{Name: name, Typeflag: tar.TypeDir, Mode: mode}, nil}
}

// image makes one of layers; its digest is made of theirs.
func image(reference string, config runtime.ImageConfig, layers ...runtime.Layer) runtime.Image {
	h := sha256.New()
	for _, l := range layers {
		io.WriteString(h, l.DiffID)
	}
	return runtime.Image{Reference: reference, Digest: "sha256:" + hex.EncodeToString(h.Sum(nil)), Config: config, Layers: layers}
}

// shellLayer is a small Linux made of this machine's own tools and the libraries
// that they are linked with.
var shellLayer = sync.OnceValues(func() ([]entry, error) {
	entries := []entry{
		directory("etc/", 0o755), directory("root/", 0o700), directory("tmp/", 0o1777), directory("home/user/", 0o755), directory("secret/", 0o700),
		file("etc/passwd", []byte("root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1001:u:/home/user:/bin/sh\n")),
		file("etc/group", []byte("root:x:0:\nusers:x:1001:\nextra:x:1002:other,user\n")),
	}
	entries[4].Uid, entries[5].Mode = 0, 0o644
	have := map[string]bool{}
	add := func(from, to string) error {
		if have[to] {
			return nil
		}
		have[to] = true
		b, err := os.ReadFile(from)
		if err != nil {
			return err
		}
		entries = append(entries, file(to, b))
		return nil
	}
	for _, tool := range []string{"sh", "ls", "cat", "grep", "mkdir", "env", "setsid", "sleep", "true", "id", "rm", "ln", "touch", "head", "hostname", "stat", "mknod", "chmod", "chown", "mount", "dd", "readlink", "kill"} {
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
	return entries, nil
})

// shell is an image with a shell.
func shell(t *testing.T) runtime.Image {
	t.Helper()
	entries, err := shellLayer()
	if err != nil {
		t.Fatal(err)
	}
	return image("shell:1", runtime.ImageConfig{}, layer(t, entries...))
}
