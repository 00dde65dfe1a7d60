package imaging_test

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"tategu/internal/api/registry"
	"tategu/internal/blob"
	"tategu/internal/blob/disk"
	"tategu/internal/identity"
	"tategu/internal/image"
	"tategu/internal/imaging"
	"tategu/internal/store/sqlite"
)

// serve gives a client of a registry, and the blobs that were sent to it.
func serve(t *testing.T) (*imaging.Client, *image.Store, func() int) {
	t.Helper()
	dir := t.TempDir()
	rows, err := sqlite.Open(t.Context(), filepath.Join(dir, "state.db"))
	if err != nil {
		t.Fatal(err)
	}
	content, err := disk.Open(filepath.Join(dir, "content"))
	if err != nil {
		t.Fatal(err)
	}
	authority, err := identity.NewAuthority(rows, filepath.Join(dir, "identity"), time.Now)
	if err != nil {
		t.Fatal(err)
	}
	images := image.New(rows, blob.New(rows, content, time.Now), time.Now)
	h := registry.New(registry.Config{Images: images, Auth: authority, Project: "home", Log: slog.New(slog.DiscardHandler)})
	sent := make(chan struct{}, 1000)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPatch {
			sent <- struct{}{}
		}
		h.ServeHTTP(w, r.WithContext(identity.NewContext(r.Context(), identity.OperatorPrincipal())))
	}))
	t.Cleanup(func() {
		s.Close()
		if err := rows.Close(); err != nil {
			t.Error(err)
		}
	})
	return &imaging.Client{Base: s.URL, HTTP: s.Client()}, images, func() int {
		n := len(sent)
		for range n {
			<-sent
		}
		return n
	}
}

