//go:build !linux

package wrapper

import (
	"errors"
	"fmt"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// Without /proc a process tree is its process group: a program that makes a
// session of its own is not killed with the rest.

// StartTime tells a process from a later one of the same number.
func StartTime(pid int) (string, error) {
	p, err := unix.SysctlKinfoProc("kern.proc.pid", pid)
	if err != nil {
		return "", err
	}
	if int(p.Proc.P_pid) != pid {
		return "", syscall.ESRCH
	}
	t := p.Proc.P_starttime
	return fmt.Sprintf("%d.%06d", t.Sec, t.Usec), nil
}

// Alive reports whether the process that started then still runs.
func Alive(pid int, start string) bool {
	const zombie = 5 // SZOMB of sys/proc.h
	p, err := unix.SysctlKinfoProc("kern.proc.pid", pid)
	if err != nil || int(p.Proc.P_pid) != pid || p.Proc.P_stat == zombie {
		return false
	}
	now, err := StartTime(pid)
	return err == nil && now == start
}

// Stopped reports a process that was stopped by a signal or a debugger.
func Stopped(pid int) bool {
	const stopped = 4 // SSTOP of sys/proc.h
	p, err := unix.SysctlKinfoProc("kern.proc.pid", pid)
	return err == nil && int(p.Proc.P_pid) == pid && p.Proc.P_stat == stopped
}

func killTree(group int) { _ = syscall.Kill(-group, syscall.SIGKILL) } // gone already is fine

// KillStrays finds none without /proc.
func KillStrays(int, string) {}

func childless() bool { return false } // orphans are not given to us

func inGroup(*syscall.SysProcAttr, *os.File) {}

func becomeReaper() error { return nil }

func probe(string, string) error { return errors.New("no mount namespaces on this system") }

func mount(string, []Mount) error { return probe("", "") }

// view is never made: nothing is mounted here.
type view struct{}

func openView(root, _ string) (*view, error) {
	if root != "" {
		return nil, probe("", "")
	}
	return nil, nil
}

func (*view) current() error { return nil }

func (*view) ready() bool { return false }

func (*view) add([]Mount) error { return probe("", "") }

func dup(from, to int) error { return syscall.Dup2(from, to) }

func entitle([]string) error { return nil }
