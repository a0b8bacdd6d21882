package mqtt

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/eclipse/paho.mqtt.golang/packets"

	"millrace/gateway/link"
	"millrace/gateway/link/mqtt/brokersim"
)

// arrivals keep what a broker got.
type arrivals struct {
	mu  sync.Mutex
	all []brokersim.Message
}

func (a *arrivals) take(m brokersim.Message) {
	a.mu.Lock()
	defer a.mu.Unlock()
	m.Payload = append([]byte(nil), m.Payload...)
	a.all = append(a.all, m)
}

func (a *arrivals) list() []brokersim.Message {
	a.mu.Lock()
	defer a.mu.Unlock()
	return append([]brokersim.Message(nil), a.all...)
}

// TestPublish: every QoS and size, retained or not, arrives as it was sent, once, in order, and is answered for once.
func TestPublish(t *testing.T) {
	var got arrivals
	b := broker(t, brokersim.Options{OnPublish: got.take})
	s := open(t, dialer(t, Options{URL: "mqtt://" + b.Addr()}), nil)
	var sent []link.Message
	for i, size := range []int{0, 1, 100, 127, 128, 16383, 16384, 100_000, 2_100_000} {
		for qos := range byte(3) {
			payload := make([]byte, size)
			for k := range payload {
				payload[k] = byte(k*7 + i)
			}
			m := link.Message{Topic: fmt.Sprintf("plant/%d/ü", size), Payload: payload, QoS: qos, Retain: i%2 == 0}
			if err := s.Send(m); err != nil {
				t.Fatal(err)
			}
			sent = append(sent, m)
		}
	}
	s.Flush()
	seen := map[uint64]bool{}
	for _, a := range acks(t, s, len(sent)) {
		if seen[a.N] || a.N >= uint64(len(sent)) || a.Err != nil || a.At.IsZero() {
			t.Errorf("answer %+v", a)
		}
		seen[a.N] = true
	}
	await(t, "everything has arrived", func() bool { return len(got.list()) == len(sent) })
	for i, m := range got.list() {
		w := sent[i]
		if m.Topic != w.Topic || m.QoS != w.QoS || m.Retain != w.Retain || string(m.Payload) != string(w.Payload) || m.Dup || m.Client != "gw" {
			t.Errorf("message %d: topic %q, qos %d, retain %v, %d bytes; want %q, %d, %v, %d", i, m.Topic, m.QoS, m.Retain, len(m.Payload), w.Topic, w.QoS, w.Retain, len(w.Payload))
		}
	}
	if n := s.Stats(); n.Stray != 0 || n.Discarded != 0 {
		t.Errorf("stats %+v", n)
	}
}

// TestCannotBeSent: what MQTT cannot carry is refused without harm to the session, and has no number.
func TestCannotBeSent(t *testing.T) {
	b := broker(t, brokersim.Options{})
	s := open(t, dialer(t, Options{URL: "mqtt://" + b.Addr()}), nil)
	for _, m := range []link.Message{
		{Topic: ""}, {Topic: string(make([]byte, 65536))}, {Topic: "a/+"}, {Topic: "#"}, {Topic: "a\x00"}, {Topic: "a", QoS: 3},
		{Topic: "a", Payload: make([]byte, maxPacket)},
	} {
		says(t, s.Send(m), link.ErrMessage)
	}
	for _, filters := range [][]string{nil, {""}, {"a\x00"}, make([]string, maxFilters+1)} {
		says(t, s.Subscribe(filters...), link.ErrMessage)
	}
	if err := s.Send(link.Message{Topic: "a", QoS: 1}); err != nil {
		t.Fatal(err)
	}
	s.Flush()
	if a := acks(t, s, 1); a[0].N != 0 {
		t.Errorf("answer %+v, want number 0", a[0])
	}
}