func write(t *testing.T, dir string, files map[string]string) string {
	t.Helper()
	for name, text := range files {
		p := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(p), 0o700), os.WriteFile(p, []byte(text), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func digest(t *testing.T, img v1.Image) string {
	t.Helper()
	d, err := img.Digest()
	if err != nil {
		t.Fatal(err)
	}
	return d.String()
}

func TestTheSameFilesGiveTheSameImage(t *testing.T) {
	t.Parallel()
	files := map[string]string{"b/deep/x": "1", "a": "2", "z.txt": strings.Repeat("z", 100_000)}
	one, two := write(t, t.TempDir(), files), write(t, t.TempDir(), files)
	for _, dir := range []string{one, two} {
		if err := os.Symlink("deep/x", filepath.Join(dir, "b/link")); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chtimes(filepath.Join(two, "a"), time.Unix(5, 0), time.Unix(6, 0)); err != nil {
		t.Fatal(err)
	}
	r := imaging.Recipe{Env: map[string]string{"A": "1", "B": "2", "C": "3"}, Labels: map[string]string{"x": "y", "p": "q"}, Entrypoint: []string{"/app/a"}}
	build := func(dir string) v1.Image {
		img, err := imaging.Build(nil, dir, r, t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		return img
	}
	img := build(one)
	if a, b := digest(t, img), digest(t, build(two)); a != b {
		t.Errorf("%s and %s", a, b)
	}
	got := map[string]string{}
	content := mutate.Extract(img)
	for tr := tar.NewReader(content); ; {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if h.Uid != 0 || h.ModTime.Unix() != 0 {
			t.Errorf("%s: owner %d, time %v", h.Name, h.Uid, h.ModTime)
		}
		got[h.Name] = h.Linkname
	}
	if err := content.Close(); err != nil {
		t.Error(err)
	}
	for _, name := range []string{"app", "app/a", "app/b", "app/b/deep", "app/b/deep/x", "app/z.txt"} {
		if _, ok := got[name]; !ok {
			t.Errorf("%s is not in the image: %v", name, got)
		}
	}
	if got["app/b/link"] != "deep/x" {
		t.Errorf("the link leads to %q", got["app/b/link"])
	}
}

func TestBuildSendsTheNewLayerOnly(t *testing.T) {
	t.Parallel()
	c, images, sent := serve(t)
	base, err := random.Image(200_000, 3)
	if err != nil {
		t.Fatal(err)
	}
	to, err := c.Target("base:1")
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Put(t.Context(), to, imaging.Picture{Image: base}); err != nil {
		t.Fatal(err)
	}
	if n := sent(); n != 4 { // three layers and the config
		t.Errorf("%d blobs sent", n)
	}
	found, err := c.Image(t.Context(), to, "")
	if err != nil {
		t.Fatal(err)
	}
	img, err := imaging.Build(found, write(t, t.TempDir(), map[string]string{"f": "x"}), imaging.Recipe{}, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if to, err = c.Target("app:1"); err != nil {
		t.Fatal(err)
	}
	if err := c.Put(t.Context(), to, imaging.Picture{Image: img}); err != nil {
		t.Fatal(err)
	}
	if n := sent(); n != 2 { // the new layer and the config
		t.Errorf("%d blobs sent", n)
	}
	st, err := images.Manifest(t.Context(), "app", "1")
	if err != nil || string(st.Digest) != digest(t, img) {
		t.Errorf("the server has %s, %v", st.Digest, err)
	}
}

func TestSourcesThatAreRefused(t *testing.T) {
	t.Parallel()
	c, _, _ := serve(t)
	dir := t.TempDir()
	if err := syscall.Mkfifo(filepath.Join(dir, "pipe"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := imaging.Build(nil, dir, imaging.Recipe{}, t.TempDir()); err == nil || !strings.Contains(err.Error(), "pipe") {
		t.Errorf("a pipe: %v", err)
	}
	if _, err := imaging.Build(nil, dir, imaging.Recipe{Exclude: []string{"p*"}}, t.TempDir()); err != nil {
		t.Errorf("a pipe that is left out: %v", err)
	}
	img, err := random.Image(100, 1)
	if err != nil {
		t.Fatal(err)
	}
	to, err := c.Target("app:1")
	if err != nil {
		t.Fatal(err)
	}
	for mediaType, want := range map[types.MediaType]string{types.DockerForeignLayer: "foreign", "application/vnd.oci.image.layer.v1.tar+encrypted": "encrypted"} {
		bad, err := mutate.AppendLayers(img, static.NewLayer([]byte("x"), mediaType))
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Put(t.Context(), to, imaging.Picture{Image: bad}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", mediaType, err)
		}
	}
}

// TestHostileFiles: a tar that says it is a layout writes nothing outside, and blobs
// that are not what their names say are refused.
func TestHostileFiles(t *testing.T) {
	t.Parallel()
	c, _, _ := serve(t)
	img, err := random.Image(1000, 2)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := imaging.WriteLayout(filepath.Join(dir, "good"), "app:1", imaging.Picture{Image: img}); err != nil {
		t.Fatal(err)
	}
	layers, err := img.Layers()
	if err != nil {
		t.Fatal(err)
	}
	bad, err := layers[1].Digest()
	if err != nil {
		t.Fatal(err)
	}
	pack := func(change func(name string, data []byte) []byte) string {
		var b bytes.Buffer
		tw := tar.NewWriter(&b)
		err := errors.Join(
			add(tw, "../../escape", []byte("x")), add(tw, "/etc/escape", []byte("x")), add(tw, "blobs/sha256/../../../escape", []byte("x")),
			tw.WriteHeader(&tar.Header{Typeflag: tar.TypeSymlink, Name: "blobs", Linkname: "/tmp"}),
			filepath.WalkDir(filepath.Join(dir, "good"), func(p string, d os.DirEntry, err error) error {
				if err != nil || d.IsDir() {
					return err
				}
				data, err := os.ReadFile(p)
				if err != nil {
					return err
				}
				name, err := filepath.Rel(filepath.Join(dir, "good"), p)
				return errors.Join(err, add(tw, filepath.ToSlash(name), change(filepath.Base(p), data)))
			}), tw.Close())
		if err != nil {
			t.Fatal(err)
		}
		f := filepath.Join(t.TempDir(), "image.tar")
		if err := os.WriteFile(f, b.Bytes(), 0o600); err != nil {
			t.Fatal(err)
		}
		return f
	}
	for name, tt := range map[string]struct {
		change func(string, []byte) []byte
		ok     bool
	}{
		"whole": {func(_ string, b []byte) []byte { return b }, true},
		"other bytes": {func(name string, b []byte) []byte {
			if name == bad.Hex {
				b = bytes.Clone(b)
				b[len(b)/2] ^= 1
			}
			return b
		}, false},
		"truncated": {func(name string, b []byte) []byte {
			if name == bad.Hex {
				b = b[:len(b)/2]
			}
			return b
		}, false},
		"no index": {func(name string, b []byte) []byte {
			if name == "index.json" {
				return []byte("[")
			}
			return b
		}, false},
	} {
		inside := t.TempDir()
		pictures, err := imaging.Read(pack(tt.change), inside)
		if err == nil {
			// In a repository of its own: blobs that are there are not sent again.
			to, err2 := c.Target("case/" + strings.ReplaceAll(name, " ", "-"))
			if err2 != nil {
				t.Fatal(err2)
			}
			err = c.Put(t.Context(), to, pictures[0])
		}
		if (err == nil) != tt.ok {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := os.Lstat(filepath.Join(inside, "escape")); err == nil {
			t.Error("a file was written outside of the layout")
		}
	}
}

func add(tw *tar.Writer, name string, data []byte) error {
	if err := tw.WriteHeader(&tar.Header{Name: name, Size: int64(len(data)), Mode: 0o600}); err != nil {
		return err
	}
	_, err := tw.Write(data)
	return err
}
