package drivertest

import "testing"

// TestFreePort: a port is given to one test at a time, and to another one after its end.
func TestFreePort(t *testing.T) {
	for range 3 {
		t.Run("", func(t *testing.T) {
			given := map[int]bool{}
			for range 400 {
				port := FreePort(t)
				if given[port] {
					t.Fatalf("port %d is given twice", port)
				}
				given[port] = true
			}
		})
	}
}
