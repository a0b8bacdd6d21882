package opcuasim

import (
	"io"
	"math"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gopcua/opcua/ua"
)

func TestMachineIsBelievable(t *testing.T) {
	var last machine
	alarms := 0
	for at := time.Duration(0); at < 600*time.Second; at += 100 * time.Millisecond {
		m := machineAt(at)
		switch {
		case m.speed < 0 || m.speed > 9000 || m.load < 0 || m.load > 100:
			t.Fatalf("at %v: speed %v, load %v", at, m.speed, m.load)
		case m.parts < last.parts || m.parts > last.parts+1:
			t.Fatalf("at %v: parts go from %d to %d", at, last.parts, m.parts)
		case len(m.position) != 3 || slices.ContainsFunc(m.position, func(x float64) bool { return math.Abs(x) > 200 }):
			t.Fatalf("at %v: position %v", at, m.position)
		case m.state != 1 && m.speed != 0:
			t.Fatalf("at %v: the spindle turns in state %d", at, m.state)
		case !strings.HasPrefix(m.program, "O10"):
			t.Fatalf("at %v: program %q", at, m.program)
		}
		if m.alarm && !last.alarm {
			alarms++
		}
		last = m
	}
	if last.parts != 14 || alarms != 2 {
		t.Errorf("%d parts and %d alarms in 10 minutes, want 14 and 2", last.parts, alarms)
	}
}

func TestServerRestartsOnItsPort(t *testing.T) {
	s, err := New(Options{})
	if err != nil {
		t.Fatal(err)
	}
	s.AddMachine(time.Now())
	if err := s.Start(); err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if err := s.Start(); err == nil {
		t.Error("a second Start succeeds")
	}
	before := s.Endpoint()
	if err := s.Restart(); err != nil || s.Endpoint() != before {
		t.Errorf("restart: %v, endpoint %s, was %s", err, s.Endpoint(), before)
	}
	s.Close()
	l, err := net.Listen("tcp", s.addr)
	if err != nil {
		t.Fatal(err)
	}
	time.AfterFunc(100*time.Millisecond, func() { _ = l.Close() })
	if err := s.Start(); err != nil {
		t.Errorf("its port is free a moment later: %v", err)
	}
	if got := s.Identifiers("urn:millrace:machine"); len(got) != 8 || got[0] != "s=Alarm.Active" {
		t.Errorf("identifiers %v", got)
	}
}

// echo serves connections that send back what they get.
func echo(t *testing.T) net.Listener {
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
			go io.Copy(c, c)
		}
	}()
	return l
}

func TestProxy(t *testing.T) {
	p, err := NewProxy(echo(t).Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	dial := func() net.Conn {
		t.Helper()
		c, err := net.Dial("tcp", p.Addr())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		return c
	}
	answers := func(c net.Conn, wait time.Duration) bool {
		c.SetDeadline(time.Now().Add(wait))
		io.WriteString(c, "x")
		n, _ := c.Read(make([]byte, 9))
		return n > 0
	}
	c := dial()
	if !answers(c, 5*time.Second) {
		t.Fatal("the proxy does not forward")
	}
	p.Silence(true)
	if answers(c, 50*time.Millisecond) || answers(dial(), 50*time.Millisecond) {
		t.Error("a silent proxy forwards")
	}
	p.Silence(false)
	c.SetDeadline(time.Now().Add(5 * time.Second))
	if n, err := c.Read(make([]byte, 9)); n != 1 {
		t.Errorf("what was held back does not arrive: %v", err)
	}
	p.Cut()
	if answers(c, 5*time.Second) {
		t.Error("a cut connection answers")
	}
	p.Refuse(true)
	if _, err := net.Dial("tcp", p.Addr()); err == nil {
		t.Error("a refusing proxy takes connections")
	}
	for range 2 {
		if err := p.Refuse(false); err != nil {
			t.Fatal(err)
		}
	}
	if !answers(dial(), 5*time.Second) {
		t.Error("the proxy does not come back")
	}
}

// TestDropQuietly: a Publish request that arrives behind the drop gets no answer either.
func TestDropQuietly(t *testing.T) {
	made, publish := &session{}, &ua.PublishRequest{RequestHeader: &ua.RequestHeader{}}
	s := &Server{}
	made.subs.drop(DropQuietly)
	if res, status := s.wait(made, nil, 1, publish); res != nil || status != ua.StatusOK {
		t.Errorf("%v, %v", res, status)
	}
	made = &session{}
	made.subs.drop(DropRefused)
	if _, status := s.wait(made, nil, 1, publish); status != ua.StatusBadNoSubscription {
		t.Errorf("%v", status)
	}
}

// TestBeatTellsEach samples a beat late: what it was in between is queued, too, oldest first.
func TestBeatTellsEach(t *testing.T) {
	s, err := New(Options{})
	if err != nil {
		t.Fatal(err)
	}
	s.AddBeat("n", time.Millisecond)
	i := &item{key: node{s.opts.Namespaces[0], "s=n"}, read: &ua.ReadValueID{NodeID: ua.NewStringNodeID(2, "n"), AttributeID: ua.AttributeIDValue}, size: 1 << 20}
	s.sample(i, s.now())
	for range 3 {
		time.Sleep(20 * time.Millisecond)
		s.sample(i, s.now())
	}
	first := i.queue[0].Value.Value().(int64)
	for n, v := range i.queue {
		if got := v.Value.Value(); got != first+int64(n) {
			t.Fatalf("value %d is %v, want %d", n, got, first+int64(n))
		}
	}
	if len(i.queue) < 60 {
		t.Errorf("%d values in 60 ms, want one each", len(i.queue))
	}
}
