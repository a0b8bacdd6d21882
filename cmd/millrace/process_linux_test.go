package main

import (
	"net"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"
)

// TestKeepAlive: systemd hears of the process as often as it asks, and not when it asks another one.
func TestKeepAlive(t *testing.T) {
	path := filepath.Join(t.TempDir(), "notify")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	t.Setenv("NOTIFY_SOCKET", path)
	t.Setenv("WATCHDOG_USEC", "20000")
	t.Setenv("WATCHDOG_PID", strconv.Itoa(os.Getpid()))
	stop := keepAlive()
	buf := make([]byte, 100)
	for range 3 {
		_ = conn.SetReadDeadline(time.Now().Add(30 * time.Second))
		if n, err := conn.Read(buf); err != nil || string(buf[:n]) != "WATCHDOG=1" {
			t.Fatalf("%q %v", buf[:n], err)
		}
	}
	stop()
	for _, other := range []struct{ pid, usec string }{{"1", "20000"}, {"", ""}, {"", "0"}, {"", "-5"}, {"", "99999999999999999"}, {"", "x"}} {
		t.Setenv("WATCHDOG_PID", other.pid)
		t.Setenv("WATCHDOG_USEC", other.usec)
		if d := watchdogInterval(); d != 0 {
			t.Errorf("%+v: %v", other, d)
		}
	}
}
