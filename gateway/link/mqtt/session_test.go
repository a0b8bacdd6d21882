package mqtt

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"millrace/gateway/link"
	"millrace/gateway/link/mqtt/brokersim"
)

func dialTo(t testing.TB, address string, change func(*Options), will *link.Message) (link.Link, error) {
	t.Helper()
	o := Options{URL: "mqtt://" + address, ClientID: fmt.Sprint(t.Name(), rand.Uint32()), ConnectTimeout: 5 * time.Second}
	if change != nil {
		change(&o)
	}
	d, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	l, err := d.Dial(t.Context(), will)
	if err == nil {
		t.Cleanup(func() { _ = l.Close() })
	}
	return l, err
}

func startBroker(t testing.TB, o brokersim.Options) *brokersim.Broker {
	t.Helper()
	b := brokersim.New(o)
	if err := b.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Kill)
	return b
}

// acks waits for n answers.
func acks(t testing.TB, l link.Link, n int) (list []link.Ack) {
	t.Helper()
	timeout := time.After(20 * time.Second)
	for len(list) < n {
		if list = l.Acked(list); len(list) >= n {
			break
		}
		select {
		case <-l.Changed():
			if err := l.Err(); err != nil {
				t.Fatalf("%d of %d answers, then %v", len(list), n, err)
			}
		case <-timeout:
			t.Fatalf("%d of %d answers", len(list), n)
		}
	}
	return list
}

func TestPublishAndSubscribe(t *testing.T) {
	b := startBroker(t, brokersim.Options{})
	cloud, err := dialTo(t, b.Addr(), nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := cloud.Subscribe("a/+", "will"); err != nil {
		t.Fatal(err)
	}
	l, err := dialTo(t, b.Addr(), nil, &link.Message{Topic: "will", Payload: []byte("gone"), QoS: 1})
	if err != nil {
		t.Fatal(err)
	}
	large := bytes.Repeat([]byte("x"), 50<<10)
	for i := range 300 {
		m := link.Message{Topic: fmt.Sprintf("a/%d", i%3), Payload: fmt.Append(nil, i), QoS: byte(i % 2)}
		if i == 299 {
			m.Payload = large
		}
		if err := l.Send(m); err != nil {
			t.Fatal(err)
		}
		if i%7 == 0 {
			l.Flush()
		}
		select { // an inbox that nobody empties holds up the broker
		case <-cloud.Inbox():
		default:
		}
	}
	l.Flush()
	seen := map[uint64]bool{}
	for _, a := range acks(t, l, 300) {
		if a.Err != nil || seen[a.N] || a.N >= 300 || a.At.IsZero() {
			t.Fatalf("answer %+v", a)
		}
		seen[a.N] = true
	}
	if s := l.Stats(); s.Sent != 300 || s.Stray != 0 || s.BytesOut < 50<<10 {
		t.Errorf("stats %+v", s)
	}
	for end := time.After(5 * time.Second); ; {
		select {
		case m := <-cloud.Inbox():
			if len(m.Payload) == len(large) && string(m.Payload) == string(large) {
				b.Cut(t.Name()) // no such id
				l.(*session).fail(errors.New("cable cut"))
				continue
			}
			if m.Topic == "will" && string(m.Payload) == "gone" {
				return
			}
		case <-end:
			t.Fatal("neither the large message nor the will came")
		}
	}
}

func TestMessagesThatCannotBe(t *testing.T) {
	l, err := dialTo(t, startBroker(t, brokersim.Options{}).Addr(), nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range []link.Message{{}, {Topic: "a/+"}, {Topic: "#"}, {Topic: "a\x00"}, {Topic: strings.Repeat("x", 65536)}, {Topic: "a", QoS: 3}} {
		if err := l.Send(m); !errors.Is(err, link.ErrMessage) {
			t.Errorf("%.20q, QoS %d: %v", m.Topic, m.QoS, err)
		}
	}
	if err := l.Close(); err != nil || !errors.Is(l.Err(), link.ErrClosed) || l.Send(link.Message{Topic: "a"}) == nil {
		t.Errorf("after Close: %v, %v", err, l.Err())
	}
}

// script is a broker by hand: it answers the login and then does f.
func script(t testing.TB, f func(c net.Conn)) string {
	t.Helper()
	n, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = n.Close() })
	go func() {
		for {
			c, err := n.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				_, _ = c.Read(make([]byte, 1024))
				f(c)
			}()
		}
	}()
	return n.Addr().String()
}

