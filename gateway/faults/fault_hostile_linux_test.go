package faults

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"millrace/drivers/opcua/opcuasim"
)

// faultHostileServers, F23: beside two healthy devices stand OPC UA servers that each play one trick: absurd lengths,
// nested and endless messages, answers nobody asked for, silence. The process lives, its memory stays small, and
// the healthy devices lose nothing.
func faultHostileServers(t *testing.T) {
	var more strings.Builder
	tricks := 0
	for i, trick := range opcuasim.Tricks() {
		if i%pick(4, 1) != 0 {
			continue
		}
		h, err := opcuasim.NewHostile(trick)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(h.Close)
		tricks++
		fmt.Fprintf(&more, "  - name: hostile-%d\n    driver: opcua\n    url: %s\n    security_policy: none\n    mode: read\n    timeout: 500ms\n    groups:\n      - name: all\n"+
			"        interval: 500ms\n        tags:\n          - {name: x, address: \"ns=2;s=x\", type: float64}\n", i, h.Endpoint())
	}
	b := newBed(t, 2, Setup{More: more.String()})
	b.start()
	b.await(20, 30*time.Second)
	time.Sleep(pick(8*time.Second, 2*time.Minute))
	r := b.judge()
	t.Logf("FIGURES %s: %d servers; %d readings of the healthy devices", t.Name(), tricks, r.Served)
	if r.Other == 0 {
		t.Error("no message of a hostile device: the servers were not polled")
	}
	if limit := int64(256 << 20); b.peakRSS > limit { // what the tricks ask for is 1 GB and more; the race detector takes its own
		t.Errorf("peak RSS of %d MB, want at most %d", b.peakRSS>>20, limit>>20)
	}
}
