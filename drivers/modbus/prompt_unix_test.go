//go:build unix

package modbus

import (
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"time"
)

// TestPrompt holds the promises of asking at once: nothing is sent, and nothing taken, where something lies unread or the peer has
// gone; a deadline, one that is moved meanwhile included, ends the wait.
func TestPrompt(t *testing.T) {
	question, answer, into := []byte("question"), []byte("answer"), make([]byte, 64)
	for _, c := range []struct {
		name      string
		before    func(peer net.Conn)
		after     func(near, peer net.Conn) // once the request is there
		sent, got int
		err       error
	}{
		{"answered", nil, func(_, peer net.Conn) { _, _ = peer.Write(answer) }, len(question), len(answer), nil},
		{"answered after a pause", nil, func(_, peer net.Conn) { time.Sleep(20 * time.Millisecond); _, _ = peer.Write(answer) }, len(question), len(answer), nil},
		{"hung up after it", nil, func(_, peer net.Conn) { _ = peer.Close() }, len(question), 0, io.EOF},
		{"silent", nil, func(net.Conn, net.Conn) {}, len(question), 0, os.ErrDeadlineExceeded},
		{"interrupted", nil, func(near, _ net.Conn) { _ = near.SetReadDeadline(time.Unix(1, 0)) }, len(question), 0, os.ErrDeadlineExceeded},
		{"stale bytes", func(peer net.Conn) { _, _ = peer.Write(answer) }, nil, 0, 0, nil},
		{"hung up before it", func(peer net.Conn) { _ = peer.Close() }, nil, 0, 0, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			near, peer := socketPair(t)
			if c.before != nil {
				c.before(peer)
				time.Sleep(20 * time.Millisecond)
			}
			_ = near.SetDeadline(time.Now().Add(200 * time.Millisecond))
			if c.after != nil {
				go func() {
					_, _ = io.ReadFull(peer, make([]byte, len(question)))
					c.after(near, peer)
				}()
			}
			sent, got, err := promptOf(near, false).ask(question, into)
			if sent != c.sent || got != c.got || !errors.Is(err, c.err) {
				t.Fatalf("sent %d, got %d, %v; want %d, %d, %v", sent, got, err, c.sent, c.got, c.err)
			}
			if c.name == "stale bytes" {
				if n, _ := near.Read(into); n != len(answer) {
					t.Fatalf("%d bytes lie there still; want all %d", n, len(answer))
				}
			}
		})
	}
}

// socketPair returns both ends of a connection on the loopback.
func socketPair(t *testing.T) (near, peer net.Conn) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if near, err = net.Dial("tcp", l.Addr().String()); err != nil {
		t.Fatal(err)
	}
	if peer, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { near.Close(); peer.Close() })
	return near, peer
}
