package modbus

import (
	"context"
	"errors"
	"io"
	"net"
	"testing"
	"testing/synctest"

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
	m := &memory{calls: make(chan net.Conn), closed: make(chan struct{})}
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
	calls  chan net.Conn
	closed chan struct{}
}

func (m *memory) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	near, far := net.Pipe()
	select {
	case m.calls <- far:
		return peer{near}, nil
	case <-m.closed:
		return nil, errors.New("connection refused")
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (m *memory) Accept() (net.Conn, error) {
	select {
	case c := <-m.calls:
		return c, nil
	case <-m.closed:
		return nil, net.ErrClosed
	}
}

func (m *memory) Close() error   { close(m.closed); return nil }
func (m *memory) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 502} }

// peer is one end of a pipe whose other end, when it is closed, looks like that of a socket.
type peer struct{ net.Conn }

func (p peer) Write(b []byte) (int, error) {
	n, err := p.Conn.Write(b)
	if errors.Is(err, io.ErrClosedPipe) {
		err = io.EOF
	}
	return n, err
}