var connack = []byte{packetConnack, 2, 0, 0}

// lives sends bytes after the login and returns how the session ends, nil if it is alive after a while.
func lives(t *testing.T, subscribed bool, raw []byte) (link.Link, error) {
	t.Helper()
	address := script(t, func(c net.Conn) {
		_, _ = c.Write(connack)
		if subscribed {
			head := make([]byte, 64)
			if _, err := c.Read(head); err == nil {
				_, _ = c.Write([]byte{packetSuback, 3, head[2], head[3], 1})
			}
		}
		_, _ = c.Write(raw)
		_, _ = io.Copy(io.Discard, c)
	})
	l, err := dialTo(t, address, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	if subscribed {
		if err := l.Subscribe("in/#"); err != nil {
			t.Fatal(err)
		}
	}
	for end := time.Now().Add(400 * time.Millisecond); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if err := l.Err(); err != nil {
			return l, err
		}
	}
	return l, nil
}

func publish(qos byte, topic string, payload []byte, id uint16) []byte {
	return appendPublish(nil, &link.Message{Topic: topic, Payload: payload, QoS: qos}, id)
}

// TestUnasked: what nobody asked for is discarded and, over a bound, ends the session; what no broker may send does at once.
func TestUnasked(t *testing.T) {
	many := func(b []byte, n int) []byte { return bytes.Repeat(b, n) }
	for _, c := range []struct {
		name       string
		subscribed bool
		raw        []byte
		ends       string // part of the reason; "" = it lives
		discarded  uint64
	}{
		{"a message nobody asked for", false, publish(1, "x/y", []byte("hello"), 7), "", 1},
		{"some, of every QoS", false, append(append(publish(0, "x", nil, 0), publish(1, "x", nil, 1)...), publish(2, "x", nil, 2)...), "", 3},
		{"a large one", false, publish(1, "x", make([]byte, 200<<10), 7), "", 1},
		{"a flood", false, many(publish(0, "x", nil, 0), 5000), "nobody subscribed", 2000},
		{"megabytes", false, many(publish(0, "x", make([]byte, 64<<10), 0), 40), "nobody subscribed", 16},
		{"beside a subscription", true, publish(1, "other", []byte("hello"), 7), "", 1},
		{"too large for a subscription", true, publish(1, "in/a", make([]byte, 100<<10), 7), "", 1},
		{"a few strays", false, many([]byte{packetPuback, 2, 0, 9}, 50), "", 0},
		{"endless strays", false, many([]byte{packetPuback, 2, 0, 9}, 5000), "not sent", 0},
		{"endless PINGRESPs", false, many([]byte{packetPingresp, 0}, 5000), "not sent", 0},
		{"a second CONNACK", false, connack, "no broker may send", 0},
		{"CONNECT", false, []byte{0x10, 2, 0, 0}, "no broker may send", 0},
		{"PUBACK of 3 bytes", false, []byte{packetPuback, 3, 0, 1, 2}, "no broker may send", 0},
		{"a length of five bytes", false, []byte{packetPublish, 0xff, 0xff, 0xff, 0xff, 1}, "more than four bytes", 0},
		{"QoS 3", false, []byte{0x36, 5, 0, 1, 'x', 0, 1}, "none", 0},
		{"a topic longer than the packet", false, []byte{packetPublish, 4, 0, 9, 'x', 'x'}, "longer than it", 0},
		{"256 MB announced", false, []byte{packetPublish, 0xff, 0xff, 0xff, 0x7f, 0, 1, 'x'}, "nobody subscribed", 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			l, err := lives(t, c.subscribed, c.raw)
			if (err == nil) != (c.ends == "") || err != nil && !strings.Contains(err.Error(), c.ends) {
				t.Errorf("ended with %v, want %q", err, c.ends)
			}
			if got := l.Stats().Discarded; got < c.discarded || got > c.discarded+c.discarded/4 {
				t.Errorf("%d discarded, want %d", got, c.discarded)
			}
		})
	}
}

