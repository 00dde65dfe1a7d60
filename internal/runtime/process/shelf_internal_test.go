package process

import (
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"tategu/internal/runtime"
)

func testBase() environment {
	return environment{dir: "/envs/a", site: "/envs/a/lib/python3.11/site-packages", python: "/usr/bin/python3.11", version: "3.11.7", pip: true}
}

// TestLayerIsTakenOver: what a program left as it was is the next one's, under its own
// path; everything that it can do to it shows.
func TestLayerIsTakenOver(t *testing.T) {
	t.Parallel()
	spoil := map[string]func(venv string) error{
		"nothing": func(string) error { return nil },
		"cached":  func(venv string) error { return os.MkdirAll(filepath.Join(venv, dirHook, "__pycache__"), 0o700) },
		"package": func(venv string) error {
			return os.WriteFile(filepath.Join(venv, "lib/python3.11/site-packages/x.py"), nil, 0o600)
		},
		"command": func(venv string) error { return os.Symlink("/bin/true", filepath.Join(venv, "bin/tool")) },
		"text": func(venv string) error {
			return os.WriteFile(filepath.Join(venv, dirHook, "sitecustomize.py"), hookSource[1:], 0o600)
		},
		"same length": func(venv string) error {
			text := append([]byte{}, hookSource...)
			text[0]++
			return os.WriteFile(filepath.Join(venv, dirHook, "sitecustomize.py"), text, 0o600)
		},
		"link": func(venv string) error {
			path := filepath.Join(venv, "bin/python")
			return errors.Join(os.Remove(path), os.Symlink("/bin/true", path))
		},
		"second name": func(venv string) error {
			path := filepath.Join(venv, "bin/python3")
			return errors.Join(os.Remove(path), os.Symlink("/bin/true", path))
		},
		"further name": func(venv string) error {
			return os.Link(filepath.Join(venv, "pyvenv.cfg"), filepath.Join(venv, "..", "kept"))
		},
		"mode":   func(venv string) error { return os.Chmod(filepath.Join(venv, "bin/pip"), 0o600) },
		"closed": func(venv string) error { return os.Chmod(filepath.Join(venv, "lib"), 0o500) },
		"gone":   func(venv string) error { return os.Remove(filepath.Join(venv, "pyvenv.cfg")) },
		"directory": func(venv string) error {
			path := filepath.Join(venv, "pyvenv.cfg")
			return errors.Join(os.Remove(path), os.Mkdir(path, 0o700))
		},
		"replaced": func(venv string) error {
			return errors.Join(os.Rename(filepath.Join(venv, "bin"), filepath.Join(venv, "..", "b")), os.Symlink("../b", filepath.Join(venv, "bin")))
		},
	}
	for name, change := range spoil {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir, base := t.TempDir(), testBase()
			l := layers{newShelf(filepath.Join(dir, "spare"))}
			first, second := filepath.Join(dir, "1", dirVenv), filepath.Join(dir, "2", dirVenv)
			if err := errors.Join(os.MkdirAll(filepath.Dir(second), 0o700), l.take(first, base)); err != nil {
				t.Fatal(err)
			}
			if err := change(first); err != nil {
				t.Fatal(err)
			}
			l.give(first, first, base)
			if same := name == "nothing" || name == "cached"; (l.shelf.n == 1) != same {
				t.Errorf("kept: %d, want %t", l.shelf.n, same)
			}
			other := base
			other.python = "/usr/bin/python3.12"
			if err := l.take(filepath.Join(dir, "other"), other); err != nil || !untouched(filepath.Join(dir, "other"), filepath.Join(dir, "other"), other) {
				t.Errorf("that of another Python: %v", err)
			}
			if err := l.take(second, base); err != nil || !untouched(second, second, base) {
				t.Fatalf("the second is not as new: %v", err)
			}
		})
	}
}

// TestDirectoriesAreTakenOver: a workload finds its directories empty, whatever the one
// before it left in them or made of them, and they are the same ones where it did nothing
// to them.
func TestDirectoriesAreTakenOver(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		script string
		kept   bool
	}{
		"files":   {"mkdir -p deep/er ../gcs/b && echo x > deep/er/file && echo y > ../gcs/b/z && mkfifo \"$TMPDIR/pipe\" && chmod 500 deep && touch ../more", true},
		"nothing": {"true", true},
		"modes":   {"chmod 750 .", true},
		"its own": {"chmod 750 ..", false},
		"a link":  {"cd .. && rmdir tmp && ln -s /etc tmp", true},
		"killed":  {"kill -9 $PPID; exit 1", false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			r := reopen(t, dir, "first")
			run := func(id, script string) {
				t.Helper()
				in, err := r.Start(t.Context(), runtime.Workload{ID: id, Command: []string{"sh", "-c", script}})
				if err != nil {
					t.Fatal(err)
				}
				exit, err := in.Wait(t.Context())
				if err != nil || exit.Code != 0 && name != "killed" {
					t.Fatalf("%+v, %v", exit, err)
				}
				if err := in.Release(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
			run("a", tc.script)
			if (r.spare.shelf.n == 1) != tc.kept {
				t.Errorf("kept: %d, want %t", r.spare.shelf.n, tc.kept)
			}
			run("b", `test -z "$(ls -A . ../gcs "$TMPDIR" | grep -v :)" && test ! -L "$TMPDIR" && test ! -e ../more && test "$(stat -c %a .)" = 700`)
		})
	}
}

// TestSpareDirectoriesEndWithTheServer: the next one forgets them.
func TestSpareDirectoriesEndWithTheServer(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	r := reopen(t, dir, "first")
	in, err := r.Start(t.Context(), runtime.Workload{ID: "a", Command: []string{"true"}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := in.Wait(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(in.Release(t.Context()), r.Close()); err != nil {
		t.Fatal(err)
	}
	if found, err := os.ReadDir(filepath.Join(dir, dirSpare)); err != nil || len(found) != 1 {
		t.Fatalf("%v, %v", found, err)
	}
	r, err = New(Config{Dir: dir, CacheDir: t.TempDir(), NoMounts: true, Boot: "first", Log: slog.New(slog.DiscardHandler), Now: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	}()
	if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
		t.Errorf("left: %v, %v", left, err)
	}
}
