package metadata

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
)

// callerHolds reports whether the program at the other end of a loopback
// connection was started with text in its environment. Listening ports are no
// secret on a machine, so a request without the secret path must prove in this
// way that it comes from the task.
func callerHolds(remote, local netip.AddrPort, text string) (bool, error) {
	inode, err := socketInode(remote, local)
	if err != nil || inode == "" {
		return false, err
	}
	link := "socket:[" + inode + "]"
	dirs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return false, err
	}
	for _, dir := range dirs {
		if !holdsSocket(dir, link) {
			continue
		}
		// Processes that inherited the socket are the same task or were lent it.
		env, err := os.ReadFile(filepath.Join(dir, "environ"))
		if err == nil && bytes.Contains(env, []byte(text)) {
			return true, nil
		}
	}
	return false, nil
}

// socketInode finds the caller's end of the connection in the kernel's table
// (proc(5), /proc/net/tcp).
func socketInode(remote, local netip.AddrPort) (string, error) {
	f, err := os.Open("/proc/net/tcp")
	if err != nil {
		return "", fmt.Errorf("find the caller: %w", err)
	}
	defer func() { _ = f.Close() }() // opened for reading
	want := [2]string{kernelAddr(remote), kernelAddr(local)}
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		if len(fields) > 9 && fields[1] == want[0] && fields[2] == want[1] {
			return fields[9], nil
		}
	}
	return "", lines.Err()
}

// kernelAddr is an IPv4 address and port as /proc/net/tcp prints them: the
// address is the memory of the machine's own byte order.
func kernelAddr(a netip.AddrPort) string {
	b := a.Addr().Unmap().As4()
	return fmt.Sprintf("%08X:%04X", binary.NativeEndian.Uint32(b[:]), a.Port())
}

// holdsSocket is false for processes of other users, which we may not look into.
func holdsSocket(dir, link string) bool {
	fds, err := os.ReadDir(filepath.Join(dir, "fd"))
	if err != nil {
		return false
	}
	for _, fd := range fds {
		target, err := os.Readlink(filepath.Join(dir, "fd", fd.Name()))
		if errors.Is(err, fs.ErrPermission) {
			return false
		}
		if target == link {
			return true
		}
	}
	return false
}
