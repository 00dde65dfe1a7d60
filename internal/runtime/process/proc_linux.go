package process

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"tategu/internal/runtime"
	"tategu/internal/runtime/process/wrapper"
	"tategu/internal/runtime/workload"

	"golang.org/x/sys/unix"
)

// waitExit returns once the process is gone; it need not be our child.
func waitExit(ctx context.Context, pid int, start string) error {
	fd, err := unix.PidfdOpen(pid, unix.PIDFD_NONBLOCK)
	if err != nil {
		return pollExit(ctx, pid, start)
	}
	f := os.NewFile(uintptr(fd), "pidfd")
	defer func() { _ = f.Close() }() // nothing was written
	if !wrapper.Alive(pid, start) {
		return nil // the number may be somebody else's by now
	}
	stop := context.AfterFunc(ctx, func() { _ = f.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	raw, err := f.SyscallConn()
	if err != nil {
		return pollExit(ctx, pid, start)
	}
	// A pidfd becomes readable when its process ends.
	err = raw.Read(func(fd uintptr) bool {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0)
		return err == nil && n > 0
	})
	if err != nil && ctx.Err() == nil {
		return pollExit(ctx, pid, start)
	}
	return ctx.Err()
}

// mountMode says how programs get their /gcs.
type mountMode struct {
	flags uintptr // for the clone of the wrapper; 0 = no mounts
	say   string
}

// sysProcAttr starts the wrapper in a session of its own, and where /gcs is
// mounted in a mount namespace of its own.
func (m mountMode) sysProcAttr() *syscall.SysProcAttr {
	attr := &syscall.SysProcAttr{Setsid: true, Cloneflags: m.flags}
	if m.flags&syscall.CLONE_NEWUSER != 0 {
		// Only id 0 keeps its capabilities over the exec of the wrapper.
		attr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}}
		attr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}}
	}
	return attr
}

// probeMounts tries the real thing once, with a wrapper.
func probeMounts(cfg Config, wrappers launcher) mountMode {
	hook := mountMode{say: "/gcs by a Python hook and rewritten arguments (no mount namespaces here)"}
	if cfg.NoMounts {
		return mountMode{say: "/gcs by a Python hook and rewritten arguments (as configured)"}
	}
	mode := mountMode{flags: syscall.CLONE_NEWNS, say: "/gcs is a bind mount"}
	if os.Geteuid() != 0 {
		mode = mountMode{flags: syscall.CLONE_NEWNS | syscall.CLONE_NEWUSER, say: "/gcs is a bind mount in a user namespace"}
	}
	dir, err := os.MkdirTemp(cfg.Dir, ".probe-")
	if err != nil {
		return hook
	}
	defer func() { _ = workload.RemoveAll(dir) }() // a leftover is removed at the next start
	if err := os.MkdirAll(filepath.Join(dir, dirGCS, wrapper.ProbeFile), 0o700); err != nil {
		return hook
	}
	cmd := wrappers.command(&exec.Cmd{Dir: dir, SysProcAttr: mode.sysProcAttr()}, wrapper.ProbeGCS, dir, runtime.GCSRoot)
	if err := cmd.Run(); err != nil {
		return hook
	}
	return mode
}
