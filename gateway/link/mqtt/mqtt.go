// Package mqtt is the link to an MQTT 3.1.1 broker: it dials over TCP, TLS or a websocket, logs in, and runs one session.
//
// It promises that a message counts as acknowledged only when the broker answered for a packet that was on the wire, that
// every byte of the broker is bounded before it is kept, that what nobody asked for is discarded and, after a bound, costs
// the broker its session, and that Close leaves nothing running. The packets of the login and of subscriptions come from
// the codec of paho.mqtt.golang; its client is not used (README.md says why). The publisher dials and owns sessions.
package mqtt

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"millrace/drivers/peer"
	"millrace/gateway/link"
)

// Options say where the broker is and who logs in.
type Options struct {
	URL      string // mqtt, mqtts, ws or wss://host:port, of the last two with a path; the port must be there
	ClientID string // must be unique at the broker
	Username string // "" = log in without one
	Password string
	TLS      peer.Files // for mqtts and wss

	KeepAlive time.Duration // of MQTT, section 3.1.2.10; whole seconds up to 18 h
}

const (
	connectTimeout = 10 * time.Second    // for everything up to the answer to the login: a slow cellular link needs 3 round trips of 2 s
	maxKeepAlive   = 65535 * time.Second // the login has 16 bits for it
)

// Dialer makes sessions with one broker.
type Dialer struct {
	o      Options
	target target
	dial   func(context.Context) (net.Conn, *peer.Handshake, error) // seam for tests
	within time.Duration                                            // likewise: connectTimeout
	secure peer.TLS
}

// New checks the options and returns a Dialer. It does not touch the network.
func New(o Options) (*Dialer, error) {
	t, err := parseTarget(o.URL)
	if err != nil {
		return nil, err
	}
	if o.ClientID == "" {
		return nil, errors.New("the client id is missing")
	}
	if o.KeepAlive < time.Second || o.KeepAlive > maxKeepAlive {
		return nil, fmt.Errorf("the keep-alive of %v is not within 1s and %v", o.KeepAlive, maxKeepAlive)
	}
	plain := map[bool]string{false: "mqtt://", true: "ws://"}[t.web]
	names := peer.Names{Peer: "broker", CA: "tls.ca", Pair: "tls.cert and tls.key", ServerName: "tls.server_name", Plain: plain}
	d := &Dialer{o: o, target: t, within: connectTimeout, secure: peer.TLS{Files: o.TLS, Names: names}}
	d.dial = func(ctx context.Context) (net.Conn, *peer.Handshake, error) { return t.dial(ctx, &d.secure) }
	return d, nil
}

// Certificates returns ours and the broker's: see peer.Certified.
func (d *Dialer) Certificates() []peer.Certificate { return d.secure.Certificates() }

// Dial opens a session: see link.Dialer.
func (d *Dialer) Dial(ctx context.Context, will *link.Message) (link.Link, error) {
	if will != nil {
		if err := fit(will, maxTopic); err != nil { // MQTT 3.1.1 section 3.1.3.3
			return nil, fmt.Errorf("will: %w", err)
		}
	}
	ctx, cancel := context.WithTimeout(ctx, d.within)
	defer cancel()
	conn, secured, err := d.dial(ctx)
	if err != nil {
		return nil, fmt.Errorf("connect: %w", late(ctx, d.target.explainDial(err)))
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	s := newSession(&d.o, conn)
	err = s.login(will)
	if !stop() && err == nil {
		err = ctx.Err()
	}
	if err != nil {
		_ = conn.Close()
		return nil, fmt.Errorf("log in: %w", late(ctx, d.target.explainLogin(secured.Failed(err))))
	}
	s.start()
	return s, nil
}

// late says that the time was up, or that the caller gave up, where that is why err came.
func late(ctx context.Context, err error) error {
	switch cause := ctx.Err(); {
	case errors.Is(cause, context.DeadlineExceeded) && is[*peer.HandshakeError](err): // so there is no firewall in between
		return fmt.Errorf("%w within %v: %w", link.ErrSilent, connectTimeout, err)
	case errors.Is(cause, context.DeadlineExceeded):
		return fmt.Errorf("%w within %v; check the address, the network and its firewalls", link.ErrSilent, connectTimeout)
	case cause != nil:
		return cause
	}
	return err
}
