package faults

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// faultCrowdedPage: peers take every connection that the page's address gives, 400 of them at once and 20,000 in a row, and say
// nothing, say garbage, or never end their header, there and at the local socket. The process may open 128 files. The store
// commits, the broker is dialled again, no reading is dropped, no poll is missed because of them, and memory stays small.
func faultCrowdedPage(t *testing.T) {
	const interval = time.Second
	b := newBed(t, 3, Setup{Words: 8, Interval: interval.String()})
	wrapper := filepath.Join(b.dir, "few")
	must(t, os.WriteFile(wrapper, []byte("#!/bin/sh\nulimit -n 128\nexec "+b.gateway.Binary+` "$@"`+"\n"), 0o755))
	b.gateway.Binary = wrapper
	b.start()
	b.await(10, 20*time.Second)
	before := b.snapshot().Buffer.Commits
	from := time.Now()
	crowd := &crowd{address: b.gateway.Web, socket: filepath.Join(b.setup.Path, "control.sock")}
	crowd.hold(400)
	b.killBroker() // and is dialled again with the page full; what is read meanwhile must go to disk
	crowd.pass(pick(2000, 20000))
	time.Sleep(pick(5*time.Second, 30*time.Second))
	b.restartBroker()
	b.await(10, 30*time.Second)
	b.missedNone(from, interval, for10s)
	crowd.leave()
	b.until(20*time.Second, "an answer of the page after the crowd has left", func() bool { _, err := b.gateway.Snapshot(); return err == nil })
	s := b.snapshot()
	r := b.judge()
	var dropped uint64
	for _, cause := range []string{"full", "expired", "rejected", "shutdown", "damaged"} {
		dropped += s.Dropped(cause)
	}
	t.Logf("FIGURES %s: %d connections; %d commits meanwhile; %d readings delivered; peak RSS %d MB", t.Name(), crowd.made, s.Buffer.Commits-before, r.Served, b.peakRSS>>20)
	if s.Buffer.Commits == before {
		t.Error("no commit while the page was crowded")
	}
	if dropped > 0 {
		t.Errorf("%d readings dropped", dropped)
	}
	if limit := int64(64 << 20); b.peakRSS > limit && os.Getenv("FAULTS_RACE") != "1" { // whose shadow memory counts as resident
		t.Errorf("peak RSS of %d MB, want at most %d", b.peakRSS>>20, limit>>20)
	}
	b.logs("closed at once")
	log := b.gateway.Log()
	if n := strings.Count(log, "closed at once"); n == 0 || n > 8 {
		t.Errorf("the log has %d lines of connections that were closed, want 1 or one a minute", n)
	}
	if strings.Contains(log, "too many open files") {
		t.Error("somebody found no descriptor left")
	}
}

// crowd is peers that mean no good.
type crowd struct {
	address, socket string
	made            int
	conns           []net.Conn
}

// manners are what they say: nothing, garbage, a TLS hello, a header without an end, a body without an end.
var manners = []string{"", strings.Repeat("\x00\xff", 4096), "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
	"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + strings.Repeat("a", 64<<10), "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 999999999\r\n\r\n",
	"GET /api/v1/values?watch=1 HTTP/1.1\r\nHost: localhost\r\n\r\n"}

func (c *crowd) dial() net.Conn {
	network, address := "tcp", c.address
	if c.made%4 == 3 {
		network, address = "unix", c.socket
	}
	words := manners[c.made%len(manners)]
	c.made++
	conn, err := net.DialTimeout(network, address, 2*time.Second)
	if err != nil {
		return nil // refused: that is what it is about
	}
	_ = conn.SetWriteDeadline(time.Now().Add(100 * time.Millisecond))
	_, _ = conn.Write([]byte(words))
	return conn
}

// hold opens n connections and keeps them.
func (c *crowd) hold(n int) {
	for range n {
		if conn := c.dial(); conn != nil {
			c.conns = append(c.conns, conn)
		}
	}
}

// pass opens n more, one after the other, and leaves each at once.
func (c *crowd) pass(n int) {
	for range n {
		if conn := c.dial(); conn != nil {
			_ = conn.Close()
		}
	}
}

func (c *crowd) leave() {
	for _, conn := range c.conns {
		_ = conn.Close()
	}
	c.conns = nil
}
