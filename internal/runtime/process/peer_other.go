//go:build !linux

package process

import "net"

// FromContainer is nil: there are no containers.
func FromContainer() func(local, remote *net.TCPAddr) bool { return nil }