// TestUnaskedIsAcknowledged: a broker waits for the PUBACK of what it sends with QoS 1.
func TestUnaskedIsAcknowledged(t *testing.T) {
	got := make(chan []byte, 1)
	address := script(t, func(c net.Conn) {
		_, _ = c.Write(append(append([]byte{}, connack...), publish(1, "x", []byte("hello"), 0x0102)...))
		b := make([]byte, 4)
		_, _ = io.ReadFull(c, b)
		got <- b
	})
	if _, err := dialTo(t, address, nil, nil); err != nil {
		t.Fatal(err)
	}
	if b := <-got; !bytes.Equal(b, []byte{packetPuback, 2, 1, 2}) {
		t.Errorf("got % x", b)
	}
}

// TestExactlyOnce: a message of QoS 2 is answered for when PUBCOMP has come.
func TestExactlyOnce(t *testing.T) {
	address := script(t, func(c net.Conn) {
		_, _ = c.Write(connack)
		b := make([]byte, 64)
		n, _ := io.ReadAtLeast(c, b, 8)
		id := b[5:7] // topic "x"
		_, _ = c.Write([]byte{packetPubrec, 2, id[0], id[1]})
		rel := make([]byte, 4)
		if _, err := io.ReadFull(c, rel); err == nil && n > 0 && rel[0] == packetPubrel {
			_, _ = c.Write([]byte{packetPubcomp, 2, id[0], id[1]})
		}
		_, _ = io.Copy(io.Discard, c)
	})
	l, err := dialTo(t, address, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Send(link.Message{Topic: "x", Payload: []byte("y"), QoS: 2}); err != nil {
		t.Fatal(err)
	}
	l.Flush()
	if a := acks(t, l, 1); a[0].N != 0 || a[0].Err != nil {
		t.Errorf("%+v", a)
	}
}

// TestWords: what stands in the way of a session is said in words that help.
func TestWords(t *testing.T) {
	answer := func(b []byte) string { return script(t, func(c net.Conn) { _, _ = c.Write(b) }) }
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = closed.Close()
	for _, c := range []struct {
		scheme, address, want string
		is                    error
	}{
		{"mqtt", answer(nil), "closed the connection in place of an answer", link.ErrPeerClosed},
		{"mqtt", answer([]byte{packetConnack, 2, 0, 1}), "does not speak MQTT 3.1.1", link.ErrRefused},
		{"mqtt", answer([]byte{packetConnack, 2, 0, 2}), "change client_id", link.ErrRefused},
		{"mqtt", answer([]byte{packetConnack, 2, 0, 3}), "unavailable", nil},
		{"mqtt", answer([]byte{packetConnack, 2, 0, 4}), "check username and password", link.ErrRefused},
		{"mqtt", answer([]byte{packetConnack, 2, 0, 5}), "access rules", link.ErrRefused},
		{"mqtt", answer([]byte{packetConnack, 2, 0, 77}), "code 77", link.ErrProtocol},
		{"mqtt", answer([]byte{0x15, 3, 3, 0, 2, 2, 70}), "use mqtts://", link.ErrProtocol},
		{"mqtt", answer([]byte("HTTP/1.1 400 Bad Request\r\n\r\n")), "use ws://", link.ErrProtocol},
		{"mqtt", answer([]byte("SSH-2.0-x\r\n")), "is this the broker's port", link.ErrProtocol},
		{"mqtts", answer([]byte{packetConnack, 2, 0, 0, 0, 0, 0}), "does not speak TLS; use mqtt://", link.ErrProtocol},
		{"ws", answer([]byte("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")), "404", nil},
		{"mqtt", closed.Addr().String(), "nothing listens there", nil},
	} {
		_, err := dialTo(t, "x", func(o *Options) { o.URL = c.scheme + "://" + c.address }, nil)
		if err == nil || !strings.Contains(err.Error(), c.want) || c.is != nil && !errors.Is(err, c.is) {
			t.Errorf("%s, wanted %q: %v", c.scheme, c.want, err)
		}
	}
}

// TestUpgradeIsBounded: a server that answers the websocket upgrade without end costs a connection, not memory (FOUND S2).
func TestUpgradeIsBounded(t *testing.T) {
	for name, head := range map[string]string{"a line": "HTTP/1.1 101 ", "headers": "HTTP/1.1 101 Switching\r\nX: "} {
		address := script(t, func(c net.Conn) {
			_, _ = c.Write([]byte(head))
			junk := bytes.Repeat([]byte("x"), 64<<10)
			if name == "headers" {
				junk = bytes.Repeat([]byte("a\r\nX: "), 10<<10)
			}
			for {
				if _, err := c.Write(junk); err != nil {
					return
				}
			}
		})
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, err := dialTo(t, "x", func(o *Options) { o.URL = "ws://" + address + "/mqtt" }, nil)
		runtime.ReadMemStats(&after)
		if err == nil || after.TotalAlloc-before.TotalAlloc > 64<<20 {
			t.Errorf("%s: %v, %d bytes allocated", name, err, after.TotalAlloc-before.TotalAlloc)
		}
	}
}

// pipeDialer dials into a pipe whose other end is given to serve.
func pipeDialer(t *testing.T, o Options, serve func(net.Conn)) *Dialer {
	o.URL, o.ClientID = "mqtt://pipe:1", "c"
	d, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	d.dial = func(context.Context) (net.Conn, error) {
		near, far := net.Pipe()
		go serve(far)
		return near, nil
	}
	return d
}

func TestKeepAlive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var pings atomic.Int64
		var deaf atomic.Bool
		d := pipeDialer(t, Options{KeepAlive: 10 * time.Second}, func(c net.Conn) {
			b := make([]byte, 256)
			_, _ = c.Read(b)
			_, _ = c.Write(connack)
			for {
				n, err := c.Read(b)
				if err != nil {
					return
				}
				if n == 2 && b[0] == packetPingreq {
					pings.Add(1)
					if !deaf.Load() {
						_, _ = c.Write([]byte{packetPingresp, 0})
					}
				}
			}
		})
		l, err := d.Dial(t.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Minute)
		if err := l.Err(); err != nil || pings.Load() < 50 || pings.Load() > 70 {
			t.Fatalf("%d pings in ten minutes, %v", pings.Load(), err)
		}
		deaf.Store(true)
		start := time.Now()
		for l.Err() == nil && time.Since(start) < time.Minute {
			time.Sleep(100 * time.Millisecond)
		}
		if !errors.Is(l.Err(), link.ErrSilent) || time.Since(start) > 45*time.Second {
			t.Errorf("after %v: %v", time.Since(start), l.Err())
		}
		_ = l.Close()
	})
}

