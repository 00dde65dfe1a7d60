package box

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

// Low has start start a program that gives way, in a control group. Niceness and group are those of a thread, and inherited: so the thread that
// starts it has them before, and ends with the goroutine, while the wrapper keeps its
// own.
func Low(c Cgroup, start func(group *os.File) (pid int, err error)) (pid int, err error) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread()
		sayGiveWay(c)
		var group *os.File
		if group, err = Join(c); err != nil {
			return
		}
		defer func() { _ = group.Close() }() // a nil file is fine, too
		pid, err = start(group)
	}()
	<-done
	return pid, err
}

// sayGiveWay gives way; a program that cannot runs all the same, and its output says so.
func sayGiveWay(group Cgroup) {
	if err := giveWay(group); err != nil {
		fmt.Fprintln(os.Stderr, "this runs at the priority of everything else:", err)
	}
}

// giveWay has the calling thread get a tenth of what others get who want the processor.
// Where the kernel shares the processor between sessions first (sched(7), autogroups),
// niceness ranks threads within a session only, and the session has one of its own.
//
// A thread whose group is weighed is of the policy SCHED_IDLE in it: its share is the
// group's still, since all in it are, and the kernel takes a core that runs nothing else for
// a free one. What wakes up goes there, and not behind somebody of its own rank until the
// next tick. Without such a group that policy would leave it next to nothing; a session may
// be weighed in vain, as in a container, whose processes are of one group.
func giveWay(group Cgroup) error {
	const tenth = 10 // each step is about 1.25 times less
	now, err := unix.Getpriority(unix.PRIO_PROCESS, 0)
	if err != nil {
		return os.NewSyscallError("getpriority", err)
	}
	err = weighSession(tenth)
	attr := &unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_NORMAL, Nice: max(tenth, int32(20-now))} // the system call counts down from 20
	err = errors.Join(err, os.NewSyscallError("sched_setattr", unix.SchedSetAttr(0, attr, 0)))
	if group.Weighed {
		attr.Policy = unix.SCHED_IDLE // which leaves the niceness as it is
		err = errors.Join(err, os.NewSyscallError("sched_setattr", unix.SchedSetAttr(0, attr, 0)))
	}
	return err
}

// weighSession sets the niceness of the session, where it has one and is ours alone.
func weighSession(niceness int) error {
	if sid, err := unix.Getsid(0); err != nil || sid != os.Getpid() {
		return os.NewSyscallError("getsid", err)
	}
	const tries, pause = 10, 110 * time.Millisecond // the kernel allows all users together ten changes a second
	for range tries {
		err := os.WriteFile("/proc/self/autogroup", fmt.Append(nil, niceness), 0)
		if err == nil || errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if !errors.Is(err, unix.EAGAIN) {
			return err
		}
		<-time.After(pause)
	}
	return errors.New("the kernel was too busy to change the weight of a session")
}
