package mqtt

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"testing"
	"time"

	"millrace/drivers/peer"
	"millrace/gateway/link"
	"millrace/gateway/link/mqtt/brokersim"
)

// TestNothingRuns: whoever ends a session, and with whatever under way, Close leaves no goroutine behind.
func TestNothingRuns(t *testing.T) {
	b := broker(t, brokersim.Options{})
	sound := dialer(t, Options{URL: "mqtt://" + b.Addr()})
	for _, c := range []struct {
		name string
		d    *Dialer
		end  func(t testing.TB, s *session)
	}{
		{"idle", sound, func(t testing.TB, s *session) {}},
		{"cut", sound, func(t testing.TB, s *session) { b.Cut("gw"); _ = ended(t, s) }},
		{"cut and closed", sound, func(t testing.TB, s *session) { b.Cut("gw") }},
		{"inbox not taken", sound, func(t testing.TB, s *session) { _ = s.Subscribe("#"); fill(t, s, 1<<20) }},
		{"frozen", scripted(t, Options{}, func(p *otherEnd) { p.accept(); <-p.over }), func(t testing.TB, s *session) { fill(t, s, 16<<20) }},
		{"garbage", scripted(t, Options{}, func(p *otherEnd) { p.accept(); p.send(packetPublish, 0xff, 0xff, 0xff, 0x7f, 1, 2, 3); p.drain() }),
			func(t testing.TB, s *session) { _ = ended(t, s) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := open(t, c.d, nil)
			c.end(t, s)
			start := time.Now()
			_ = s.Close()
			if len(running()) > 0 {
				noneRunning(t) // shows what it is, if it stays
			}
			if took := time.Since(start); took > patience {
				t.Errorf("Close took %v", took)
			}
			if s.Err() == nil {
				t.Error("the session has not ended")
			}
		})
	}
}

// fill sends so many bytes in messages of up to 8 KiB.
func fill(t testing.TB, s *session, size int) {
	for ; size > 0; size -= 8 << 10 {
		if err := s.Send(link.Message{Topic: "a", Payload: make([]byte, min(size, 8<<10)), QoS: 1}); err != nil {
			t.Fatal(err)
		}
	}
	s.Flush()
}

// TestDialGivenUp: when the caller gives up in any part of a dial, it returns at once and leaves neither goroutine nor
// connection behind.
func TestDialGivenUp(t *testing.T) {
	ca := newAuthority(t, "ca")
	secure := &tls.Config{Certificates: []tls.Certificate{ca.pair(t, "127.0.0.1", time.Now().Add(time.Hour))}}
	files := peer.Files{CA: ca.file(t)}
	for _, c := range []struct {
		name, scheme string
		config       *tls.Config
	}{
		{"login", "mqtt", nil}, {"login over TLS", "mqtts", secure}, {"TLS handshake", "mqtts", nil},
		{"websocket upgrade", "ws", nil}, {"websocket upgrade over TLS", "wss", secure}, {"TLS handshake of a websocket", "wss", nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			heard, hungUp := make(chan struct{}), make(chan struct{})
			addr := serve(t, func(conn net.Conn) {
				if c.config != nil {
					conn = tls.Server(conn, c.config)
				}
				_, _ = conn.Read(make([]byte, 1))
				close(heard)
				_, _ = io.Copy(io.Discard, conn)
				close(hungUp)
			})
			ctx, cancel := context.WithCancel(t.Context())
			go func() { <-heard; cancel() }()
			d := dialer(t, Options{URL: c.scheme + "://" + addr, TLS: files})
			d.within = time.Hour
			_, err := d.Dial(ctx, nil)
			if !errors.Is(err, context.Canceled) || errors.Is(err, link.ErrSilent) {
				t.Errorf("error %v, want %v", err, context.Canceled)
			}
			select {
			case <-hungUp:
			case <-time.After(patience):
				t.Error("the connection stays open")
			}
			noneRunning(t)
		})
	}
}

// serve accepts connections on the loopback until the test ends.
func serve(t testing.TB, handle func(net.Conn)) (addr string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				handle(conn)
			}()
		}
	}()
	return l.Addr().String()
}
