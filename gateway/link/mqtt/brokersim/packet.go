package brokersim

import (
	"bufio"
	"encoding/binary"
	"errors"
	"io"
)

// First bytes of the packets, with the flags the standard prescribes (MQTT 3.1.1 section 2.2).
const (
	connect    = 0x10
	connack    = 0x20
	publish    = 0x30
	puback     = 0x40
	pubrec     = 0x50
	pubrel     = 0x62
	pubcomp    = 0x70
	subscribe  = 0x82
	suback     = 0x90
	pingreq    = 0xc0
	pingresp   = 0xd0
	disconnect = 0xe0
)

// maxPacket bounds what a client may send in one packet.
const maxPacket = 16 << 20

var errProtocol = errors.New("the client broke the protocol")

// readPacket reads one packet into buf, which it may replace by a larger one, and returns the first byte,
// the body and the buffer.
func readPacket(r *bufio.Reader, buf []byte) (first byte, body, grown []byte, err error) {
	first, err = r.ReadByte()
	if err != nil {
		return 0, nil, buf, err
	}
	n, shift := 0, 0
	for {
		b, err := r.ReadByte()
		if err != nil {
			return 0, nil, buf, err
		}
		n |= int(b&0x7f) << shift
		if b < 0x80 {
			break
		}
		if shift += 7; shift > 21 {
			return 0, nil, buf, errProtocol
		}
	}
	if n > maxPacket {
		return 0, nil, buf, errProtocol
	}
	if n > cap(buf) {
		buf = make([]byte, n)
	}
	_, err = io.ReadFull(r, buf[:n])
	return first, buf[:n], buf, err
}

// fields reads the parts of a packet's body; after the first missing one everything is empty and bad is set.
type fields struct {
	src []byte
	bad bool
}

func (f *fields) take(n int) []byte {
	if n > len(f.src) {
		f.bad, f.src = true, nil
		return nil
	}
	b := f.src[:n]
	f.src = f.src[n:]
	return b
}

func (f *fields) byte() byte {
	if b := f.take(1); b != nil {
		return b[0]
	}
	return 0
}

func (f *fields) uint16() uint16 {
	if b := f.take(2); b != nil {
		return binary.BigEndian.Uint16(b)
	}
	return 0
}

func (f *fields) text() []byte { return f.take(int(f.uint16())) }

func appendLength(dst []byte, n int) []byte {
	for n >= 0x80 {
		dst = append(dst, byte(n)|0x80)
		n >>= 7
	}
	return append(dst, byte(n))
}

// appendShort appends a packet that has nothing but a packet id.
func appendShort(dst []byte, first byte, id uint16) []byte {
	return append(dst, first, 2, byte(id>>8), byte(id))
}

// appendPublish appends a PUBLISH; id is used with QoS 1 only.
func appendPublish(dst []byte, topic string, payload []byte, qos byte, id uint16) []byte {
	n := 2 + len(topic) + len(payload) + 2*int(qos)
	dst = appendLength(append(dst, publish|qos<<1), n)
	dst = append(append(dst, byte(len(topic)>>8), byte(len(topic))), topic...)
	if qos > 0 {
		dst = append(dst, byte(id>>8), byte(id))
	}
	return append(dst, payload...)
}
