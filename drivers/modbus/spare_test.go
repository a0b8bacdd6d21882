package modbus

import (
	"context"
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"millrace/drivers"
	"millrace/drivers/modbus/modbussim"
)

// TestSparePath has each of two paths fail in turn: the line moves to the other, stays there when the first is back, says so,
// and stays down only while both are.
func TestSparePath(t *testing.T) {
	second := startSim(t, modbussim.Options{})
	b := newHastyBench(t, 2, faultTags())
	for u := uint8(1); u <= 2; u++ {
		second.Unit(u).Fill(b.fill)
	}
	b.spares(second.URL()).patient().open(t)
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
		if inUse, others := b.driver.Paths(); inUse != on.URL() || !slices.Equal(others, []string{spare.URL()}) {
			t.Errorf("path %q, spares %q", inUse, others)
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
	b, further := severalPaths(t, 2, units, timeout)
	return b, further[0]
}

// severalPaths is likewise with any number; further are the devices behind all but the first.
func severalPaths(t *testing.T, paths, units int, timeout time.Duration) (b *bench, further []*modbussim.Server) {
	t.Helper()
	b = newBubbleBench(t, modbussim.Options{}, units, faultTags())
	first := b.dialer
	at := map[string]*memory{}
	var urls []string
	for i := 2; i <= paths; i++ {
		address := fmt.Sprintf("127.0.0.%d:502", i)
		at[address] = newMemory(false)
		urls = append(urls, "tcp://"+address)
		further = append(further, startSim(t, modbussim.Options{Listener: at[address]}))
	}
	b.dialer = func(ctx context.Context, network, address string) (net.Conn, drain, error) {
		if m := at[address]; m != nil {
			return m.dial(ctx, network, address)
		}
		return first(ctx, network, address)
	}
	for u := range units {
		for _, s := range further {
			s.Unit(uint8(u + 1)).Fill(b.fill)
		}
		b.conn.Devices[u].Timeout = timeout
	}
	return b.spares(urls...).open(t), further
}

// TestThreePaths: each failed path is followed by the next one of the config, those that fail too are passed over, and behind the last comes the first.
func TestThreePaths(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b, further := severalPaths(t, 3, 1, time.Second)
		all := append([]*modbussim.Server{b.sim}, further...)
		silence := modbussim.Fault{Kind: modbussim.Silence}
		on := func(want string, others ...string) {
			t.Helper()
			if err := b.mustBeWell("on "+want, 3); err != nil {
				t.Fatal(err)
			}
			if inUse, rest := b.driver.Paths(); inUse != want || !slices.Equal(rest, others) {
				t.Errorf("in use %q, then %q; want %q, then %q", inUse, rest, want, others)
			}
		}
		one, two, three := b.conn.URL, b.conn.Devices[0].Spares[0], b.conn.Devices[0].Spares[1]
		on(one, two, three)
		all[0].Inject(silence)
		on(two, three, one)
		left := b.driver.Trouble().Since
		all[1].Inject(silence)
		on(three, one, two)
		if now := b.driver.Trouble(); now.Since != left || !strings.HasPrefix(now.What, "the line is reached over "+three+", because "+two+" failed: ") {
			t.Errorf("trouble %+v; want it since %v", now, left)
		}
		all[0].Mend()
		all[2].Inject(silence)
		on(one, two, three)
		if now := b.driver.Trouble(); now.State != "" {
			t.Errorf("on the first path again: %+v", now)
		}
		all[2].Mend()
		all[0].Inject(silence) // and the second still is
		on(three, one, two)
	})
}

// TestDialOfThreePaths: those that refuse are passed over within one connect; where all do, each is named and the first stays in use.
func TestDialOfThreePaths(t *testing.T) {
	second, third := startSim(t, modbussim.Options{}), startSim(t, modbussim.Options{})
	b := newBench(t, 1, faultTags())
	third.Unit(1).Fill(b.fill)
	b.spares(second.URL(), third.URL()).patient()
	b.sim.Down()
	second.Down()
	b.open(t)
	if inUse, _ := b.driver.Paths(); inUse != third.URL() {
		t.Errorf("%s is in use", inUse)
	}
	third.Down()
	_ = b.driver.Close()
	err := b.driver.Connect(t.Context())
	if inUse, _ := b.driver.Paths(); err == nil || inUse != third.URL() || strings.Count(err.Error(), "and the spare path ") != 2 {
		t.Errorf("%s is in use, %v", inUse, err)
	}
}

// TestSparesOfALine: devices on one line may say its paths once, and must not contradict each other.
func TestSparesOfALine(t *testing.T) {
	const kind = `"tcp://PLC": it is no other path of the same kind as the first; use the same scheme with another host or port; not for serial lines and devices that call`
	for _, c := range []struct {
		url  string
		of   [2][]string // by device
		want []string
	}{
		{"tcp://plc", [2][]string{{"tcp://10.0.0.2:502", "tcp://10.0.0.3"}, nil}, nil},
		{"tcp://plc", [2][]string{nil, {"tcp://10.0.0.2"}}, nil},
		{"tcp://plc", [2][]string{{"tcp://10.0.0.2"}, {"tcp://10.0.0.2"}}, nil},
		{"tcp://plc", [2][]string{{"tcp://10.0.0.2"}, {"tcp://10.0.0.3"}}, []string{`1/-1/-1 urls: urls: another device on the same line has the other paths ["tcp://10.0.0.2"]; say the same, or say it once`}},
		{"tcp://plc", [2][]string{{"tcp://PLC"}, nil}, []string{"0/-1/-1 urls: urls " + kind}},
		{"udp://plc", [2][]string{{"tcp://PLC"}, nil}, []string{"0/-1/-1 urls: urls " + kind}},
		{"tcp://plc", [2][]string{{"tcp://a", "tcp://b", "tcp://A:502"}, nil}, []string{"0/-1/-1 urls: urls " + strings.Replace(kind, "PLC", "A:502", 1)}},
		{"rtu:///dev/ttyS0", [2][]string{{"rtu:///dev/ttyS1"}, nil}, []string{"0/-1/-1 urls: urls " + strings.Replace(kind, "tcp://PLC", "rtu:///dev/ttyS1", 1)}},
		{"tcp://plc", [2][]string{nil, {"plc2"}}, []string{`1/-1/-1 urls: urls "plc2": it is not the address of a Modbus device; ` + useNet}},
	} {
		var devices []drivers.Device
		for i, spares := range c.of {
			devices = append(devices, drivers.Device{Spares: spares, Timeout: time.Second, Options: map[string]string{"unit": fmt.Sprint(i + 1)}})
		}
		if got := mistakes(t, c.url, devices...); !slices.Equal(got, c.want) {
			t.Errorf("%q %q:\n got %q\nwant %q", c.url, c.of, got, c.want)
		}
	}
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
			if now, _ := b.driver.Paths(); now != path {
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
			if n > wornPath<<maxFutileTurns {
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
