package image_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"path/filepath"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"

	"tategu/internal/blob"
	"tategu/internal/blob/disk"
	"tategu/internal/image"
	"tategu/internal/store"
	"tategu/internal/store/sqlite"
)

// world is a store of images in a directory of its own, with a clock that can be
// set forward.
type world struct {
	t *testing.T
	*image.Store
	blobs *blob.Store
	rows  store.Store
	ahead atomic.Int64
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{t: t}
	dir := t.TempDir()
	rows, err := sqlite.Open(t.Context(), filepath.Join(dir, "state.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := rows.Close(); err != nil {
			t.Error(err)
		}
	})
	content, err := disk.Open(filepath.Join(dir, "content"))
	if err != nil {
		t.Fatal(err)
	}
	now := func() time.Time { return time.Now().Add(time.Duration(w.ahead.Load())) }
	w.rows = rows
	w.blobs = blob.New(rows, content, now)
	w.Store = image.New(rows, w.blobs, now)
	return w
}

func (w *world) forward(d time.Duration) { w.ahead.Add(int64(d)) }

func repo(name string) image.Repo { return image.Repo{Name: name, Project: "p"} }

func (w *world) blob(repoName string, data []byte) image.Descriptor {
	w.t.Helper()
	d := image.DigestOf(data)
	if _, err := w.PutBlob(w.t.Context(), repo(repoName), d, bytes.NewReader(data)); err != nil {
		w.t.Fatal(err)
	}
	return image.Descriptor{Digest: d, Size: int64(len(data))}
}

func (w *world) manifest(repoName, version string, m any) image.Stored {
	w.t.Helper()
	st, err := w.tryManifest(w.t.Context(), repoName, version, m)
	if err != nil {
		w.t.Fatal(err)
	}
	return st
}

func (w *world) tryManifest(ctx context.Context, repoName, version string, m any) (image.Stored, error) {
	raw, err := json.Marshal(m)
	if err != nil {
		return image.Stored{}, err
	}
	st, _, err := w.PutManifest(ctx, repo(repoName), version, "", raw)
	return st, err
}

const (
	ociLayer  = "application/vnd.oci.image.layer.v1.tar"
	ociConfig = "application/vnd.oci.image.config.v1+json"
)

// tarOf is a layer with one file.
func tarOf(t *testing.T, name, text string) []byte {
	t.Helper()
	var b bytes.Buffer
	tw := tar.NewWriter(&b)
	if err := tw.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(text))}); err != nil {
		t.Fatal(err)
	}
	if _, err := tw.Write([]byte(text)); err != nil {
		t.Fatal(err)
	}
	if err := tw.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func gzipped(t *testing.T, b []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	z := gzip.NewWriter(&out)
	if _, err := z.Write(b); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func zstded(t *testing.T, b []byte) []byte {
	t.Helper()
	z, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = z.Close() }() // nothing is buffered
	return z.EncodeAll(b, nil)
}

func hexOf(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

// layer of an image under test.
type layer struct {
	mediaType string
	data      []byte // as pushed
	diffID    string
}

// push stores an image and gives its manifest.
func (w *world) push(repoName, version string, platform image.Platform, layers ...layer) image.Stored {
	w.t.Helper()
	manifest := image.Manifest{SchemaVersion: 2, MediaType: image.TypeOCIManifest, Layers: []image.Descriptor{}}
	diffIDs := []string{}
	for _, l := range layers {
		d := w.blob(repoName, l.data)
		d.MediaType = l.mediaType
		manifest.Layers = append(manifest.Layers, d)
		diffIDs = append(diffIDs, l.diffID)
	}
	config, err := json.Marshal(map[string]any{
		"os": platform.OS, "architecture": platform.Architecture, "variant": platform.Variant,
		"config": map[string]any{"Env": []string{"A=b"}, "Entrypoint": []string{"/run"}, "Cmd": []string{"x"}, "User": "1:2", "WorkingDir": "/w", "ExposedPorts": map[string]any{"8080/tcp": struct{}{}}},
		"rootfs": map[string]any{"type": "layers", "diff_ids": diffIDs},
	})
	if err != nil {
		w.t.Fatal(err)
	}
	c := w.blob(repoName, config)
	c.MediaType = ociConfig
	manifest.Config = &c
	return w.manifest(repoName, version, manifest)
}

func here() image.Platform { return image.Platform{OS: "linux", Architecture: runtime.GOARCH} }

func (w *world) simple(repoName, version, text string) image.Stored {
	w.t.Helper()
	data := tarOf(w.t, "file", text)
	return w.push(repoName, version, here(), layer{ociLayer, data, "sha256:" + hexOf(data)})
}

func (w *world) find(reference string) (string, error) {
	img, err := w.images().Image(w.t.Context(), reference)
	return img.Digest, err
}

func (w *world) images() *image.Images {
	return image.NewImages(w.Store, func(host string) bool { return host == "localhost:8090" })
}

func (w *world) collect(p image.Policy) image.Collected {
	w.t.Helper()
	done, err := w.Collect(w.t.Context(), p)
	if err != nil {
		w.t.Fatal(err)
	}
	return done
}

func index(descs ...image.Descriptor) map[string]any {
	return map[string]any{"schemaVersion": 2, "mediaType": image.TypeOCIIndex, "manifests": descs}
}

func desc(st image.Stored, p *image.Platform) image.Descriptor {
	return image.Descriptor{MediaType: st.MediaType, Digest: st.Digest, Size: int64(len(st.Raw)), Platform: p}
}

func fakeDigest(n int) string { return fmt.Sprintf("sha256:%064x", n) }
