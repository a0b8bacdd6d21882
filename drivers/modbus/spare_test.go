package modbus

import (
	"context"
	"net"
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
		if now, want := b.driver.Trouble().What, "the line is reached over "+second.URL()+", because "+b.sim.URL()+" failed: "; strings.HasPrefix(now, want) != (on == second) || now != "" && on == b.sim {
			t.Errorf("trouble %q", now)
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

// twoPaths is a bench within a bubble whose units are reached over either of two simulated devices.
func twoPaths(t *testing.T, units int, timeout time.Duration) (b *bench, second *modbussim.Server) {
	t.Helper()
	b = newBubbleBench(t, modbussim.Options{}, units, faultTags())
	m := newMemory(false)
	second = startSim(t, modbussim.Options{Listener: m})
	first := b.dialer
	b.dialer = func(ctx context.Context, network, address string) (net.Conn, func() (int, error), error) {
		if strings.HasPrefix(address, "127.0.0.2:") {
			return m.dial(ctx, network, address)
		}
		return first(ctx, network, address)
	}
	for u := range units {
		second.Unit(uint8(u + 1)).Fill(b.fill)
		b.conn.Devices[u].Timeout = timeout
	}
	return b.option("spare_url", "tcp://127.0.0.2:502").open(t), second
}

// TestSilentPath: a path that takes connections and leads nowhere is left after three timeouts, whatever the timeout is, and with a line of
// one unit within the poll: no reading is lost.
func TestSilentPath(t *testing.T) {
	for _, timeout := range []time.Duration{200 * time.Millisecond, time.Second, 5 * time.Second} {
		for _, units := range []int{1, 3} {
			bubble(t, func(t *testing.T) {
				b, second := twoPaths(t, units, timeout)
				if err := b.mustBeWell("at first", 3); err != nil {
					t.Fatal(err)
				}
				time.Sleep(time.Minute) // however long ago the last answer was
				b.sim.Inject(modbussim.Fault{Kind: modbussim.Silence})
				start, bad, err := time.Now(), 0, error(nil)
				for n := 0; n == 0 || bad > 0 || err != nil; n++ {
					if bad, err = b.pollAll(); wrong(err) || n == 5 || n == 1 && units == 1 {
						t.Fatalf("%v, %d units: %d bad in poll %d: %v", timeout, units, bad, n, err)
					}
				}
				if took := time.Since(start); took < 3*timeout || took > 3*timeout+timeout/2 {
					t.Errorf("%v, %d units: well again after %v, want three timeouts", timeout, units, took)
				}
				if second.Requests() == 0 {
					t.Error("the spare path was not used")
				}
			})
		}
	}
}

// TestClosingPath: a path whose far end closes each connection without an answer is left, too.
func TestClosingPath(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b, second := twoPaths(t, 1, time.Second)
		b.sim.Inject(modbussim.Fault{Kind: modbussim.CloseAt})
		if err := b.mustBeWell("over the spare path", 3); err != nil {
			t.Fatal(err)
		}
		if second.Requests() == 0 {
			t.Error("the spare path was not used")
		}
	})
}

// TestBothPathsSilent: a device that answers over neither is tried over each ever more rarely.
func TestBothPathsSilent(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b, second := twoPaths(t, 1, time.Second)
		if err := b.mustBeWell("at first", 3); err != nil {
			t.Fatal(err)
		}
		b.sim.Inject(modbussim.Fault{Kind: modbussim.Silence})
		second.Inject(modbussim.Fault{Kind: modbussim.Silence})
		moves, path := 0, ""
		for range 300 {
			b.pollAll()
			if now, _ := b.driver.Path(); now != path {
				path = now
				moves++
			}
		}
		if moves < 5 || moves > 12 {
			t.Errorf("%d moves in 300 polls", moves)
		}
		b.sim.Mend()
		for n := 0; ; n++ {
			if bad, err := b.pollAll(); bad == 0 && err == nil {
				break
			}
			if n > wornPath<<maxFutileMoves {
				t.Fatal("the path that works again is not found")
			}
		}
	})
}

// TestDeadUnitIsNoSilentPath: one dead unit, or a register that meets silence, moves nothing as long as something answers.
func TestDeadUnitIsNoSilentPath(t *testing.T) {
	for name, match := range map[string]func(modbussim.Request) bool{"unit": modbussim.OfUnit(2), "register": modbussim.Touching(1, modbussim.Holding, 102, 102)} {
		bubble(t, func(t *testing.T) {
			b, second := twoPaths(t, 2, time.Second)
			if err := b.mustBeWell("at first", 3); err != nil {
				t.Fatal(err)
			}
			b.sim.Inject(modbussim.Fault{Kind: modbussim.Silence, Match: match})
			for range 50 {
				if _, err := b.pollAll(); wrong(err) {
					t.Fatal(err)
				}
			}
			if second.Requests() > 0 {
				t.Errorf("%s: the line has moved", name)
			}
		})
	}
}
