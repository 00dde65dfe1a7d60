package builder

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// attributes start a process in a session of its own, so that signals of a terminal are
// not its, that ends with us.
func attributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setsid: true, Pdeathsig: syscall.SIGKILL}
}

// Self is the path of this very program, though another took its place on the disk.
func Self() (string, error) {
	const exe = "/proc/self/exe"
	if _, err := os.Stat(exe); err == nil {
		return exe, nil
	}
	return os.Executable()
}

// giveWay has all of this process get less than others who want the processor, in slices as short as the kernel makes them, as runtime/process/box has for batch work; and
// it is the first to go where memory is short. What cannot be had, as in some containers, does not keep it from the rest.
func giveWay(niceness int) error {
	const first = "1000"
	err := os.WriteFile("/proc/self/oom_score_adj", []byte(first), 0)
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	return errors.Join(err, slowThreads(niceness), weighSession(niceness))
}

// slowThreads sets the niceness and the slices of all threads; where the kernel knows no
// slices, niceness alone.
func slowThreads(niceness int) error {
	now, err := unix.Getpriority(unix.PRIO_PROCESS, 0)
	if err != nil {
		return os.NewSyscallError("getpriority", err)
	}
	attr := &unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_NORMAL, Nice: max(int32(niceness), int32(20-now)), Runtime: uint64(100 * time.Microsecond)}
	// Threads inherit it from the one that starts them, so that the second pass finds those
	// that were started meanwhile by one that had not got it yet.
	const passes = 2
	for range passes {
		threads, err := os.ReadDir("/proc/self/task")
		if err != nil {
			return err
		}
		for _, t := range threads {
			id, err := strconv.Atoi(t.Name())
			if err != nil {
				return fmt.Errorf("a thread is called %q", t.Name())
			}
			if err = os.NewSyscallError("sched_setattr", unix.SchedSetAttr(id, attr, 0)); err != nil && !errors.Is(err, unix.ESRCH) {
				if e := unix.Setpriority(unix.PRIO_PROCESS, id, int(attr.Nice)); e != nil && !errors.Is(e, unix.ESRCH) {
					return errors.Join(err, os.NewSyscallError("setpriority", e))
				}
			}
		}
	}
	return nil
}

// weighSession sets the niceness of the session, by which the kernel shares the processor
// first (sched(7), autogroups). It allows all users together ten changes a second.
func weighSession(niceness int) error {
	const tries, pause = 10, 110 * time.Millisecond
	var err error
	for range tries {
		err = os.WriteFile("/proc/self/autogroup", fmt.Append(nil, niceness), 0)
		if err == nil || errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if !errors.Is(err, unix.EAGAIN) {
			return err
		}
		<-time.After(pause)
	}
	return err
}
