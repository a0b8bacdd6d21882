package mqtt

import (
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"net"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/eclipse/paho.mqtt.golang/packets"

	"millrace/drivers/peer"
	"millrace/gateway/link"
	"millrace/gateway/link/mqtt/brokersim"
)

// patience is how long a test waits for what must come; only a broken session needs it.
const patience = 20 * time.Second

func broker(t testing.TB, o brokersim.Options) *brokersim.Broker {
	t.Helper()
	b := brokersim.New(o)
	if err := b.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Stop)
	return b
}

// secureBroker is one behind TLS; it returns the address too.
func secureBroker(t testing.TB, config *tls.Config) (*brokersim.Broker, string) {
	t.Helper()
	b := brokersim.New(brokersim.Options{})
	t.Cleanup(b.Stop)
	return b, serve(t, func(c net.Conn) { b.Serve(tls.Server(c, config)) })
}

func dialer(t testing.TB, o Options) *Dialer {
	t.Helper()
	if o.ClientID == "" {
		o.ClientID = "gw"
	}
	o.KeepAlive = cmp.Or(o.KeepAlive, 30*time.Second)
	d, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// open dials and closes the session with the test.
func open(t testing.TB, d *Dialer, will *link.Message) *session {
	t.Helper()
	l, err := d.Dial(context.Background(), will)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l.(*session)
}

// acks waits for n answers.
func acks(t testing.TB, l link.Link, n int) []link.Ack {
	t.Helper()
	var got []link.Ack
	end := time.After(patience)
	for {
		if got = l.Acked(got); len(got) >= n {
			return got
		}
		select {
		case <-l.Changed():
			if err := l.Err(); err != nil {
				t.Fatalf("the session has ended after %d of %d answers: %v", len(got), n, err)
			}
		case <-end:
			t.Fatalf("%d answers, want %d", len(got), n)
		}
	}
}

// ended waits for the end of the session and returns why.
func ended(t testing.TB, l link.Link) error {
	t.Helper()
	end := time.After(patience)
	for l.Err() == nil {
		select {
		case <-l.Changed():
		case <-end:
			t.Fatal("the session lives on")
		}
	}
	return l.Err()
}

func await(t testing.TB, what string, done func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !done(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("timed out waiting: %s", what)
		}
	}
}

func says(t testing.TB, err, kind error, words ...string) {
	t.Helper()
	if err == nil || kind != nil && !errors.Is(err, kind) {
		t.Fatalf("error %v, want one of %v", err, kind)
	}
	for _, w := range words {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("error %q lacks %q", err, w)
		}
	}
}

// otherEnd is the end of a connection that the test holds.
type otherEnd struct {
	net.Conn
	over chan struct{} // closed when our end is
}

// ourEnd tells when it is closed.
type ourEnd struct {
	net.Conn
	once sync.Once
	over chan struct{}
}

func (c *ourEnd) Close() error {
	c.once.Do(func() { close(c.over) })
	return c.Conn.Close()
}

// scripted returns a dialer whose broker is this script. The connection ends with it.
func scripted(t testing.TB, o Options, script func(p *otherEnd)) *Dialer {
	o.URL = "mqtt://peer:1883"
	d := dialer(t, o)
	d.dial = func(context.Context) (net.Conn, *peer.Handshake, error) {
		ours, theirs := net.Pipe()
		over := make(chan struct{})
		go func() {
			defer theirs.Close()
			script(&otherEnd{theirs, over})
		}()
		return &ourEnd{Conn: ours, over: over}, nil, nil
	}
	return d
}

// accept takes the login.
func (p *otherEnd) accept() *packets.ConnectPacket {
	login, _ := p.next().(*packets.ConnectPacket)
	p.send(packetConnack, 2, 0, 0)
	return login
}

// next returns the next packet, nil when there is none.
func (p *otherEnd) next() packets.ControlPacket {
	packet, err := packets.ReadPacket(p)
	if err != nil {
		return nil
	}
	return packet
}

func (p *otherEnd) send(b ...byte) { _, _ = p.Write(b) }

func (p *otherEnd) short(first byte, id uint16) { p.send(appendShort(nil, first, id)...) }

// wait ends sooner when the session does.
func (p *otherEnd) wait(d time.Duration) {
	select {
	case <-time.After(d):
	case <-p.over:
	}
}

// drain reads to the end of the connection.
func (p *otherEnd) drain() {
	for b := make([]byte, 4096); ; {
		if _, err := p.Read(b); err != nil {
			return
		}
	}
}

// publish is a PUBLISH from the broker.
func publish(topic, payload string, qos byte, id uint16) []byte {
	return appendPublish(nil, &link.Message{Topic: topic, Payload: []byte(payload), QoS: qos}, id)
}

// running lists the goroutines that this package's code has started.
func running() []string {
	buf := make([]byte, 4<<20)
	var all []string
	for _, stack := range bytes.Split(buf[:runtime.Stack(buf, true)], []byte("\n\n")) {
		_, by, _ := bytes.Cut(stack, []byte("\ncreated by "))
		if bytes.Contains(by, []byte("gateway/link/mqtt.(*")) || bytes.Contains(stack, []byte("mqtt.(*session)")) ||
			bytes.Contains(stack, []byte("crypto/tls.(*Conn)")) && bytes.Contains(stack, []byte("mqtt.(*target)")) {
			all = append(all, string(stack))
		}
	}
	return all
}

// noneRunning fails when a goroutine of a session is left.
func noneRunning(t testing.TB) {
	t.Helper()
	var left []string
	for end := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
		if left = running(); len(left) == 0 {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("still running:\n%s", strings.Join(left, "\n\n"))
		}
	}
}
