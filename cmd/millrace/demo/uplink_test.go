package demo

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"testing"
	"time"
)

// echo is a broker that says back what it is told.
func echo(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				_, _ = io.Copy(c, c)
			}()
		}
	}()
	return l.Addr().String()
}

// talk says a line through the uplink and returns whether it came back.
func talk(c net.Conn) bool {
	if c == nil {
		return false
	}
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	fmt.Fprintln(c, "hello")
	line, err := bufio.NewReader(c).ReadString('\n')
	return err == nil && line == "hello\n"
}

func TestUplink(t *testing.T) {
	u, err := newUplink(echo(t))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { u.run(ctx); close(done) }()
	dial := func() net.Conn {
		c, err := net.Dial("tcp", u.addr())
		if err != nil {
			return nil // a cut uplink may reset before the handshake is over
		}
		t.Cleanup(func() { c.Close() })
		return c
	}
	before := dial()
	if !talk(before) {
		t.Fatal("the whole uplink does not relay")
	}
	u.set(true)
	if talk(before) || talk(dial()) {
		t.Error("a cut uplink relays")
	}
	u.set(true)
	u.set(false)
	after := dial()
	if !talk(after) {
		t.Error("the mended uplink does not relay")
	}
	if cut, _ := u.state(); cut || u.cuts != 1 || u.outage() <= 0 {
		t.Errorf("cut %v, %d cuts, outage %v", cut, u.cuts, u.outage())
	}
	cancel()
	select {
	case <-done:
	case <-time.After(20 * time.Second):
		t.Fatal("the uplink does not end while a connection is open")
	}
	if talk(after) {
		t.Error("a closed uplink relays")
	}
}
