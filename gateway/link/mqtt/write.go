package mqtt

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"time"

	"github.com/eclipse/paho.mqtt.golang/packets"

	"millrace/gateway/link"
)

// First bytes of the packets, with the flags that the standard prescribes (MQTT 3.1.1 section 2.2).
const (
	packetConnack    = 0x20
	packetPublish    = 0x30
	packetPuback     = 0x40
	packetPubrec     = 0x50
	packetPubrel     = 0x62
	packetPubcomp    = 0x70
	packetSuback     = 0x90
	packetPingreq    = 0xc0
	packetPingresp   = 0xd0
	packetDisconnect = 0xe0
)

// appendPublish appends a PUBLISH (section 3.3). By hand: the codec copies the payload twice and allocates 40 times.
func appendPublish(dst []byte, m *link.Message, id uint16) []byte {
	first := byte(packetPublish) | m.QoS<<1
	if m.Retain {
		first |= 1
	}
	size := 2 + len(m.Topic) + len(m.Payload)
	if m.QoS > 0 {
		size += 2
	}
	dst = binary.AppendUvarint(append(dst, first), uint64(size))
	dst = append(dst, byte(len(m.Topic)>>8), byte(len(m.Topic)))
	dst = append(dst, m.Topic...)
	if m.QoS > 0 {
		dst = append(dst, byte(id>>8), byte(id))
	}
	return append(dst, m.Payload...)
}

// appendShort appends a packet that has nothing but a packet id.
func appendShort(dst []byte, first byte, id uint16) []byte {
	return append(dst, first, 2, byte(id>>8), byte(id))
}

func appendSubscribe(dst []byte, id uint16, filters []string) []byte {
	p := packets.NewControlPacket(packets.Subscribe).(*packets.SubscribePacket)
	p.MessageID, p.Topics, p.Qoss = id, filters, bytes.Repeat([]byte{1}, len(filters))
	return appendPacket(dst, p)
}

func appendPacket(dst []byte, p packets.ControlPacket) []byte {
	var b bytes.Buffer
	_ = p.Write(&b) // a buffer takes everything
	return append(dst, b.Bytes()...)
}

// connectPacket is the login.
func connectPacket(o *Options, will *link.Message) []byte {
	p := packets.NewControlPacket(packets.Connect).(*packets.ConnectPacket)
	p.ProtocolName, p.ProtocolVersion, p.CleanSession = "MQTT", 4, true
	p.ClientIdentifier, p.Keepalive = o.ClientID, uint16(min(o.KeepAlive/time.Second, 65535))
	if o.Username != "" {
		p.UsernameFlag, p.Username = true, o.Username
		p.PasswordFlag, p.Password = o.Password != "", []byte(o.Password)
	}
	if will != nil {
		p.WillFlag, p.WillTopic, p.WillMessage, p.WillQos, p.WillRetain = true, will.Topic, will.Payload, will.QoS, will.Retain
	}
	return appendPacket(nil, p)
}

const (
	writeChunk   = 16 << 10
	writeTimeout = 10 * time.Second // for one chunk: no progress at all on the slowest link
)

// write sends what is queued until the session ends.
func (s *session) write() {
	for {
		select {
		case <-s.kick:
		case <-s.life.Done():
			return
		}
		if err := s.flush(); err != nil {
			s.fail(peerError(err))
			return
		}
	}
}

// flush sends what is queued now. ErrClosed says that a DISCONNECT was among it.
func (s *session) flush() error {
	s.mu.Lock()
	chunk, gone, closing := s.out, len(s.unsent), s.closing
	s.out = s.spare[:0]
	s.queued += uint64(len(chunk))
	s.mu.Unlock()
	for rest := chunk; len(rest) > 0; {
		n := min(len(rest), writeChunk)
		s.wire.Add(uint64(n)) // before they are written: the answer may come before Write returns
		_ = s.conn.SetWriteDeadline(time.Now().Add(writeTimeout))
		if _, err := s.conn.Write(rest[:n]); err != nil {
			return fmt.Errorf("send: %w", err)
		}
		rest = rest[n:]
	}
	s.written.Store(int64(time.Since(s.born)))
	if cap(chunk) > keepBuffer && len(chunk) < cap(chunk)/4 {
		chunk = nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.spare = chunk
	if gone > 0 {
		for _, n := range s.unsent[:gone] {
			s.acks = append(s.acks, link.Ack{N: n, At: time.Now()})
		}
		s.unsent = append(s.unsent[:0], s.unsent[gone:]...)
		s.signal()
	}
	if closing {
		return link.ErrClosed
	}
	return nil
}
