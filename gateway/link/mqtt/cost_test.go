package mqtt

import (
	"fmt"
	"io"
	"net"
	"testing"
	"time"

	"millrace/gateway/link"
	"millrace/gateway/link/mqtt/brokersim"
)

// TestAllocations: a message in steady state costs the bytes it has on the wire, and no garbage but the odd growth.
func TestAllocations(t *testing.T) {
	l, err := dialTo(t, startBroker(t, brokersim.Options{}).Addr(), nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	m := link.Message{Topic: "a/b/c", Payload: make([]byte, 200), QoS: 1}
	s := l.(*session)
	var scratch []link.Ack
	round := func() {
		for range 50 {
			if err := l.Send(m); err != nil {
				t.Fatal(err)
			}
		}
		s.mu.Lock() // as the reader does, and as the writer does
		s.out = s.out[:0]
		for id, f := range s.pending {
			delete(s.pending, id)
			s.acks = append(s.acks, link.Ack{N: f.n})
		}
		s.mu.Unlock()
		scratch = l.Acked(scratch[:0])
	}
	round()
	if n := testing.AllocsPerRun(50, round); n > 50 {
		t.Errorf("%v allocations for 50 messages", n)
	}
}

// FuzzRead: whatever a broker sends, the session ends or lives, in bounded time and memory.
func FuzzRead(f *testing.F) {
	f.Add(publish(1, "x", []byte("hello"), 7))
	f.Add([]byte{packetPuback, 2, 0, 1, packetSuback, 3, 0, 1, 1, packetPingresp, 0})
	f.Add([]byte{packetPubrec, 2, 0, 1, packetPubcomp, 2, 0, 1, packetPubrel, 2, 0, 9})
	f.Add([]byte{packetPublish, 0xff, 0xff, 0xff, 0x7f})
	f.Fuzz(func(t *testing.T, raw []byte) {
		near, far := net.Pipe()
		s := newSession(&Options{KeepAlive: time.Hour, ConnectTimeout: time.Second, MaxInbound: 1 << 10}, near)
		s.filters = []string{"x/#"}
		s.pending[1] = flight{n: 0, qos: 1}
		s.start()
		go func() { _, _ = io.Copy(io.Discard, far) }()
		go func() {
			for {
				select {
				case <-s.inbox:
				case <-s.lost:
					return
				}
			}
		}()
		_, _ = far.Write(raw)
		_ = far.Close()
		_ = s.Close()
		if s.Err() == nil {
			t.Error("the session outlives its connection")
		}
	})
}

func BenchmarkSession(b *testing.B) {
	for _, size := range []int{200, 16 << 10} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			l, err := dialTo(b, startBroker(b, brokersim.Options{}).Addr(), nil, nil)
			if err != nil {
				b.Fatal(err)
			}
			m := link.Message{Topic: "a/b/c", Payload: make([]byte, size), QoS: 1}
			var list []link.Ack
			inFlight := 0
			b.ReportAllocs()
			for b.Loop() {
				if err := l.Send(m); err != nil {
					b.Fatal(err)
				}
				if inFlight++; inFlight < 100 {
					continue
				}
				l.Flush()
				for list = l.Acked(list[:0]); len(list) == 0; list = l.Acked(list[:0]) {
					<-l.Changed()
				}
				inFlight -= len(list)
			}
		})
	}
}
