package wrapper

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// stat is what /proc/PID/stat says of a process (proc_pid_stat(5)).
type stat struct {
	state   byte
	parent  int
	session int
	start   string // field 22, clock ticks since boot
}

func readStat(pid int) (stat, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return stat{}, err
	}
	// The command name may hold spaces and brackets; the fields follow the last one.
	i := bytes.LastIndexByte(b, ')')
	fields := strings.Fields(string(b[i+1:]))
	if len(fields) < 20 {
		return stat{}, fmt.Errorf("/proc/%d/stat: %d fields", pid, len(fields))
	}
	parent, err := strconv.Atoi(fields[1])
	if err != nil {
		return stat{}, err
	}
	session, err := strconv.Atoi(fields[3])
	if err != nil {
		return stat{}, err
	}
	return stat{state: fields[0][0], parent: parent, session: session, start: fields[19]}, nil
}

// StartTime tells a process from a later one of the same number.
func StartTime(pid int) (string, error) {
	s, err := readStat(pid)
	return s.start, err
}

// Alive reports whether the process that started then still runs.
func Alive(pid int, start string) bool {
	s, err := readStat(pid)
	return err == nil && s.start == start && s.state != 'Z' && s.state != 'X'
}

// Stopped reports a process that was stopped by a signal or a debugger.
func Stopped(pid int) bool {
	s, err := readStat(pid)
	return err == nil && (s.state == 'T' || s.state == 't')
}

// inGroup has a program start in a group of the unified hierarchy.
func inGroup(attr *syscall.SysProcAttr, group *os.File) {
	if group != nil {
		attr.UseCgroupFD, attr.CgroupFD = true, int(group.Fd())
	}
}

func pids() []int {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil
	}
	var out []int
	for _, e := range entries {
		if pid, err := strconv.Atoi(e.Name()); err == nil {
			out = append(out, pid)
		}
	}
	return out
}

// killTree kills every descendant of ours: the wrapper is the parent of orphans,
// so no program escapes by daemonising.
func killTree(group int) {
	_ = syscall.Kill(-group, syscall.SIGKILL) // gone already is fine
	children := map[int][]int{}
	for _, pid := range pids() {
		if s, err := readStat(pid); err == nil && s.state != 'Z' {
			children[s.parent] = append(children[s.parent], pid)
		}
	}
	for next := children[os.Getpid()]; len(next) > 0; {
		pid := next[0]
		next = append(next[1:], children[pid]...)
		_ = syscall.Kill(pid, syscall.SIGKILL) // gone already is fine
	}
}

// KillStrays ends what a wrapper that was itself killed left behind: members of
// its session, and whatever carries the workload's mark in its environment.
func KillStrays(wrapper int, dir string) {
	mark := []byte("\x00" + DirVariable + "=" + dir + "\x00")
	for _, pid := range pids() {
		s, err := readStat(pid)
		if err != nil || pid == os.Getpid() {
			continue
		}
		env, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
		if s.session == wrapper || err == nil && bytes.Contains(append([]byte{0}, env...), mark) {
			_ = syscall.Kill(pid, syscall.SIGKILL) // gone already is fine
		}
	}
}

// childless collects what has ended and reports that nothing else of ours is left:
// orphans would be our children by now.
func childless() bool {
	for {
		var status syscall.WaitStatus
		switch got, err := syscall.Wait4(-1, &status, syscall.WNOHANG, nil); {
		case errors.Is(err, syscall.EINTR):
		case err != nil: // ECHILD
			return true
		case got == 0:
			return false
		}
	}
}

func becomeReaper() error { return unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) }
