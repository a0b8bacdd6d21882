package opcuasim

import (
	"context"
	"net"
	"sync"
	"syscall"

	"github.com/gopcua/opcua/ua"
	"github.com/gopcua/opcua/uasc"
)

// secured is a channel and how it was opened. The library's channel does not bear that something is sent while its token is renewed,
// which it does by itself in Receive.
type secured struct {
	*uasc.SecureChannel
	config  *uasc.Config
	tcp     *net.TCPConn
	sending sync.Mutex
}

func (c *secured) receive(ctx context.Context) *uasc.MessageBody {
	if c.renews() {
		c.sending.Lock()
		defer c.sending.Unlock()
	}
	return c.Receive(ctx)
}

func (c *secured) send(ctx context.Context, request uint32, res ua.Response) error {
	c.sending.Lock()
	defer c.sending.Unlock()
	return c.SendResponseWithContext(ctx, request, res)
}

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
