//go:build !linux && !darwin

package http1

import "net"

// peeker cannot look here: a connection that was closed shows when it is used.
func peeker(net.Conn) func() bool { return func() bool { return true } }
