package opcuasim

import (
	"context"
	"net"
	"sync"

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
