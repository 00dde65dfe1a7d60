package process

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"time"

	"tategu/internal/runtime/process/box"

	"golang.org/x/sys/unix"
)

// FromContainer reports whether a connection over loopback comes from a program
// in a container, by the user who owns its far end. Containers share the
// machine's network, and what listens there may trust the machine's own programs.
// It is nil where the ids of containers are not their own.
func FromContainer() func(local, remote *net.TCPAddr) bool {
	ids := box.DefaultMapping()
	if !ids.User || ids.Base == 0 || ids.Count <= 1 {
		return nil
	}
	return func(local, remote *net.TCPAddr) bool {
		uid, open, err := peer(local, remote)
		if err != nil {
			return false // no diagnosis, no user namespaces either: the machine is itself confined
		}
		// Who has closed its end meanwhile cannot be told from a container.
		return !open || uid >= ids.Base && uid < ids.Base+ids.Count
	}
}

// Layout of inet_diag_req_v2 and inet_diag_msg (sock_diag(7)).
const (
	diagRequest  = 56
	diagMessage  = 72
	diagUID      = 64
	diagInode    = 68
	diagStatus   = 1
	diagEnd      = 3 * time.Second
	stateListen  = 10
	socketHeader = unix.NLMSG_HDRLEN
)

// peer asks the kernel who owns the far end of a connection of this machine; open
// is false when nobody does any more.
func peer(local, remote *net.TCPAddr) (uid int, open bool, err error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_SOCK_DIAG)
	if err != nil {
		return 0, false, err
	}
	defer func() { _ = unix.Close(fd) }() // one question, one answer
	limit := unix.NsecToTimeval(int64(diagEnd))
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &limit); err != nil {
		return 0, false, err
	}
	if err := unix.Sendto(fd, question(local, remote), 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return 0, false, err
	}
	b := make([]byte, 4096)
	n, _, err := unix.Recvfrom(fd, b, 0)
	if err != nil {
		return 0, false, err
	}
	return answer(b[:n])
}

func question(local, remote *net.TCPAddr) []byte {
	b := make([]byte, socketHeader+diagRequest)
	binary.NativeEndian.PutUint32(b[0:], uint32(len(b)))
	binary.NativeEndian.PutUint16(b[4:], unix.SOCK_DIAG_BY_FAMILY)
	binary.NativeEndian.PutUint16(b[6:], unix.NLM_F_REQUEST)
	q := b[socketHeader:]
	q[0], q[1] = unix.AF_INET6, unix.IPPROTO_TCP
	src, dst := remote.IP.To16(), local.IP.To16()
	if v4 := remote.IP.To4(); v4 != nil {
		q[0], src, dst = unix.AF_INET, v4, local.IP.To4()
	}
	binary.NativeEndian.PutUint32(q[4:], ^uint32(0)) // any state
	// The far end's own view: its port is the source.
	binary.BigEndian.PutUint16(q[8:], uint16(remote.Port))
	binary.BigEndian.PutUint16(q[10:], uint16(local.Port))
	copy(q[12:28], src)
	copy(q[28:44], dst)
	binary.NativeEndian.PutUint64(q[48:], ^uint64(0)) // no cookie
	return b
}

func answer(b []byte) (uid int, open bool, err error) {
	if len(b) < socketHeader+4 {
		return 0, false, errors.New("sock_diag: a short answer")
	}
	body := b[socketHeader:]
	switch kind := binary.NativeEndian.Uint16(b[4:]); {
	case kind == unix.NLMSG_ERROR:
		errno := unix.Errno(-int32(binary.NativeEndian.Uint32(body)))
		if errno == unix.ENOENT {
			return 0, false, nil
		}
		return 0, false, fmt.Errorf("sock_diag: %w", errno)
	case kind != unix.SOCK_DIAG_BY_FAMILY || len(body) < diagMessage:
		return 0, false, fmt.Errorf("sock_diag: an answer of type %d and %d bytes", kind, len(body))
	}
	live := binary.NativeEndian.Uint32(body[diagInode:]) != 0 && body[diagStatus] != stateListen
	return int(binary.NativeEndian.Uint32(body[diagUID:])), live, nil
}
