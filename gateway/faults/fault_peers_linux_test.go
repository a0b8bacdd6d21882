package faults

import (
	"bytes"
	"crypto/sha1"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// faultHostilePeers, F23: all at once, beside ten devices and a good broker, brokers that never end their answer to a websocket's
// upgrade, a frame or a TLS handshake, a crowd at the page, and lines without an end at the local socket. No poll is missed,
// nothing is lost, and memory stays small.
func faultHostilePeers(t *testing.T) {
	const interval = time.Second
	var others strings.Builder
	var dials [8]atomic.Int64
	for i, trick := range brokerTricks {
		addr := attack(t, trick.play, &dials[i])
		fmt.Fprintf(&others, "  - name: %s\n    url: %s://%s\n    retry: {min: 100ms, max: 500ms}\n", trick.name, trick.scheme, addr)
	}
	b := newBed(t, 10, Setup{Words: 8, Interval: interval.String(), Others: others.String()})
	b.start()
	b.await(20, 20*time.Second)
	crowd := &crowd{address: b.gateway.Web, socket: filepath.Join(b.setup.Path, "control.sock")}
	from := time.Now()
	crowd.hold(400)
	endless := crowd.endless(t)
	crowd.pass(pick(1000, 20000))
	time.Sleep(pick(10*time.Second, 2*time.Minute))
	b.missedNone(from, interval, for10s)
	b.noteRSS()
	crowd.leave()
	b.until(20*time.Second, "an answer of the page after the crowd has left", func() bool { _, err := b.gateway.Snapshot(); return err == nil })
	r := b.judge()
	seconds := time.Since(from).Seconds()
	t.Logf("FIGURES %s: %d connections, %d MB sent into lines without an end; %d readings delivered; the gateway used %.2f cores; peak RSS %d MB",
		t.Name(), crowd.made, endless.Load()>>20, r.Served, b.gateway.CPU().Seconds()/seconds, b.peakRSS>>20)
	for i, trick := range brokerTricks {
		if n := dials[i].Load(); n < 2 {
			t.Errorf("the broker with %s was dialled %d times: it proves nothing", trick.name, n)
		}
	}
	if limit := int64(64 << 20); b.peakRSS > limit && os.Getenv("FAULTS_RACE") != "1" { // whose shadow memory counts as resident
		t.Errorf("peak RSS of %d MB, want at most %d", b.peakRSS>>20, limit>>20)
	}
}

// missedNone fails when a poll of a device did not come since from, by the device's own account, unless the machine stood still. On a machine on which processes wait
// for a processor half of the time that is looked at up to five times, while again does on what may keep polls off: a poll may be late for the machine, and one that is kept off is
// missing each time.
func (b *bed) missedNone(from time.Time, interval time.Duration, again func()) {
	b.t.Helper()
	for try := 1; ; try++ {
		to := time.Now()
		err := b.missed(from, to, interval)
		starved := b.machine.starved(from, to)
		switch {
		case err == nil:
			return
		case try == 5 || starved < tooBusy:
			b.t.Error(err)
			return
		}
		b.t.Logf("%v; processes waited for a processor %.0f %% of that time: looking once more", err, 100*starved)
		from = time.Now()
		again()
	}
}

// for10s is a time to look at polls.
func for10s() { time.Sleep(10 * time.Second) }

// missed says how many polls did not come within a time.
func (b *bed) missed(from, to time.Time, interval time.Duration) error {
	still := b.stoodStill(interval / 2)
	polls, missed := 0, 0
	for _, d := range b.devices {
		for _, off := range jitters(d.Served(), from, to, interval, still) {
			polls++
			missed += int((off + interval/2) / interval)
		}
	}
	b.t.Logf("FIGURES %s: %d polls, %d missed; the machine stood still %d times", b.t.Name(), polls, missed, len(still))
	calm := to.Sub(from)
	for _, s := range still { // the polls beside a stall are not counted
		if s.To.After(from) && s.From.Before(to) {
			calm -= s.To.Sub(s.From) + 2*interval
		}
	}
	if want := len(b.devices) * max(int(calm/interval)/2, 1); missed > 0 || polls < want {
		return fmt.Errorf("%d polls and %d missed, want at least %d and none", polls, missed, want)
	}
	return nil
}

// brokerTricks are what hostile brokers do once they are dialled.
var brokerTricks = []struct {
	name, scheme string
	play         func(net.Conn) error
}{
	{"upgrade-header", "ws", func(c net.Conn) error {
		return flood(c, "HTTP/1.1 101 Switching Protocols\r\nA: ", strings.Repeat("x", 4096))
	}},
	{"upgrade-headers", "ws", func(c net.Conn) error {
		return flood(c, "HTTP/1.1 101 Switching Protocols\r\n", strings.Repeat("a:\r\n", 1000))
	}},
	{"frame", "ws", func(c net.Conn) error {
		return upgraded(c, "\x82\x7f\x3f\xff\xff\xff\xff\xff\xff\xff", strings.Repeat("x", 4096))
	}},
	{"pings", "ws", func(c net.Conn) error {
		return upgraded(c, "\x82\x04\x20\x02\x00\x00", strings.Repeat("\x89\x00", 2048))
	}},
	{"tls-drip", "mqtts", func(c net.Conn) error {
		for range 600 {
			if _, err := c.Write([]byte{0x16}[:]); err != nil {
				return err
			}
			time.Sleep(100 * time.Millisecond)
		}
		return nil
	}},
	// A ServerHello that announces 16 MB, in records of 16 KB.
	{"tls-hello", "mqtts", func(c net.Conn) error {
		record := "\x16\x03\x03\x40\x00"
		return flood(c, record+"\x02\xff\xff\xff"+strings.Repeat("x", 1<<14-4), record+strings.Repeat("x", 1<<14))
	}},
	{"tls-warnings", "mqtts", func(c net.Conn) error { return flood(c, "", strings.Repeat("\x15\x03\x03\x00\x02\x01\x00", 512)) }},
	{"mqtt-pings", "mqtt", func(c net.Conn) error { return flood(c, "\x20\x02\x00\x00", strings.Repeat("\xd0\x00", 2048)) }},
}

// attack listens and plays the trick on each connection, after its first bytes.
func attack(t *testing.T, play func(net.Conn) error, dials *atomic.Int64) string {
	t.Helper()
	l, err := net.Listen("tcp", ownHost()+":0")
	must(t, err)
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			dials.Add(1)
			go func() {
				defer c.Close()
				_ = play(c) // it ends when the gateway has had enough
			}()
		}
	}()
	return l.Addr().String()
}

