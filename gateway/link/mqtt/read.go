package mqtt

import (
	"encoding/binary"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/eclipse/paho.mqtt.golang/packets"

	"millrace/gateway/link"
)

// login sends the CONNECT and reads its answer. Nothing else runs yet; the caller bounds the time.
func (s *session) login(will *link.Message) error {
	// The answer is read also when this fails: a broker that has hung up may have said why.
	_, _ = s.conn.Write(connectPacket(s.o, will))
	head, err := s.r.Peek(4)
	if err != nil {
		return loginError(head, err)
	}
	if head[0] != packetConnack || head[1] != 2 {
		return loginError(head, nil)
	}
	_, _ = s.r.Discard(4)
	code := head[3]
	switch {
	case code == packets.Accepted:
		return nil
	case code == packets.ErrRefusedServerUnavailable:
		return fmt.Errorf("the broker says that it is unavailable")
	case code > packets.ErrRefusedNotAuthorised:
		return fmt.Errorf("%w: the broker answers the login with code %d, which MQTT 3.1.1 does not have", link.ErrProtocol, code)
	}
	return fmt.Errorf("%w: %s", link.ErrRefused, refusals[code])
}

// refusals are the words for the CONNACK codes (MQTT 3.1.1 section 3.2.2.3).
var refusals = map[byte]string{
	packets.ErrRefusedBadProtocolVersion:    "the broker does not speak MQTT 3.1.1; enable that version there",
	packets.ErrRefusedIDRejected:            "the broker does not accept the client id; change client_id",
	packets.ErrRefusedBadUsernameOrPassword: "user name or password is wrong; check username and password",
	packets.ErrRefusedNotAuthorised:         "not authorised; check username, password, client_id and the broker's access rules",
}

// read handles packets until the session ends.
func (s *session) read() {
	unasked := newBudget()
	for n := 1; ; n++ {
		if err := s.packet(unasked); err != nil {
			s.fail(peerError(err))
			return
		}
		if s.r.Buffered() == 0 || n%64 == 0 {
			s.heard.Store(int64(time.Since(s.born)))
			s.signal()
		}
	}
}

// packet reads and handles one packet. Its length is judged before anything is kept.
func (s *session) packet(unasked *budget) error {
	first, err := s.r.ReadByte()
	if err != nil {
		return err
	}
	length, err := binary.ReadUvarint(s.r) // what MQTT calls the remaining length (section 2.2.3)
	if err != nil {
		return err
	}
	size := int(min(length, maxPacket+1))
	switch {
	case first&0xf0 == packetPublish:
		return s.inbound(first, size, unasked)
	case first == packetPingresp && size == 0:
		if s.asked.Swap(false) {
			return nil
		}
		return unasked.answer("answers to pings that were not sent")
	case first == packetSuback && size >= 3 && size <= 2+maxFilters:
		return s.suback(size, unasked)
	case size == 2 && (first == packetPuback || first == packetPubrec || first == packetPubrel || first == packetPubcomp):
		id, err := s.short()
		if err != nil {
			return err
		}
		return s.answer(first, id, unasked)
	}
	return fmt.Errorf("%w: the broker sent a packet %#02x of %d bytes, which no broker may send here", link.ErrProtocol, first, size)
}

// maxFilters bounds the topic filters of a session, and so the answers to one SUBSCRIBE.
const maxFilters = 256

func (s *session) short() (uint16, error) {
	b, err := s.r.Peek(2) // io.ReadFull would allocate
	if err != nil {
		return 0, err
	}
	_, _ = s.r.Discard(2)
	return binary.BigEndian.Uint16(b), nil
}

func (s *session) suback(size int, unasked *budget) error {
	body := make([]byte, size)
	if _, err := io.ReadFull(s.r, body); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.subID == 0 || s.subID != binary.BigEndian.Uint16(body) {
		return unasked.answer("answers to subscriptions that were not made")
	}
	s.subID = 0
	s.granted <- body[2:]
	return nil
}

