package opcuasim

import (
	"fmt"
	"net"
	"sync"
)

// Proxy forwards TCP connections to a server and breaks them on demand. It stands in front of any
// server, also one that is not ours. Its methods may be called at any time from any goroutine.
type Proxy struct {
	target string
	addr   string
	wg     sync.WaitGroup

	mu       sync.Mutex
	awake    *sync.Cond // signalled when silent, held, closed or listener changes
	silent   bool
	held     bool // what the server says: see Hold
	closed   bool
	kind     string // see Garble
	at       int
	listener net.Listener // nil while refusing
	conns    map[net.Conn]struct{}
}

// NewProxy listens on a free loopback port and forwards to target, host:port.
func NewProxy(target string) (*Proxy, error) { return NewProxyOn("127.0.0.1:0", target) }

// NewProxyOn is NewProxy for another address to listen on.
func NewProxyOn(listen, target string) (*Proxy, error) {
	p := &Proxy{target: target, addr: listen, conns: map[net.Conn]struct{}{}}
	p.awake = sync.NewCond(&p.mu)
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := p.listen(); err != nil {
		return nil, err
	}
	p.wg.Add(1)
	go p.accept()
	return p, nil
}

// Addr returns the proxy's host:port.
func (p *Proxy) Addr() string { return p.addr }

// Endpoint returns the URL of an OPC UA server behind the proxy.
func (p *Proxy) Endpoint() string { return "opc.tcp://" + p.addr }

// Silence keeps all connections open and takes new ones, but forwards nothing in either direction
// until it is called with false; what was held back then goes on its way.
func (p *Proxy) Silence(on bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.silent = on
	p.awake.Broadcast()
}

// Hold is Silence for what the server says: what it is asked goes through.
func (p *Proxy) Hold(on bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.held = on
	p.awake.Broadcast()
}

// Garble changes one byte of what the server says: that at an offset of its next message of a kind, "MSG" or "OPN", of a server that
// writes one chunk at a time. Offset 12 of a MSG is the token of the channel.
func (p *Proxy) Garble(kind string, at int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.kind, p.at = kind, at
}

// garble does what Garble asked for.
func (p *Proxy) garble(b []byte) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.kind != "" && len(b) > p.at && string(b[:3]) == p.kind {
		b[p.at] ^= 0x55
		p.kind = ""
	}
}

// Cut closes all present connections.
func (p *Proxy) Cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cut()
}

// Refuse cuts all connections and refuses new ones until it is called with false.
func (p *Proxy) Refuse(on bool) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !on {
		if p.listener != nil || p.closed {
			return nil
		}
		return p.listen()
	}
	if p.listener != nil {
		p.listener.Close()
		p.listener = nil
	}
	p.cut()
	return nil
}

// Close ends everything and waits for the proxy's goroutines.
func (p *Proxy) Close() {
	p.mu.Lock()
	p.closed = true
	if p.listener != nil {
		p.listener.Close()
		p.listener = nil
	}
	p.cut()
	p.awake.Broadcast()
	p.mu.Unlock()
	p.wg.Wait()
}

func (p *Proxy) listen() error {
	l, err := net.Listen("tcp", p.addr)
	if err != nil {
		return fmt.Errorf("listen for the proxy: %w", err)
	}
	p.listener, p.addr = l, l.Addr().String()
	p.awake.Broadcast()
	return nil
}

func (p *Proxy) cut() {
	for c := range p.conns {
		c.Close()
	}
	p.awake.Broadcast()
}

// accept serves one listener after the other, waiting while there is none.
func (p *Proxy) accept() {
	defer p.wg.Done()
	for {
		p.mu.Lock()
		for p.listener == nil && !p.closed {
			p.awake.Wait()
		}
		l := p.listener
		p.mu.Unlock()
		if l == nil {
			return
		}
		for {
			c, err := l.Accept()
			if err != nil {
				break
			}
			p.wg.Add(1)
			go p.forward(c)
		}
	}
}

func (p *Proxy) forward(client net.Conn) {
	defer p.wg.Done()
	defer client.Close()
	server, err := net.Dial("tcp", p.target)
	if err != nil {
		return
	}
	defer server.Close()
	if !p.keep(client, server) {
		return
	}
	defer p.forget(client, server)
	done := make(chan struct{})
	go func() {
		p.pump(server, client, nil)
		close(done)
	}()
	p.pump(client, server, p.garble)
	<-done
}

func (p *Proxy) keep(conns ...net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range conns {
		p.conns[c] = struct{}{}
	}
	return !p.closed && p.listener != nil
}

func (p *Proxy) forget(conns ...net.Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range conns {
		delete(p.conns, c)
	}
}

// pump copies one direction, changed by spoil unless that is nil, and closes both connections at its end.
func (p *Proxy) pump(dst, src net.Conn, spoil func([]byte)) {
	defer dst.Close()
	defer src.Close()
	buf := make([]byte, 64<<10)
	for {
		n, err := src.Read(buf)
		if n > 0 {
			if !p.pass(spoil != nil) {
				return
			}
			if spoil != nil {
				spoil(buf[:n])
			}
			if _, err := dst.Write(buf[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

// pass waits out a silence, or, with what the server says, a hold. It returns false when the proxy has been closed meanwhile.
func (p *Proxy) pass(said bool) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for (p.silent || said && p.held) && !p.closed {
		p.awake.Wait()
	}
	return !p.closed
}
