package process

import (
	"bytes"
	"cmp"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
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

// TestAskedDirectoriesAreTakenOver: a workload finds the directory that it asks for, and
// nothing else below dirGCS, whatever was asked for before it and was made of that.
func TestAskedDirectoriesAreTakenOver(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		first, second []string
		script        string
		same          int // directories from the top that are the same ones
	}{
		"the next task": {first: []string{"b/root/run/task-1"}, second: []string{"b/root/run/task-2"}, same: 4},
		"the same":      {first: []string{"b/root/run/task-1"}, second: []string{"b/root/run/task-1"}, same: 4},
		"another run":   {first: []string{"b/root/run-1/task"}, second: []string{"b/root/run-2/task"}, same: 4},
		"deeper":        {first: []string{"b/run"}, second: []string{"c/root/run/task"}, same: 2},
		"higher":        {first: []string{"b/root/run/task"}, second: []string{"c/run"}, same: 2},
		"none":          {first: []string{"b/root/run/task"}},
		"several":       {first: []string{"b/root"}, second: []string{"b/one", "b/two"}},
		"files": {
			first: []string{"b/run/task-1"}, second: []string{"b/run/task-2"}, same: 3,
			script: "cd ../gcs/b && echo x > run/task-1/out && mkdir -p run/task-1/deep run/more other ../c && echo y > run/task-2",
		},
		"modes":    {first: []string{"b/run/task-1"}, second: []string{"b/run/task-2"}, same: 1, script: "chmod 700 ../gcs/b/run"},
		"a link":   {first: []string{"b/run/task-1"}, second: []string{"b/run/task-2"}, same: 1, script: "cd ../gcs/b && rm -r run && ln -s .. run"},
		"own root": {first: []string{"b/run/task-1"}, second: []string{"b/run/task-2"}, script: "chmod 755 ../gcs"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			r := reopen(t, dir, "first")
			run := func(id string, dirs []string, script string) {
				t.Helper()
				w := runtime.Workload{ID: id, Command: []string{"sh", "-c", script}}
				for _, d := range dirs {
					w.Dirs = append(w.Dirs, runtime.GCSRoot+"/"+d)
				}
				in, err := r.Start(t.Context(), w)
				if err != nil {
					t.Fatal(err)
				}
				if exit, err := in.Wait(t.Context()); err != nil || exit.Code != 0 {
					t.Fatalf("%+v, %v", exit, err)
				}
			}
			release := func(id string) {
				t.Helper()
				in, err := r.Find(t.Context(), id)
				if err == nil {
					err = in.Release(t.Context())
				}
				if err != nil {
					t.Fatal(err)
				}
			}
			below := func(id string, dirs []string) (all []string, chain []fs.FileInfo) {
				t.Helper()
				root := filepath.Join(dir, id, dirGCS)
				err := filepath.WalkDir(root, func(path string, _ fs.DirEntry, err error) error {
					if rel, _ := filepath.Rel(root, path); rel != "." {
						all = append(all, rel)
					}
					return err
				})
				if err != nil {
					t.Fatal(err)
				}
				if len(dirs) != 1 {
					return all, nil
				}
				for at := filepath.Join(root, dirs[0]); at != root; at = filepath.Dir(at) {
					info, err := os.Lstat(at)
					if err != nil {
						t.Fatal(err)
					}
					chain = append([]fs.FileInfo{info}, chain...)
				}
				return all, chain
			}
			run("a", tc.first, "true")
			_, old := below("a", tc.first)
			release("a")
			run("b", tc.first, cmp.Or(tc.script, "true"))
			release("b")
			run("c", tc.second, "true")
			all, now := below("c", tc.second)
			var want []string
			for _, d := range tc.second {
				for at := d; at != "."; at = filepath.Dir(at) {
					want = append(want, at)
				}
			}
			slices.Sort(want)
			if want = slices.Compact(want); !slices.Equal(all, want) {
				t.Errorf("%q, want %q", all, want)
			}
			same := 0
			for same < min(len(old), len(now)) && os.SameFile(old[same], now[same]) && now[same].Mode() == fs.ModeDir|0o755 {
				same++
			}
			if tc.script == "" && same != tc.same || same < tc.same {
				t.Errorf("%d directories are the same, want %d", same, tc.same)
			}
		})
	}
}

// TestRecordsAreTakenOver: the next workload's records are written into the files of the
// last one's, which say nothing of it any more, unless somebody else has them.
func TestRecordsAreTakenOver(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		script string
		kept   bool
	}{
		"nothing":      {"true", true},
		"further name": {"ln ../spec.json ../../mine", false},
		"a link":       {"mv ../spec.json ../../victim && ln -s ../victim ../spec.json", false},
		"mode":         {"chmod 644 ../spec.json", false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			r := reopen(t, dir, "first")
			run := func(id, script string) (spec fs.FileInfo) {
				t.Helper()
				in, err := r.Start(t.Context(), runtime.Workload{ID: id, Command: []string{"sh", "-c", script}})
				if err != nil {
					t.Fatal(err)
				}
				if exit, err := in.Wait(t.Context()); err != nil || exit.Code != 0 {
					t.Fatalf("%+v, %v", exit, err)
				}
				f, err := os.Open(filepath.Join(dir, id, fileSpec)) // as long as it is open its number is no other's
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { _ = f.Close() })
				if spec, err = f.Stat(); err != nil {
					t.Fatal(err)
				}
				if err := in.Release(t.Context()); err != nil {
					t.Fatal(err)
				}
				return spec
			}
			first := run("a", tc.script+" # and a long command line, longer than what is written over it")
			before, _ := os.ReadFile(filepath.Join(dir, "victim"))
			if second := run("b", "true"); os.SameFile(first, second) != tc.kept {
				t.Errorf("the same file: %t, want %t", !tc.kept, tc.kept)
			}
			if now, _ := os.ReadFile(filepath.Join(dir, "victim")); !bytes.Equal(before, now) {
				t.Errorf("a file of somebody else was written: %s", now)
			}
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
