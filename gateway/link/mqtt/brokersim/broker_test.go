package brokersim

import (
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"
)

func start(t testing.TB, o Options) *Broker {
	t.Helper()
	b := New(o)
	if err := b.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Kill)
	return b
}

func dial(t testing.TB, b *Broker, id string, set ...func(*mqtt.ClientOptions)) (mqtt.Client, error) {
	t.Helper()
	o := mqtt.NewClientOptions().AddBroker("tcp://" + b.Addr()).SetClientID(id).SetAutoReconnect(false).SetProtocolVersion(4).SetOrderMatters(false)
	for _, f := range set {
		f(o)
	}
	c := mqtt.NewClient(o)
	err := mqtt.WaitTokenTimeout(c.Connect(), 5*time.Second)
	t.Cleanup(func() { c.Disconnect(0) })
	return c, err
}

func must(t testing.TB, b *Broker, id string, set ...func(*mqtt.ClientOptions)) mqtt.Client {
	t.Helper()
	c, err := dial(t, b, id, set...)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func await(t testing.TB, what string, done func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !done(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("timed out waiting: %s", what)
		}
	}
}

func TestMatches(t *testing.T) {
	for _, c := range []struct {
		filter, topic string
		want          bool
	}{
		{"a/b", "a/b", true}, {"a/b", "a/c", false}, {"a/b", "a", false}, {"a", "a/b", false},
		{"+/b", "a/b", true}, {"a/+", "a/b", true}, {"a/+", "a", false}, {"a/+", "a/", true}, {"+", "a/b", false}, {"+/+", "/a", true},
		{"#", "a/b", true}, {"a/#", "a/b/c", true}, {"a/#", "a", true}, {"a/#", "b", false}, {"a/+/#", "a", false}, {"a/+/#", "a/b", true},
		{"#", "$SYS/x", false}, {"+/x", "$SYS/x", false}, {"$SYS/#", "$SYS/x", true},
	} {
		if got := matches(c.filter, c.topic); got != c.want {
			t.Errorf("filter %q, topic %q: %v", c.filter, c.topic, got)
		}
	}
}

func TestFanOut(t *testing.T) {
	b := start(t, Options{QueueBytes: 1 << 10}) // small, so that publishers are held back
	const n = 5000
	var got [3]atomic.Int64
	var disorder atomic.Int64
	for i, filter := range []string{"t/#", "t/+", "other/#"} {
		c := must(t, b, fmt.Sprint("sub", i), func(o *mqtt.ClientOptions) { o.SetOrderMatters(true) })
		last := int64(-1)
		if err := mqtt.WaitTokenTimeout(c.Subscribe(filter, byte(1-i%2), func(_ mqtt.Client, m mqtt.Message) {
			var k int64
			fmt.Sscan(string(m.Payload()), &k)
			if k != last+1 {
				disorder.Add(1)
			}
			last = k
			got[i].Add(1)
		}), 5*time.Second); err != nil {
			t.Fatal(err)
		}
	}
	p := must(t, b, "pub")
	for i := range n {
		if tok := p.Publish("t/x", 1, false, fmt.Sprint(i)); i%1000 == 999 {
			if err := mqtt.WaitTokenTimeout(tok, 5*time.Second); err != nil {
				t.Fatal(err)
			}
		}
	}
	await(t, "every message delivered", func() bool { return got[0].Load() == n && got[1].Load() == n })
	if got[2].Load() != 0 || disorder.Load() != 0 {
		t.Errorf("stray %d, out of order %d", got[2].Load(), disorder.Load())
	}
	if s := b.Stats(); s.Received != n || s.Acked != n || s.Delivered != 2*n || s.Violations != 0 {
		t.Errorf("stats %+v", s)
	}
}

