//go:build unix

package opcuasim

import "syscall"

// renews waits for the next chunk and reports whether it is an OpenSecureChannel request.
func (c *secured) renews() bool {
	raw, err := c.tcp.SyscallConn()
	if err != nil {
		return false
	}
	var first [1]byte
	err = raw.Read(func(fd uintptr) bool {
		_, _, err := syscall.Recvfrom(int(fd), first[:], syscall.MSG_PEEK)
		return err != syscall.EAGAIN
	})
	return err == nil && first[0] == 'O'
}
