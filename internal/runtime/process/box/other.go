//go:build !linux

package box

import (
	"errors"
	"os"
	"os/exec"
	"syscall"
)

var errLinux = errors.New("containers need Linux")

// Attr starts the wrapper in a session of its own.
func Attr(Mapping, bool) *syscall.SysProcAttr { return &syscall.SysProcAttr{Setsid: true} }

// HostPID is our own number.
func HostPID() (int, error) { return os.Getpid(), nil }

// Start is for Linux alone.
func Start(string, *Container, []string, []string) (int, error) { return 0, errLinux }

// Low starts a program like any other.
func Low(_ Cgroup, start func(group *os.File) (pid int, err error)) (pid int, err error) {
	return start(nil)
}

// DefaultMapping is the single user.
func DefaultMapping() Mapping { return Mapping{Base: os.Geteuid(), Count: 1} }

// MappingOf is the one that there is.
func MappingOf(_ string, ids Mapping) Mapping { return ids }

// Probe finds that containers need Linux.
func Probe(string, func(*exec.Cmd) *exec.Cmd) Mode { return Mode{Err: errLinux} }

// Try is for Linux alone.
func Try(string, string) error { return errLinux }

// Cgroups limits nothing here.
type Cgroups struct{}

// NewCgroups finds none.
func NewCgroups(string) *Cgroups { return &Cgroups{} }

// Make limits nothing.
func (*Cgroups) Make(string, Ask) (Cgroup, error) { return Cgroup{}, nil }

// Tidy has nothing to remove.
func (*Cgroups) Tidy() {}

// Remove has nothing to take away.
func (Cgroup) Remove() error { return nil }

// OOMCounter counts nothing here.
type OOMCounter struct{}

// OpenOOM counts nothing.
func OpenOOM(Cgroup) OOMCounter { return OOMCounter{} }

// Count counts nothing.
func (OOMCounter) Count() (int, bool) { return 0, false }
