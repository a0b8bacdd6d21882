package faults

import (
	"math/rand/v2"
	"net"
	"net/netip"
	"runtime"
	"sync"
	"sync/atomic"
	"time"
)

// chunk is the most that a proxy reads at once; backlogChunks bounds what one direction of one
// connection holds back (2 MiB), as the send buffer of a peer on a dead network would.
const (
	chunk         = 32 << 10
	backlogChunks = 64
)

// Faults is how a [Proxy] treats the bytes that pass. The zero value lets everything through.
type Faults struct {
	// SilentUp and SilentDown stop everything from the client and to the client. Nothing is lost: it
	// passes when the silence ends, as after a retransmission, unless the connection was cut meanwhile.
	// New connections are accepted and stay silent.
	SilentUp, SilentDown bool

	Delay time.Duration // each chunk, each direction; the rate is not lowered by it
	Rate  int           // bytes a second, each direction of each connection; 0 = no limit
	Slice int           // the most bytes in one write; 0 = no limit
}

// Proxy is a TCP link between a client and a target that fails on demand.
type Proxy struct {
	target string
	faults atomic.Pointer[Faults]

	mu       sync.Mutex
	addr     string
	listener net.Listener
	links    map[*link]struct{}
	accepted int
	closed   bool
}

// ownHost returns a loopback address that nobody else listens on: a port that is closed for a while, to be
// refused, would else be taken by another test or by the near end of some connection. Only Linux answers
// on the whole of 127.0.0.0/8.
func ownHost() string {
	if runtime.GOOS != "linux" {
		return "127.0.0.1"
	}
	n := rand.Uint32()
	return netip.AddrFrom4([4]byte{127, byte(1 + n>>16%250), byte(n >> 8), byte(1 + n%250)}).String()
}

// NewProxy listens on a free loopback port and forwards each connection to target ("host:port").
func NewProxy(target string) (*Proxy, error) {
	p := &Proxy{target: target, addr: ownHost() + ":0", links: map[*link]struct{}{}}
	p.faults.Store(&Faults{})
	return p, p.Accept()
}

// Addr returns the address that the client has to dial ("host:port").
func (p *Proxy) Addr() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.addr
}

// Accepted returns how many connections were accepted so far.
func (p *Proxy) Accepted() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.accepted
}

// Set changes the faults of present and future connections.
func (p *Proxy) Set(f Faults) { p.faults.Store(&f) }

// Accept ends Refuse: it listens again, on the same port.
func (p *Proxy) Accept() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.listener != nil || p.closed {
		return nil
	}
	l, err := listenAgain(p.addr)
	if err != nil {
		return err
	}
	p.listener, p.addr = l, l.Addr().String()
	go p.serve(l)
	return nil
}

// Refuse closes the listener: new connections are refused. Present ones go on; see Cut.
func (p *Proxy) Refuse() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.listener != nil {
		p.listener.Close()
		p.listener = nil
	}
}

// Cut resets all present connections; what was on the way is gone.
func (p *Proxy) Cut() {
	p.mu.Lock()
	links := make([]*link, 0, len(p.links))
	for l := range p.links {
		links = append(links, l)
	}
	p.mu.Unlock()
	for _, l := range links {
		l.reset()
	}
}

// Close ends the proxy and all its connections.
func (p *Proxy) Close() {
	p.Refuse()
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	p.Cut()
}

func (p *Proxy) serve(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		go p.forward(c)
	}
}

func (p *Proxy) forward(client net.Conn) {
	target, err := net.DialTimeout("tcp", p.target, 5*time.Second)
	if err != nil {
		client.(*net.TCPConn).SetLinger(0)
		client.Close()
		return
	}
	l := &link{proxy: p, client: client, target: target, done: make(chan struct{})}
	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		l.reset()
		return
	}
	p.links[l] = struct{}{}
	p.accepted++
	p.mu.Unlock()

	var ways sync.WaitGroup
	ways.Go(func() { l.pump(client, target, true) })
	ways.Go(func() { l.pump(target, client, false) })
	ways.Wait()
	l.end()
	p.mu.Lock()
	delete(p.links, l)
	p.mu.Unlock()
}

// link is one connection through a proxy.
type link struct {
	proxy          *Proxy
	client, target net.Conn
	once           sync.Once
	done           chan struct{}
}

func (l *link) end() {
	l.once.Do(func() {
		close(l.done)
		l.client.Close()
		l.target.Close()
	})
}

func (l *link) reset() {
	for _, c := range []net.Conn{l.client, l.target} {
		if tcp, ok := c.(*net.TCPConn); ok {
			tcp.SetLinger(0)
		}
	}
	l.end()
}

// piece is what was read at once and when it may pass.
type piece struct {
	data []byte
	due  time.Time
}

// pump carries bytes one way until the source ends; then it ends the whole link, as far as a silence
// lets the end through.
func (l *link) pump(src, dst net.Conn, up bool) {
	pieces := make(chan piece, backlogChunks)
	go func() {
		defer close(pieces)
		for {
			buf := make([]byte, chunk)
			n, err := src.Read(buf)
			if n > 0 {
				select {
				case pieces <- piece{buf[:n], time.Now().Add(l.proxy.faults.Load().Delay)}:
				case <-l.done:
					return
				}
			}
			if err != nil {
				return
			}
		}
	}()
	w := way{link: l, dst: dst, up: up}
	for p := range pieces {
		if !l.wait(time.Until(p.due)) || !w.write(p.data) {
			break
		}
	}
	if l.audible(up) {
		l.end()
	}
}

// way is one direction of a link; next is when the rate allows the next byte.
type way struct {
	*link
	dst  net.Conn
	up   bool
	next time.Time
}

// write passes data in slices, at the rate, while the way is not silent.
func (w *way) write(data []byte) bool {
	for len(data) > 0 {
		if !w.audible(w.up) {
			return false
		}
		f := w.proxy.faults.Load()
		n := len(data)
		if f.Rate > 0 {
			n = min(n, max(1, f.Rate/50))
		}
		if f.Slice > 0 {
			n = min(n, f.Slice)
		}
		if _, err := w.dst.Write(data[:n]); err != nil {
			return false
		}
		data = data[n:]
		if f.Rate > 0 && !w.pace(n, f.Rate) {
			return false
		}
	}
	return true
}

// pace waits only once the debt is long enough for a timer to be exact.
func (w *way) pace(n, rate int) bool {
	if now := time.Now(); w.next.Before(now) {
		w.next = now
	}
	w.next = w.next.Add(time.Duration(n) * time.Second / time.Duration(rate))
	if debt := time.Until(w.next); debt > 5*time.Millisecond {
		return w.wait(debt)
	}
	return true
}

// audible waits for the end of a silence; false when the link was cut first.
func (l *link) audible(up bool) bool {
	for {
		f := l.proxy.faults.Load()
		if !(up && f.SilentUp) && !(!up && f.SilentDown) {
			return true
		}
		if !l.wait(10 * time.Millisecond) {
			return false
		}
	}
}

func (l *link) wait(d time.Duration) bool {
	if d <= 0 {
		return true
	}
	select {
	case <-time.After(d):
		return true
	case <-l.done:
		return false
	}
}
