//go:build !linux

package builder

import (
	"os"
	"syscall"
)

// attributes start a process that ends when its input does.
func attributes() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setsid: true} }

// Self is the path of this program.
func Self() (string, error) { return os.Executable() }

// giveWay lowers the priority of this process.
func giveWay(niceness int) error {
	return os.NewSyscallError("setpriority", syscall.Setpriority(syscall.PRIO_PROCESS, 0, niceness))
}