// flood reads what comes first, and writes head and then more without an end.
func flood(c net.Conn, head, more string) error {
	if _, err := c.Read(make([]byte, 4096)); err != nil {
		return err
	}
	_, err := io.WriteString(c, head)
	for err == nil {
		_, err = io.WriteString(c, more)
	}
	return err
}

// upgraded answers a websocket's upgrade as it should be (RFC 6455, section 4.2.2), and floods then.
func upgraded(c net.Conn, head, more string) error {
	buf := make([]byte, 4096)
	n, err := c.Read(buf)
	if err != nil {
		return err
	}
	_, key, _ := bytes.Cut(buf[:n], []byte("Sec-WebSocket-Key: "))
	key, _, _ = bytes.Cut(key, []byte("\r\n"))
	sum := sha1.Sum(append(key, "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"...))
	if _, err := fmt.Fprintf(c, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Protocol: mqtt\r\nSec-WebSocket-Accept: %s\r\n\r\n",
		base64.StdEncoding.EncodeToString(sum[:])); err != nil {
		return err
	}
	return flood(c, head, more)
}

// endless sends lines without an end, at the page's address and at the local socket, again and again until the crowd leaves, and
// counts the bytes that were taken.
func (c *crowd) endless(t *testing.T) *atomic.Int64 {
	var sent atomic.Int64
	for i := range 8 {
		go func() {
			for t.Context().Err() == nil {
				network, address := "tcp", c.address
				if i%2 == 1 {
					network, address = "unix", c.socket
				}
				conn, err := net.DialTimeout(network, address, 2*time.Second)
				if err == nil {
					_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
					n, _ := io.Copy(conn, &oneLine{head: []byte([]string{"GET /", "GET / HTTP/1.1\r\nHost: localhost\r\nX: "}[i/2%2])})
					sent.Add(n)
					_ = conn.Close()
				}
				time.Sleep(20 * time.Millisecond)
			}
		}()
	}
	return &sent
}

// oneLine is a line without an end.
type oneLine struct{ head []byte }

func (l *oneLine) Read(p []byte) (int, error) {
	if n := copy(p, l.head); n > 0 {
		l.head = l.head[n:]
		return n, nil
	}
	for i := range p {
		p[i] = 'a'
	}
	return len(p), nil
}
