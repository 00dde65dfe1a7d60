package process_test

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"tategu/internal/resource"
	"tategu/internal/runtime"
	"tategu/internal/runtime/process"
)

func config(t *testing.T) process.Config {
	t.Helper()
	dir := t.TempDir()
	return process.Config{
		Dir: filepath.Join(dir, "workloads"), CacheDir: filepath.Join(dir, "cache"),
		Log: slog.New(slog.DiscardHandler), Now: time.Now,
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

func writeScript(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
}

// TestImageCommand: a rule's program gets the command and arguments as its own.
func TestImageCommand(t *testing.T) {
	t.Parallel()
	cfg := config(t)
	program := filepath.Join(t.TempDir(), "program")
	writeScript(t, program, "#!/bin/sh\necho \"got $# $*\"\n")
	cfg.Images = []runtime.ImageRule{{Match: "img*", Command: []string{program, "first"}}}
	r := open(t, cfg)
	exit := runToEnd(t, r, runtime.Workload{ID: "a", Image: "img:1", Command: []string{"a"}, Args: []string{"b c"}})
	if !exit.OK() || len(exit.Tail) != 1 || exit.Tail[0] != "got 3 first a b c" {
		t.Fatalf("exit %+v", exit)
	}
}

// TestWrapperLost: somebody kills the wrapper; the program must not go on unseen.
func TestWrapperLost(t *testing.T) {
	t.Parallel()
	cfg := config(t)
	r := open(t, cfg)
	pidFile := filepath.Join(t.TempDir(), "pid")
	in, err := r.Start(t.Context(), runtime.Workload{ID: "a", Command: []string{"sh", "-c", "echo $$ >" + pidFile + ".new; mv " + pidFile + ".new " + pidFile + "; sleep 1000"}})
	if err != nil {
		t.Fatal(err)
	}
	await(t, func() bool { _, err := os.Stat(pidFile); return err == nil })
	if err := syscall.Kill(in.Status().PID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	exit, err := in.Wait(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if exit.Cause != resource.CausePlatform || !strings.Contains(exit.Message, "wrapper") {
		t.Fatalf("exit %+v", exit)
	}
	b, err := os.ReadFile(pidFile)
	if err != nil {
		t.Fatal(err)
	}
	await(t, func() bool {
		stat, err := os.ReadFile("/proc/" + strings.TrimSpace(string(b)) + "/stat")
		return err != nil || strings.Contains(string(stat), ") Z ")
	})
}

// TestSweep: directories that nobody releases go after a while.
func TestSweep(t *testing.T) {
	t.Parallel()
	cfg := config(t)
	r := open(t, cfg)
	if exit := runToEnd(t, r, runtime.Workload{ID: "old", Command: []string{"true"}}); !exit.OK() {
		t.Fatalf("exit %+v", exit)
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	cfg.Now = func() time.Time { return time.Now().Add(25 * time.Hour) }
	later := open(t, cfg)
	done := make(chan error, 1)
	ctx, cancel := context.WithCancel(t.Context())
	go func() { done <- later.Run(ctx) }()
	await(t, func() bool { _, err := os.Stat(filepath.Join(cfg.Dir, "old")); return os.IsNotExist(err) })
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}
