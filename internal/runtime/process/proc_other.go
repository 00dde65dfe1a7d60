//go:build !linux

package process

import (
	"context"
	"errors"
	"fmt"
	"syscall"

	"tategu/internal/runtime"

	"golang.org/x/sys/unix"
)

// Without /proc a process tree is its process group: a program that makes a
// session of its own is not killed with the rest.

func startTime(pid int) (string, error) {
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

func alive(pid int, start string) bool {
	const zombie = 5 // SZOMB of sys/proc.h
	p, err := unix.SysctlKinfoProc("kern.proc.pid", pid)
	if err != nil || int(p.Proc.P_pid) != pid || p.Proc.P_stat == zombie {
		return false
	}
	now, err := startTime(pid)
	return err == nil && now == start
}

func killTree(group int) { _ = syscall.Kill(-group, syscall.SIGKILL) } // gone already is fine

func killStrays(int, string) {}

func waitExit(ctx context.Context, pid int, start string) error { return pollExit(ctx, pid, start) }

func becomeReaper() error { return nil }

func oomKills() int { return 0 }

func inventory(gpus int) runtime.Resources {
	total := runtime.Resources{Cores: cores(), GPUs: gpus}
	if mem, err := unix.SysctlUint64("hw.memsize"); err == nil {
		total.MemoryBytes = int64(mem)
	}
	return total
}

type mountMode struct {
	flags uintptr
	say   string
}

func (mountMode) sysProcAttr() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setsid: true} }

func probeMounts(Config) mountMode {
	return mountMode{say: "/gcs by a Python hook and rewritten arguments (no mount namespaces on this system)"}
}

func probe(string) error { return errors.New("no mount namespaces on this system") }

func mountGCS(string, string) error { return probe("") }
