package mqtt

import (
	"context"
	"fmt"
	"net"
	"os"
	"syscall"
	"testing"
	"time"

	paho "github.com/eclipse/paho.mqtt.golang"

	"millrace/gateway/link"
	"millrace/gateway/link/mqtt/brokersim"
)

// window is how many messages are in flight in the measurements, as the publisher's default.
const window = 100

// pump sends messages and waits for the answers, a window at a time in flight.
type pump struct {
	t        testing.TB
	l        link.Link
	m        link.Message
	inFlight int
	acks     []link.Ack
}

// send sends one message, and waits when the window is full.
func (p *pump) send() {
	if err := p.l.Send(p.m); err != nil {
		p.t.Fatal(err)
	}
	if p.inFlight++; p.inFlight >= window {
		p.wait(window / 2)
	}
}

// wait lets what is queued go out, until no more than so many are unanswered.
func (p *pump) wait(most int) {
	p.l.Flush()
	for p.inFlight > most {
		if p.acks = p.l.Acked(p.acks[:0]); len(p.acks) > 0 {
			p.inFlight -= len(p.acks)
			continue
		}
		<-p.l.Changed()
		if err := p.l.Err(); err != nil {
			p.t.Fatal(err)
		}
	}
}

// answerer is a broker on a pipe that allocates nothing: it acknowledges each PUBLISH of QoS 1.
func answerer(p *otherEnd) {
	p.accept()
	in, out := make([]byte, 0, 64<<10), make([]byte, 0, 64<<10)
	for {
		n, err := p.Read(in[len(in):cap(in)])
		if err != nil {
			return
		}
		in, out = in[:len(in)+n], out[:0]
		rest := in
		for len(rest) >= 3 {
			size, head := int(rest[1]&0x7f), 2
			if rest[1] >= 0x80 {
				size, head = size|int(rest[2])<<7, 3
			}
			if len(rest) < head+size {
				break
			}
			if rest[0] == packetPublish|2 {
				topic := int(rest[head])<<8 | int(rest[head+1])
				out = append(out, packetPuback, 2, rest[head+2+topic], rest[head+3+topic])
			}
			rest = rest[head+size:]
		}
		in = in[:copy(in, rest)]
		p.send(out...)
	}
}

// TestAllocations: in steady state a message costs no allocation of its own, from Send to Acked: what is left is per write.
func TestAllocations(t *testing.T) {
	s := open(t, scripted(t, Options{}, answerer), nil)
	p := &pump{t: t, l: s, m: link.Message{Topic: "plant/press-1/fast", Payload: make([]byte, 200), QoS: 1}}
	round := func() {
		for range 1000 {
			p.send()
		}
		p.wait(0)
	}
	for range 70 { // all packet ids have been used once
		round()
	}
	if n := testing.AllocsPerRun(20, round) / 1000; n > 0.5 {
		t.Errorf("%.3f allocations a message", n)
	} else {
		t.Logf("%.3f allocations a message", n)
	}
}

// TestBuffers: large messages do not cost a new buffer each time, and a large buffer goes when it is not used any more.
func TestBuffers(t *testing.T) {
	ours, theirs := net.Pipe()
	defer ours.Close()
	go (&otherEnd{Conn: theirs}).drain()
	s := newSession(&Options{}, ours) // nothing runs: the test is the writer
	flush := func(size int) {
		t.Helper()
		if err := s.Send(link.Message{Topic: "a", Payload: make([]byte, size)}); err != nil {
			t.Fatal(err)
		}
		if err := s.flush(); err != nil {
			t.Fatal(err)
		}
	}
	const large = 3 * keepBuffer
	for range 4 { // there are two buffers
		flush(large)
	}
	if cap(s.out) < large || cap(s.spare) < large {
		t.Errorf("buffers of %d and %d bytes are left of %d", cap(s.out), cap(s.spare), large)
	}
	for range 2 {
		flush(1)
	}
	if cap(s.out) > keepBuffer || cap(s.spare) > keepBuffer {
		t.Errorf("buffers of %d and %d bytes are kept", cap(s.out), cap(s.spare))
	}
}

// BenchmarkSession measures messages of QoS 1 to the tests' broker over TCP with 100 in flight: this session and paho's
// client, at full speed and (the CPU is what counts there) at 1,000 a second. The broker's CPU and allocations are part of
// it: set BENCH_BROKER=host:port to measure with one in another process.
func BenchmarkSession(b *testing.B) {
	for _, size := range []int{200, 16 << 10} {
		for _, pace := range []time.Duration{0, time.Millisecond} {
			rate := "full speed"
			if pace > 0 {
				rate = "1000 a second"
			}
			b.Run(fmt.Sprintf("own/%d B/%s", size, rate), func(b *testing.B) { benchOwn(b, size, pace) })
			b.Run(fmt.Sprintf("paho/%d B/%s", size, rate), func(b *testing.B) { benchPaho(b, size, pace) })
		}
	}
}

func benchOwn(b *testing.B, size int, pace time.Duration) {
	l, err := dialer(b, Options{URL: "mqtt://" + benchBroker(b)}).Dial(context.Background(), nil)
	if err != nil {
		b.Fatal(err)
	}
	defer l.Close()
	p := &pump{t: b, l: l, m: link.Message{Topic: "plant/press-1/fast", Payload: make([]byte, size), QoS: 1}}
	measure(b, pace, func() {
		if p.send(); pace > 0 {
			p.l.Flush()
			p.acks = p.l.Acked(p.acks[:0])
			p.inFlight -= len(p.acks)
		}
	}, func() { p.wait(0) })
}

func benchPaho(b *testing.B, size int, pace time.Duration) {
	o := paho.NewClientOptions().AddBroker("tcp://" + benchBroker(b)).SetClientID("paho").SetAutoReconnect(false).SetProtocolVersion(4).SetOrderMatters(false)
	c := paho.NewClient(o)
	if t := c.Connect(); t.Wait() && t.Error() != nil {
		b.Fatal(t.Error())
	}
	defer c.Disconnect(0)
	payload, tokens := make([]byte, size), make([]paho.Token, 0, window)
	wait := func(most int) {
		for len(tokens) > most {
			if tokens[0].Wait(); tokens[0].Error() != nil {
				b.Fatal(tokens[0].Error())
			}
			tokens = append(tokens[:0], tokens[1:]...)
		}
	}
	measure(b, pace, func() {
		wait(window - 1)
		tokens = append(tokens, c.Publish("plant/press-1/fast", 1, false, payload))
	}, func() { wait(0) })
}

// benchBroker returns the address of the broker to measure against.
func benchBroker(b *testing.B) string {
	if addr := os.Getenv("BENCH_BROKER"); addr != "" {
		if host, _, err := net.SplitHostPort(addr); err != nil || !net.ParseIP(host).IsLoopback() {
			b.Fatalf("BENCH_BROKER %q is not on the loopback", addr)
		}
		return addr
	}
	return broker(b, brokersim.Options{}).Addr()
}

// measure reports messages a second and the process's CPU for each message.
func measure(b *testing.B, pace time.Duration, send, finish func()) {
	b.ReportAllocs()
	began := cpu(b)
	n := 0
	start := time.Now()
	for b.Loop() {
		if send(); pace > 0 {
			time.Sleep(time.Until(start.Add(time.Duration(n+1) * pace)))
		}
		n++
	}
	finish()
	b.ReportMetric(float64(n)/time.Since(start).Seconds(), "msg/s")
	b.ReportMetric(float64((cpu(b)-began).Nanoseconds())/1000/float64(n), "cpu-µs/msg")
}

// cpu returns what this process has used.
func cpu(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
