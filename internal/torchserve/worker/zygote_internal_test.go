package worker

import (
	"net"
	"os"
	"strings"
	"testing"
)

// TestStartNotSent: a start that the zygote never heard of leaves nothing behind.
func TestStartNotSent(t *testing.T) { //nolint:paralleltest // it counts open files
	ours, theirs, err := messagePair()
	if err != nil {
		t.Skip(err)
	}
	defer func() { _ = theirs.Close() }() // nothing is written to it
	c, err := net.FileConn(ours)
	if err != nil {
		t.Fatal(err)
	}
	_ = ours.Close() // FileConn made its own
	unix, ok := c.(*net.UnixConn)
	if !ok {
		t.Fatalf("it is a %T", c)
	}
	defer func() { _ = unix.Close() }()
	z := &Zygote{conn: unix, done: make(chan struct{}), workers: map[string]*forked{}}
	before := openFiles(t)
	if _, err := z.Start(t.Context(), Program{ID: "1", Env: []string{"LARGE=" + strings.Repeat("x", maxRequest)}}); err == nil || !strings.Contains(err.Error(), "too much") {
		t.Errorf("it starts: %v", err)
	}
	if len(z.workers) != 0 {
		t.Errorf("%v are waited for", z.workers)
	}
	if after := openFiles(t); after > before {
		t.Errorf("%d files are open, %d were before", after, before)
	}
}

// openFiles counts those of this process; other tests must not run beside it.
func openFiles(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Skip(err)
	}
	return len(entries)
}

// TestLeash: permits are taken once, by whoever is first.
func TestLeash(t *testing.T) {
	t.Parallel()
	l, _, err := newLeash(2)
	if err != nil {
		t.Skip(err)
	}
	if n := l.withdraw(3); n != 0 {
		t.Errorf("%d were there at the start", n)
	}
	for _, n := range []int{1, 3} {
		if err := l.permit(n); err != nil {
			t.Fatal(err)
		}
	}
	if a, b := l.withdraw(3), l.withdraw(3); a != 3 || b != 1 {
		t.Errorf("%d and %d of four are taken back", a, b)
	}
	if err := l.close(); err != nil {
		t.Error(err)
	}
	if err := l.permit(1); err == nil {
		t.Error("a worker that has gone is given a permit")
	}
	if n := l.withdraw(1); n != 0 {
		t.Error("a worker that has gone has a permit")
	}
	p := &Process{leash: l}
	if p.SetThreads(1) || (&Process{}).SetThreads(1) {
		t.Error("a worker that does not listen is told its threads")
	}
	if err := l.close(); err != nil {
		t.Error(err)
	}
}
