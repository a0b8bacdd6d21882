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

// TestText: what an error says has no port of ours, also where it is a name server's words.
func TestText(t *testing.T) {
	own, other := &net.TCPAddr{IP: net.IPv4(10, 0, 0, 5), Port: 47650}, &net.TCPAddr{IP: net.IPv6loopback, Port: 1883}
	for err, want := range map[error]string{
		fmt.Errorf("log in: %w", &net.OpError{Op: "read", Net: "tcp", Source: own, Addr: other, Err: io.EOF}):                        "log in: read tcp [::1]:1883: EOF",
		&net.OpError{Op: "write", Net: "tcp", Source: other, Addr: own, Err: syscall.EPIPE}:                                          "write tcp 10.0.0.5:47650: broken pipe",
		&net.DNSError{Name: "mq", Server: "127.0.0.53:53", Err: "read udp 127.0.0.1:54747->127.0.0.53:53: read: connection refused"}: "lookup mq on 127.0.0.53:53: read udp 127.0.0.53:53: read: connection refused",
		errors.New("linear 0..1 -> 4..20"): "linear 0..1 -> 4..20",
	} {
		if got := Text(err); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

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
