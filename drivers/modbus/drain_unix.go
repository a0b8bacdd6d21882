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
	into  []byte
	total int
	err   error
}

// drainOf returns the drain of a socket, nil where the system has none.
func drainOf(c net.Conn, packets bool) drain {
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
			n, err := syscall.Read(int(fd), d.into[min(d.total, len(d.into)/2):])
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

func (d *drainer) drain(into []byte) (int, error) {
	d.into, d.total, d.err = into, 0, nil
	if err := d.raw.Read(d.read); err != nil {
		return d.total, err
	}
	return d.total, d.err
}

// drain reads what came unread.
func (p *serialPort) drain(into []byte) (total int, err error) {
	if err := p.SetReadTimeout(0); err != nil {
		return 0, err
	}
	for total <= maxStray {
		n, err := p.read(into[min(total, len(into)/2):])
		if total += n; n == 0 || err != nil {
			return total, err
		}
	}
	return total, nil
}
