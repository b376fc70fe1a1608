//go:build !linux

package publish

import (
	"io"
	"net"
)

// newSocket returns what reads from and writes to a connection.
func newSocket(c net.Conn) io.ReadWriter { return c }
