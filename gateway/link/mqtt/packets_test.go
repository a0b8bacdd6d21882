package mqtt

import (
	"fmt"
	"runtime"
	"testing"
	"time"

	"github.com/eclipse/paho.mqtt.golang/packets"

	"millrace/gateway/link"
)

// TestMalformed: no packet that a broker may not send is taken, whatever it announces; the session ends and says so.
func TestMalformed(t *testing.T) {
	suback := append([]byte{packetSuback, 0x83, 2}, make([]byte, 259)...)
	for _, c := range []struct {
		name string
		sent []byte
		kind error
	}{
		{"reserved 0", []byte{0x00, 0}, link.ErrProtocol},
		{"reserved 15", []byte{0xf0, 0}, link.ErrProtocol},
		{"CONNECT", []byte{0x10, 0}, link.ErrProtocol},
		{"CONNACK again", []byte{packetConnack, 2, 0, 0}, link.ErrProtocol},
		{"SUBSCRIBE", []byte{0x82, 6, 0, 1, 0, 1, 'a', 0}, link.ErrProtocol},
		{"UNSUBSCRIBE", []byte{0xa2, 5, 0, 1, 0, 1, 'a'}, link.ErrProtocol},
		{"UNSUBACK, never asked for", []byte{0xb0, 2, 0, 1}, link.ErrProtocol},
		{"PINGREQ", []byte{packetPingreq, 0}, link.ErrProtocol},
		{"DISCONNECT", []byte{packetDisconnect, 0}, link.ErrProtocol},
		{"PUBACK, short", []byte{packetPuback, 1, 0}, link.ErrProtocol},
		{"PUBACK, long", []byte{packetPuback, 3, 0, 1, 0}, link.ErrProtocol},
		{"PUBACK, flags", []byte{packetPuback | 1, 2, 0, 1}, link.ErrProtocol},
		{"PUBREC, long", []byte{packetPubrec, 4, 0, 1, 0, 0}, link.ErrProtocol},
		{"PUBREL, flags", []byte{0x60, 2, 0, 1}, link.ErrProtocol},
		{"PUBREL, empty", []byte{packetPubrel, 0}, link.ErrProtocol},
		{"PUBCOMP, long", []byte{packetPubcomp, 3, 0, 1, 0}, link.ErrProtocol},
		{"PINGRESP, long", []byte{packetPingresp, 1, 0}, link.ErrProtocol},
		{"PINGRESP, flags", []byte{packetPingresp | 2, 0}, link.ErrProtocol},
		{"SUBACK, no code", []byte{packetSuback, 2, 0, 1}, link.ErrProtocol},
		{"SUBACK, 257 codes", suback, link.ErrProtocol},
		{"SUBACK, flags", []byte{packetSuback | 2, 3, 0, 1, 0}, link.ErrProtocol},
		{"SUBACK of 256 MiB", []byte{packetSuback, 0xff, 0xff, 0xff, 0x7f}, link.ErrProtocol},
		{"length of five bytes", []byte{packetPuback, 0x80, 0x80, 0x80, 0x80, 1}, link.ErrProtocol},
		{"PUBLISH, empty", []byte{packetPublish, 0}, link.ErrProtocol},
		{"PUBLISH, half a topic length", []byte{packetPublish, 1, 0}, link.ErrProtocol},
		{"PUBLISH, topic longer than it", []byte{packetPublish, 3, 0, 2, 'a'}, link.ErrProtocol},
		{"PUBLISH, QoS 3", []byte{packetPublish | 6, 5, 0, 1, 'a', 0, 1}, link.ErrProtocol},
		{"PUBLISH, no packet id", []byte{packetPublish | 2, 4, 0, 1, 'a', 0}, link.ErrProtocol},
		{"PUBLISH, packet id 0", []byte{packetPublish | 2, 5, 0, 1, 'a', 0, 0}, link.ErrProtocol},
		{"PUBLISH of 256 MiB", []byte{packetPublish, 0xff, 0xff, 0xff, 0x7f, 0, 1, 'a'}, link.ErrProtocol},
		{"PUBACK, cut", []byte{packetPuback, 2, 0}, link.ErrPeerClosed},
		{"length, cut", []byte{packetPuback}, link.ErrPeerClosed},
		{"topic, cut", []byte{packetPublish, 0xff, 0x7f, 0x20, 0, 'a'}, link.ErrPeerClosed},
		{"payload, cut", []byte{packetPublish, 100, 0, 1, 'a', 1, 2, 3}, link.ErrPeerClosed},
		{"SUBACK, cut", []byte{packetSuback, 9, 0, 1, 1}, link.ErrPeerClosed},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := open(t, scripted(t, Options{}, func(p *otherEnd) {
				p.accept()
				p.send(c.sent...)
			}), nil)
			says(t, ended(t, s), c.kind)
			if len(s.Acked(nil)) != 0 || len(s.Inbox()) != 0 {
				t.Error("something was taken")
			}
		})
	}
}

// TestAnnouncedSizes: what a packet announces is not allocated.
func TestAnnouncedSizes(t *testing.T) {
	for _, head := range [][]byte{
		{packetPublish, 0xff, 0xff, 0xff, 0x7f}, {packetSuback, 0xff, 0xff, 0xff, 0x7f},
		{packetPublish, 0x80, 0x80, 0x3e, 0xff, 0xff, 'a'}, // 1,015,808 bytes: within what may come unasked
	} {
		s := open(t, scripted(t, Options{}, func(p *otherEnd) {
			p.accept()
			p.send(head...)
			if len(head) > 5 {
				return
			}
			<-p.over
		}), nil)
		if grew := allocated(func() { _ = ended(t, s) }); grew > 256<<10 {
			t.Errorf("% x: %d bytes allocated", head, grew)
		}
	}
}

