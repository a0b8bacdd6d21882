package faults

import (
	"bufio"
	"bytes"
	"fmt"
	"testing"
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"
)

// publisher is a client that publishes through a tap.
func publisher(t *testing.T, tap *Tap) mqtt.Client {
	t.Helper()
	c := mqtt.NewClient(mqtt.NewClientOptions().AddBroker("tcp://" + tap.Addr()).SetClientID("tester").
		SetProtocolVersion(4).SetAutoReconnect(false).SetWriteTimeout(time.Second))
	if tok := c.Connect(); !tok.WaitTimeout(5*time.Second) || tok.Error() != nil {
		t.Fatal("connect: ", tok.Error())
	}
	t.Cleanup(func() { c.Disconnect(0) })
	return c
}

func acked(tap *Tap) (n int) {
	for _, p := range tap.Publishes() {
		if !p.Acked.IsZero() {
			n++
		}
	}
	return n
}

// TestTapKnowsWhatWasAcknowledged holds the tap to the truth with a broker that acknowledges, hangs and dies.
func TestTapKnowsWhatWasAcknowledged(t *testing.T) {
	need(t, mosquitto())
	broker, err := StartMosquitto(t.TempDir())
	must(t, err)
	t.Cleanup(broker.Kill)
	tap, err := NewTap(broker.Addr())
	must(t, err)
	t.Cleanup(tap.Close)
	sub, err := Subscribe(broker.Addr())
	must(t, err)
	t.Cleanup(sub.Close)

	c := publisher(t, tap)
	for i := range 20 {
		if tok := c.Publish("a/b", 1, false, fmt.Sprint("m", i)); !tok.WaitTimeout(5 * time.Second) {
			t.Fatal("not acknowledged")
		}
	}
	if n := acked(tap); n != 20 {
		t.Errorf("acknowledged %d, want 20", n)
	}
	if got := tap.Connects(); len(got) != 1 || got[0].ClientID != "tester" || !got[0].Answered || got[0].Code != 0 {
		t.Errorf("connects %+v", got)
	}

	tap.Mangle(func(kind byte, p []byte) [][]byte { return [][]byte{} })
	if tok := c.Publish("a/b", 1, false, "unheard"); tok.WaitTimeout(200 * time.Millisecond) {
		t.Error("the acknowledgement passed a tap that swallows it")
	}
	if n := acked(tap); n != 21 {
		t.Errorf("the broker acknowledged %d, want 21: the tap has to know though it swallowed it", n)
	}
	tap.Mangle(nil)

	broker.Freeze()
	c.Publish("a/b", 1, false, "to a frozen broker").WaitTimeout(200 * time.Millisecond)
	broker.Kill()
	if all := tap.Publishes(); len(all) != 22 || acked(tap) != 21 || string(all[21].Payload) != "to a frozen broker" || all[21].Topic != "a/b" {
		t.Errorf("%d published, %d acknowledged; want 22 and 21", len(all), acked(tap))
	}
	if n := len(sub.Arrivals()); n != 21 {
		t.Errorf("the recorder received %d, want 21", n)
	}
	must(t, broker.Start())
	must(t, sub.Await(2, 10*time.Second))

	c = publisher(t, tap)
	tap.Reject(func(topic string, payload []byte) bool { return topic == "refused" })
	c.Publish("fine", 1, false, "x").WaitTimeout(5 * time.Second)
	if tok := c.Publish("refused", 1, false, "x"); tok.WaitTimeout(5*time.Second) && tok.Error() == nil {
		t.Error("a refused publish was acknowledged")
	}
	if n := acked(tap); n != 22 {
		t.Errorf("acknowledged %d, want 22", n)
	}
}

func FuzzReadPacket(f *testing.F) {
	f.Add([]byte{0x40, 2, 0, 1})
	f.Add([]byte{0x30, 0xff, 0xff, 0xff, 0x7f, 0})
	f.Add([]byte{0x32, 7, 0, 1, 'a', 0, 9, 'x', 'y'})
	f.Add([]byte{0x10, 0xff, 0xff, 0xff, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, b []byte) {
		tap := &Tap{connects: []Connect{{}}}
		unacked := map[uint16]int{}
		for r := bufio.NewReader(bytes.NewReader(b)); ; {
			p, err := readPacket(r)
			if err != nil {
				return
			}
			tap.sent(1, unacked, p[0]>>4, p)
			tap.answered(1, unacked, p[0]>>4, p)
		}
	})
}