// TestOptions: what New refuses.
func TestOptions(t *testing.T) {
	good := Options{URL: "mqtt://h:1883", ClientID: "c", KeepAlive: time.Minute}
	for _, c := range []struct {
		name string
		set  func(o *Options)
		want string
	}{
		{"no client id", func(o *Options) { o.ClientID = "" }, "client id"},
		{"scheme", func(o *Options) { o.URL = "http://h" }, "mqtt://, mqtts://, ws:// or wss://"},
		{"no host", func(o *Options) { o.URL = "mqtt://:1883" }, "no host"},
		{"no port: its default is the config's", func(o *Options) { o.URL = "mqtt://h" }, "no host and port"},
		{"password in url", func(o *Options) { o.URL = "mqtt://u:secret@h" }, "username and password"},
		{"unreadable", func(o *Options) { o.URL = "mqtt://u:secret@h:port" }, "cannot be read"},
		{"keep-alive", func(o *Options) { o.KeepAlive = time.Millisecond }, "keep-alive"},
		{"keep-alive", func(o *Options) { o.KeepAlive = 19 * time.Hour }, "keep-alive"},
	} {
		o := good
		c.set(&o)
		_, err := New(o)
		says(t, err, nil, c.want)
		if strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: the password is in the error: %v", c.name, err)
		}
	}
	for url, host := range map[string]string{"mqtt://h:1": "h:1", "mqtts://[::1]:8883": "[::1]:8883", "ws://h:80/mqtt": "h:80", "wss://h:443": "h:443"} {
		if target, err := parseTarget(url); err != nil || target.host != host {
			t.Errorf("%s: %q, %v", url, target.host, err)
		}
	}
}

// TestLogin: what the CONNECT says.
func TestLogin(t *testing.T) {
	login := make(chan *packets.ConnectPacket, 1)
	d := scripted(t, Options{ClientID: "id", Username: "u", Password: "p", KeepAlive: 90 * time.Second}, func(p *otherEnd) {
		login <- p.accept()
		p.drain()
	})
	open(t, d, &link.Message{Topic: "state", Payload: []byte("gone"), QoS: 1, Retain: true})
	c := <-login
	if c.ProtocolName != "MQTT" || c.ProtocolVersion != 4 || !c.CleanSession || c.ClientIdentifier != "id" || c.Keepalive != 90 ||
		c.Username != "u" || string(c.Password) != "p" || !c.WillFlag || c.WillTopic != "state" || string(c.WillMessage) != "gone" || c.WillQos != 1 || !c.WillRetain {
		t.Errorf("login %+v", c)
	}
	for _, will := range []link.Message{{Topic: "a", Payload: make([]byte, 65536)}, {Topic: "a/#"}, {Topic: ""}} {
		_, err := d.Dial(context.Background(), &will)
		says(t, err, link.ErrMessage, "will")
	}
}

// TestWill: the broker publishes it for a session that was lost, and not for one that said farewell.
func TestWill(t *testing.T) {
	b := broker(t, brokersim.Options{})
	watcher := open(t, dialer(t, Options{URL: "mqtt://" + b.Addr(), ClientID: "watcher"}), nil)
	if err := watcher.Subscribe("state/#"); err != nil {
		t.Fatal(err)
	}
	will := func(topic string) *link.Message {
		return &link.Message{Topic: topic, Payload: []byte("offline"), QoS: 1, Retain: true}
	}
	d := dialer(t, Options{URL: "mqtt://" + b.Addr()})
	polite := open(t, d, will("state/polite"))
	if err := polite.Close(); err != nil {
		t.Fatal(err)
	}
	await(t, "the farewell", func() bool { return b.Stats().Clients == 1 })
	lost := open(t, d, will("state/lost"))
	b.Cut("gw")
	says(t, ended(t, lost), link.ErrPeerClosed)
	select {
	case m := <-watcher.Inbox():
		if m.Topic != "state/lost" || string(m.Payload) != "offline" || m.QoS != 1 {
			t.Errorf("will %+v", m)
		}
	case <-time.After(patience):
		t.Error("no will")
	}
}

// TestSubscribe: what was asked for comes in; the rest does not.
func TestSubscribe(t *testing.T) {
	b := broker(t, brokersim.Options{})
	d := dialer(t, Options{URL: "mqtt://" + b.Addr()})
	s := open(t, d, nil)
	if err := s.Subscribe("cmd/+/set", "host/#"); err != nil {
		t.Fatal(err)
	}
	other := open(t, dialer(t, Options{URL: "mqtt://" + b.Addr(), ClientID: "other"}), nil)
	want := []string{"cmd/a/set", "host", "host/x/y"}
	for _, topic := range []string{"cmd/a/set", "cmd/a", "host", "cmd/a/b/set", "host/x/y"} {
		if err := other.Send(link.Message{Topic: topic, Payload: []byte(topic), QoS: 1}); err != nil {
			t.Fatal(err)
		}
	}
	other.Flush()
	for _, topic := range want {
		select {
		case m := <-s.Inbox():
			if m.Topic != topic || string(m.Payload) != topic || m.QoS != 1 {
				t.Errorf("message %+v, want %q", m, topic)
			}
		case <-time.After(patience):
			t.Fatalf("no message of %q", topic)
		}
	}
	acks(t, other, 5)
}

