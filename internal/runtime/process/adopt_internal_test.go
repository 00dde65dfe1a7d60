package process

import (
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"tategu/internal/runtime"
	"tategu/internal/runtime/process/wrapper"
	"tategu/internal/runtime/record"
	"tategu/internal/runtime/workload"
)

// TestWrapperOfKilledServer: a server is killed between the start of a wrapper
// and the moment the wrapper says who it is. The next server finds the lock taken:
// the workload is that wrapper's, has not failed, and nothing is prepared or started
// beside it.
func TestWrapperOfKilledServer(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	work := filepath.Join(dir, "workloads", "a")
	if err := os.MkdirAll(work, 0o700); err != nil {
		t.Fatal(err)
	}
	lock, err := os.Open(work)
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	if err := record.WriteWhole(filepath.Join(work, fileRecord), workload.Accepted{Workload: runtime.Workload{ID: "a", Command: []string{"false"}}}); err != nil {
		t.Fatal(err)
	}
	// The wrapper proper, and a sign that it was started.
	self, began := filepath.Join(dir, "self"), filepath.Join(dir, "began")
	if err := os.WriteFile(self, []byte("#!/bin/sh\ntouch "+began+"\n"+os.Args[0]+" \"$@\"\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	r, err := New(Config{Dir: filepath.Join(dir, "workloads"), CacheDir: filepath.Join(dir, "cache"), Self: self, NoMounts: true, Log: slog.New(slog.DiscardHandler), Now: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	}()
	in, err := r.Find(t.Context(), "a")
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan runtime.Exit, 1)
	go func() {
		exit, _ := in.Wait(t.Context())
		ended <- exit
	}()
	first := exec.Command("cat") // stands for the first wrapper
	stdin, err := first.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := first.Start(); err != nil {
		t.Fatal(err)
	}
	start, err := wrapper.StartTime(first.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	if err := record.WriteWhole(filepath.Join(work, fileWrapper), wrapper.Running{PID: first.Process.Pid, Start: start}); err != nil {
		t.Fatal(err)
	}
	if err := record.WriteWhole(filepath.Join(work, fileExit), wrapper.Exit{Ended: time.Now()}); err != nil {
		t.Fatal(err)
	}
	stdin.Close()
	if err := first.Wait(); err != nil {
		t.Fatal(err)
	}
	if exit := <-ended; !exit.OK() {
		t.Errorf("exit %+v", exit)
	}
	if workload.Exists(began) || workload.Exists(filepath.Join(work, fileSpec)) {
		t.Error("prepared or started beside the other wrapper")
	}
}
