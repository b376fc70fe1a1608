package publish

import (
	"io"
	"net"
	"syscall"
	"unsafe"
)

// socket reads and writes a connection without telling the scheduler of its system calls, which never wait: they take a few
// microseconds, but on a busy machine often as many as the scheduler lets pass before it takes the processor for blocked and
// wakes another thread for it. That was a sixth of what an answer from memory costs. It waits as net.Conn does, with the
// connection's deadlines. Not safe for concurrent use.
type socket struct {
	conn        syscall.RawConn
	read, write func(fd uintptr) bool // made once, not for each call
	b           []byte                // what is left to read into, or to write
	n           int                   // octets read
	err         syscall.Errno
}

// newSocket returns what reads from and writes to a connection.
func newSocket(c net.Conn) io.ReadWriter {
	sc, ok := c.(syscall.Conn)
	if !ok {
		return c
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return c // which will have more to say of it
	}
	s := &socket{conn: raw}
	s.read, s.write = s.tryRead, s.tryWrite
	return s
}

// Read is net.Conn's.
func (s *socket) Read(b []byte) (int, error) {
	if len(b) == 0 {
		return 0, nil
	}
	s.b = b
	err := s.conn.Read(s.read)
	s.b = nil
	switch {
	case err != nil:
		return 0, err
	case s.err != 0:
		return 0, s.err
	case s.n == 0:
		return 0, io.EOF
	}
	return s.n, nil
}

// Write is net.Conn's.
func (s *socket) Write(b []byte) (int, error) {
	s.b, s.err = b, 0
	err := s.conn.Write(s.write)
	written := len(b) - len(s.b)
	s.b = nil
	if err == nil && s.err != 0 {
		err = s.err
	}
	return written, err
}

// tryRead returns false when there is nothing to read yet.
func (s *socket) tryRead(fd uintptr) bool {
	s.n, s.err = call(syscall.SYS_READ, fd, s.b)
	return s.err != syscall.EAGAIN
}

// tryWrite returns false when the system's buffers are full.
func (s *socket) tryWrite(fd uintptr) bool {
	for len(s.b) > 0 {
		n, err := call(syscall.SYS_WRITE, fd, s.b)
		if err != 0 {
			s.err = err
			return err != syscall.EAGAIN
		}
		s.b = s.b[n:]
	}
	s.err = 0
	return true
}

// call reads into or writes from b, which must not be empty. The descriptor is one that never waits.
func call(trap, fd uintptr, b []byte) (int, syscall.Errno) {
	for {
		n, _, err := syscall.RawSyscall(trap, fd, uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)))
		switch err {
		case 0:
			return int(n), 0
		case syscall.EINTR:
		default:
			return 0, err
		}
	}
}
