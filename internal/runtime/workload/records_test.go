package workload_test

import (
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"tategu/internal/runtime"
	"tategu/internal/runtime/record"
	"tategu/internal/runtime/workload"
)

func accepted(id, boot string) workload.Accepted {
	return workload.Accepted{Workload: runtime.Workload{ID: id, Command: []string{"true"}}, Created: time.Unix(1, 0), Boot: boot}
}

// TestLoad: a workload and its end are known in the run of the machine that accepted
// it, and not after that.
func TestLoad(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "a")
	if err := workload.Accept(dir, accepted("a", "first"), nil); err != nil {
		t.Fatal(err)
	}
	for boot, known := range map[string]bool{"first": true, "": true, "second": false} {
		rec, exit, err := workload.Load(dir, boot)
		if known != (err == nil) || !known && !record.Absent(err) || exit != nil || known && rec.Workload.ID != "a" {
			t.Errorf("boot %q: %+v, %v, %v", boot, rec, exit, err)
		}
	}
	exit := runtime.Exit{Code: 3, Ended: time.Unix(2, 0)}
	if err := workload.WriteEnd(t.Context(), slog.New(slog.DiscardHandler), dir, exit, accepted("a", "first")); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(dir, workload.FileRecord)); err != nil {
		t.Fatal(err)
	}
	if rec, got, err := workload.Load(dir, "first"); err != nil || got == nil || got.Code != 3 || rec.Workload.ID != "a" {
		t.Errorf("after the end: %+v, %v, %v", rec, got, err)
	}
	if rec, got, err := workload.Load(dir, "second"); !record.Absent(err) {
		t.Errorf("after a restart of the machine: %+v, %v, %v", rec, got, err)
	}
}

// TestDiscard: what is left of a directory by a server that was killed while it
// removed it is nobody's, and a new workload of the id starts with nothing.
func TestDiscard(t *testing.T) {
	t.Parallel()
	top := t.TempDir()
	dir := filepath.Join(top, "a")
	for range 2 {
		if err := workload.Accept(dir, accepted("a", ""), nil); err != nil {
			t.Fatal(err)
		}
		if err := workload.WriteEnd(t.Context(), slog.New(slog.DiscardHandler), dir, runtime.Exit{Ended: time.Unix(2, 0)}, accepted("a", "")); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "kept"), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := workload.Accept(dir, accepted("a", ""), nil); err != nil {
		t.Fatal(err)
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 1 {
		t.Errorf("of an earlier workload are left: %v, %v", entries, err)
	}
	// Killed between the two steps.
	away := filepath.Join(top, ".gone-a")
	if err := os.Rename(dir, away); err != nil {
		t.Fatal(err)
	}
	if _, _, err := workload.Load(away, ""); !record.Absent(err) {
		t.Errorf("known by its new name: %v", err)
	}
	if err := workload.Discard(dir); err != nil {
		t.Fatal(err)
	}
	if entries, err := os.ReadDir(top); err != nil || len(entries) != 0 {
		t.Errorf("left: %v, %v", entries, err)
	}
}

// FuzzLoad: whatever is in the files, a server starts: a workload is known whole,
// or not at all.
func FuzzLoad(f *testing.F) {
	whole := `{"Workload":{"ID":"a"},"Created":"2026-01-02T03:04:05Z","Boot":"b"}`
	f.Add([]byte(whole), []byte(""), "b")
	f.Add([]byte(whole), []byte(`{"Code":3,"Ended":"2026-01-02T03:04:05Z","Record":`+whole+`}`), "c")
	f.Add([]byte("{}"), []byte("null"), "")
	f.Add([]byte{0, 0}, []byte(`{"Ended":"2026-01-02T03:04:05Z"}`), "b")
	f.Fuzz(func(t *testing.T, rec, end []byte, boot string) {
		dir := filepath.Join(t.TempDir(), "a")
		if err := errors.Join(os.Mkdir(dir, 0o700), os.WriteFile(filepath.Join(dir, workload.FileRecord), rec, 0o600), os.WriteFile(filepath.Join(dir, workload.FileEnd), end, 0o600)); err != nil {
			t.Fatal(err)
		}
		got, exit, err := workload.Load(dir, boot)
		switch {
		case err != nil && !record.Absent(err):
			t.Fatalf("a server would not start: %v", err)
		case err != nil:
		case got.Workload.ID != "a":
			t.Fatalf("known as %q", got.Workload.ID)
		case got.Boot != "" && boot != "" && got.Boot != boot:
			t.Fatalf("of %q, known in %q", got.Boot, boot)
		case exit != nil && exit.Ended.IsZero():
			t.Fatal("an end without its moment")
		}
		if err := workload.Discard(dir); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Lstat(dir); !errors.Is(err, fs.ErrNotExist) {
			t.Fatal("still there")
		}
	})
}
