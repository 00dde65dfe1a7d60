package harness

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestTree finds a program below a program, in a session of its own, and what both use.
func TestTree(t *testing.T) {
	t.Parallel()
	if _, ok := Read(os.Getpid()); !ok {
		t.Skip("this system has no /proc")
	}
	cmd := exec.CommandContext(t.Context(), "sh", "-c", "setsid sh -c 'while :; do :; done' & wait")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var below []int
	t.Cleanup(func() {
		for _, pid := range below {
			if p, err := os.FindProcess(pid); err == nil && pid != cmd.Process.Pid {
				_ = p.Kill() // it may have ended
			}
		}
		_ = cmd.Wait() // killed is how it ends
	})
	err := Until(t.Context(), time.Minute, time.Millisecond, "the tree works", func() (bool, error) {
		below = Tree(cmd.Process.Pid)
		return len(below) > 1 && CPU(below) > 0, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if pids := Tree(os.Getpid()); !slices.Contains(pids, below[len(below)-1]) || !slices.Contains(pids, cmd.Process.Pid) {
		t.Errorf("%v is not below this test's %v", below, pids)
	}
	s, ok := Read(cmd.Process.Pid)
	if !ok || s.Parent != os.Getpid() || s.Start == "" || s.State == "" {
		t.Errorf("%+v, %v", s, ok)
	}
	rss, err := Memory(os.Getpid(), "VmRSS")
	if err != nil || rss < 1<<20 {
		t.Errorf("this test has %d bytes, %v", rss, err)
	}
	if pss := PSS([]int{os.Getpid(), 1 << 30}); pss < 1<<20 || pss > 2*rss {
		t.Errorf("this test has %d bytes of %d by shares", pss, rss)
	}
	if _, err := Memory(os.Getpid(), "Nothing"); err == nil {
		t.Error("a figure that there is not was read")
	}
	if _, err := Memory(1<<30, "VmRSS"); err == nil {
		t.Error("a process that there is not has memory")
	}
}

func TestListens(t *testing.T) {
	t.Parallel()
	log := filepath.Join(t.TempDir(), "log")
	ended := make(chan struct{})
	if err := os.WriteFile(log, []byte("starts\ntategu is ready on http://127.0.0.1:4711 (data in d)\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if at, err := Listens(t.Context(), log, ended); err != nil || at != "127.0.0.1:4711" {
		t.Errorf("it listens on %q, %v", at, err)
	}
	if err := os.WriteFile(log, []byte("no room\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	close(ended)
	if _, err := Listens(t.Context(), log, ended); err == nil || !strings.Contains(err.Error(), "the server ended") || !strings.Contains(err.Error(), "no room") {
		t.Errorf("a server that ended: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Listens(ctx, log, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("a wait that is over: %v", err)
	}
}
