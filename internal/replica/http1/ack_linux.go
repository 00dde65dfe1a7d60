package http1

import (
	"io"
	"net"
	"syscall"

	"golang.org/x/sys/unix"
)

// acking acknowledges what comes at once. Servers that write the head and the body
// of an answer apart without TCP_NODELAY, as Python's http.server does, otherwise
// wait 40 ms for the kernel's delayed acknowledgement of the head. The flag does not
// stick (tcp(7)): it is set before each read.
type acking struct {
	net.Conn

	raw syscall.RawConn
	set func(fd uintptr)
}

func acknowledging(nc net.Conn) io.Reader {
	tcp, ok := nc.(*net.TCPConn)
	if !ok {
		return nc
	}
	raw, err := tcp.SyscallConn()
	if err != nil {
		return nc
	}
	return acking{nc, raw, func(fd uintptr) {
		_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_QUICKACK, 1) // only costs time when it fails
	}}
}

// Read implements io.Reader.
func (a acking) Read(p []byte) (int, error) {
	_ = a.raw.Control(a.set) // a closed connection says so when it is read
	return a.Conn.Read(p)
}
