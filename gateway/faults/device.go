package faults

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"syscall"
	"time"
)

// Served is one answer of a device: its number and when it was given.
type Served struct {
	Device string
	Scan   uint32
	At     time.Time

	// Part marks an answer of only some of the registers: a driver asks so after a device did not answer, to
	// find out why. It need not arrive, and what arrives with it may be of the answers next to it. The checker
	// counts such answers, and a scenario fails on them unless the device is excused or the machine stood still.
	Part bool
}

// Device is a Modbus TCP device that numbers its answers. Holding registers 0 and 1 are the number of the
// answer (uint32, ABCD); register 2+i holds [Word](scan, i). A read that begins at register 0 is a scan and
// gets the next number, so every poll's values are unique, ordered and checkable. It answers function 3 of
// any unit id, up to 125 registers, and exception 1 or 2 to everything else. It is its own program rather
// than the driver's simulator, so that the ledger rests on nothing that the gateway's drivers are tested with.
type Device struct {
	Name string

	addr  string
	words int

	mu       sync.Mutex
	listener net.Listener
	conns    map[net.Conn]struct{}
	accepted int
	scan     uint32
	served   []Served
	delay    time.Duration
	frozen   bool
}

// Word returns what register 2+i holds in the given scan.
func Word(scan uint32, i int) uint16 { return uint16(scan*31 + uint32(i)*7 + 1) }

// NewDevice starts a device with that many words after the number, on a free loopback port.
func NewDevice(name string, words int) (*Device, error) {
	d := &Device{Name: name, addr: ownHost() + ":0", words: words, conns: map[net.Conn]struct{}{}}
	return d, d.Up()
}

// Addr returns the device's address ("host:port"), the same over Down and Up.
func (d *Device) Addr() string { return d.addr }

// Up ends Down: the device accepts connections again, on the same port.
func (d *Device) Up() error {
	l, err := listenAgain(d.addr)
	if err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.listener, d.addr = l, l.Addr().String()
	go d.accept(l)
	return nil
}

// listenAgain listens at an address that was just given up: a process forked meanwhile has the old listener until it runs its program.
func listenAgain(addr string) (net.Listener, error) {
	l, err := net.Listen("tcp", addr)
	for try := 0; errors.Is(err, syscall.EADDRINUSE) && try < 20; try++ {
		time.Sleep(50 * time.Millisecond)
		l, err = net.Listen("tcp", addr)
	}
	return l, err
}

// Down closes the device's port and connections, as if it were unplugged.
func (d *Device) Down() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.listener.Close()
	for c := range d.conns {
		c.Close()
	}
}

// Freeze makes the device take requests and answer none, until it is called with false.
func (d *Device) Freeze(frozen bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.frozen = frozen
}

// Slow delays each answer.
func (d *Device) Slow(delay time.Duration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.delay = delay
}

// Served returns a copy of all answers so far, in order.
func (d *Device) Served() []Served {
	d.mu.Lock()
	defer d.mu.Unlock()
	return append([]Served(nil), d.served...)
}

// AwaitIdle waits until no client is connected and all that clients which are gone had asked for is answered: what such a client asked may
// otherwise be answered, and counted as served, long after it died. It returns an error after patience.
func (d *Device) AwaitIdle(patience time.Duration) error {
	if c, err := net.DialTimeout("tcp", d.addr, patience); err == nil { // connections are accepted in their order: this one is the last
		c.(*net.TCPConn).CloseWrite()
		c.SetReadDeadline(time.Now().Add(patience))
		io.Copy(io.Discard, c)
		c.Close()
	}
	for end := time.Now().Add(patience); d.clients() > 0; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			return fmt.Errorf("device %q: %d clients are connected after %s, want none", d.Name, d.clients(), patience)
		}
	}
	return nil
}

// Accepted returns how many connections the device has taken so far.
func (d *Device) Accepted() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.accepted
}

func (d *Device) clients() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.conns)
}

func (d *Device) accept(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		d.mu.Lock()
		d.conns[c] = struct{}{}
		d.accepted++
		d.mu.Unlock()
		go d.serve(c)
	}
}

func (d *Device) serve(c net.Conn) {
	defer func() {
		c.Close()
		d.mu.Lock()
		delete(d.conns, c)
		d.mu.Unlock()
	}()
	r := bufio.NewReader(c)
	head := make([]byte, 7) // MBAP: transaction, protocol, length, unit id
	for {
		if _, err := io.ReadFull(r, head); err != nil {
			return
		}
		n := int(binary.BigEndian.Uint16(head[4:]))
		if n < 2 || n > 254 {
			return
		}
		pdu := make([]byte, n-1)
		if _, err := io.ReadFull(r, pdu); err != nil {
			return
		}
		if !d.answer(c, head, pdu) {
			return
		}
	}
}

// answer counts a scan as served once its bytes are with the kernel: whatever reads them may still die.
func (d *Device) answer(c net.Conn, head, pdu []byte) bool {
	d.mu.Lock()
	delay, frozen := d.delay, d.frozen
	d.mu.Unlock()
	if frozen {
		return true
	}
	time.Sleep(delay)
	d.mu.Lock()
	defer d.mu.Unlock()
	reply, scanned := d.reply(pdu)
	part := len(reply) != 2+2*(2+d.words)
	frame := append([]byte(nil), head...)
	binary.BigEndian.PutUint16(frame[4:], uint16(len(reply)+1))
	at := time.Now()
	if _, err := c.Write(append(frame, reply...)); err != nil {
		return false
	}
	if scanned {
		d.served = append(d.served, Served{Device: d.Name, Scan: d.scan, At: at, Part: part})
	}
	return true
}

// reply returns the answer PDU, and whether it is a scan. The caller holds d.mu.
func (d *Device) reply(pdu []byte) (answer []byte, scanned bool) {
	if len(pdu) != 5 || pdu[0] != 3 {
		return []byte{pdu[0] | 0x80, 1}, false
	}
	first, count := int(binary.BigEndian.Uint16(pdu[1:])), int(binary.BigEndian.Uint16(pdu[3:]))
	if count < 1 || count > 125 || first+count > 2+d.words {
		return []byte{0x83, 2}, false
	}
	if first == 0 {
		d.scan++
	}
	answer = []byte{3, byte(2 * count)}
	for i := first; i < first+count; i++ {
		word := uint16(d.scan)
		switch {
		case i == 0:
			word = uint16(d.scan >> 16)
		case i > 1:
			word = Word(d.scan, i-2)
		}
		answer = binary.BigEndian.AppendUint16(answer, word)
	}
	return answer, first == 0
}
