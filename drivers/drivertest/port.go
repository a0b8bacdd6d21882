package drivertest

import (
	"fmt"
	"math/rand/v2"
	"net"
	"testing"
)

// FreePort returns a port that nobody listens on now at any address, and that no other test on this machine is given before this one
// ends: the port above it is listened on so long, and both are of those that the kernel gives to no connection of its own.
func FreePort(t testing.TB) int {
	t.Helper()
	for range 1000 {
		port := 10000 + 2*rand.IntN(10000)
		guard, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port+1))
		if err != nil {
			continue
		}
		if l, err := net.Listen("tcp", fmt.Sprintf(":%d", port)); err == nil {
			l.Close()
			t.Cleanup(func() { guard.Close() })
			return port
		}
		guard.Close()
	}
	t.Fatal("no port is free")
	return 0
}
