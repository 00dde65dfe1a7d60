package workload

import (
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"
)

// TestCPUTime: what grandchildren use counts, those that have ended too.
func TestCPUTime(t *testing.T) {
	t.Parallel()
	sh, err := exec.LookPath("sh")
	if err != nil {
		t.Skip("there is no sh: ", err)
	}
	burn := `i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done`
	cmd := exec.CommandContext(t.Context(), sh, "-c", `sh -c '`+burn+`'; echo; sh -c 'while :; do :; done; true'; true`)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		_ = cmd.Wait()
	}()
	if _, err := out.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	ended, ok := CPUTime(cmd.Process.Pid)
	if !ok || ended <= 0 {
		t.Fatalf("after a child has ended: %v, %v", ended, ok)
	}
	for begin := time.Now(); ; {
		now, ok := CPUTime(cmd.Process.Pid)
		if !ok {
			t.Fatal("the process is gone")
		}
		if now >= ended+3*tick {
			break
		}
		if time.Since(begin) > time.Minute {
			t.Fatalf("a grandchild that never rests has used %v in a minute", now-ended)
		}
	}
	if _, ok := CPUTime(1 << 22); ok {
		t.Error("a process that is not there has used something")
	}
}

// FuzzUsage: no status line does harm.
func FuzzUsage(f *testing.F) {
	own, err := os.ReadFile("/proc/self/stat")
	if err != nil {
		f.Skip(err)
	}
	f.Add(own)
	f.Add([]byte("1 (a) b) c) S 0 1 1 0 -1 4 0 0 0 0 5 6 7 8"))
	f.Fuzz(func(_ *testing.T, line []byte) { _, _ = parseUsage(line) })
}
