package process

import (
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"tategu/internal/resource"
	"tategu/internal/runtime"
	"tategu/internal/runtime/workload"
)

// reopen opens a runtime over directories of an earlier one.
func reopen(t *testing.T, dir, boot string) *Runtime {
	t.Helper()
	r, err := New(Config{Dir: dir, CacheDir: t.TempDir(), NoMounts: true, Boot: boot, Log: slog.New(slog.DiscardHandler), Now: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	})
	return r
}

// ended3 leaves the directory of a workload that has ended with code 3, and of
// nothing else, and gives its path.
func ended3(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	r := reopen(t, dir, "first")
	in, err := r.Start(t.Context(), runtime.Workload{ID: "a", Command: []string{"sh", "-c", "echo ran >> again; exit 3"}})
	if err != nil {
		t.Fatal(err)
	}
	if exit, err := in.Wait(t.Context()); err != nil || exit.Code != 3 {
		t.Fatalf("%+v, %v", exit, err)
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	return dir
}

// torn are contents that a power loss, or a careless hand, leaves of a file.
func torn(t *testing.T, whole []byte) map[string][]byte {
	t.Helper()
	if len(whole) < 2 {
		t.Fatalf("%q is no record", whole)
	}
	return map[string][]byte{
		"empty": {}, "half": whole[:len(whole)/2], "nulls": make([]byte, len(whole)), "null": []byte("null"), "object": []byte("{}"), "text": []byte("\xff gone"),
	}
}

// eachTorn runs a test for every way in which one of the files may be torn, on a
// copy of the template with that file.
func eachTorn(t *testing.T, template string, names []string, test func(t *testing.T, dir string)) {
	t.Helper()
	for _, name := range names {
		whole, err := os.ReadFile(filepath.Join(template, "a", name))
		if err != nil {
			t.Fatal(err)
		}
		for kind, content := range torn(t, whole) {
			t.Run(name+" "+kind, func(t *testing.T) {
				t.Parallel()
				dir := t.TempDir()
				if err := os.CopyFS(dir, os.DirFS(template)); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(filepath.Join(dir, "a", name), content, 0o600); err != nil {
					t.Fatal(err)
				}
				test(t, dir)
			})
		}
	}
}

// TestTornRecords: a file without its content never keeps the server from its
// start, and an end that was told stays told whatever else is lost.
func TestTornRecords(t *testing.T) {
	t.Parallel()
	template := ended3(t)
	eachTorn(t, template, []string{fileRecord, fileSpec, fileWrapper, fileExit, fileEnd}, func(t *testing.T, dir string) {
		t.Helper()
		r := reopen(t, dir, "first")
		in, err := r.Find(t.Context(), "a")
		if err != nil {
			t.Fatal(err)
		}
		exit, err := in.Wait(t.Context())
		if err != nil || exit.Code != 3 {
			t.Errorf("%+v, %v", exit, err)
		}
		if b, err := os.ReadFile(filepath.Join(dir, "a", dirWork, "again")); err != nil || string(b) != "ran\n" {
			t.Errorf("it ran again: %q, %v", b, err)
		}
	})
}

// TestTornBeforeEnd: without an end, a workload whose files are torn is not known
// or ends, and its owner can start it again.
func TestTornBeforeEnd(t *testing.T) {
	t.Parallel()
	template := ended3(t)
	if err := os.Remove(filepath.Join(template, "a", fileEnd)); err != nil {
		t.Fatal(err)
	}
	eachTorn(t, template, []string{fileRecord, fileSpec, fileWrapper, fileExit}, func(t *testing.T, dir string) {
		t.Helper()
		r := reopen(t, dir, "first")
		in, err := r.Start(t.Context(), runtime.Workload{ID: "a", Command: []string{"sh", "-c", "exit 3"}})
		if err != nil {
			t.Fatal(err)
		}
		exit, err := in.Wait(t.Context())
		if err != nil || exit.OK() {
			t.Errorf("%+v, %v", exit, err)
		}
	})
}

// TestMachineRestarted: of the time before, nothing counts. A program cannot have
// survived, and what it wrote may be torn: it is not published, and its end may be on
// the disk without its objects.
func TestMachineRestarted(t *testing.T) {
	t.Parallel()
	dir := ended3(t)
	if in, err := reopen(t, dir, "first").Find(t.Context(), "a"); err != nil || in.Status().Exit == nil || in.Status().Exit.Code != 3 {
		t.Fatalf("the end is lost: %v", err)
	}
	r := reopen(t, dir, "second")
	if _, err := r.Find(t.Context(), "a"); !resource.IsNotFound(err) {
		t.Fatalf("found after the restart: %v", err)
	}
	if workload.Exists(filepath.Join(dir, "a")) {
		t.Error("its files are still there")
	}
	in, err := r.Start(t.Context(), runtime.Workload{ID: "a", Command: []string{"sh", "-c", "ls again; exit 4"}})
	if err != nil {
		t.Fatal(err)
	}
	if exit, err := in.Wait(t.Context()); err != nil || exit.Code != 4 {
		t.Errorf("%+v, %v", exit, err)
	}
}
