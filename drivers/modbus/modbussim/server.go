// Package modbussim is a simulated Modbus device for tests, the demo and benchmarks: any number of
// unit ids on one loopback port or pseudo-terminal, four tables each, values from memory or from a function, an account of
// what was served, and faults on demand. It speaks every transport that the driver has.
//
// It speaks the functions 1 to 6, 15, 16, 22, 23 and 43/14 of the Modbus Application Protocol V1.1b3 and answers every other
// function with exception 1. A read over Modbus TCP costs it no allocation. It is a device, not a gateway part:
// nothing that ships may import it but the demo.
package modbussim

import (
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// Table is one of the four Modbus tables. Its number is the function code that reads it.
type Table uint8

// The tables.
const (
	Coil     Table = 1
	Discrete Table = 2
	Holding  Table = 3
	Input    Table = 4
)

// Bits reports whether the table holds single bits, not registers.
func (t Table) Bits() bool { return t == Coil || t == Discrete }

// Request is one request: Count registers or bits of a table from address Addr (0-based). Write is the function code of a
// request that writes, 0 for one that only reads. Of function 23 it is what is written.
type Request struct {
	Unit        uint8
	Table       Table
	Addr, Count uint16
	Write       uint8
}

// bytes is the length of the values in the answer.
func (q Request) bytes() int {
	if q.Table.Bits() {
		return (int(q.Count) + 7) / 8
	}
	return 2 * int(q.Count)
}

// Options are the seams of a server. The zero value listens on a free loopback port.
type Options struct {
	Addr     string       // host:port, "" = "127.0.0.1:0"
	Listener net.Listener // in place of a port, until Down; for tests without a network

	// Transport is the scheme of the urls that lead here: tcp (the default), tcp+tls, udp, rtuovertcp, rtuoverudp,
	// asciiovertcp, asciioverudp; rtu and ascii are on a pseudo-terminal (Linux only).
	Transport string
	TLS       *tls.Config // for tcp+tls

	// A pseudo-terminal has no speed. With Character each byte of a request and of its answer takes that long all the same, and
	// each answer comes Answer later.
	Character, Answer time.Duration

	// Wire, if not nil, writes each answer in place of the server, as it lies on the wire, and may damage it, or write something
	// else, or nothing, or later. False ends the connection. Each connection calls it from one goroutine.
	Wire func(to io.Writer, frame []byte) bool

	// Served is called for each request whose right answer is about to be written, in the order of the
	// answers of one connection and by one goroutine a connection. values is as on the wire (registers
	// big-endian, bits packed from bit 0 on) and valid only during the call. Nil = not called.
	Served func(q Request, values []byte)
}

// Server is a simulated device, or a gateway with several of them behind it. Its methods may be called
// from any goroutine.
type Server struct {
	options  Options
	addr     string
	units    [256]atomic.Pointer[Unit]
	faults   atomic.Pointer[[]*fault] // nil = none, the fast path
	requests atomic.Uint64
	accepted atomic.Uint64
	answered atomic.Int64 // when an answer was last written, in ns since 1970
	wg       sync.WaitGroup

	mu       sync.Mutex
	listener io.Closer // nil while down
	conns    map[*conn]bool
	closed   bool
}

// Start listens and serves until Close. It fails only when the address cannot be listened on.
func Start(o Options) (*Server, error) {
	if o.Addr == "" {
		o.Addr = "127.0.0.1:0"
	}
	s := &Server{options: o, addr: o.Addr, conns: map[*conn]bool{}}
	return s, s.Up()
}

// Addr is the host:port where the server listens, the same after Down and Up.
func (s *Server) Addr() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.addr
}

// URL is the address as the gateway's config wants it.
func (s *Server) URL() string { return s.scheme() + "://" + s.Addr() }

func (s *Server) scheme() string {
	if s.options.Transport == "" {
		return "tcp"
	}
	return s.options.Transport
}

// Requests is how many whole requests arrived, those included that met a fault.
func (s *Server) Requests() uint64 { return s.requests.Load() }

// Connections is how many clients are connected now.
func (s *Server) Connections() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.conns)
}

// Accepted is how many clients have connected so far.
func (s *Server) Accepted() uint64 { return s.accepted.Load() }

// Unit returns the unit with this id and makes it when there is none yet. A request to a unit id that was
// never made is answered with exception 11, as a gateway does whose target is missing.
func (s *Server) Unit(id uint8) *Unit {
	s.units[id].CompareAndSwap(nil, &Unit{id: id})
	return s.units[id].Load()
}

