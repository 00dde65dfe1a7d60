//go:build !linux

package http1

import (
	"io"
	"net"
)

// acknowledging is for Linux, where it matters and exists.
func acknowledging(nc net.Conn) (in io.Reader, begin func()) { return nc, func() {} }
