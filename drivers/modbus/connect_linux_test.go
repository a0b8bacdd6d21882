package modbus

import (
	"context"
	"errors"
	"net"
	"syscall"
	"testing"
	"time"

	"millrace/drivers"
	"millrace/drivers/drivertest"
)

// TestConnectEnds dials a peer that does not answer the dial at all.
func TestConnectEnds(t *testing.T) {
	t.Parallel() // it mostly waits
	host := blackHole(t)
	d, err := newDriver(&drivers.Connection{URL: "tcp://" + host, Devices: []drivers.Device{device("tcp://"+host, 1, tags("holding:1"))}}, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	for range 3 { // the second and third find the first dial still under way
		start := time.Now()
		ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
		err := d.Connect(ctx)
		cancel()
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("Connect: %v, want the end of its context", err)
		}
		if err := d.Close(); err != nil {
			t.Error(err)
		}
		if took := time.Since(start); took > 2*time.Second {
			t.Errorf("took %v", took)
		}
	}
}

// blackHole returns a loopback address where a dial is neither taken nor refused: a listener whose queue
// is full.
func blackHole(t *testing.T) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	host := l.Addr().String()
	shrink(t, l)
	for range 16 {
		c, err := net.DialTimeout("tcp", host, 100*time.Millisecond)
		if err != nil {
			return host
		}
		t.Cleanup(func() { c.Close() })
	}
	drivertest.Lacks(t, "this system takes connections without end")
	return ""
}

// shrink leaves the listener room for no more than one connection that nobody accepted.
func shrink(t *testing.T, l net.Listener) {
	raw, err := l.(*net.TCPListener).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	if err := raw.Control(func(fd uintptr) { err = syscall.Listen(int(fd), 0) }); err != nil {
		t.Fatal(err)
	}
}
