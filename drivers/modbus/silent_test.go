package modbus

import (
	"testing"

	"millrace/drivers"
	"millrace/drivers/modbus/modbussim"
)

// TestSilentDeviceIsAskedTwice: before it is bad, whatever retries says; then once a poll.
func TestSilentDeviceIsAskedTwice(t *testing.T) {
	for _, retries := range []string{"0", "1", "5"} {
		bubble(t, func(t *testing.T) {
			b := newBubbleBench(t, modbussim.Options{}, 1, tags("holding:1", "input:500", "holding:900")).option("retries", retries).open(t)
			for range 3 {
				if bad, err := b.read(drivers.Ref{}); bad > 0 || err != nil {
					t.Fatal(bad, err)
				}
			}
			b.sim.Inject(modbussim.Fault{Kind: modbussim.Silence})
			for poll, want := range []uint64{2, 1, 1} {
				before := b.sim.Requests()
				if _, err := b.read(drivers.Ref{}); err == nil || b.sim.Requests()-before != want {
					t.Errorf("retries %s, poll %d: %d requests, want %d: %v", retries, poll, b.sim.Requests()-before, want, err)
				}
			}
		})
	}
}
