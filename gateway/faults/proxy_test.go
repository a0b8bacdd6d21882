package faults

import (
	"bytes"
	"errors"
	"io"
	"net"
	"testing"
	"time"
)

// echo is a server that sends everything back.
func echo(t *testing.T) string {
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
				io.Copy(c, c)
				c.Close()
			}()
		}
	}()
	return l.Addr().String()
}

func through(t *testing.T) (*Proxy, net.Conn) {
	p, err := NewProxy(echo(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	return p, dial(t, p)
}

func dial(t *testing.T, p *Proxy) net.Conn {
	c, err := net.Dial("tcp", p.Addr())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// answers tells whether b comes back within d.
func answers(c net.Conn, b []byte, d time.Duration) bool {
	c.SetDeadline(time.Now().Add(d))
	if _, err := c.Write(b); err != nil {
		return false
	}
	got := make([]byte, len(b))
	_, err := io.ReadFull(c, got)
	return err == nil && bytes.Equal(got, b)
}

func TestProxyPassesEverything(t *testing.T) {
	p, c := through(t)
	data := bytes.Repeat([]byte("0123456789abcdef"), 1<<14)
	if !answers(c, data[:1], 5*time.Second) {
		t.Fatal("one byte did not come back")
	}
	go func() { c.Write(data) }()
	got := make([]byte, len(data))
	c.SetReadDeadline(time.Now().Add(10 * time.Second))
	if _, err := io.ReadFull(c, got); err != nil || !bytes.Equal(got, data) {
		t.Fatalf("256 KiB came back changed: %v", err)
	}
	if p.Accepted() != 1 {
		t.Errorf("accepted %d connections, want 1", p.Accepted())
	}
}

func TestProxySilenceHoldsAndThenPasses(t *testing.T) {
	for _, f := range []Faults{{SilentUp: true}, {SilentDown: true}, {SilentUp: true, SilentDown: true}} {
		p, c := through(t)
		p.Set(f)
		if answers(c, []byte("held"), 100*time.Millisecond) {
			t.Fatalf("%+v: an answer came through the silence", f)
		}
		p.Set(Faults{})
		c.SetDeadline(time.Now().Add(5 * time.Second))
		got := make([]byte, 4)
		if _, err := io.ReadFull(c, got); err != nil || string(got) != "held" {
			t.Fatalf("%+v: after the silence came %q, %v", f, got, err)
		}
	}
}

func TestProxyCutAndRefuse(t *testing.T) {
	p, c := through(t)
	if !answers(c, []byte("a"), 5*time.Second) {
		t.Fatal("no answer before the cut")
	}
	p.Cut()
	if answers(c, []byte("b"), 5*time.Second) {
		t.Fatal("the connection lives after the cut")
	}
	p.Refuse()
	if _, err := net.Dial("tcp", p.Addr()); err == nil {
		t.Fatal("a connection was accepted while refusing")
	}
	if err := p.Accept(); err != nil {
		t.Fatal(err)
	}
	if !answers(dial(t, p), []byte("c"), 5*time.Second) {
		t.Fatal("no answer after Accept")
	}
}

func TestProxyCutEndsASilentLink(t *testing.T) {
	p, c := through(t)
	p.Set(Faults{SilentUp: true, SilentDown: true})
	c.Write([]byte("x"))
	time.Sleep(20 * time.Millisecond)
	p.Cut()
	c.SetReadDeadline(time.Now().Add(5 * time.Second))
	if _, err := c.Read(make([]byte, 1)); err == nil || isTimeout(err) {
		t.Fatalf("the silent link was not cut: %v", err)
	}
}

func isTimeout(err error) bool {
	ne, ok := err.(net.Error)
	return ok && ne.Timeout()
}

func TestProxyDelayRateAndSlice(t *testing.T) {
	p, c := through(t)
	p.Set(Faults{Delay: 100 * time.Millisecond})
	begin := time.Now()
	if !answers(c, []byte("late"), 5*time.Second) || time.Since(begin) < 200*time.Millisecond {
		t.Fatalf("delayed twice by 100 ms, answered after %s", time.Since(begin))
	}
	p.Set(Faults{Rate: 10000, Slice: 1})
	begin = time.Now()
	if !answers(c, make([]byte, 4000), 20*time.Second) {
		t.Fatal("no answer at 10 kB/s")
	}
	if took := time.Since(begin); took < 380*time.Millisecond {
		t.Fatalf("4000 bytes at 10 kB/s took %s", took)
	}
}

// TestListensAgain: what is switched off and on again while its port is still held for a moment is back.
func TestListensAgain(t *testing.T) {
	d, err := NewDevice("d", 2)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.Down)
	p, err := NewProxy(d.Addr())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	d.Down()
	p.Refuse()
	for _, addr := range []string{d.Addr(), p.Addr()} {
		l, err := net.Listen("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		time.AfterFunc(100*time.Millisecond, func() { l.Close() })
	}
	if err := errors.Join(d.Up(), p.Accept()); err != nil {
		t.Error(err)
	}
}
