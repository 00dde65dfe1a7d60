//go:build !linux

package worker

import (
	"syscall"
)

// ownGroup starts a process in a session of its own. It ends when its socket does.
func ownGroup() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setsid: true} }

// awaitEnd leaves it to the wait that follows.
func awaitEnd(int) {}
