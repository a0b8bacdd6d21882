//go:build unix

package modbus

import (
	"io"
	"net"
	"syscall"
)

// prompt sends a request over a socket in which nothing lies unread and reads what comes first: a system call less than
// looking, writing and reading, which tries to read before anything can have come.
type prompt struct {
	raw           syscall.RawConn
	step          func(fd uintptr) bool // made once, so that a request costs no allocation
	packets       bool
	request, into []byte
	sent, got     int
	err           error
}

// promptOf returns that of a socket, nil where it has none.
func promptOf(c net.Conn, packets bool) *prompt {
	s, ok := c.(syscall.Conn)
	if !ok {
		return nil
	}
	raw, err := s.SyscallConn()
	if err != nil {
		return nil
	}
	p := &prompt{raw: raw, packets: packets}
	p.step = p.advance
	return p
}

// ask returns how many bytes of the request were sent, none where something lies unread, the peer has ended the connection or
// the socket takes nothing: then nothing was done. Where all were sent, got bytes came, or err says why none did.
func (p *prompt) ask(request, into []byte) (sent, got int, err error) {
	p.request, p.into, p.sent, p.got, p.err = request, into, 0, 0, nil
	err = p.raw.Read(p.step)
	p.request, p.into = nil, nil
	if err == nil {
		err = p.err
	}
	return p.sent, p.got, err
}

// advance is called at first, and again whenever something may have come since: whoever waits was told so before the look, so
// that no answer comes unseen in between.
func (p *prompt) advance(fd uintptr) (done bool) {
	if p.sent == 0 {
		if _, _, err := syscall.Recvfrom(int(fd), p.into[:1], syscall.MSG_PEEK); err != syscall.EAGAIN {
			return true
		}
		n, err := syscall.Write(int(fd), p.request)
		if err == nil {
			p.sent = n
		}
		return p.sent < len(p.request)
	}
	n, err := syscall.Read(int(fd), p.into)
	switch {
	case err == syscall.EAGAIN || err == syscall.EINTR:
		return false
	case err != nil:
		p.err = err
	case n == 0 && !p.packets:
		p.err = io.EOF
	default:
		p.got = n
	}
	return true
}