// Up listens again after Down, on the same port. It does nothing while the server is up.
func (s *Server) Up() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return errors.New("listen: the server is closed")
	}
	if s.listener != nil {
		return nil
	}
	if l := s.options.Listener; l != nil {
		s.listen(l)
		return nil
	}
	switch s.scheme() {
	case "udp", "rtuoverudp", "asciioverudp":
		return s.upUDP()
	case "rtu", "ascii":
		return s.upSerial()
	}
	l, err := net.Listen("tcp", s.addr)
	for try := 0; errors.Is(err, syscall.EADDRINUSE) && try < 20; try++ { // a process just forked has the listener of before until it runs its program
		time.Sleep(50 * time.Millisecond)
		l, err = net.Listen("tcp", s.addr)
	}
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	s.listen(l)
	return nil
}

func (s *Server) listen(l net.Listener) {
	s.addr = l.Addr().String()
	if s.scheme() == "tcp+tls" {
		l = tls.NewListener(l, s.options.TLS)
	}
	s.listener = l
	s.wg.Add(1)
	go s.accept(l)
}

// Down cuts every connection and refuses new ones until Up: the device is switched off.
func (s *Server) Down() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.listener != nil {
		s.listener.Close()
		s.listener = nil
	}
	s.cut()
}

// Cut cuts every connection and accepts new ones: somebody pulled the cable for a moment.
func (s *Server) Cut() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cut()
}

func (s *Server) cut() {
	for c := range s.conns {
		c.stop()
	}
}

// Close goes down for good and waits until nothing of the server runs any more.
func (s *Server) Close() {
	s.Down()
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.wg.Wait()
}

func (s *Server) accept(l net.Listener) {
	defer s.wg.Done()
	for {
		socket, err := l.Accept()
		if err != nil {
			return
		}
		c := s.take(l, socket)
		if c == nil {
			return
		}
		s.wg.Add(1)
		go c.run()
	}
}

// Call connects to a gateway that listens, as a modem does, sends hello and serves there as a device until the connection ends. It
// fails when nobody listens.
func (s *Server) Call(addr string, hello []byte) error {
	s.mu.Lock()
	l := s.listener
	s.mu.Unlock()
	if l == nil {
		return net.ErrClosed
	}
	by, err := net.DialTimeout("tcp", addr, write)
	if err != nil {
		return err
	}
	if _, err := by.Write(hello); err != nil {
		by.Close()
		return err
	}
	s.wg.Add(1)
	c := s.take(l, by)
	if c == nil {
		s.wg.Done()
		return net.ErrClosed
	}
	go c.run()
	return nil
}

// Say writes bytes to every client, as a modem that sends a heartbeat of its own accord.
func (s *Server) Say(b []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.conns {
		_ = c.raw(b)
	}
}

// socket is what a conn answers on.
type socket interface {
	io.ReadWriteCloser
	SetWriteDeadline(time.Time) error
}

// take makes a conn of a socket; nil when the server went down meanwhile.
func (s *Server) take(l io.Closer, by socket) *conn {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.listener != l {
		by.Close()
		return nil
	}
	c := &conn{server: s, socket: by, done: make(chan struct{}), packing: packingOf(s.scheme()), since: time.Now()}
	s.conns[c] = true
	s.accepted.Add(1)
	return c
}

// conn serves one client.
type conn struct {
	server *Server
	socket socket
	done   chan struct{}

	packing  packing
	since    time.Time // of the connect
	packed   []byte    // an answer as it goes on the wire, where that is not Modbus TCP
	came     int       // bytes of requests since the last answer, where that is not Modbus TCP
	damaging int       // the byte of the next answer to spoil, from 1 on; 0 = none
	closing  bool      // the connection ends after the next flush
	once     sync.Once
	out      []byte // answers not yet written
	last     []byte // the last answer without a fault
	values   [256]byte
}

func (c *conn) stop() {
	c.once.Do(func() {
		close(c.done)
		c.socket.Close()
	})
}

func (c *conn) run() {
	s := c.server
	defer s.wg.Done()
	defer func() {
		c.stop()
		s.mu.Lock()
		delete(s.conns, c)
		s.mu.Unlock()
	}()
	in := make([]byte, 0, 8<<10)
	for {
		n, err := c.socket.Read(in[len(in):cap(in)])
		if err != nil {
			return
		}
		rest, ok := c.take(in[:len(in)+n])
		if !ok {
			return
		}
		in = in[:copy(in[:cap(in)], rest)]
	}
}

const (
	header  = 7               // MBAP header: transaction, protocol, length, unit
	request = header + 5      // a read request: function, address, count
	maxADU  = 260             // the longest legal frame
	maxPDU  = maxADU - header //
	write   = 2 * time.Second // how long a client may leave an answer unread
)

