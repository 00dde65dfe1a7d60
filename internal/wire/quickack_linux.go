package wire

import (
	"net"

	"golang.org/x/sys/unix"
)

// quickAck gives a function that acknowledges what was received at once. urllib3
// turns TCP_NODELAY off towards proxies and sends headers and body apart, so that
// every request with a body waits 40 ms for the kernel's delayed ACK. The flag
// does not stick (tcp(7)): it is set again after each read.
func quickAck(c net.Conn) func() {
	tcp, ok := c.(*net.TCPConn)
	if !ok {
		return nil
	}
	raw, err := tcp.SyscallConn()
	if err != nil {
		return nil
	}
	set := func(fd uintptr) {
		_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_QUICKACK, 1) // only costs time when it fails
	}
	return func() { _ = raw.Control(set) } // a closed connection has nothing to acknowledge
}
