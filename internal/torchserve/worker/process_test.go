package worker_test

import (
	"context"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"tategu/internal/torchserve/worker"
)

// TestInterruptStays: what comes after an interrupt does not wait either.
func TestInterruptStays(t *testing.T) {
	t.Parallel()
	ours, theirs := net.Pipe()
	defer func() { _ = theirs.Close() }() // nothing is written to it
	c := worker.NewConn(ours, 1<<20)
	if err := c.Interrupt(); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Receive(0); !worker.IsTimeout(err) {
		t.Errorf("it receives: %v", err)
	}
	if err := c.Send([]worker.Request{{ID: "1"}}, 0); !worker.IsTimeout(err) {
		t.Errorf("it sends: %v", err)
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
}

// TestInterruptSend: a worker that reads nothing keeps nobody.
func TestInterruptSend(t *testing.T) {
	t.Parallel()
	ours, theirs := net.Pipe()
	defer func() { _ = theirs.Close() }() // nothing is read from it
	c := worker.NewConn(ours, 1<<20)
	sent := make(chan error, 1)
	go func() { sent <- c.Send([]worker.Request{{ID: "1"}}, 0) }()
	if _, err := theirs.Read(make([]byte, 1)); err != nil { // it is in the middle of it
		t.Fatal(err)
	}
	if err := c.Interrupt(); err != nil {
		t.Fatal(err)
	}
	if err := <-sent; !worker.IsTimeout(err) {
		t.Errorf("it sends: %v", err)
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
}

// TestDaemonOfWorker: what a worker started in a session of its own, with the worker's
// output, keeps nobody waiting.
func TestDaemonOfWorker(t *testing.T) {
	t.Parallel()
	setsid, err := exec.LookPath("setsid")
	if err != nil {
		t.Skip("no setsid is installed, which starts a session")
	}
	home := t.TempDir()
	script := setsid + ` sh -c 'echo pid $$; exec sleep 600' &` + "\nexec sleep 600\n"
	if err := os.WriteFile(filepath.Join(home, "model_service_worker.py"), []byte(script), 0o600); err != nil {
		t.Fatal(err)
	}
	pid := make(chan int, 1)
	p, err := worker.Plain{}.Start(t.Context(), worker.Program{Python: "sh", Home: home, Dir: home, Env: os.Environ(), Output: func(line string) {
		if text, ok := strings.CutPrefix(line, "pid "); ok {
			n, _ := strconv.Atoi(text)
			pid <- n
		}
	}})
	if err != nil {
		t.Fatal(err)
	}
	daemon := <-pid
	defer func() { _ = syscall.Kill(daemon, syscall.SIGKILL) }() // the test's own
	p.Kill()
	select {
	case <-p.Done():
	case <-time.After(time.Minute):
		t.Fatal("a worker that has ended is waited for")
	}
}

// TestStuckZygote: one that never becomes ready is ended with the wait for it.
func TestStuckZygote(t *testing.T) {
	t.Parallel()
	stuck := filepath.Join(t.TempDir(), "python")
	if err := os.WriteFile(stuck, []byte("#!/bin/sh\nexec sleep 600\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		_, err := worker.StartZygote(ctx, worker.Recipe{Python: stuck, Env: os.Environ(), Output: func(string) {}})
		done <- err
	}()
	cancel()
	select {
	case err := <-done:
		if err == nil {
			t.Error("it is ready")
		}
	case <-time.After(time.Minute):
		t.Fatal("a zygote that is stuck is waited for")
	}
}