// TestSubscribeAnswers: a refusal names the filter; an answer of another size or none is an error.
func TestSubscribeAnswers(t *testing.T) {
	for _, c := range []struct {
		name  string
		codes []byte
		kind  error // nil = any
		words []string
	}{
		{"granted", []byte{1, 0}, nil, nil},
		{"one refused", []byte{1, 0x80}, nil, []string{`"b/#"`, "access rules"}},
		{"too few", []byte{1}, link.ErrProtocol, []string{"1 answers to 2"}},
		{"too many", []byte{1, 1, 1}, link.ErrProtocol, []string{"3 answers to 2"}},
		{"closed", nil, link.ErrPeerClosed, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := scripted(t, Options{}, func(p *otherEnd) {
				p.accept()
				ask := p.next().(*packets.SubscribePacket)
				if c.codes == nil {
					return
				}
				p.send(append([]byte{packetSuback, byte(2 + len(c.codes)), byte(ask.MessageID >> 8), byte(ask.MessageID)}, c.codes...)...)
				p.drain()
			})
			err := open(t, d, nil).Subscribe("a", "b/#")
			if c.name != "granted" {
				says(t, err, c.kind, c.words...)
			} else if err != nil {
				t.Error(err)
			}
		})
	}
}

// TestAfterLoss: a lost session says why, and takes nothing more.
func TestAfterLoss(t *testing.T) {
	s := open(t, scripted(t, Options{}, func(p *otherEnd) { p.accept(); p.next() }), nil)
	if err := s.Send(link.Message{Topic: "a", QoS: 1}); err != nil {
		t.Fatal(err)
	}
	s.Flush()
	says(t, ended(t, s), link.ErrPeerClosed)
	says(t, s.Send(link.Message{Topic: "a", QoS: 1}), link.ErrPeerClosed)
	says(t, s.Subscribe("a"), link.ErrPeerClosed)
	if got := s.Acked(nil); len(got) != 0 {
		t.Errorf("answers %+v from a broker that gave none", got)
	}
	if err := s.Close(); err != nil || !errors.Is(s.Err(), link.ErrPeerClosed) {
		t.Errorf("close %v; the cause is now %v", err, s.Err())
	}
}

// TestAfterClose: what was queued goes out with the farewell; then nothing.
func TestAfterClose(t *testing.T) {
	var got arrivals
	b := broker(t, brokersim.Options{OnPublish: got.take})
	s := open(t, dialer(t, Options{URL: "mqtt://" + b.Addr()}), nil)
	if err := s.Send(link.Message{Topic: "last", QoS: 1}); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	says(t, s.Err(), link.ErrClosed)
	says(t, s.Send(link.Message{Topic: "more"}), link.ErrClosed)
	await(t, "the last message", func() bool { return len(got.list()) == 1 && b.Stats().Clients == 0 })
}

// TestMatches is the table of MQTT 3.1.1 section 4.7.
func TestMatches(t *testing.T) {
	for _, c := range []struct {
		filter, topic string
		want          bool
	}{
		{"a/b", "a/b", true}, {"a/b", "a/c", false}, {"a/b", "a", false}, {"a", "a/b", false},
		{"+/b", "a/b", true}, {"a/+", "a/b", true}, {"a/+", "a", false}, {"a/+", "a/", true}, {"+", "a/b", false}, {"+/+", "/a", true},
		{"#", "a/b", true}, {"a/#", "a/b/c", true}, {"a/#", "a", true}, {"a/#", "b", false}, {"a/+/#", "a", false}, {"a/+/#", "a/b", true},
	} {
		if got := matches(strings.Split(c.filter, "/"), strings.Split(c.topic, "/")); got != c.want {
			t.Errorf("filter %q, topic %q: %v", c.filter, c.topic, got)
		}
	}
}
