// Package brokersim is a small MQTT 3.1.1 broker on the loopback with faults on demand: for tests, the demo
// and benchmarks. It is no part of the gateway that ships.
//
// It takes QoS 0, 1 and 2, fans out to subscribers (QoS 0 and 1) with wildcards, and holds publishers back rather than drop
// for a slow subscriber, so that what a recording subscriber did not get was lost elsewhere. It keeps no
// retained message and no session. Nothing it does depends on the gateway: it imports none of ours.
package brokersim

import (
	"crypto/tls"
	"fmt"
	"maps"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Options say what the broker is like for its whole life. Faults that come and go are in Faults.
type Options struct {
	Addr       string      // to listen on; a loopback address; default "127.0.0.1:0"
	TLS        *tls.Config // nil = plain
	Username   string      // with Password: asked of every client if not empty
	Password   string
	QueueBytes int           // bound of the queue to one subscriber; default 4 MiB
	Flush      time.Duration // how long Stop waits for subscribers to take what is queued; default 1 s

	// OnPublish is called for every message that arrives, before it is fanned out and acknowledged; it may
	// be called by several goroutines at once. The payload is valid only during the call.
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

// Stats count what happened since New. They survive Stop and Start.
type Stats struct {
	Connects   uint64 // logins accepted
	Refused    uint64 // logins refused
	Clients    int    // connected now
	Received   uint64 // messages
	Bytes      uint64 // payload bytes of them
	Acked      uint64 // PUBACKs and PUBCOMPs queued to publishers
	Delivered  uint64 // messages queued to subscribers
	Takeovers  uint64 // logins with the id of a connected client
	Violations uint64 // connections closed because the peer broke the protocol
}

// Broker is one broker. All methods may be called from any goroutine.
type Broker struct {
	o      Options
	faults atomic.Pointer[Faults]
	n      struct {
		connects, refused, received, bytes, acked, delivered, takeovers, violations atomic.Uint64
	}

	mu       sync.Mutex
	addr     string
	listener net.Listener
	stopping bool
	conns    map[*client]struct{} // everybody, also before the login
	byID     map[string]*client
	thaw     chan struct{} // closed when Faults.Freeze ends
	wg       sync.WaitGroup

	routes routes
}

// New returns a broker that does not listen yet.
func New(o Options) *Broker {
	if o.Addr == "" {
		o.Addr = "127.0.0.1:0"
	}
	if o.QueueBytes == 0 {
		o.QueueBytes = 4 << 20
	}
	if o.Flush == 0 {
		o.Flush = time.Second
	}
	b := &Broker{o: o, addr: o.Addr, conns: map[*client]struct{}{}, byID: map[string]*client{}, thaw: make(chan struct{})}
	b.faults.Store(&Faults{})
	close(b.thaw)
	return b
}

// Start listens, after a Stop on the same port as before.
func (b *Broker) Start() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.listener != nil {
		return nil
	}
	host, _, err := net.SplitHostPort(b.addr)
	if ip := net.ParseIP(host); err != nil || ip == nil || !ip.IsLoopback() {
		return fmt.Errorf("listen on %q: the simulated broker serves the loopback only; use 127.0.0.1:port", b.addr)
	}
	l, err := net.Listen("tcp", b.addr)
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	b.addr = l.Addr().String()
	b.listener = l
	b.wg.Go(func() { b.accept(l) })
	return nil
}

func (b *Broker) accept(l net.Listener) {
	for {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		if b.Faults().Hangup {
			conn.Close()
			continue
		}
		if b.o.TLS != nil {
			conn = tls.Server(conn, b.o.TLS)
		}
		b.wg.Go(func() { b.Serve(conn) })
	}
}

// Addr returns the address the broker listens on, "" before the first Start.
func (b *Broker) Addr() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.addr
}

// Stop closes the port and all publishers at once, waits up to Options.Flush until subscribers have taken
// what was acknowledged to publishers, and closes them too.
func (b *Broker) Stop() {
	b.stop(b.o.Flush)
}

// Kill closes everything at once, as a kill -9 does: what is queued to subscribers is lost.
func (b *Broker) Kill() {
	b.stop(0)
}

func (b *Broker) stop(flush time.Duration) {
	b.mu.Lock()
	if b.listener != nil {
		b.listener.Close()
		b.listener = nil
	}
	b.stopping = true
	all := slices.Collect(maps.Keys(b.conns))
	b.mu.Unlock()
	deadline := time.Now().Add(flush)
	for _, c := range all {
		if !c.subscribed() {
			c.close()
		}
	}
	for _, c := range all {
		for c.subscribed() && c.out.pending() > 0 && time.Now().Before(deadline) {
			time.Sleep(time.Millisecond)
		}
		c.close()
	}
	b.wg.Wait()
	b.mu.Lock()
	b.stopping = false
	b.mu.Unlock()
}

// admit makes a connection known; false means that the broker is stopping.
func (b *Broker) admit(c *client) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.stopping {
		b.conns[c] = struct{}{}
	}
	return !b.stopping
}

// Cut closes the connection of one client and reports whether it had one.
func (b *Broker) Cut(clientID string) bool {
	b.mu.Lock()
	c := b.byID[clientID]
	b.mu.Unlock()
	if c != nil {
		c.close()
	}
	return c != nil
}

// Stats returns the counters.
func (b *Broker) Stats() Stats {
	b.mu.Lock()
	clients := len(b.byID)
	b.mu.Unlock()
	return Stats{Connects: b.n.connects.Load(), Refused: b.n.refused.Load(), Clients: clients, Received: b.n.received.Load(),
		Bytes: b.n.bytes.Load(), Acked: b.n.acked.Load(), Delivered: b.n.delivered.Load(), Takeovers: b.n.takeovers.Load(),
		Violations: b.n.violations.Load()}
}

// login makes the client known under its id and closes the one that had it.
func (b *Broker) login(c *client) {
	b.mu.Lock()
	old := b.byID[c.id]
	b.byID[c.id] = c
	b.mu.Unlock()
	b.n.connects.Add(1)
	if old != nil {
		b.n.takeovers.Add(1)
		old.close()
	}
}

func (b *Broker) forget(c *client) {
	b.mu.Lock()
	delete(b.conns, c)
	if b.byID[c.id] == c {
		delete(b.byID, c.id)
	}
	b.mu.Unlock()
	b.routes.remove(c)
}
