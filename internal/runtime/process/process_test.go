package process_test

import (
	"log/slog"
	"path/filepath"
	"testing"
	"time"

	"tategu/internal/runtime"
	"tategu/internal/runtime/process"
)

func config(t *testing.T) process.Config {
	t.Helper()
	dir := t.TempDir()
	return process.Config{
		Dir: filepath.Join(dir, "workloads"), CacheDir: filepath.Join(dir, "cache"),
		Log: slog.New(slog.NewTextHandler(t.Output(), nil)), Now: time.Now,
	}
}

func open(t *testing.T, cfg process.Config) *process.Runtime {
	t.Helper()
	r, err := process.New(cfg)
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

func TestPlain(t *testing.T) {
	t.Parallel()
	r := open(t, config(t))
	in, err := r.Start(t.Context(), runtime.Workload{ID: "a", Command: []string{"sh", "-c", "echo hi; ls -d /gcs; exit 3"}})
	if err != nil {
		t.Fatal(err)
	}
	exit, err := in.Wait(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%+v %+v", exit, in.Status())
	if exit.Code != 3 {
		t.Fatal(exit)
	}
}
