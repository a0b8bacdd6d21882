package peer

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"syscall"
	"testing"
)

func TestClosed(t *testing.T) {
	for err, want := range map[error]bool{
		io.EOF: true, fmt.Errorf("read: %w", io.ErrUnexpectedEOF): true, &net.OpError{Err: syscall.ECONNRESET}: true, &net.OpError{Err: syscall.EPIPE}: true,
		&net.OpError{Err: os.NewSyscallError("wsarecv", syscall.Errno(10054))}: true, &net.OpError{Err: syscall.Errno(10053)}: true, // of Windows
		nil: false, net.ErrClosed: false, os.ErrDeadlineExceeded: false, syscall.ENETDOWN: false, syscall.ECONNREFUSED: false, errors.New("EOF"): false,
	} {
		if got := Closed(err); got != want {
			t.Errorf("%v: %v", err, got)
		}
	}
}
