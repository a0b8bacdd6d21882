// Package brokersim is an MQTT broker on the loopback for the demo and for tests: the library mochi-mqtt, which speaks the
// protocol, held so that a test can watch it and cut its clients. It is no part of a gateway at work.
//
// It promises that a subscriber gets every message that was acknowledged to a publisher as long as it is connected: a
// publisher is held back rather than a message dropped, so that what is missing there was lost elsewhere. Whoever starts it
// stops it. It imports none of ours.
package brokersim

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	mqtt "github.com/mochi-mqtt/server/v2"
	"github.com/mochi-mqtt/server/v2/packets"
)

// Options say what the broker is like.
type Options struct {
	// OnPublish is called for every message that arrives, before it is acknowledged and passed on; it may be called by
	// several goroutines at once.
	OnPublish func(Message)
}

// Message is one PUBLISH as it arrived.
type Message struct {
	Client  string
	Topic   string
	Payload []byte
	QoS     byte
	Dup     bool
	Retain  bool
}

// Stats count what happened since New.
type Stats struct {
	Connects uint64 // logins
	Clients  int    // logged in now
	Received uint64 // messages
}

// Broker is one broker. All methods may be called from any goroutine.
type Broker struct {
	o        Options
	server   *mqtt.Server
	connects atomic.Uint64

	life     context.Context // ends with Stop
	end      context.CancelFunc
	listener net.Listener
	wg       sync.WaitGroup
}

// New returns a broker that does not listen yet.
func New(o Options) *Broker {
	b := &Broker{o: o}
	b.life, b.end = context.WithCancel(context.Background())
	b.server = mqtt.New(&mqtt.Options{Logger: slog.New(slog.DiscardHandler), ClientNetReadBufferSize: 64 << 10})
	if err := b.server.AddHook(&hook{b: b}, nil); err != nil {
		panic("BUG: " + err.Error())
	}
	return b
}

// Start listens on a free port of the loopback.
func (b *Broker) Start() (err error) {
	if b.listener, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	b.wg.Go(func() {
		for {
			conn, err := b.listener.Accept()
			if err != nil {
				return
			}
			b.wg.Go(func() { b.Serve(conn) })
		}
	})
	return nil
}

// Serve speaks MQTT on a connection that was accepted elsewhere (a websocket, a pipe) until it ends.
func (b *Broker) Serve(conn net.Conn) {
	defer context.AfterFunc(b.life, func() { _ = conn.Close() })()
	_ = b.server.EstablishConnection("", conn) // the client's end is no trouble of the broker's
	_ = conn.Close()
}

// Addr returns the address the broker listens on, after Start.
func (b *Broker) Addr() string { return b.listener.Addr().String() }

// Stop closes the port and all connections at once, and waits until nothing runs any more.
func (b *Broker) Stop() {
	b.end()
	if b.listener != nil {
		_ = b.listener.Close()
	}
	b.wg.Wait()
}

// Cut closes the connection of one client and reports whether it had one.
func (b *Broker) Cut(clientID string) bool {
	c, ok := b.server.Clients.Get(clientID)
	if ok {
		_ = c.Net.Conn.Close()
	}
	return ok
}

// Stats returns the counters.
func (b *Broker) Stats() Stats {
	n := b.server.Info.Clone()
	return Stats{Connects: b.connects.Load(), Clients: int(n.ClientsConnected), Received: uint64(n.MessagesReceived)}
}

// hook is where the library tells what happens.
type hook struct {
	mqtt.HookBase
	b *Broker
}

// Provides names the methods below.
func (*hook) Provides(which byte) bool {
	return which == mqtt.OnConnectAuthenticate || which == mqtt.OnACLCheck || which == mqtt.OnSessionEstablish || which == mqtt.OnPublish
}

// OnConnectAuthenticate lets everybody in.
func (*hook) OnConnectAuthenticate(*mqtt.Client, packets.Packet) bool { return true }

// OnACLCheck lets everybody publish and subscribe to everything.
func (*hook) OnACLCheck(*mqtt.Client, string, bool) bool { return true }

// OnSessionEstablish counts a login.
func (h *hook) OnSessionEstablish(*mqtt.Client, packets.Packet) { h.b.connects.Add(1) }

// OnPublish shows a message, after it has waited for subscribers that lag: the library would drop it for them.
func (h *hook) OnPublish(c *mqtt.Client, p packets.Packet) (packets.Packet, error) {
	for h.b.lagging() && !c.Closed() {
		time.Sleep(time.Millisecond)
	}
	if f := h.b.o.OnPublish; f != nil {
		f(Message{Client: c.ID, Topic: p.TopicName, Payload: p.Payload, QoS: p.FixedHeader.Qos, Dup: p.FixedHeader.Dup, Retain: p.FixedHeader.Retain})
	}
	return p, nil
}

// lagging reports whether a subscriber has yet to acknowledge half of what the library keeps for it.
func (b *Broker) lagging() bool {
	for _, c := range b.server.Clients.GetAll() {
		if c.State.Inflight.Len() > int(b.server.Options.Capabilities.MaximumInflight)/2 {
			return true
		}
	}
	return false
}