// take answers every whole request in the bytes, in one write, and returns what is left. It is false when
// the connection must end: the client broke the framing, hung up, or a fault says so.
func (c *conn) take(in []byte) (rest []byte, ok bool) {
	if c.packing != plain {
		return c.takePacked(in)
	}
	for len(in) >= header {
		n := 6 + int(binary.BigEndian.Uint16(in[4:]))
		if binary.BigEndian.Uint16(in[2:]) != 0 || n <= header || n > maxADU {
			return nil, false
		}
		if len(in) < n {
			break
		}
		if !c.answer(in[:n]) {
			return nil, false
		}
		in = in[n:]
	}
	return in, c.flush()
}

func (c *conn) flush() bool {
	if len(c.out) == 0 {
		return true
	}
	out := c.out
	if c.packing != plain || c.damaging > 0 {
		out = c.pack()
	}
	if o := &c.server.options; o.Character > 0 || o.Answer > 0 {
		took := o.Answer + time.Duration(c.came+len(out))*o.Character
		if c.came = 0; !c.sleep(took) {
			return false
		}
	}
	_ = c.socket.SetWriteDeadline(time.Now().Add(write))
	err := error(nil)
	if wire := c.server.options.Wire; wire != nil {
		c.closing = !wire(c.socket, out) || c.closing
	} else {
		_, err = c.socket.Write(out)
	}
	c.server.answered.Store(time.Now().UnixNano())
	c.out = c.out[:0]
	return err == nil && !c.closing
}

// answer appends the answer to one frame to c.out, or does what a fault wants.
func (c *conn) answer(frame []byte) bool {
	s := c.server
	s.requests.Add(1)
	q := parse(frame)
	if faults := s.faults.Load(); faults != nil {
		if f := strike(*faults, q); f != nil {
			return c.fault(f, frame, q)
		}
	}
	start := len(c.out)
	c.right(frame, q)
	c.last = append(c.last[:0], c.out[start:]...)
	return true
}

// right appends the right answer to one frame to c.out and enters it in the account.
func (c *conn) right(frame []byte, q Request) {
	u := c.server.units[q.Unit].Load()
	if pdu := u.identify(frame); pdu != nil {
		c.out = append(append(c.out, frame[0], frame[1], 0, 0, 0, byte(1+len(pdu)), q.Unit), pdu...)
		return
	}
	if code := refuse(frame, q, u); code != 0 {
		c.exception(frame, code)
		return
	}
	if q.Write != 0 {
		c.out = append(c.out, u.write(q, frame)...)
		return
	}
	n := q.bytes()
	values := c.values[:n]
	u.read(q, values)
	if served := c.server.options.Served; served != nil {
		served(q, values)
	}
	u.served.Add(uint64(q.Count))
	c.out = append(c.out, frame[0], frame[1], 0, 0, 0, byte(3+n), q.Unit, byte(q.Table), byte(n))
	c.out = append(c.out, values...)
}

func (c *conn) exception(frame []byte, code byte) {
	c.out = append(c.out, frame[0], frame[1], 0, 0, 0, 3, frame[6], frame[7]|0x80, code)
}

// parse reads what a frame asks for.
func parse(frame []byte) Request {
	q := Request{Unit: frame[6], Table: Table(frame[7])}
	if len(frame) >= request {
		q.Addr, q.Count = binary.BigEndian.Uint16(frame[8:]), binary.BigEndian.Uint16(frame[10:])
	}
	switch frame[7] {
	case writeCoil, writeRegister, maskRegister:
		q.Count = 1
		fallthrough
	case writeCoils, writeRegisters:
		q.Write, q.Table = frame[7], Holding
		if frame[7] == writeCoil || frame[7] == writeCoils {
			q.Table = Coil
		}
	case readWrite:
		q.Write, q.Table = readWrite, Holding
		if len(frame) >= readWriteHead {
			q.Addr, q.Count = binary.BigEndian.Uint16(frame[12:]), binary.BigEndian.Uint16(frame[14:])
		}
	}
	return q
}

// refuse returns the exception code that the request earns by itself, 0 for none.
func refuse(frame []byte, q Request, u *Unit) byte {
	limit := 125
	if q.Table.Bits() {
		limit = 2000
	}
	switch {
	case u == nil:
		return 11
	case q.Write != 0:
		return refuseWrite(frame, q)
	case q.Table < Coil || q.Table > Input:
		return 1
	case len(frame) != request || q.Count == 0 || int(q.Count) > limit:
		return 3
	case int(q.Addr)+int(q.Count) > 1<<16:
		return 2
	}
	return 0
}
