package modbus

import (
	"strings"
	"testing"
	"time"

	"millrace/drivers/modbus/modbussim"
)

// TestSparePath has each of two paths fail in turn: the line moves to the other, stays there when the first is back, says so,
// and stays down only while both are.
func TestSparePath(t *testing.T) {
	second := startSim(t, modbussim.Options{})
	b := newBench(t, 2, faultTags())
	for u := uint8(1); u <= 2; u++ {
		second.Unit(u).Fill(b.fill)
	}
	b.option("spare_url", second.URL()).patient().open(t)
	well := func(on *modbussim.Server, spare *modbussim.Server) {
		t.Helper()
		if err := b.mustBeWell("on "+on.URL(), 4); err != nil {
			t.Fatal(err)
		}
		asked, idle := on.Requests(), spare.Requests()
		b.pollAll()
		if on.Requests() == asked || spare.Requests() != idle {
			t.Errorf("%s is not the path in use", on.URL())
		}
		if inUse, other := b.driver.Path(); inUse != on.URL() || other != spare.URL() {
			t.Errorf("path %q, spare %q", inUse, other)
		}
	}
	well(b.sim, second)
	b.sim.Down()
	well(second, b.sim)
	if w := b.driver.Warning(); !strings.HasPrefix(w, "the line is reached over "+second.URL()+" now, because "+b.sim.URL()+" failed: ") {
		t.Errorf("warning %q", w)
	}
	b.sim.Up()
	well(second, b.sim)
	second.Down()
	well(b.sim, second)
	if w := b.driver.Warning(); w != "" {
		t.Errorf("a second warning within a minute: %q", w)
	}
	b.sim.Down()
	b.pollAll()
	if err := b.driver.Connect(t.Context()); err == nil || !strings.Contains(err.Error(), "and the spare path "+second.URL()) {
		t.Errorf("both down: %v", err)
	}
	b.sim.Up()
	well(b.sim, second)
}

// TestSilentPath: a path that takes connections and leads nowhere is left, too.
func TestSilentPath(t *testing.T) {
	second := startSim(t, modbussim.Options{})
	b := newBench(t, 1, tags("holding:1"))
	second.Unit(1).Fill(b.fill)
	b.option("spare_url", second.URL()).open(t)
	if err := b.mustBeWell("at first", 3); err != nil {
		t.Fatal(err)
	}
	b.sim.Inject(modbussim.Fault{Kind: modbussim.Silence})
	for range 3 {
		b.pollAll()
	}
	b.driver.link.heard = b.driver.link.heard.Add(-deadTime - time.Second)
	if err := b.mustBeWell("over the spare path", 5); err != nil {
		t.Fatal(err)
	}
	if second.Requests() == 0 {
		t.Error("the spare path was not used")
	}
}
