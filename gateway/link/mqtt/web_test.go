package mqtt

import (
	"bytes"
	"context"
	"encoding/pem"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"millrace/gateway/link"
	"millrace/gateway/link/mqtt/brokersim"
)

// website serves websockets and returns options to reach it.
func website(t testing.TB, secure bool, handle func(ws *websocket.Conn)) Options {
	upgrade := websocket.Upgrader{Subprotocols: []string{"mqtt"}}
	web := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		if ws, err := upgrade.Upgrade(w, q, nil); err == nil {
			defer ws.Close()
			handle(ws)
		}
	}))
	t.Cleanup(web.Close)
	var o Options
	if secure {
		web.StartTLS()
		o.TLS.CA = filepath.Join(t.TempDir(), "ca.pem")
		write(t, o.TLS.CA, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: web.Certificate().Raw}))
	} else {
		web.Start()
	}
	o.URL = "ws" + strings.TrimPrefix(web.URL, "http") + "/mqtt"
	return o
}

// TestWebSocket: all works over a websocket, plain and with TLS, and its end is noticed.
func TestWebSocket(t *testing.T) {
	for _, secure := range []bool{false, true} {
		t.Run(fmt.Sprint("secure ", secure), func(t *testing.T) {
			var got arrivals
			b := brokersim.New(brokersim.Options{OnPublish: got.take})
			t.Cleanup(b.Stop)
			s := open(t, dialer(t, website(t, secure, func(ws *websocket.Conn) { b.Serve(newWebConn(ws)) })), nil)
			if err := s.Subscribe("t/#"); err != nil {
				t.Fatal(err)
			}
			const n = 300
			for i := range n {
				if err := s.Send(link.Message{Topic: "t/x", Payload: make([]byte, i*200), QoS: 1}); err != nil {
					t.Fatal(err)
				}
				s.Flush()
				select {
				case m := <-s.Inbox():
					if len(m.Payload) != i*200 {
						t.Fatalf("message %d came back with %d bytes", i, len(m.Payload))
					}
				case <-time.After(patience):
					t.Fatalf("message %d did not come back: %v", i, s.Err())
				}
			}
			acks(t, s, n)
			b.Cut("gw")
			says(t, ended(t, s), link.ErrPeerClosed)
		})
	}
}

// TestUpgradeIsBounded: a server that never ends its answer to the upgrade costs little memory and the dial.
func TestUpgradeIsBounded(t *testing.T) {
	line := bytes.Repeat([]byte("x"), 4096)
	for _, c := range []struct {
		name, head string
		more       func(i int) []byte
	}{
		{"endless status line", "HTTP/1.1 101 ", func(int) []byte { return line }},
		{"endless header line", "HTTP/1.1 101 Switching Protocols\r\nA: ", func(int) []byte { return line }},
		{"endless headers", "HTTP/1.1 101 Switching Protocols\r\n", headers},
		{"endless equal headers", "HTTP/1.1 101 Switching Protocols\r\n", func(int) []byte { return bytes.Repeat([]byte("a:\r\n"), 1000) }},
		{"endless page", "HTTP/1.1 404 Not Found\r\n\r\n", func(int) []byte { return line }},
	} {
		t.Run(c.name, func(t *testing.T) {
			chunks := make([][]byte, 1000)
			for i := range chunks {
				chunks[i] = c.more(i)
			}
			addr := serve(t, func(conn net.Conn) {
				_, _ = conn.Read(make([]byte, 4096))
				_, err := conn.Write([]byte(c.head))
				for i := 0; err == nil; i++ {
					_, err = conn.Write(chunks[i%len(chunks)])
				}
			})
			d := dialer(t, Options{URL: "ws://" + addr})
			var err error
			grew := allocated(func() { _, err = d.Dial(context.Background(), nil) })
			says(t, err, nil)
			if grew > 2<<20 {
				t.Errorf("%d bytes allocated: %v", grew, err)
			}
			if t.Logf("%d KiB allocated: %.200v", grew>>10, err); len(err.Error()) > 1000 {
				t.Errorf("an error of %d bytes", len(err.Error()))
			}
		})
	}
}

// headers are 500 short ones with names that do not repeat.
func headers(i int) []byte {
	var b bytes.Buffer
	for k := range 500 {
		fmt.Fprintf(&b, "%x:\r\n", i*500+k)
	}
	return b.Bytes()
}

// TestFrames: what a websocket may not carry, or carries to no end, ends the session.
func TestFrames(t *testing.T) {
	repeat := func(n int, frame ...byte) []byte { return bytes.Repeat(frame, n) }
	for _, c := range []struct {
		name  string
		sent  []byte
		kind  error
		words string
	}{
		{"text", []byte{0x81, 2, packetPingresp, 0}, link.ErrProtocol, "frame of text"},
		{"pings", repeat(answerBurst+2, 0x89, 0), link.ErrProtocol, "websocket pings"},
		{"pongs", repeat(answerBurst+2, 0x8a, 0), link.ErrProtocol, "websocket pongs"},
		{"empty messages", repeat(answerBurst+2, 0x82, 0), link.ErrProtocol, "empty websocket messages"},
		{"too large", []byte{0x82, 127, 0, 0, 0, 0, 1, 0, 0, 0}, link.ErrProtocol, "limit"},
		{"reserved opcode", []byte{0x83, 0}, link.ErrProtocol, "opcode"},
		{"malformed MQTT", []byte{0x82, 2, 0xf0, 0}, link.ErrProtocol, "0xf0"},
		{"close", []byte{0x88, 2, 0x03, 0xe9}, link.ErrPeerClosed, "1001"},
		{"end", nil, link.ErrPeerClosed, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := open(t, dialer(t, website(t, false, func(ws *websocket.Conn) {
				_, _, _ = ws.ReadMessage()
				_ = ws.WriteMessage(websocket.BinaryMessage, []byte{packetConnack, 2, 0, 0})
				if _, err := ws.NetConn().Write(c.sent); err == nil && c.sent != nil {
					_, _, _ = ws.ReadMessage()
				}
			})), nil)
			says(t, ended(t, s), c.kind, c.words)
		})
	}
	t.Run("a sound ping", func(t *testing.T) {
		pong := make(chan string, 1)
		s := open(t, dialer(t, website(t, false, func(ws *websocket.Conn) {
			_, _, _ = ws.ReadMessage()
			_ = ws.WriteMessage(websocket.BinaryMessage, []byte{packetConnack, 2, 0, 0})
			ws.SetPongHandler(func(data string) error { pong <- data; return nil })
			_ = ws.WriteMessage(websocket.PingMessage, []byte("still there?"))
			_, _, _ = ws.ReadMessage()
		})), nil)
		if got := <-pong; got != "still there?" || s.Err() != nil {
			t.Errorf("pong %q, %v", got, s.Err())
		}
	})
}
