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
	t.Cleanup(b.Stop)
	return b
}

func dial(t testing.TB, b *Broker, id string, set ...func(*mqtt.ClientOptions)) mqtt.Client {
	t.Helper()
	o := mqtt.NewClientOptions().AddBroker("tcp://" + b.Addr()).SetClientID(id).SetAutoReconnect(false).SetProtocolVersion(4)
	for _, f := range set {
		f(o)
	}
	c := mqtt.NewClient(o)
	done(t, c.Connect())
	t.Cleanup(func() { c.Disconnect(0) })
	return c
}

func done(t testing.TB, token mqtt.Token) {
	t.Helper()
	if err := mqtt.WaitTokenTimeout(token, 20*time.Second); err != nil {
		t.Fatal(err)
	}
}

func await(t testing.TB, what string, done func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !done(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("timed out waiting: %s", what)
		}
	}
}

// TestNothingIsDropped: a subscriber that takes nothing for a while gets everything all the same, in order, and the
// publisher is held back meanwhile. The library alone would drop what is over its limit of 8,192.
func TestNothingIsDropped(t *testing.T) {
	b := start(t, Options{})
	const n = 12_000
	var got, disorder atomic.Int64
	gate := make(chan struct{})
	sub := dial(t, b, "sub")
	done(t, sub.Subscribe("t/#", 1, func(_ mqtt.Client, m mqtt.Message) {
		<-gate
		if string(m.Payload()) != fmt.Sprint(got.Load()) {
			disorder.Add(1)
		}
		got.Add(1)
	}))
	pub := dial(t, b, "pub")
	go func() {
		for i := range n {
			pub.Publish("t/x", 1, false, fmt.Sprint(i))
		}
	}()
	for last := uint64(0); ; time.Sleep(300 * time.Millisecond) {
		now := b.Stats().Received
		if now > 0 && now == last { // held back, or all of it
			break
		}
		last = now
	}
	close(gate)
	await(t, "every message", func() bool { return got.Load() == n })
	if s := b.Stats(); disorder.Load() > 0 || s.Received != n || s.Connects != 2 || s.Clients != 2 {
		t.Errorf("%d out of order, stats %+v", disorder.Load(), s)
	}
}

// TestCut: a client that is cut is gone, with its will; a login under an id that is in use ends the older one; a stopped
// broker has nobody.
func TestCut(t *testing.T) {
	b := start(t, Options{})
	got := make(chan string, 9)
	sub := dial(t, b, "sub")
	done(t, sub.Subscribe("w", 1, func(_ mqtt.Client, m mqtt.Message) { got <- string(m.Payload()) }))
	will := func(text string) func(*mqtt.ClientOptions) {
		return func(o *mqtt.ClientOptions) { o.SetWill("w", text, 1, false) }
	}
	first := dial(t, b, "pub", will("cut"))
	if !b.Cut("pub") || b.Cut("nobody") {
		t.Error("Cut does not say whom it cut")
	}
	if text := <-got; text != "cut" {
		t.Errorf("will %q", text)
	}
	await(t, "the client noticed", func() bool { return !first.IsConnectionOpen() && b.Stats().Clients == 1 })
	older := dial(t, b, "pub", will("taken over"))
	newer := dial(t, b, "pub")
	await(t, "the older is gone", func() bool { return !older.IsConnectionOpen() && b.Stats().Clients == 2 })
	b.Stop()
	await(t, "nobody is left", func() bool { return !newer.IsConnectionOpen() && !sub.IsConnectionOpen() && b.Stats().Clients == 0 })
}
