package gateway

import (
	"bufio"
	"io"
	"net"
	"sync/atomic"
	"testing"
	"time"
)

// flooder is a broker that answers the login and then sends answers to pings that nobody sent, as fast as they are taken.
type flooder struct {
	net.Listener
	sessions atomic.Int64
}

func newFlooder(t *testing.T) *flooder {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	f := &flooder{Listener: l}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go f.serve(c)
		}
	}()
	return f
}

func (f *flooder) serve(c net.Conn) {
	defer c.Close()
	if _, err := bufio.NewReader(c).ReadByte(); err != nil {
		return
	}
	f.sessions.Add(1)
	if _, err := c.Write([]byte{0x20, 2, 0, 0}); err != nil { // CONNACK
		return
	}
	go io.Copy(io.Discard, c)
	answers := make([]byte, 32<<10)
	for i := range answers {
		answers[i] = []byte{0xd0, 0}[i%2] // PINGRESP
	}
	for {
		if _, err := c.Write(answers); err != nil {
			return
		}
	}
}

// TestFloodOfABroker: a destination whose broker floods the gateway starves neither the polls nor the other destination; it costs itself
// its session, again and again, with back-off in between.
func TestFloodOfABroker(t *testing.T) {
	devices := []string{device("a"), device("b")}
	b := newGatewayBed(t, plan{devices: devices})
	b.polled(3, "a", "b")
	f := newFlooder(t)
	b.reload(plan{devices: devices, cloud: "}\n  - {name: flood, client_id: flood, ack_timeout: 5m, url: \"mqtt://" + f.Addr().String() + "\""})
	start, before := time.Now(), b.plant.count(b.plant.reads)
	for f.sessions.Load() < 5 {
		if time.Since(start) > time.Minute {
			t.Fatalf("%d sessions of the flood", f.sessions.Load())
		}
		time.Sleep(10 * time.Millisecond)
	}
	b.polled(20, "a", "b")
	took, after := time.Since(start), b.plant.count(b.plant.reads)
	if n := f.sessions.Load(); float64(n) > 5+took.Seconds()/0.1 { // the shortest wait between two
		t.Errorf("%d sessions of the flood in %v", n, took)
	}
	t.Logf("%d sessions of the flood in %v, a was read %d times", f.sessions.Load(), took, after["a"]-before["a"])
	b.reload(plan{devices: devices})
	b.delivered("a", "b")
	if n := b.broker.Stats().Connects; n != 1 {
		t.Errorf("%d sessions with the other broker, want 1", n)
	}
}
