package process

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	goruntime "runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"tategu/internal/runtime"
)

// nested is a runtime whose wrappers wait, with our whole binary as the wrapper.
func nested(t *testing.T) *Runtime {
	t.Helper()
	if goruntime.GOOS != "linux" {
		t.Skip("wrappers wait on Linux")
	}
	dir := t.TempDir()
	r, err := New(Config{Dir: filepath.Join(dir, "w"), CacheDir: filepath.Join(dir, "c"), Volumes: filepath.Join(dir, "v"), Log: slog.New(slog.NewTextHandler(t.Output(), nil)), Now: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	})
	n := &nest{root: filepath.Join(r.cfg.Dir, dirNest), attr: r.mounts().sysProcAttr, start: r.launcher().wait, log: r.cfg.Log}
	if r.mounts().flags == 0 {
		n.root = ""
	} else if err := os.MkdirAll(n.root, 0o700); err != nil {
		t.Fatal(err)
	}
	r.nest = func() *nest { return n }
	return r
}

// waits gives the wrapper that waits, once there is one.
func waits(t *testing.T, r *Runtime) *waiting {
	t.Helper()
	r.nest().fill(t.Context())
	n := r.nest()
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.free == nil {
		t.Fatal("none waits")
	}
	return n.free
}

// said runs a program to its end and gives its output, and who was its wrapper.
func said(t *testing.T, r *Runtime, w runtime.Workload) (text string, pid int) {
	t.Helper()
	in, err := r.Start(t.Context(), w)
	if err != nil {
		t.Fatal(err)
	}
	exit, err := in.Wait(t.Context())
	if err != nil || !exit.OK() {
		t.Fatalf("%v %+v", err, exit)
	}
	log, err := in.Log(t.Context(), 0)
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(log)
	if err := errors.Join(err, log.Close()); err != nil {
		t.Fatal(err)
	}
	return string(b), in.Status().PID
}

// TestWaitingWrapper: a program under a wrapper that waited finds what it finds under
// one that was started for it: the same directories, descriptors, session and parent.
func TestWaitingWrapper(t *testing.T) {
	t.Parallel()
	r := nested(t)
	const look = `
ls / | tr '\n' ' '; echo
ls -A /gcs . | tr '\n' ' '; echo
echo /proc/self/fd/*
echo "$PWD"
test "$(cut -d' ' -f6 /proc/$$/stat)" = "$PPID" && echo a session of its own
tr '\0' '\n' < /proc/$PPID/cmdline | grep .
cut -d' ' -f5 /proc/self/mountinfo | sort | tr '\n' ' '; echo
ls /given /mnt-x/deep /mnt-x/other
`
	if r.mounts().flags == 0 {
		t.Skip(r.mounts().say)
	}
	w := runtime.Workload{Command: []string{"sh", "-c", look}}
	for _, at := range []string{"/given", "/mnt-x/deep", "/mnt-x/other"} {
		w.Volumes = append(w.Volumes, runtime.Volume{Name: "v" + strings.ReplaceAll(at, "/", "-"), Path: at})
	}
	seen := map[string]string{}
	for _, id := range []string{"first", "second"} {
		w.ID = id
		free := 0
		if id == "second" {
			free = waits(t, r).process.Pid
		}
		text, pid := said(t, r, w)
		if free != 0 && pid != free {
			t.Errorf("its wrapper was %d, and not %d which waited", pid, free)
		}
		seen[id] = strings.ReplaceAll(strings.ReplaceAll(text, "/"+id, "/ID"), strconv.Itoa(pid), "PID")
	}
	if seen["first"] != seen["second"] || !strings.Contains(seen["first"], "a session of its own") {
		t.Errorf("started for it:\n%s\nwaited:\n%s", seen["first"], seen["second"])
	}
}

// TestWaitingWrapperFails: one that was stopped or killed, or sees an older / than there
// is, costs a program nothing but the time of another's start.
func TestWaitingWrapperFails(t *testing.T) {
	t.Parallel()
	for name, harm := range map[string]func(t *testing.T, w *waiting){
		"killed": func(t *testing.T, w *waiting) {
			t.Helper()
			w.kill()
			<-w.ended
		},
		"stopped": func(t *testing.T, w *waiting) {
			t.Helper()
			if err := w.process.Signal(syscall.SIGSTOP); err != nil {
				t.Fatal(err)
			}
			for !w.stopped() {
				goruntime.Gosched()
			}
		},
		"told nonsense": func(t *testing.T, w *waiting) {
			t.Helper()
			if _, err := w.conn.Write([]byte("no length")); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := nested(t)
			w := waits(t, r)
			harm(t, w)
			text, pid := said(t, r, runtime.Workload{ID: "a", Command: []string{"echo", "well"}})
			if !strings.HasSuffix(text, "well\n") || pid == w.process.Pid {
				t.Errorf("%q by %d, harmed was %d", text, pid, w.process.Pid)
			}
			<-w.ended
		})
	}
}

// TestWaitingWrapperStoppedLate: one that is stopped when it has the workload, and cannot
// be heard, keeps it: nobody ends it, and it goes on when it is let.
func TestWaitingWrapperStoppedLate(t *testing.T) {
	t.Parallel()
	r := nested(t)
	w := waits(t, r)
	in, err := r.Start(t.Context(), runtime.Workload{ID: "a", Command: []string{"sh", "-c", "kill -STOP $PPID; echo well"}})
	if err != nil {
		t.Fatal(err)
	}
	for !w.stopped() {
		goruntime.Gosched()
	}
	look, cancel := context.WithTimeout(t.Context(), 2*zygoteLook) // in which it could be looked at
	defer cancel()
	if exit, err := in.Wait(look); err == nil {
		t.Fatalf("%+v", exit)
	}
	if err := w.process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	if exit, err := in.Wait(t.Context()); err != nil || !exit.OK() || in.Status().PID != w.process.Pid {
		t.Errorf("%v %+v", err, exit)
	}
}

// TestWaitingWrapperEnds: nobody needs one whose server is gone.
func TestWaitingWrapperEnds(t *testing.T) {
	t.Parallel()
	r := nested(t)
	w := waits(t, r)
	if err := w.conn.Close(); err != nil {
		t.Fatal(err)
	}
	<-w.ended

	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	r.nest().take()
	r.nest().fill(ctx)
	w = r.nest().free
	cancel()
	<-w.ended
}
