package process_test

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"tategu/internal/runtime"
	"tategu/internal/runtime/process"
)

// whoRuns prints a program's niceness and policy, which children inherit (proc_pid_stat(5),
// fields 19 and 41), its session's weight and the groups that it is in.
const whoRuns = `read -r a b c d e f g h i j k l m n o p q r niceness rest </proc/self/stat; set -- $rest; shift 21; echo "nice $niceness policy $1"
cat /proc/self/autogroup 2>/dev/null || echo none
grep -E '^[0-9]+:(cpu)?:|^[0-9]+:cpu,|:.*,cpu:' /proc/self/cgroup`

// TestGivesWay: replicas of batch prediction give way, other programs do not.
func TestGivesWay(t *testing.T) {
	t.Parallel()
	raw, err := syscall.Getpriority(syscall.PRIO_PROCESS, 0)
	if err != nil {
		t.Fatal(err)
	}
	own := 20 - raw // the system call counts down from 20
	plain := open(t, config(t))
	told := func(r *process.Runtime, w runtime.Workload) (niceness, session, groups string) {
		w.Command = []string{"sh", "-c", whoRuns}
		exit := runToEnd(t, r, w)
		if !exit.OK() || len(exit.Tail) < 3 {
			t.Fatalf("exit %+v", exit)
		}
		return exit.Tail[0], exit.Tail[1], strings.Join(exit.Tail[2:], "\n")
	}
	for _, c := range []struct {
		w               runtime.Workload
		niceness, weigh string
	}{
		{runtime.Workload{ID: "batch", Priority: runtime.PriorityBatch}, "nice " + strconv.Itoa(max(10, own)), "nice 10"},
		{runtime.Workload{ID: "online", Priority: runtime.PriorityOnline}, "nice " + strconv.Itoa(own), "nice 0"},
		{runtime.Workload{ID: "container", Image: "shell:1", Priority: runtime.PriorityBatch}, "nice " + strconv.Itoa(max(10, own)), "nice 10"},
	} {
		r := plain
		if c.w.Image != "" {
			r = inImages(t, images{})
		}
		niceness, session, groups := told(r, c.w)
		// In a group that weighs little a program is of the policy SCHED_IDLE.
		policy := " policy 0"
		if strings.Contains(groups, "-low/") {
			policy = " policy 5"
		}
		if niceness != c.niceness+policy || session != "none" && !strings.HasSuffix(session, c.weigh) {
			t.Errorf("%s: niceness %q, session %q", c.w.ID, niceness, session)
		}
		if c.w.ID == "online" && strings.Contains(groups, "-low/") {
			t.Errorf("groups %s", groups)
		}
	}
}

// TestLowGroup: where control groups can be made, one that gives way weighs little on
// every level that is ours, and goes with its program.
func TestLowGroup(t *testing.T) {
	t.Parallel()
	const mount = "/sys/fs/cgroup/cpu"
	r := open(t, config(t))
	exit := runToEnd(t, r, runtime.Workload{ID: "a", Priority: runtime.PriorityBatch, Command: []string{"sh", "-c", `sed -n 's/^[0-9]*:\(.*,\)*cpu\(,.*\)*://p' /proc/self/cgroup`}})
	if len(exit.Tail) != 1 || !strings.Contains(exit.Tail[0], "-low/") {
		t.Skipf("no control group of version 1 can be made here: %+v", exit)
	}
	group := filepath.Join(mount, exit.Tail[0])
	if _, err := os.Stat(group); err == nil {
		t.Errorf("%s is still there", group)
	}
	if b, err := os.ReadFile(filepath.Join(filepath.Dir(group), "cpu.shares")); err == nil && strings.TrimSpace(string(b)) != "102" {
		t.Errorf("the group of groups has cpu.shares %s", b)
	}
}
