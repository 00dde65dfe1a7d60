package process_test

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"tategu/internal/resource"
	"tategu/internal/runtime"
	"tategu/internal/runtime/process"
	"tategu/internal/runtime/runtimetest"
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

// TestStartKnown: what was started stays startable in name, whatever has become of
// the rule for its image.
func TestStartKnown(t *testing.T) {
	t.Parallel()
	cfg := config(t)
	cfg.Images = []runtime.ImageRule{{Match: "img*", Command: []string{"sh", "-c", "exit 3"}}}
	w := runtime.Workload{ID: "a", Image: "img:1"}
	r := open(t, cfg)
	runToEnd(t, r, w)
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	cfg.Images = nil
	r = open(t, cfg)
	if exit := runToEnd(t, r, w); exit.Code != 3 {
		t.Errorf("exit %+v", exit)
	}
	w.ID = "b"
	if _, err := r.Start(t.Context(), w); err == nil {
		t.Error("an unknown image was accepted")
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

// busyCredentials cannot open an identity while busy is set.
type busyCredentials struct {
	runtimetest.Credentials
	busy   atomic.Bool
	failed atomic.Int64
}

func (c *busyCredentials) Open(ctx context.Context, id, project, account string) (map[string]string, func(), error) {
	if c.busy.Load() {
		c.failed.Add(1)
		return nil, nil, errors.New("the port is taken by another program")
	}
	return c.Credentials.Open(ctx, id, project, account)
}

// TestIdentityTaken: at a restart another program has the port of a task's
// identity. A program that runs is watched all the same, one that has not started
// waits, and both have their identities when the port is free again.
func TestIdentityTaken(t *testing.T) {
	t.Parallel()
	cfg := config(t)
	credentials := &busyCredentials{}
	cfg.Credentials = credentials
	first := open(t, cfg)
	flag := filepath.Join(t.TempDir(), "go")
	in, err := first.Start(t.Context(), runtime.Workload{ID: "runs", Command: []string{"sh", "-c", "while [ ! -e " + flag + " ]; do sleep 0.02; done; exit 3"}})
	if err != nil {
		t.Fatal(err)
	}
	await(t, func() bool { return in.Status().Phase == runtime.Running })
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	waits := filepath.Join(cfg.Dir, "waits")
	if err := os.MkdirAll(waits, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(waits, "record.json"), []byte(`{"Workload": {"ID": "waits", "Command": ["true"]}}`), 0o600); err != nil {
		t.Fatal(err)
	}
	credentials.busy.Store(true)
	second := open(t, cfg)
	await(t, func() bool { return credentials.failed.Load() >= 2 })
	running, err := second.Find(t.Context(), "runs")
	if err != nil || running.Status().Phase != runtime.Running {
		t.Fatalf("%+v, %v", running.Status(), err)
	}
	credentials.busy.Store(false)
	waiting, err := second.Find(t.Context(), "waits")
	if err != nil {
		t.Fatal(err)
	}
	if exit, err := waiting.Wait(t.Context()); err != nil || !exit.OK() {
		t.Errorf("the one that waited: %+v, %v", exit, err)
	}
	await(t, func() bool { _, all := credentials.Counts(); return all == 3 })
	if err := os.WriteFile(flag, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if exit, err := running.Wait(t.Context()); err != nil || exit.Code != 3 {
		t.Errorf("the one that ran: %+v, %v", exit, err)
	}
	if left, _ := credentials.Counts(); left != 0 {
		t.Errorf("%d identities are left open", left)
	}
}