// allocated returns how many bytes the whole process allocates meanwhile: more than any peak of the heap.
func allocated(f func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

// TestOnlyWhatIsOnTheWire: an answer to a message that has not left, by a broker that guesses packet ids, counts for nothing.
func TestOnlyWhatIsOnTheWire(t *testing.T) {
	for qos := byte(1); qos <= 2; qos++ {
		guess := make(chan struct{})
		virtually(t, Options{KeepAlive: time.Hour}, func(p *otherEnd) {
			go func() {
				<-guess
				for id := range uint16(5) {
					p.short(packetPuback, id+1)
					p.short(packetPubrec, id+1)
					p.short(packetPubcomp, id+1)
				}
				guess <- struct{}{}
			}()
			for packet := p.next(); packet != nil; packet = p.next() {
				switch packet := packet.(type) {
				case *packets.PublishPacket:
					p.short(map[byte]byte{1: packetPuback, 2: packetPubrec}[qos], packet.MessageID)
				case *packets.PubrelPacket:
					p.short(packetPubcomp, packet.MessageID)
				}
			}
		}, func(t *testing.T, s *session) {
			for range 3 {
				if err := s.Send(link.Message{Topic: "a", QoS: qos}); err != nil {
					t.Fatal(err)
				}
			}
			guess <- struct{}{}
			<-guess
			lives(t, s, time.Second)
			if got := s.Acked(nil); len(got) != 0 || s.wire.Load() != 0 || s.Stats().Stray != 15 {
				t.Errorf("answers %+v, stats %+v: nothing has left", got, s.Stats())
			}
			s.Flush()
			if got := acks(t, s, 3); len(got) != 3 || s.wire.Load() == 0 {
				t.Errorf("answers %+v, stats %+v", got, s.Stats())
			}
		})
	}
}

// TestOtherAnswers: an answer of the wrong kind is no answer, and the right one counts once.
func TestOtherAnswers(t *testing.T) {
	for _, c := range []struct {
		qos     byte
		answers []byte
		acked   int
		stray   uint64
	}{
		{1, []byte{packetPubrec, packetPubcomp}, 0, 2},
		{1, []byte{packetPuback, packetPuback}, 1, 1},
		{2, []byte{packetPuback, packetPubcomp}, 0, 2},
		{2, []byte{packetPubrec}, 0, 0},
		{2, []byte{packetPubrec, packetPubrec, packetPubcomp, packetPubcomp}, 1, 1},
	} {
		t.Run(fmt.Sprintf("QoS %d % x", c.qos, c.answers), func(t *testing.T) {
			virtually(t, Options{KeepAlive: time.Hour}, func(p *otherEnd) {
				id := p.next().(*packets.PublishPacket).MessageID
				go p.drain()
				for _, first := range c.answers {
					p.short(first, id)
				}
				<-p.over
			}, func(t *testing.T, s *session) {
				if err := s.Send(link.Message{Topic: "a", QoS: c.qos}); err != nil {
					t.Fatal(err)
				}
				s.Flush()
				lives(t, s, time.Second)
				if got := s.Acked(nil); len(got) != c.acked || s.Stats().Stray != c.stray {
					t.Errorf("answers %+v, stats %+v", got, s.Stats())
				}
			})
		})
	}
}

// TestPacketIDs: none is 0, and none is used again while its message is unanswered, also when all 65,535 have gone round.
func TestPacketIDs(t *testing.T) {
	const rounds = 70_000
	s := newSession(&Options{}, nil)
	held := map[uint16]bool{}
	for i := range rounds {
		id := s.freeID()
		if id == 0 || held[id] {
			t.Fatalf("message %d: packet id %d is in use", i, id)
		}
		if i%10_000 == 0 { // answered never
			held[id] = true
			s.pending[id] = flight{}
		}
	}
	for id := s.freeID(); id != 0; id = s.freeID() {
		if _, used := s.pending[id]; used {
			t.Fatalf("packet id %d is in use", id)
		}
		s.pending[id] = flight{}
	}
	if len(s.pending) != maxInFlight {
		t.Errorf("%d ids in use, want %d", len(s.pending), maxInFlight)
	}
	says(t, s.Send(link.Message{Topic: "a", QoS: 1}), link.ErrMessage, "unanswered")
	says(t, s.Subscribe("a"), link.ErrMessage, "unanswered")
	if len(s.out) != 0 || len(s.filters) != 0 || s.sent != 0 {
		t.Error("a refused message left something behind")
	}
}

// TestUnreleased: QoS 2 messages to us that are never released are bounded.
func TestUnreleased(t *testing.T) {
	virtually(t, Options{KeepAlive: time.Hour}, func(p *otherEnd) {
		go p.drain()
		for i := range inboxSize + 1 {
			p.send(publish("a", "x", 2, uint16(i+1))...)
		}
		<-p.over
	}, func(t *testing.T, s *session) {
		says(t, endsWithin(t, s, 0, 0), link.ErrProtocol, "not released")
	})
}
