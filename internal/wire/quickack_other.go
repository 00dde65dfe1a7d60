//go:build !linux

package wire

import "net"

// quickAck is for Linux, where it matters and exists.
func quickAck(net.Conn) func() { return nil }
