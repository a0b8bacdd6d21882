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

	"millrace/gateway/link"
)

// Options say where the broker is and who logs in.
type Options struct {
	URL      string // mqtt://host:1883, mqtts://host:8883, ws://host/path, wss://host/path
	ClientID string // must be unique at the broker
	Username string // "" = log in without one
	Password string
	TLS      TLS // for mqtts and wss

	KeepAlive      time.Duration // of MQTT, section 3.1.2.10; 0 = 30 s, whole seconds up to 18 h
	ConnectTimeout time.Duration // for everything up to the answer to the login; 0 = 10 s
	MaxInbound     int           // bytes of a message that is subscribed to; 0 = 64 KiB
}

// The values of options that are 0.
const (
	defaultKeepAlive      = 30 * time.Second // below the idle time-out of common NATs
	defaultConnectTimeout = 10 * time.Second // a slow cellular link needs 3 round trips of 2 s
	defaultMaxInbound     = 64 << 10
)

// Dialer makes sessions with one broker.
type Dialer struct {
	o      Options
	target target
	dial   func(context.Context) (net.Conn, error) // seam for tests
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
	if o.KeepAlive == 0 {
		o.KeepAlive = defaultKeepAlive
	}
	if o.ConnectTimeout == 0 {
		o.ConnectTimeout = defaultConnectTimeout
	}
	if o.MaxInbound == 0 {
		o.MaxInbound = defaultMaxInbound
	}
	d := &Dialer{o: o, target: t}
	d.dial = func(ctx context.Context) (net.Conn, error) { return t.dial(ctx, &o.TLS) }
	return d, nil
}

// Dial opens a session: see link.Dialer.
func (d *Dialer) Dial(ctx context.Context, will *link.Message) (link.Link, error) {
	ctx, cancel := context.WithTimeout(ctx, d.o.ConnectTimeout)
	defer cancel()
	conn, err := d.dial(ctx)
	if err != nil {
		return nil, fmt.Errorf("connect: %w", d.target.explainDial(err))
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	s := newSession(&d.o, conn)
	err = s.login(&d.o, will)
	if !stop() && err == nil {
		err = ctx.Err()
	}
	if err != nil {
		_ = conn.Close()
		if cause := ctx.Err(); cause != nil {
			err = fmt.Errorf("%w within %v (%w)", link.ErrSilent, d.o.ConnectTimeout, cause)
		}
		return nil, fmt.Errorf("log in: %w", d.target.explainLogin(err))
	}
	s.start()
	return s, nil
}
