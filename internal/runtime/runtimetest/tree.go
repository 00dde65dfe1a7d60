package runtimetest

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// mark is a number that only the processes of one test have on their command
// lines. Their process ids are of no use: an adapter may give them a view of
// their own.
func mark(t *testing.T) string {
	t.Helper()
	return strconv.Itoa(1_000_000_000 + rand.IntN(1_000_000_000)) //nolint:gosec // a name, not a secret
}

// marked counts the processes of this machine that carry a mark.
func marked(t *testing.T, mark string) int {
	t.Helper()
	dirs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, dir := range dirs {
		pid, err := strconv.Atoi(filepath.Base(dir))
		if err != nil {
			continue
		}
		line, err := os.ReadFile(filepath.Join(dir, "cmdline"))
		if err == nil && strings.Contains(string(line), mark) && running(pid) {
			n++
		}
	}
	return n
}

// gone fails unless the processes with the mark are gone, or zombies, within the limit.
func (b *bench) gone(mark string) {
	b.t.Helper()
	b.until("processes are left", func() bool { return marked(b.t, mark) == 0 })
}

// ended fails unless a process of this machine is gone within the limit.
func (b *bench) ended(pid int) {
	b.t.Helper()
	b.until(fmt.Sprintf("process %d still runs", pid), func() bool { return !running(pid) })
}

func (b *bench) until(what string, ok func() bool) {
	b.t.Helper()
	tick, ctx := time.NewTicker(10*time.Millisecond), b.ctx()
	defer tick.Stop()
	for !ok() {
		select {
		case <-ctx.Done():
			b.t.Fatal(what)
		case <-tick.C:
		}
	}
}

func running(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err == nil {
		_, rest, _ := strings.Cut(string(stat), ") ")
		return !strings.HasPrefix(rest, "Z")
	}
	return !errors.Is(syscall.Kill(pid, 0), syscall.ESRCH)
}

// family starts a child that ignores SIGTERM and a grandchild in a session of its
// own whose parent is gone: what a daemon does.
func family(mark string) string {
	return strings.ReplaceAll(`
trap '' TERM
(trap '' TERM; sleep MARK) & echo child
if command -v setsid >/dev/null; then setsid sh -c 'echo daemon; trap "" TERM; (exec sleep MARK)' & wait $! 2>/dev/null & fi
`, "MARK", mark)
}

func testKillsTree(t *testing.T, open Open) {
	t.Helper()
	b := newBench(t, open, nil)
	mark := mark(t)
	in := b.start(b.sh("tree", family(mark)+"echo ready; sleep 1000; sleep 1000"))
	b.awaitLog("tree", "ready")
	b.awaitLog("tree", "daemon")
	b.until("the family did not start", func() bool { return marked(t, mark) >= 4 }) // the shell, two sleeps and the daemon at least
	if err := in.Stop(b.ctx(), 20*time.Millisecond); err != nil {
		t.Fatal(err)
	}
	exit := b.wait(in)
	if exit.OK() || exit.Message != "stopped" || exit.Signal != "SIGKILL" {
		t.Fatalf("exit %+v", exit)
	}
	b.gone(mark)
}

func testEndsStrays(t *testing.T, open Open) {
	t.Helper()
	b := newBench(t, open, nil)
	mark := mark(t)
	exit := b.run(b.sh("strays", family(mark)+"exit 0"))
	if !exit.OK() || !strings.Contains(b.logs.Text("strays"), "child") {
		t.Fatalf("exit %+v", exit)
	}
	b.gone(mark)
}

func testStopGrace(t *testing.T, open Open) {
	t.Helper()
	b := newBench(t, open, nil)
	in := b.start(b.sh("grace", `trap 'echo cleaned up; exit 3' TERM; echo ready; while :; do sleep 0.05; done`))
	b.awaitLog("grace", "ready")
	if err := in.Stop(b.ctx(), limit); err != nil {
		t.Fatal(err)
	}
	exit := b.wait(in)
	if exit.Code != 3 || exit.Message != "stopped" || !strings.Contains(b.logs.Text("grace"), "cleaned up") {
		t.Fatalf("exit %+v, log %q", exit, b.logs.Text("grace"))
	}
	if err := in.Stop(b.ctx(), 0); err != nil {
		t.Fatalf("a second Stop: %v", err)
	}
}

func testRestart(t *testing.T, open Open) {
	t.Helper()
	b := newBench(t, open, nil)
	go1 := filepath.Join(b.options.Shared, "go")
	w := b.sh("survivor", `echo before; while [ ! -e "$GO" ]; do sleep 0.05; done; echo after; echo made > /gcs/bucket/out; exit 5`)
	w.Env, w.Publish, w.Dirs = map[string]string{"GO": go1}, true, []string{"/gcs/bucket"}
	w.Command[2] = strings.ReplaceAll(w.Command[2], "/gcs/", " /gcs/") // spelt so that every mapping sees it
	b.start(w)
	stopped := b.start(b.sh("stopped", "echo up; sleep 1000"))
	b.awaitLog("survivor", "before")
	b.awaitLog("stopped", "up")
	pid := stopped.Status().PID
	b.restart()
	in, err := b.Find(b.ctx(), "survivor")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(go1, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	exit := b.wait(in)
	if exit.Code != 5 || b.logs.Text("survivor") != "before\nafter\n" {
		t.Fatalf("exit %+v, log %q", exit, b.logs.Text("survivor"))
	}
	if got := b.files.Content("gs://bucket/out"); got != "made\n" {
		t.Fatalf("its file was not published: %q", got)
	}
	again, err := b.Find(b.ctx(), "stopped")
	if err != nil {
		t.Fatal(err)
	}
	if err := again.Stop(b.ctx(), 0); err != nil {
		t.Fatal(err)
	}
	if exit := b.wait(again); exit.Message != "stopped" || running(pid) {
		t.Fatalf("exit %+v", exit)
	}
}

func testRestartEnded(t *testing.T, open Open) {
	t.Helper()
	b := newBench(t, open, nil)
	first := b.run(b.sh("done", "echo x; exit 4"))
	go1 := filepath.Join(b.options.Shared, "go")
	w := b.sh("meanwhile", `echo up; while [ ! -e "$GO" ]; do sleep 0.02; done; echo bye; exit 6`)
	w.Env = map[string]string{"GO": go1}
	in := b.start(w)
	b.awaitLog("meanwhile", "up")
	pid := in.Status().PID
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(go1, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	b.ended(pid) // while no server runs
	b.Adapter = open(t, b.options)
	for id, code := range map[string]int{"done": 4, "meanwhile": 6} {
		in, err := b.Find(b.ctx(), id)
		if err != nil {
			t.Fatal(err)
		}
		if exit := b.wait(in); exit.Code != code {
			t.Errorf("%s: exit %+v, want code %d", id, exit, code)
		}
	}
	if text := b.logs.Text("meanwhile"); text != "up\nbye\n" {
		t.Errorf("log %q", text)
	}
	if in, err := b.Find(b.ctx(), "done"); err != nil || !in.Status().Exit.Ended.Equal(first.Ended) {
		t.Errorf("the recorded end changed: %v", err)
	}
}
