package modbus

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"millrace/drivers/modbus/modbussim"
	"millrace/drivers/telemetry"
)

// bubble runs f with a clock of its own, which moves on only while everything waits: silence costs no time, and no slow machine makes
// silence of an answer.
func bubble(t *testing.T, f func(t *testing.T)) {
	t.Helper()
	synctest.Test(t, f)
}

// newBubbleBench is newBench within a bubble: device and driver talk through memory.
func newBubbleBench(t *testing.T, o modbussim.Options, units int, groups ...[]telemetry.Tag) *bench {
	t.Helper()
	m := newMemory(strings.Contains(o.Transport, "udp"))
	o.Listener = m
	b := &bench{sim: startSim(t, o), dialer: m.dial}
	b.conn.URL = b.sim.URL()
	for u := 1; u <= units; u++ {
		b.sim.Unit(uint8(u)).Fill(b.fill)
		b.conn.Devices = append(b.conn.Devices, device(b.conn.URL, u, groups...))
	}
	return b
}

// memory is a network of one port.
type memory struct {
	packets bool // what is written at once is read at once
	calls   chan net.Conn
	mu      sync.Mutex
	closed  chan struct{} // of the listener; another one after open
}

func newMemory(packets bool) *memory {
	return &memory{packets: packets, calls: make(chan net.Conn), closed: make(chan struct{})}
}

// open lets the port be listened on again after Close.
func (m *memory) open() {
	m.mu.Lock()
	defer m.mu.Unlock()
	select {
	case <-m.closed:
		m.closed = make(chan struct{})
	default:
	}
}

func (m *memory) done() chan struct{} {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.closed
}

func (m *memory) dial(ctx context.Context, _, _ string) (net.Conn, drain, error) {
	there, back := newPipe(m.packets), newPipe(m.packets)
	near, far := &memoryConn{pipe: back, out: there}, &memoryConn{pipe: there, out: back}
	select {
	case m.calls <- far:
		return near, near.drain, nil
	case <-m.done():
		return nil, nil, errors.New("connection refused")
	case <-ctx.Done():
		return nil, nil, ctx.Err()
	}
}

func (m *memory) Accept() (net.Conn, error) {
	select {
	case c := <-m.calls:
		return c, nil
	case <-m.done():
		return nil, net.ErrClosed
	}
}

func (m *memory) Close() error   { close(m.done()); return nil }
func (m *memory) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 502} }

// pipe is one direction of a connection. Writing never waits, as with a socket.
type pipe struct {
	packets  bool
	mu       sync.Mutex
	chunks   [][]byte
	closed   bool
	deadline time.Time
	timer    *time.Timer   // of who reads: one at a time
	news     chan struct{} // something of the above changed
}

func newPipe(packets bool) *pipe { return &pipe{packets: packets, news: make(chan struct{}, 1)} }

func (p *pipe) change(how func()) {
	p.mu.Lock()
	how()
	p.mu.Unlock()
	select {
	case p.news <- struct{}{}:
	default:
	}
}

// take copies what there is, and says how long to wait where there is nothing.
func (p *pipe) take(b []byte) (n int, wait time.Duration, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	wait = time.Hour
	if !p.deadline.IsZero() {
		wait = time.Until(p.deadline)
	}
	switch {
	case wait <= 0:
		return 0, 0, os.ErrDeadlineExceeded
	case len(p.chunks) > 0:
		n = copy(b, p.chunks[0])
		if p.chunks[0] = p.chunks[0][n:]; p.packets || len(p.chunks[0]) == 0 {
			p.chunks = p.chunks[1:]
		}
		return n, 0, nil
	case p.closed:
		return 0, 0, io.EOF
	}
	return 0, wait, nil
}

// memoryConn is one end of a connection.
type memoryConn struct {
	*pipe // what it reads
	out   *pipe
}

func (c *memoryConn) Read(b []byte) (int, error) {
	for {
		n, wait, err := c.take(b)
		if n > 0 || err != nil {
			return n, err
		}
		if c.timer == nil {
			c.timer = time.NewTimer(wait)
		} else {
			c.timer.Reset(wait)
		}
		select {
		case <-c.news:
		case <-c.timer.C:
		}
		c.timer.Stop()
	}
}

func (c *memoryConn) Write(b []byte) (n int, err error) {
	c.out.change(func() {
		if c.out.closed {
			err = io.EOF
			return
		}
		n = len(b)
		c.out.chunks = append(c.out.chunks, append([]byte(nil), b...))
	})
	return n, err
}

func (c *memoryConn) Close() error {
	c.pipe.change(func() { c.pipe.closed = true })
	c.out.change(func() { c.out.closed = true })
	return nil
}

// drain is what drainOf makes for a socket.
func (c *memoryConn) drain(into []byte) (n int, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, chunk := range c.chunks {
		copy(into[min(n, len(into)/2):], chunk)
		n += len(chunk)
	}
	if c.chunks = nil; c.closed {
		err = io.EOF
	}
	return n, err
}

func (c *memoryConn) SetReadDeadline(t time.Time) error {
	c.change(func() { c.deadline = t })
	return nil
}
func (c *memoryConn) SetDeadline(t time.Time) error    { return c.SetReadDeadline(t) }
func (c *memoryConn) SetWriteDeadline(time.Time) error { return nil }
func (c *memoryConn) LocalAddr() net.Addr              { return &net.TCPAddr{} }
func (c *memoryConn) RemoteAddr() net.Addr             { return &net.TCPAddr{} }