// TestDialEnds: a broker that accepts and says nothing costs ConnectTimeout, and leaves nothing running.
func TestDialEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := pipeDialer(t, Options{ConnectTimeout: 3 * time.Second}, func(c net.Conn) { _, _ = io.Copy(io.Discard, c) })
		start := time.Now()
		if _, err := d.Dial(t.Context(), nil); !errors.Is(err, link.ErrSilent) || time.Since(start) != 3*time.Second {
			t.Errorf("after %v: %v", time.Since(start), err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, cancel)
		if _, err := d.Dial(ctx, nil); err == nil {
			t.Error("a dial whose context ended made a session")
		}
	})
}

func TestMatches(t *testing.T) {
	for _, c := range []struct {
		filter, topic string
		want          bool
	}{
		{"a/b", "a/b", true}, {"a/b", "a", false}, {"a", "a/b", false}, {"a/+", "a/b", true}, {"a/+", "a", false}, {"a/+", "a/b/c", false},
		{"a/#", "a", true}, {"a/#", "a/b/c", true}, {"#", "x/y", true}, {"+/b", "a/b", true}, {"+/b", "/b", true}, {"a/#", "ab", false},
	} {
		if got := matches(c.filter, c.topic); got != c.want {
			t.Errorf("%q matches %q: %v", c.filter, c.topic, got)
		}
	}
}
