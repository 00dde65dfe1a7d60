package workload

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
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

// TestArtifactsElsewhereAgain: a server that was killed, or found no room, brings
// the same artifacts again.
func TestArtifactsElsewhereAgain(t *testing.T) {
	t.Parallel()
	p := place(t, true, `{"artifacts":{"f":{"artifacts":[{"uri":"gs://b/run/f","custom_path":"/tmp/file"}]},
		"d":{"artifacts":[{"uri":"gs://b/run/d","custom_path":"/tmp/dir"}]},"same":{"artifacts":[{"uri":"gs://b/run/same","custom_path":"/gcs/b/run/same"}]},
		"inside":{"artifacts":[{"uri":"gs://b/run/inside","custom_path":"/gcs/b/run"}]}}}`)
	put(t, filepath.Join(p.Dir, "tmp/file"), "f")
	put(t, filepath.Join(p.Dir, "tmp/dir/x"), "d")
	put(t, filepath.Join(p.Dir, DirGCS, "b/run/same"), "same")
	for range 2 {
		if err := p.bring(); err != nil {
			t.Fatal(err)
		}
	}
	for name, want := range map[string]string{"f": "f", "d/x": "d", "same": "same", "inside/same": "same"} {
		if got, err := os.ReadFile(filepath.Join(p.Dir, DirGCS, "b/run", name)); err != nil || string(got) != want {
			t.Errorf("%s = %q, %v", name, got, err)
		}
	}
}

// TestArtifactsElsewhereLinks: the server, which may be root, writes through no link
// and waits for no pipe that a program has laid out for it.
func TestArtifactsElsewhereLinks(t *testing.T) {
	t.Parallel()
	outside := t.TempDir()
	put(t, filepath.Join(outside, "passwd"), "as it was")
	for name, lay := range map[string]func(objects string) error{
		"bucket": func(objects string) error { return os.Symlink(outside, filepath.Join(objects, "evil")) },
		"object": func(objects string) error {
			if err := os.Mkdir(filepath.Join(objects, "evil"), 0o755); err != nil {
				return err
			}
			return os.Symlink(filepath.Join(outside, "passwd"), filepath.Join(objects, "evil/passwd"))
		},
	} {
		for _, from := range []string{"/tmp/file", "/tmp/dir"} {
			uri := "gs://evil/passwd"
			if from == "/tmp/dir" {
				uri = "gs://evil"
			}
			p := place(t, true, `{"artifacts":{"a":{"artifacts":[{"uri":"`+uri+`","custom_path":"`+from+`"}]}}}`)
			put(t, filepath.Join(p.Dir, "tmp/file"), "written")
			put(t, filepath.Join(p.Dir, "tmp/dir/passwd"), "written")
			put(t, filepath.Join(p.Dir, "tmp/dir/new"), "written")
			if err := lay(filepath.Join(p.Dir, DirGCS)); err != nil {
				t.Fatal(err)
			}
			if err := p.bring(); name == "bucket" && err == nil {
				t.Errorf("%s %s: no error", name, from)
			}
			if b, err := os.ReadFile(filepath.Join(outside, "passwd")); err != nil || string(b) != "as it was" {
				t.Fatalf("%s %s: outside is %q, %v", name, from, b, err)
			}
			if Exists(filepath.Join(outside, "new")) {
				t.Fatalf("%s %s: made a file outside", name, from)
			}
		}
	}
	p := place(t, true, "")
	said := filepath.Join(p.Dir, DirGCS, "b/run/executor_output.json")
	if err := errors.Join(os.Remove(said), syscall.Mkfifo(said, 0o600)); err != nil {
		t.Fatal(err)
	}
	if err := p.bring(); err != nil {
		t.Error(err)
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
