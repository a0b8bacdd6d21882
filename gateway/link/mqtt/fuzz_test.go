package mqtt

import (
	"net"
	"testing"
	"time"

	"millrace/gateway/link"
)

// FuzzRead: whatever a broker sends after the login, the session ends with a reason when the connection does, nothing
// is acknowledged that was not sent or twice, memory is bounded, and nothing is left running.
func FuzzRead(f *testing.F) {
	f.Add(publish("x/y", "hello", 1, 7))
	f.Add(append(publish("other", "hello", 2, 7), packetPubrel, 2, 0, 7))
	f.Add([]byte{packetPuback, 2, 0, 1, packetSuback, 3, 0, 1, 1, packetPingresp, 0})
	f.Add([]byte{packetPubrec, 2, 0, 2, packetPubcomp, 2, 0, 2, packetPubrel, 2, 0, 9})
	f.Add([]byte{packetPublish, 0xff, 0xff, 0xff, 0x7f})
	f.Add([]byte{packetPublish, 0x80, 0x80, 0x3e, 0xff, 0xff, 'a'})
	f.Fuzz(func(t *testing.T, raw []byte) {
		ours, theirs := net.Pipe()
		s := newSession(&Options{KeepAlive: time.Hour}, ours)
		s.filters = [][]string{{"x", "#"}}
		for qos := byte(1); qos <= 2; qos++ {
			if err := s.Send(link.Message{Topic: "a", QoS: qos}); err != nil {
				t.Fatal(err)
			}
		}
		s.start()
		s.Flush()
		go (&otherEnd{Conn: theirs}).drain()
		go func() {
			for s.Err() == nil {
				select {
				case <-s.inbox:
				case <-s.life.Done():
				}
			}
		}()
		_, _ = theirs.Write(raw)
		_ = theirs.Close()
		_ = s.Close()
		if s.Err() == nil {
			t.Error("the session outlives its connection")
		}
		seen := map[uint64]bool{}
		for _, a := range s.Acked(nil) {
			if seen[a.N] || a.N > 1 {
				t.Errorf("answer %+v", a)
			}
			seen[a.N] = true
		}
		if s.unreleased > inboxSize+1 || len(s.out) > 64<<10+8*len(raw) || len(s.pending)+len(seen) != 2 {
			t.Errorf("%d unreleased, %d bytes to write, %d pending, %d answered", s.unreleased, len(s.out), len(s.pending), len(seen))
		}
	})
}
