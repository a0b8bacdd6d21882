package faults

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"sync"
	"time"
)

// maxPacket bounds an MQTT packet that a tap takes; a larger one ends the connection.
const maxPacket = 16 << 20

// MQTT 3.1.1 packet types, section 2.2.1.
const (
	packetConnect = 1
	packetConnack = 2
	packetPublish = 3
	packetPuback  = 4
)

// Publish is one PUBLISH packet that the gateway sent, as the tap passed it to the broker.
type Publish struct {
	Conn    int // 1 for the first connection
	ID      uint16
	QoS     byte
	Retain  bool
	Topic   string
	Payload []byte
	At      time.Time
	Acked   time.Time // zero while the broker has not acknowledged it
}

// Connect is one MQTT connection that was tried through the tap.
type Connect struct {
	At       time.Time
	ClientID string
	Answered bool
	Code     byte // of the CONNACK; 0 = accepted
}

// Tap is a link between the gateway and the broker that reads along: it records every PUBLISH and whether
// the broker acknowledged it. It changes nothing, unless Mangle, Reject or Swallow is set.
type Tap struct {
	listener net.Listener
	target   string

	mu        sync.Mutex
	conns     map[net.Conn]struct{}
	connects  []Connect
	publishes []Publish
	mangle    func(kind byte, packet []byte) [][]byte
	reject    func(topic string, payload []byte) bool
	swallow   func(topic string, payload []byte) bool
}

// NewTap listens on a free loopback port and forwards each connection to the broker at target.
func NewTap(target string) (*Tap, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	t := &Tap{listener: l, target: target, conns: map[net.Conn]struct{}{}}
	go t.serve()
	return t, nil
}

// Addr returns the address to dial ("host:port").
func (t *Tap) Addr() string { return t.listener.Addr().String() }

// Close ends the tap and its connections.
func (t *Tap) Close() {
	t.listener.Close()
	t.mu.Lock()
	defer t.mu.Unlock()
	for c := range t.conns {
		c.Close()
	}
}

// Mangle makes the tap a hostile broker: f gets every packet from the broker (its type and its bytes) and
// returns what the gateway receives instead (nil: the end of the connection). nil ends it. What the tap records is what the broker said.
func (t *Tap) Mangle(f func(kind byte, packet []byte) [][]byte) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.mangle = f
}

// Reject makes the tap a broker that closes the connection, as many clouds do, on each PUBLISH that f says
// true to. nil ends it.
func (t *Tap) Reject(f func(topic string, payload []byte) bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.reject = f
}

// Swallow makes the tap a broker that neither takes nor answers the PUBLISHes that f says true to, as one does whose queue
// for a topic is full. nil ends it.
func (t *Tap) Swallow(f func(topic string, payload []byte) bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.swallow = f
}

// Publishes returns a copy of what was published so far, in order.
func (t *Tap) Publishes() []Publish {
	t.mu.Lock()
	defer t.mu.Unlock()
	return append([]Publish(nil), t.publishes...)
}

// Connects returns a copy of the connections that were tried so far, in order.
func (t *Tap) Connects() []Connect {
	t.mu.Lock()
	defer t.mu.Unlock()
	return append([]Connect(nil), t.connects...)
}

// Arrivals returns the acknowledged messages in the order in which they were first published.
func (t *Tap) Arrivals() []Arrival {
	var all []Arrival
	for _, p := range t.Publishes() {
		if !p.Acked.IsZero() {
			all = append(all, Arrival{Topic: p.Topic, Payload: p.Payload, At: p.Acked})
		}
	}
	return all
}

func (t *Tap) serve() {
	for {
		c, err := t.listener.Accept()
		if err != nil {
			return
		}
		go t.forward(c)
	}
}

func (t *Tap) forward(client net.Conn) {
	defer client.Close()
	broker, err := net.DialTimeout("tcp", t.target, 5*time.Second)
	if err != nil {
		return
	}
	defer broker.Close()
	t.mu.Lock()
	t.conns[client], t.conns[broker] = struct{}{}, struct{}{}
	t.connects = append(t.connects, Connect{At: time.Now()})
	conn := len(t.connects)
	t.mu.Unlock()

	unacked := map[uint16]int{} // packet id to its place in publishes; guarded by t.mu
	var ways sync.WaitGroup
	ways.Go(func() {
		defer broker.Close()
		t.pass(client, broker, func(kind byte, p []byte) [][]byte { return t.sent(conn, unacked, kind, p) })
	})
	ways.Go(func() {
		defer client.Close()
		t.pass(broker, client, func(kind byte, p []byte) [][]byte { return t.answered(conn, unacked, kind, p) })
	})
	ways.Wait()
	t.mu.Lock()
	delete(t.conns, client)
	delete(t.conns, broker)
	t.mu.Unlock()
}

