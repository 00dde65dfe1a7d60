package worker

import (
	"errors"
	"syscall"

	"golang.org/x/sys/unix"
)

// ownGroup starts a process in a session of its own that does not outlive us.
func ownGroup() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setsid: true, Pdeathsig: syscall.SIGKILL}
}

// awaitEnd returns once a child has ended; it is still there to be waited for, so
// that its id is nobody else's.
func awaitEnd(pid int) {
	for errors.Is(unix.Waitid(unix.P_PID, pid, nil, unix.WEXITED|unix.WNOWAIT, nil), unix.EINTR) {
	}
}
