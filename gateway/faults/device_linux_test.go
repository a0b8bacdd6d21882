package faults

import (
	"net"
	"testing"
	"time"
)

// TestDeviceAwaitIdle has a client ask and die: its answer is counted as served before the device is idle.
func TestDeviceAwaitIdle(t *testing.T) {
	d, err := NewDevice("d", 1)
	must(t, err)
	defer d.Down()
	d.Slow(200 * time.Millisecond)
	c, err := net.Dial("tcp", d.Addr())
	must(t, err)
	_, err = c.Write([]byte{0, 1, 0, 0, 0, 6, 1, 3, 0, 0, 0, 3})
	must(t, err)
	c.Close()
	must(t, d.AwaitIdle(time.Minute))
	if n := len(d.Served()); n != 1 {
		t.Errorf("%d answers are served when the device is idle, want 1", n)
	}
	c, err = net.Dial("tcp", d.Addr())
	must(t, err)
	defer c.Close()
	if err := d.AwaitIdle(100 * time.Millisecond); err == nil {
		t.Error("the device is idle though a client is connected")
	}
}
