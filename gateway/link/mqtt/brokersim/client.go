package brokersim

import (
	"bufio"
	"net"
	"sync"
	"time"
)

// client is one connection.
type client struct {
	b    *Broker
	conn net.Conn
	out  *outbox
	gone chan struct{}
	once sync.Once

	id        string
	keepAlive time.Duration
	will      *Message
	published int
	held      map[uint16]struct{} // ids of QoS 2 messages that were taken and wait for PUBREL
}

// loginTimeout is how long a connection may take to log in.
const loginTimeout = 10 * time.Second

// Serve speaks MQTT on a connection that was accepted elsewhere (a websocket, a pipe) until it ends.
func (b *Broker) Serve(conn net.Conn) {
	c := &client{b: b, conn: conn, out: newOutbox(b.o.QueueBytes), gone: make(chan struct{}), held: map[uint16]struct{}{}}
	if !b.admit(c) {
		conn.Close()
		return
	}
	writer := make(chan struct{})
	go func() {
		defer close(writer)
		if c.out.run(conn) != nil {
			c.close()
		}
	}()
	clean, err := c.read()
	if err == errProtocol {
		b.n.violations.Add(1)
	}
	c.close()
	<-writer
	b.forget(c)
	if !clean && c.will != nil {
		b.fanOut(c.will)
	}
}

func (c *client) close() {
	c.once.Do(func() {
		close(c.gone)
		c.out.close()
		c.conn.Close()
	})
}

func (c *client) subscribed() bool { return c.b.routes.has(c) }

// read handles packets until the connection ends; clean says that the client took its leave.
func (c *client) read() (clean bool, err error) {
	r := bufio.NewReaderSize(c.conn, 64<<10)
	var first byte
	var body, buf []byte
	c.conn.SetReadDeadline(time.Now().Add(loginTimeout))
	if first, body, buf, err = readPacket(r, buf); err != nil {
		return false, err
	}
	if first != connect {
		return false, errProtocol
	}
	if err := c.login(body); err != nil {
		return false, err
	}
	c.conn.SetReadDeadline(time.Time{})
	for {
		if c.keepAlive > 0 && r.Buffered() == 0 {
			c.conn.SetReadDeadline(time.Now().Add(c.keepAlive * 3 / 2))
		}
		if first, body, buf, err = readPacket(r, buf); err != nil {
			return false, err
		}
		faults := c.b.faults.Load()
		if faults.Freeze {
			c.b.thawed(c)
		}
		if first == disconnect {
			return true, nil
		}
		if err := c.packet(first, body, faults); err != nil {
			return false, err
		}
	}
}

func (c *client) packet(first byte, body []byte, faults *Faults) error {
	f := fields{src: body}
	switch {
	case first&0xf0 == publish:
		return c.publish(first, &f, faults)
	case first == puback:
		c.out.acked(f.uint16())
	case first == pubrel:
		c.release(f.uint16())
	case first == pingreq:
		c.out.answer(func(dst []byte) []byte { return append(dst, pingresp, 0) })
	case first == subscribe:
		c.subscribe(&f)
	default:
		return errProtocol
	}
	if f.bad {
		return errProtocol
	}
	return nil
}

// login reads the body of a CONNECT and answers it.
func (c *client) login(body []byte) error {
	f := fields{src: body}
	name, level, flags := string(f.text()), f.byte(), f.byte()
	c.keepAlive = time.Duration(f.uint16()) * time.Second
	c.id = string(f.text())
	if flags&0x04 != 0 {
		topic, payload := string(f.text()), append([]byte(nil), f.text()...)
		c.will = &Message{Client: c.id, Topic: topic, Payload: payload, QoS: flags >> 3 & 3, Retain: flags&0x20 != 0}
	}
	var user, password string
	if flags&0x80 != 0 {
		user = string(f.text())
	}
	if flags&0x40 != 0 {
		password = string(f.text())
	}
	if f.bad || name != "MQTT" || level != 4 {
		c.will = nil
		return errProtocol
	}
	faults := c.b.Faults()
	code := faults.Refuse
	if o := &c.b.o; code == 0 && o.Username != "" && (user != o.Username || password != o.Password) {
		code = 4
	}
	if code != 0 {
		c.will = nil
		c.b.n.refused.Add(1)
		c.conn.Write([]byte{connack, 2, 0, code})
		return net.ErrClosed
	}
	c.b.login(c)
	c.out.answer(func(dst []byte) []byte { return append(dst, connack, 2, 0, 0) })
	return nil
}

func (c *client) publish(first byte, f *fields, faults *Faults) error {
	m := Message{Client: c.id, QoS: first >> 1 & 3, Dup: first&8 != 0, Retain: first&1 != 0}
	topic := f.text()
	var id uint16
	if m.QoS > 0 {
		id = f.uint16()
	}
	if f.bad || m.QoS > 2 || len(topic) == 0 || (m.QoS > 0 && id == 0) {
		return errProtocol
	}
	if _, again := c.held[id]; again && m.QoS == 2 {
		c.out.answer(func(dst []byte) []byte { return appendShort(dst, pubrec, id) })
		return nil
	}
	m.Topic, m.Payload = string(topic), f.src
	c.published++
	if faults.closesOn(c, &m) {
		return net.ErrClosed
	}
	c.b.n.received.Add(1)
	c.b.n.bytes.Add(uint64(len(m.Payload)))
	if c.b.o.OnPublish != nil {
		c.b.o.OnPublish(m)
	}
	c.b.fanOut(&m)
	if m.QoS == 0 {
		return nil
	}
	if m.QoS == 2 {
		c.held[id] = struct{}{}
		c.out.answer(func(dst []byte) []byte { return appendShort(dst, pubrec, id) })
		return nil
	}
	c.b.n.acked.Add(1)
	c.out.answer(func(dst []byte) []byte { return faults.answer(dst, id) })
	return nil
}

// release is the second half of a QoS 2 message (MQTT 3.1.1 section 4.3.3).
func (c *client) release(id uint16) {
	if _, ok := c.held[id]; ok {
		delete(c.held, id)
		c.b.n.acked.Add(1)
	}
	c.out.answer(func(dst []byte) []byte { return appendShort(dst, pubcomp, id) })
}

// fanOut queues a message to everybody who has subscribed to it and waits for those who lag.
func (b *Broker) fanOut(m *Message) {
	for _, t := range b.routes.to(m.Topic) {
		if t.c.out.message(m.Topic, m.Payload, min(m.QoS, t.qos, 1)) {
			b.n.delivered.Add(1)
		}
	}
}

func (c *client) subscribe(f *fields) {
	id := f.uint16()
	var codes []byte
	for len(f.src) > 0 {
		filter, qos := string(f.text()), min(f.byte(), 1)
		if f.bad {
			return
		}
		c.b.routes.add(c, filter, qos)
		codes = append(codes, qos)
	}
	c.out.answer(func(dst []byte) []byte {
		dst = appendLength(append(dst, suback), 2+len(codes))
		return append(append(dst, byte(id>>8), byte(id)), codes...)
	})
}
