package box

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// kept are the capabilities, over the container's own ids alone, that package
// managers and servers in images need. What would reach beyond is not among them:
// no mounts, devices, raw sockets, tracing, file capabilities.
func kept() []uintptr {
	return []uintptr{
		unix.CAP_CHOWN, unix.CAP_DAC_OVERRIDE, unix.CAP_FOWNER, unix.CAP_FSETID, unix.CAP_KILL,
		unix.CAP_SETGID, unix.CAP_SETUID, unix.CAP_SETPCAP, unix.CAP_NET_BIND_SERVICE,
	}
}

// ambient are those of the wrapper itself in its user namespace. The user it runs
// as is not root there, so it keeps them over its exec only in this way.
func ambient() []uintptr {
	return append(kept(), unix.CAP_SYS_ADMIN, unix.CAP_SYS_CHROOT, unix.CAP_NET_ADMIN)
}

// dropCapabilities leaves the calling thread, and what it starts, no way to ever
// have others than kept.
func dropCapabilities() error {
	keep := map[uintptr]bool{}
	for _, c := range kept() {
		keep[c] = true
	}
	for c := uintptr(0); c <= unix.CAP_LAST_CAP; c++ {
		if keep[c] {
			continue
		}
		if err := unix.Prctl(unix.PR_CAPBSET_DROP, c, 0, 0, 0); err != nil && !errors.Is(err, unix.EINVAL) { // one that the kernel does not know
			return fmt.Errorf("drop capability %d: %w", c, err)
		}
	}
	if err := unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0); err != nil {
		return fmt.Errorf("drop ambient capabilities: %w", err)
	}
	var low, high uint32
	for _, c := range kept() {
		if c < 32 {
			low |= 1 << c
		} else {
			high |= 1 << (c - 32)
		}
	}
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	data := [2]unix.CapUserData{{Permitted: low, Effective: low}, {Permitted: high, Effective: high}}
	if err := unix.Capset(&header, &data[0]); err != nil {
		return fmt.Errorf("keep %d capabilities: %w", len(keep), err)
	}
	return nil
}
