//go:build linux

package durability

import (
	"bufio"
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// fail lets some system calls of a running server fail with EIO from now on: all
// of them, or those on one file. mend ends that; the disk is sound again then.
func fail(t *testing.T, s *server, calls, path string) (mend func()) {
	t.Helper()
	args := []string{"-f", "-p", strconv.Itoa(s.pid()), "-o", "/dev/null", "-e", "trace=" + calls, "-e", "inject=" + calls + ":error=EIO"}
	if path != "" {
		args = append(args, "-P", path)
	}
	cmd := exec.CommandContext(t.Context(), "strace", args...)
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(stderr)
	for lines.Scan() && !strings.Contains(lines.Text(), "attached") {
	}
	var drained sync.WaitGroup
	drained.Go(func() {
		for lines.Scan() { // further threads
		}
	})
	return func() {
		_ = cmd.Process.Signal(os.Interrupt) // it detaches, and may have ended with the server
		drained.Wait()
		_ = cmd.Wait()
	}
}

func needsStrace(t *testing.T) {
	t.Helper()
	path, err := exec.LookPath("strace")
	if err != nil {
		t.Skipf("strace is not installed: %v", err)
	}
	sleeper := exec.CommandContext(t.Context(), "sleep", "60")
	if err := sleeper.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = sleeper.Process.Kill()
		_ = sleeper.Wait()
	}()
	// An attached strace ends by a signal only, one that is refused by itself.
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	out, _ := exec.CommandContext(ctx, path, "-p", strconv.Itoa(sleeper.Process.Pid), "-o", "/dev/null").CombinedOutput()
	if !strings.Contains(string(out), "attached") {
		t.Skipf("strace may not attach here: %s", out)
	}
}

// TestFailingDisk: amid a storm of changes the disk begins to answer EIO. The
// server goes read-only and says why; what it had acknowledged is there after a
// restart, and nothing is torn.
func TestFailingDisk(t *testing.T) {
	t.Parallel()
	needsStrace(t)
	for _, tt := range []struct {
		name, calls, file string
		after             int // acknowledged changes
	}{
		{"every fsync", "fsync,fdatasync", "", 100},
		{"fsync of the log", "fsync,fdatasync", "state.db-wal", 150},
		{"fsync of the database", "fsync,fdatasync", "state.db", 50},
		{"write of the database", "pwrite64", "", 200},
		{"rename", "renameat,renameat2", "", 30},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			data := t.TempDir()
			s := start(t, data, options{})
			makeBucket(t, s)
			path := ""
			if tt.file != "" {
				path = filepath.Join(data, tt.file)
			}
			l := newLedger()
			mend := storm(t, s, l, tt.after, func() func() { return fail(t, s, tt.calls, path) })
			t.Logf("%d objects, %d deletions and %d models were acknowledged, %d requests had no certain end", len(l.objects), len(l.deleted), len(l.models), len(l.unknown))
			saysReadOnly(t, s)
			l.check(t, s) // reads go on
			checkWhole(t, s)
			mend()
			saysReadOnly(t, s) // a disk that works again proves nothing
			saved := filepath.Join(t.TempDir(), "backup")
			run(t, "backup", saved, "--data", data) // what can be read can be saved
			run(t, "backup", "--verify", saved)
			s.stop()
			s = start(t, data, options{})
			l.check(t, s)
			checkWhole(t, s)
			if a := s.do(http.MethodGet, "/readyz", ""); a.status != http.StatusOK {
				t.Errorf("after a restart on a sound disk: %s", a)
			}
			if a, err := simple(s, "after", content("after", 1000)); err != nil || a.status != http.StatusOK {
				t.Errorf("after a restart on a sound disk: %s, %v", a, err)
			}
		})
	}
}

// storm sends changes of every kind from many clients until each is refused. Once
// some were acknowledged it calls then, whose result it gives back.
func storm(t *testing.T, s *server, l *ledger, after int, then func() func()) func() {
	t.Helper()
	var clients sync.WaitGroup
	var acknowledged atomic.Int64
	reached := make(chan struct{})
	for w := range 8 {
		clients.Go(func() {
			for n := 0; ; n++ {
				refused, err := stormOnce(s, l, w, n)
				if err != nil {
					t.Error(err)
				}
				if refused || err != nil {
					return
				}
				if acknowledged.Add(1) == int64(after) {
					close(reached)
				}
			}
		})
	}
	<-reached
	result := then()
	clients.Wait()
	return result
}

// stormOnce makes one change; refused reports that the server is read-only.
func stormOnce(s *server, l *ledger, w, n int) (refused bool, err error) {
	name := fmt.Sprintf("w%d-%d", w, n)
	what := name
	var a answer
	switch {
	case w == 0:
		display, body := modelBody(n)
		if a, err = s.try(http.MethodPost, parent+"/models:upload", strings.NewReader(body)); err != nil {
			return false, err
		}
		if a.status == http.StatusOK {
			var op struct{ Response struct{ Model string } }
			a.decode(s.t, &op)
			l.mu.Lock()
			l.models[op.Response.Model] = display
			l.mu.Unlock()
			return false, nil
		}
	case n%5 == 4:
		what = fmt.Sprintf("w%d-%d", w, n-2)
		l.unsure(what)
		if a, err = s.try(http.MethodDelete, objectPath(bucket, what), http.NoBody); err != nil {
			return false, err
		}
		if a.status == http.StatusNoContent {
			l.drop(what)
			return false, nil
		}
	default:
		size := rand.IntN(20_000)
		up := []upload{simple, multipart, resumable}[n%3]
		if a, err = up(s, name, content(name, size)); err != nil {
			return false, err
		}
		if a.status == http.StatusOK {
			l.put(name, size)
			return false, nil
		}
		l.unsure(name)
	}
	if a.status != http.StatusServiceUnavailable || !strings.Contains(string(a.body), "read-only") {
		return false, fmt.Errorf("change %s: %s", what, a)
	}
	return true, nil
}

func saysReadOnly(t *testing.T, s *server) {
	t.Helper()
	const why, next = "the server is read-only: its disk failed", "check the disk of the data directory, then restart the server"
	for what, a := range map[string]answer{
		"an upload": s.do(http.MethodPost, "/upload/storage/v1/b/"+bucket+"/o?uploadType=media&name=late", "late"),
		"a model":   s.do(http.MethodPost, parent+"/models:upload", `{"model":{"displayName":"late","containerSpec":{"imageUri":"wait:1"}}}`),
		"readyz":    s.do(http.MethodGet, "/readyz", ""),
	} {
		if a.status != http.StatusServiceUnavailable || !strings.Contains(string(a.body), why) || !strings.Contains(string(a.body), next) {
			t.Errorf("%s was answered %s", what, a)
		}
	}
	if a := s.do(http.MethodGet, "/metrics", ""); !strings.Contains(string(a.body), "\ntategu_read_only 1\n") {
		t.Errorf("the metrics do not say read-only: %s", a)
	}
	if out, err := command(t, "status", "--data", s.data); err != nil || !strings.Contains(out, "WARNING: "+why) {
		t.Errorf("status says %q, %v", out, err)
	}
	if log := s.log.String(); !strings.Contains(log, "READ-ONLY") || !strings.Contains(log, "input/output error") && !strings.Contains(log, "disk I/O error") {
		t.Errorf("the log does not say read-only and why:\n%s", log)
	}
}
