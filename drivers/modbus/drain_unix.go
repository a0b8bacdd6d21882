//go:build unix

package modbus

import (
	"io"
	"net"
	"syscall"
)

// drainer empties a socket without waiting.
type drainer struct {
	raw   syscall.RawConn
	read  func(fd uintptr) bool // made once, so that a request costs no allocation
	junk  [512]byte
	total int
	err   error
}

// drainOf returns a function that throws away what lies unread in a socket, at most a little over maxStray bytes, and says
// how much that was and whether the peer has ended the connection; nil where the system has none.
func drainOf(c net.Conn, packets bool) func() (int, error) {
	s, ok := c.(syscall.Conn)
	if !ok {
		return nil
	}
	raw, err := s.SyscallConn()
	if err != nil {
		return nil
	}
	d := &drainer{raw: raw}
	d.read = func(fd uintptr) bool {
		for d.total <= maxStray {
			n, err := syscall.Read(int(fd), d.junk[:])
			switch {
			case err == syscall.EINTR:
				continue
			case err == syscall.EAGAIN:
				return true
			case err != nil:
				d.err = err
				return true
			case n == 0 && !packets:
				d.err = io.EOF
				return true
			}
			d.total += max(n, 1)
		}
		return true
	}
	return d.drain
}

func (d *drainer) drain() (int, error) {
	d.total, d.err = 0, nil
	if err := d.raw.Read(d.read); err != nil {
		return d.total, err
	}
	return d.total, d.err
}
