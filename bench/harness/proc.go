// Package harness watches the programs that benchmarks measure: what they use, and
// whether they are ready. It reads /proc, which only Linux has.
package harness

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// tick is what /proc counts CPU time in.
const tick = 10 * time.Millisecond

// Stat is of /proc/PID/stat, see proc_pid_stat(5).
type Stat struct {
	Parent   int
	State    string
	CPU      time.Duration // in user and kernel mode
	Children time.Duration // likewise, of children that have ended and were waited for
	Start    string        // since boot, in ticks: with the id it names a process
}

// Read gives the numbers of a process; false = it has ended.
func Read(pid int) (Stat, bool) {
	text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return Stat{}, false
	}
	name := strings.LastIndexByte(string(text), ')') // which may hold anything
	const state, parent, user, start = 0, 1, 11, 19
	f := strings.Fields(string(text[name+1:]))
	if len(f) <= start {
		return Stat{}, false
	}
	var ticks [4]int // user, system, and both of children
	for i := range ticks {
		ticks[i], _ = strconv.Atoi(f[user+i]) // the kernel writes numbers
	}
	s := Stat{State: f[state], Start: f[start], CPU: time.Duration(ticks[0]+ticks[1]) * tick, Children: time.Duration(ticks[2]+ticks[3]) * tick}
	s.Parent, _ = strconv.Atoi(f[parent])
	return s, true
}

// All gives every process that there is.
func All() []int {
	paths, _ := filepath.Glob("/proc/[0-9]*") // the pattern is right
	pids := make([]int, 0, len(paths))
	for _, p := range paths {
		if pid, err := strconv.Atoi(filepath.Base(p)); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids
}

// Tree gives some processes and all below them, whatever sessions these are in.
func Tree(roots ...int) []int {
	children := map[int][]int{}
	for _, pid := range All() {
		if s, ok := Read(pid); ok {
			children[s.Parent] = append(children[s.Parent], pid)
		}
	}
	pids := slices.Clone(roots)
	for i := 0; i < len(pids); i++ {
		for _, pid := range children[pids[i]] {
			if !slices.Contains(pids, pid) {
				pids = append(pids, pid)
			}
		}
	}
	return pids
}

// CPU is the processor time that some processes have used.
func CPU(pids []int) (sum time.Duration) {
	for _, pid := range pids {
		s, _ := Read(pid) // one that has ended uses no more
		sum += s.CPU
	}
	return sum
}

// PSS is the memory of some processes in bytes, what they share divided among who
// shares it.
func PSS(pids []int) (sum int64) {
	for _, pid := range pids {
		n, _ := field(pid, "smaps_rollup", "Pss") // one that has ended has none
		sum += n
	}
	return sum
}

// Memory gives a figure of /proc/PID/status in bytes, such as VmRSS.
func Memory(pid int, key string) (int64, error) { return field(pid, "status", key) }

// field reads a line such as "VmRSS:  123 kB".
func field(pid int, file, key string) (int64, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", pid, file))
	if err != nil {
		return 0, fmt.Errorf("memory is read from /proc, which only Linux has: %w", err)
	}
	for line := range strings.Lines(string(text)) {
		if f := strings.Fields(line); len(f) >= 2 && f[0] == key+":" {
			kib, err := strconv.ParseInt(f[1], 10, 64)
			return kib << 10, err
		}
	}
	return 0, fmt.Errorf("/proc/%d/%s has no %s", pid, file, key)
}
