package imaging_test

import (
	"archive/tar"
	"errors"
	"io"
	"maps"
	"os"
	"path/filepath"
	"testing"

	"tategu/internal/imaging"
)

// TestSharedFiles: a working directory can be written by whoever the image's user
// is; what leads to it, and the files of other images, cannot.
func TestSharedFiles(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for name, mode := range map[string]os.FileMode{"data/rows.csv": 0o600, "tool": 0o700} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), nil, mode); err != nil {
			t.Fatal(err)
		}
	}
	for shared, want := range map[bool]map[string]int64{
		true:  {"srv/": 0o755, "srv/app/": 0o777, "srv/app/data/": 0o777, "srv/app/data/rows.csv": 0o666, "srv/app/tool": 0o777},
		false: {"srv/": 0o755, "srv/app/": 0o755, "srv/app/data/": 0o755, "srv/app/data/rows.csv": 0o644, "srv/app/tool": 0o755},
	} {
		img, err := imaging.Build(nil, dir, imaging.Recipe{Into: "/srv/app", Shared: shared}, t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		layers, err := img.Layers()
		if err != nil || len(layers) != 1 {
			t.Fatalf("%d layers, %v", len(layers), err)
		}
		text, err := layers[0].Uncompressed()
		if err != nil {
			t.Fatal(err)
		}
		got := map[string]int64{}
		for r := tar.NewReader(text); ; {
			h, err := r.Next()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			got[h.Name] = h.Mode
		}
		if err := text.Close(); err != nil {
			t.Error(err)
		}
		if !maps.Equal(got, want) {
			t.Errorf("shared %t: modes %v, want %v", shared, got, want)
		}
	}
}
