package opcua

import (
	"context"
	"fmt"
	"net"
	"net/url"
	"time"

	"millrace/drivers"
	"millrace/drivers/callers"
)

// remembered is how long the endpoints that a server has named are good for its next call.
const remembered = 5 * time.Minute

// reverse is how a server is reached that makes the connection itself (OPC 10000-6, 7.1.3): nobody can be dialled.
type reverse struct {
	listeners *listeners
	address   string // where it calls
	named     bool   // server_name says for whom its certificate must be
	slot      slot
	listener  *listener // nil = closed
	wait      time.Duration
	hello     time.Duration

	// A secured session takes two calls: one to ask for the endpoints, and one for the session. The second may come late.
	offers []endpoint
	chosen *endpoint // nil = not asked yet
	asked  time.Time
}

func newReverse(address, server string) *reverse {
	return &reverse{listeners: new(listeners), address: address, slot: slot{server: server, news: make(chan struct{}, 1)}, wait: callTime, hello: helloTime}
}

// Listens says where the server is to call: see drivers.Listener.
func (d *driver) Listens() drivers.Listening {
	if d.set.reverse == nil {
		return drivers.Listening{}
	}
	return drivers.Listening{Address: d.set.reverse.address, Caller: d.set.reverse.slot.server, Key: "server_uri"}
}

// called waits for the server's call. From then on it is known by the endpoint that it has named.
func (s *settings) called(ctx context.Context) (net.Conn, error) {
	r := s.reverse
	if r.listener == nil {
		l, err := r.listeners.join(ctx, r.address, r.hello, &r.slot)
		if err != nil {
			return nil, err
		}
		r.listener = l
	}
	c, err := r.listener.take(ctx, &r.slot, r.wait)
	if err != nil {
		return nil, err
	}
	s.endpoint, s.host = c.endpoint, callers.Host(c)
	if u, err := url.Parse(c.endpoint); err == nil && !r.named {
		s.serverName = u.Hostname()
	}
	return c.Conn, nil
}

// leave stops listening.
func (r *reverse) leave() {
	if r != nil && r.listener != nil {
		r.listeners.leave(r.listener, &r.slot)
		r.listener = nil
	}
}

// remember keeps what was asked in one call for the next.
func (r *reverse) remember(offers []endpoint, chosen *endpoint, asked time.Time) {
	if r != nil {
		r.offers, r.chosen, r.asked = offers, chosen, asked
	}
}

// recall returns it once, chosen nil for nothing.
func (r *reverse) recall() (offers []endpoint, chosen *endpoint, asked time.Time) {
	if r == nil || time.Since(r.asked) > remembered {
		return nil, nil, time.Time{}
	}
	offers, chosen, asked = r.offers, r.chosen, r.asked
	r.offers, r.chosen = nil, nil
	return offers, chosen, asked
}

// itself checks that the endpoint is of the server that was expected to call: the certificate, too, must be for it then.
func (r *reverse) itself(e *endpoint) error {
	if r == nil || e.server == r.slot.server {
		return nil
	}
	return protocolError(fmt.Sprintf("the server that called as %q says at its endpoint that it is %.200q", r.slot.server, e.server))
}