func TestLogin(t *testing.T) {
	b := start(t, Options{Username: "u", Password: "p"})
	if _, err := dial(t, b, "a"); err == nil {
		t.Error("no password was accepted")
	}
	right := func(o *mqtt.ClientOptions) { o.SetUsername("u").SetPassword("p") }
	must(t, b, "a", right)
	b.SetFaults(Faults{Refuse: 5})
	if _, err := dial(t, b, "b", right); err == nil {
		t.Error("Refuse did not refuse")
	}
	b.SetFaults(Faults{Hangup: true})
	if _, err := dial(t, b, "b", right); err == nil {
		t.Error("Hangup did not hang up")
	}
	b.SetFaults(Faults{})
	must(t, b, "a", right)
	await(t, "the older client of the same id is gone", func() bool { s := b.Stats(); return s.Takeovers == 1 && s.Clients == 1 })
}

func TestRestartOnTheSamePort(t *testing.T) {
	b := start(t, Options{})
	addr := b.Addr()
	c := must(t, b, "a")
	b.Stop()
	await(t, "the client noticed", func() bool { return !c.IsConnected() })
	if _, err := dial(t, b, "a"); err == nil {
		t.Error("a stopped broker accepts")
	}
	if err := b.Start(); err != nil || b.Addr() != addr {
		t.Fatalf("restart: %v, %s", err, b.Addr())
	}
	must(t, b, "a")
}

func TestStopFlushesSubscribers(t *testing.T) {
	b := start(t, Options{Flush: 5 * time.Second})
	var got atomic.Int64
	sub := must(t, b, "sub")
	mqtt.WaitTokenTimeout(sub.Subscribe("#", 1, func(mqtt.Client, mqtt.Message) { got.Add(1); time.Sleep(100 * time.Microsecond) }), 5*time.Second)
	pub := must(t, b, "pub")
	for range 500 {
		mqtt.WaitTokenTimeout(pub.Publish("x", 1, false, "y"), 5*time.Second)
	}
	b.Stop()
	await(t, "all that was acknowledged to the publisher", func() bool { return got.Load() == 500 })
}

func TestFaults(t *testing.T) {
	for _, c := range []struct {
		name  string
		f     Faults
		acked bool
		alive bool
	}{
		{"sound", Faults{}, true, true},
		{"never", Faults{Acks: AckNever}, false, true},
		{"twice", Faults{Acks: AckTwice}, true, true},
		{"wrong id", Faults{Acks: AckWrongID}, false, true},
		{"freeze", Faults{Freeze: true}, false, true},
		{"huge", Faults{Acks: AckHuge}, false, true},
		{"payload", Faults{MaxPayload: 3}, false, false},
		{"topic", Faults{CloseTopic: "x/#"}, false, false},
		{"after", Faults{CloseAfter: 1}, false, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			b := start(t, Options{})
			p := must(t, b, "pub")
			b.SetFaults(c.f)
			tok := p.Publish("x/y", 1, false, "data")
			err := mqtt.WaitTokenTimeout(tok, 300*time.Millisecond)
			if acked := err == nil; acked != c.acked {
				t.Errorf("acknowledged: %v", acked)
			}
			if alive := p.IsConnectionOpen(); alive != c.alive {
				t.Errorf("connection alive: %v", alive)
			}
		})
	}
}

func TestWill(t *testing.T) {
	b := start(t, Options{})
	sub := must(t, b, "sub")
	got := make(chan string, 1)
	mqtt.WaitTokenTimeout(sub.Subscribe("w", 1, func(_ mqtt.Client, m mqtt.Message) { got <- string(m.Payload()) }), 5*time.Second)
	must(t, b, "pub", func(o *mqtt.ClientOptions) { o.SetWill("w", "dead", 1, false) })
	b.Cut("pub")
	select {
	case s := <-got:
		if s != "dead" {
			t.Errorf("will %q", s)
		}
	case <-time.After(5 * time.Second):
		t.Error("no will")
	}
}

func TestLoopbackOnly(t *testing.T) {
	for _, addr := range []string{"0.0.0.0:0", ":0", "192.0.2.1:1883", "localhost", "[::]:0"} {
		if err := New(Options{Addr: addr}).Start(); err == nil {
			t.Errorf("%q: the broker listens to the world", addr)
		}
	}
}