// answer handles a packet that answers for a packet id: PUBACK, PUBREC, PUBCOMP, or PUBREL of a message to us.
func (s *session) answer(first byte, id uint16, unasked *budget) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if first == packetPubrel { // of a message to us, which was discarded
		s.out = appendShort(s.out, packetPubcomp, id)
		s.Flush()
		if s.unreleased--; s.unreleased >= 0 {
			return nil
		}
		s.unreleased = 0
		return unasked.answer("releases of messages that it did not send")
	}
	f, ok := s.pending[id]
	switch {
	case !ok || f.end > s.wire.Load() || (first == packetPuback) != (f.qos == 1) || first == packetPubcomp && !f.rec:
		s.stats.stray.Add(1)
		return unasked.answer("acknowledgements of messages that were not sent")
	case first == packetPubrec:
		if f.rec {
			return unasked.answer("acknowledgements that had come already")
		}
		f.rec = true
		s.pending[id] = f
		s.out = appendShort(s.out, packetPubrel, id)
		s.Flush()
	default:
		delete(s.pending, id)
		s.acks = append(s.acks, link.Ack{N: f.n, At: time.Now()})
	}
	return nil
}

// inbound takes a message that was subscribed to, and reads over any other: brokers with automatic subscriptions send them.
func (s *session) inbound(first byte, size int, unasked *budget) error {
	qos := first >> 1 & 3
	if size > byteBurst { // of what is subscribed to, the bound is far lower
		return fmt.Errorf("%w: the broker sent a message of %d bytes; at most %d are read", link.ErrProtocol, size, byteBurst)
	}
	topic, left, err := s.topic(size)
	if err != nil {
		return err
	}
	id := uint16(0)
	if qos > 0 && left >= 2 {
		if id, err = s.short(); err != nil {
			return err
		}
		left -= 2
	}
	if qos == 3 || (qos > 0) != (id > 0) {
		return fmt.Errorf("%w: the broker sent a PUBLISH of QoS %d with the packet id %d", link.ErrProtocol, qos, id)
	}
	if qos < 2 && left <= maxInbound && s.wanted(topic) {
		payload := make([]byte, left)
		if _, err = io.ReadFull(s.r, payload); err == nil {
			err = s.deliver(link.Message{Topic: topic, Payload: payload, QoS: qos, Retain: first&1 != 0})
		}
	} else if err = unasked.message(size); err == nil {
		s.stats.discarded.Add(1)
		_, err = s.r.Discard(left)
	}
	if err != nil {
		return err
	}
	return s.acknowledge(qos, id)
}

// topic reads the topic of a PUBLISH and returns how many bytes are left of it. No topic of ours is longer than 4 KiB:
// of a longer one the beginning is enough, since it matches nothing.
func (s *session) topic(size int) (string, int, error) {
	if size < 2 {
		return "", 0, fmt.Errorf("%w: the broker sent a PUBLISH of %d bytes", link.ErrProtocol, size)
	}
	n, err := s.short()
	if err != nil {
		return "", 0, err
	}
	if int(n) > size-2 {
		return "", 0, fmt.Errorf("%w: the broker sent a PUBLISH whose topic is longer than it", link.ErrProtocol)
	}
	b := make([]byte, min(int(n), 4096))
	if _, err = io.ReadFull(s.r, b); err == nil {
		_, err = s.r.Discard(int(n) - len(b))
	}
	return string(b), size - 2 - int(n), err
}

func (s *session) acknowledge(qos byte, id uint16) error {
	if qos == 0 {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if qos == 1 {
		s.out = appendShort(s.out, packetPuback, id)
	} else {
		if s.unreleased++; s.unreleased > inboxSize {
			return fmt.Errorf("%w: %d messages of QoS 2 are not released", link.ErrProtocol, s.unreleased)
		}
		s.out = appendShort(s.out, packetPubrec, id)
	}
	if len(s.out) > maxUnread {
		return fmt.Errorf("%w: the broker sends and does not read: %d bytes of answers wait", link.ErrProtocol, len(s.out))
	}
	s.Flush()
	return nil
}

// maxUnread bounds what waits to be written when the broker makes us answer: a window of messages, and then answers.
const maxUnread = 512 << 20

// deliver hands a message on, and waits for a moment when nobody takes them.
func (s *session) deliver(m link.Message) error {
	select {
	case s.inbox <- m:
		s.signal()
		return nil
	case <-s.life.Done():
		return s.Err()
	case <-time.After(inboxWait):
		return fmt.Errorf("%d messages from the broker were not taken within %v", inboxSize, inboxWait)
	}
}

// wanted reports whether a topic was subscribed to.
func (s *session) wanted(topic string) bool {
	levels := strings.Split(topic, "/")
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.ContainsFunc(s.filters, func(filter []string) bool { return matches(filter, levels) })
}

// matches reports whether the levels of a topic filter match those of a topic (section 4.7).
func matches(filter, topic []string) bool {
	for i, level := range filter {
		if level == "#" {
			return true
		}
		if i >= len(topic) || level != "+" && level != topic[i] {
			return false
		}
	}
	return len(filter) == len(topic)
}
