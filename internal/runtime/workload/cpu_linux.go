package workload

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"time"
)

// tick is the unit of CPU times in /proc, a hundredth of a second on every Linux
// (USER_HZ, proc(5)).
const tick = 10 * time.Millisecond

// usage is what one process tells of itself.
type usage struct {
	parent int
	used   time.Duration // its own, and that of children that have ended
}

// CPUTime adds up what a process, its descendants and those of them that have ended
// have used of the CPU; false = it is gone.
func CPUTime(pid int) (time.Duration, bool) {
	root, err := readUsage(pid)
	if err != nil {
		return 0, false
	}
	dir, err := os.Open("/proc")
	if err != nil {
		return 0, false
	}
	defer func() { _ = dir.Close() }() // only read
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return 0, false
	}
	children, used := map[int][]int{}, map[int]time.Duration{}
	for _, name := range names {
		p, err := strconv.Atoi(name)
		if err != nil {
			continue
		}
		if u, err := readUsage(p); err == nil { // else it is gone
			children[u.parent] = append(children[u.parent], p)
			used[p] = u.used
		}
	}
	total := root.used
	for below := children[pid]; len(below) > 0; {
		p := below[len(below)-1]
		below = append(below[:len(below)-1], children[p]...)
		total += used[p]
		delete(children, p) // no cycle, whatever /proc said while it changed
	}
	return total, true
}

func readUsage(pid int) (usage, error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return usage{}, err
	}
	return parseUsage(data)
}

// parseUsage reads the line of proc_pid_stat(5). The name, in brackets, may hold
// anything.
func parseUsage(data []byte) (u usage, err error) {
	const parent, utime, cstime = 1, 11, 14 // after the name
	end := bytes.LastIndexByte(data, ')')
	fields := bytes.Fields(data[end+1:])
	if end < 0 || len(fields) <= cstime {
		return u, fmt.Errorf("%.40q is no status of a process", data)
	}
	if u.parent, err = strconv.Atoi(string(fields[parent])); err != nil {
		return u, err
	}
	for _, f := range fields[utime : cstime+1] {
		n, err := strconv.ParseInt(string(f), 10, 64)
		if err != nil {
			return u, err
		}
		u.used += time.Duration(n) * tick
	}
	return u, nil
}
