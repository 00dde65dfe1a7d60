package http1

import (
	"io"
	"net"
	"syscall"

	"golang.org/x/sys/unix"
)

// acking acknowledges what came of an answer that is not all there at once. Servers
// that write the head and the body of an answer apart without TCP_NODELAY, as
// Python's http.server does, otherwise wait 40 ms for the kernel's delayed
// acknowledgement of the head. The flag does not stick (tcp(7)): it is set before
// each read but the first of an exchange, when nothing has come yet.
type acking struct {
	net.Conn

	raw  syscall.RawConn
	set  func(fd uintptr)
	some bool // of the answer has come
}

func acknowledging(nc net.Conn) (in io.Reader, begin func()) {
	tcp, ok := nc.(*net.TCPConn)
	if !ok {
		return nc, func() {}
	}
	raw, err := tcp.SyscallConn()
	if err != nil {
		return nc, func() {}
	}
	a := &acking{Conn: nc, raw: raw, set: func(fd uintptr) {
		_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_QUICKACK, 1) // only costs time when it fails
	}}
	return a, func() { a.some = false }
}

// Read implements io.Reader.
func (a *acking) Read(p []byte) (int, error) {
	if a.some {
		_ = a.raw.Control(a.set) // a closed connection says so when it is read
	}
	a.some = true
	return a.Conn.Read(p)
}
