package workload

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"tategu/internal/runtime"
)

func place(t *testing.T, contained bool, output string) Place {
	t.Helper()
	p := Place{Dir: t.TempDir(), Contained: contained, Workload: runtime.Workload{ExecutorOutput: "/gcs/b/run/executor_output.json"}}
	put(t, filepath.Join(p.Dir, DirGCS, "b/run/executor_output.json"), output)
	return p
}

func put(t *testing.T, file, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestArtifactsElsewhere(t *testing.T) {
	t.Parallel()
	own := t.TempDir()
	put(t, filepath.Join(own, "file"), "f")
	put(t, filepath.Join(own, "dir/deep/file"), "d")
	said := `{"artifacts":{"a":{"artifacts":[{"uri":"gs://b/run/a","custom_path":"` + own + `/file"}]},
		"d":{"artifacts":[{"uri":"gs://b/run/d","customPath":"` + own + `/dir"}]},"plain":{"artifacts":[{"uri":"gs://b/run/p"}]}}}`
	p := place(t, false, said)
	if err := p.bring(); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"a": "f", "d/deep/file": "d"} {
		if got, err := os.ReadFile(filepath.Join(p.Dir, DirGCS, "b/run", name)); err != nil || string(got) != want {
			t.Errorf("%s = %q, %v", name, got, err)
		}
	}
	// A container is looked into where it shares directories, and only there.
	p = place(t, true, strings.ReplaceAll(said, own, "/tmp"))
	put(t, filepath.Join(p.Dir, "tmp/file"), "f")
	put(t, filepath.Join(p.Dir, "tmp/dir/x"), "d")
	if err := p.bring(); err != nil {
		t.Error(err)
	}
	for _, bad := range []string{"/etc/hostname", "/tmp/../../etc/hostname", "/tmp/link", "/tmp/none"} {
		p = place(t, true, `{"artifacts":{"a":{"artifacts":[{"uri":"gs://b/run/a","custom_path":"`+bad+`"}]}}}`)
		put(t, filepath.Join(p.Dir, "tmp/x"), "")
		if err := os.Symlink("/etc/hostname", filepath.Join(p.Dir, "tmp/link")); err != nil {
			t.Fatal(err)
		}
		if err := p.bring(); err == nil || !strings.Contains(err.Error(), bad) {
			t.Errorf("%s: %v", bad, err)
		}
	}
	for _, text := range []string{"", "no JSON", `{"artifacts":[]}`} {
		p = place(t, true, text)
		if err := p.bring(); err != nil {
			t.Errorf("%q: %v", text, err)
		}
	}
}

// FuzzElsewhere: whatever a container writes, nothing outside its directory is read.
func FuzzElsewhere(f *testing.F) {
	f.Add("gs://b/x", "/tmp/../../secret")
	f.Add("gs://../../x", "/tmp/a")
	f.Add("gs://b/x", "/gcs/../secret")
	f.Fuzz(func(t *testing.T, uri, from string) {
		top := t.TempDir()
		put(t, filepath.Join(top, "secret"), "secret")
		p := Place{Dir: filepath.Join(top, "w"), Contained: true, Workload: runtime.Workload{ExecutorOutput: "/gcs/b/o.json"}}
		put(t, filepath.Join(p.Dir, "tmp/a"), "a")
		file := filepath.Join(p.Dir, DirGCS, "b/o.json")
		put(t, file, "")
		if err := WriteJSON(file, map[string]any{"artifacts": map[string]any{"a": map[string]any{"artifacts": []any{map[string]any{"uri": uri, "custom_path": from}}}}}); err != nil {
			t.Skip(err)
		}
		_ = p.bring() // may fail, must not read
		_ = filepath.WalkDir(top, func(name string, d os.DirEntry, _ error) error {
			if text, err := os.ReadFile(name); err == nil && string(text) == "secret" && name != filepath.Join(top, "secret") {
				t.Fatalf("%s holds what is outside", name)
			}
			return nil
		})
	})
}