// pass carries packets from src to dst until see returns nil for one. It flushes when nothing more is waiting, as the peers do.
func (t *Tap) pass(src, dst net.Conn, see func(kind byte, packet []byte) [][]byte) {
	r, w := bufio.NewReaderSize(src, chunk), bufio.NewWriterSize(dst, chunk)
	for {
		packet, err := readPacket(r)
		if err != nil {
			w.Flush()
			return
		}
		out := see(packet[0]>>4, packet)
		if out == nil {
			w.Flush()
			return
		}
		for _, p := range out {
			w.Write(p)
		}
		if r.Buffered() == 0 && w.Flush() != nil {
			return
		}
	}
}

// readPacket reads one whole MQTT control packet, with its fixed header (section 2.2).
func readPacket(r *bufio.Reader) ([]byte, error) {
	first, err := r.ReadByte()
	if err != nil {
		return nil, err
	}
	head := []byte{first}
	length := 0
	for shift := 0; ; shift += 7 {
		b, err := r.ReadByte()
		if err != nil {
			return nil, err
		}
		head = append(head, b)
		length |= int(b&0x7f) << shift
		if b&0x80 == 0 {
			break
		}
		if shift == 21 {
			return nil, fmt.Errorf("read MQTT packet: remaining length is longer than 4 bytes")
		}
	}
	if length > maxPacket {
		return nil, fmt.Errorf("read MQTT packet: %d bytes is over %d", length, maxPacket)
	}
	packet := bytes.NewBuffer(head) // grows with what comes, not with what is announced
	_, err = io.CopyN(packet, r, int64(length))
	return packet.Bytes(), err
}

// body returns the packet without its fixed header.
func body(packet []byte) []byte {
	i := 1
	for packet[i]&0x80 != 0 {
		i++
	}
	return packet[i+1:]
}

// text takes one length-prefixed string (section 1.5.3) off b; nil when b is too short.
func text(b []byte) (s string, rest []byte) {
	if len(b) < 2 {
		return "", nil
	}
	n := int(binary.BigEndian.Uint16(b))
	if len(b) < 2+n {
		return "", nil
	}
	return string(b[2 : 2+n]), b[2+n:]
}

func (t *Tap) sent(conn int, unacked map[uint16]int, kind byte, packet []byte) [][]byte {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch kind {
	case packetConnect:
		_, rest := text(body(packet)) // protocol name; then level, flags, keep-alive
		if len(rest) >= 4 {
			t.connects[conn-1].ClientID, _ = text(rest[4:])
		}
	case packetPublish:
		topic, rest := text(body(packet))
		p := Publish{Conn: conn, QoS: packet[0] >> 1 & 3, Retain: packet[0]&1 == 1, Topic: topic, At: time.Now()}
		if p.QoS > 0 && len(rest) >= 2 {
			p.ID, rest = binary.BigEndian.Uint16(rest), rest[2:]
			unacked[p.ID] = len(t.publishes)
		}
		p.Payload = rest
		t.publishes = append(t.publishes, p)
		if t.reject != nil && t.reject(p.Topic, p.Payload) {
			return nil
		}
		if t.swallow != nil && t.swallow(p.Topic, p.Payload) {
			return [][]byte{}
		}
	}
	return [][]byte{packet}
}

func (t *Tap) answered(conn int, unacked map[uint16]int, kind byte, packet []byte) [][]byte {
	t.mu.Lock()
	defer t.mu.Unlock()
	b := body(packet)
	if kind == packetConnack && len(b) == 2 {
		t.connects[conn-1].Answered, t.connects[conn-1].Code = true, b[1]
	}
	if kind == packetPuback && len(b) == 2 {
		id := binary.BigEndian.Uint16(b)
		if i, ok := unacked[id]; ok {
			t.publishes[i].Acked = time.Now()
			delete(unacked, id)
		}
	}
	if t.mangle != nil {
		return t.mangle(kind, packet)
	}
	return [][]byte{packet}
}
