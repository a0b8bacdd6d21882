package modbus

import (
	"maps"
	"math/rand/v2"
	"testing"
	"time"

	"millrace/drivers"
	"millrace/drivers/modbus/modbussim"
)

// TestNothingUntrueIsLearned has devices that answer every request, and lines on which a share of the answers comes to harm, in each way that
// the campaign knows: whatever was read in vain, no option is told that a restart would keep.
func TestNothingUntrueIsLearned(t *testing.T) {
	seed := *seedFlag
	if seed == 0 {
		seed = uint64(time.Now().UnixNano())
	}
	t.Logf("repeat with -seed %d", seed)
	for i, name := range []string{"tcp", "udp", "rtuovertcp", "asciiovertcp"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel() // with its like: no clock of a machine is near
			lines, untrue := 0, map[string]int{}
			for j, share := range []int{2, 10, strikes} {
				for k := range max(8/raceShare, 2) {
					learned := map[string]string{}
					bubble(t, func(t *testing.T) {
						learned = pollDamaged(t, name, share, rand.New(rand.NewPCG(seed, uint64(1000*i+100*j+k))))
					})
					lines++
					for option, text := range learned {
						untrue[option]++
						t.Errorf("%d %%: learned %s: %s", share, option, text)
					}
				}
			}
			t.Logf("FIGURES %s: %d lines of 300 polls, learned %v", name, lines, untrue)
		})
	}
}

// pollDamaged polls one such line and returns what was learned at some time.
func pollDamaged(t *testing.T, transport string, share int, r *rand.Rand) map[string]string {
	network := newMemory(transport == "udp")
	m := &mangler{mu: make(turn, 1), timeout: campaignTimeout(), r: r, share: share, begun: time.Now()}
	b := &bench{sim: startSim(t, modbussim.Options{Transport: transport, Listener: network, Wire: m.write}), dialer: network.dial}
	b.conn.URL = b.sim.URL()
	b.sim.Unit(1).Fill(b.fill)
	e, _ := parseURL(b.conn.URL)
	m.framing, m.network = e.framing, e.network
	words := append(islands(10, 1+r.IntN(15)), run("input", 0, 60+r.IntN(190))...)
	b.conn.Devices = append(b.conn.Devices, device(b.conn.URL, 1, tags(append(words, run("coil", 0, 100)...)...), tags("holding:2000", "holding:2010", "holding:2020")))
	b.conn.Devices[0].Timeout = m.timeout
	b.open(t)
	seen := map[string]string{}
	for range 300 {
		if _, err := b.pollAll(); wrong(err) {
			t.Fatalf("%s: %v; the last answers: %v", transport, err, m.lately())
		}
		maps.Copy(seen, b.driver.Learned(0))
		time.Sleep(m.timeout)
	}
	return seen
}

// TestDamageIsNoRefusal: a device whose answers are damaged whenever a register is among them that nobody asked for is read around it, but
// is not said to forbid it: the next one may well give it.
func TestDamageIsNoRefusal(t *testing.T) {
	for name, f := range damagedWays() {
		bubble(t, func(t *testing.T) {
			b := newBubbleBench(t, modbussim.Options{}, 1, tags(append(run("holding", 0, 10), run("holding", 20, 10)...)...)).open(t)
			f.Match = modbussim.Touching(1, modbussim.Holding, 15, 15)
			b.sim.Inject(f)
			for n := range 100 {
				bad, err := b.read(drivers.Ref{})
				if wrong(err) || n > 10 && (bad > 0 || err != nil) {
					t.Fatalf("%s: poll %d: %d bad, %v\n%q", name, n, bad, err, b.driver.Plan(drivers.Ref{}))
				}
			}
			if l := b.driver.Learned(0); l != nil {
				t.Errorf("%s: learned %q", name, l)
			}
			b.sim.Mend()
			b.clock += trialEvery
			b.read(drivers.Ref{})
			if n := b.requests(func() { b.read(drivers.Ref{}) }); n != 1 {
				t.Errorf("%s: %d requests after it is mended and an hour has passed, want 1", name, n)
			}
		})
	}
}

// damagedWays are answers that came to harm.
func damagedWays() map[string]modbussim.Fault {
	return map[string]modbussim.Fault{
		"two bytes too few": {Kind: modbussim.ShortValues}, "two bytes too many": {Kind: modbussim.LongValues}, "wrong count": {Kind: modbussim.WrongCount, N: 4},
		"truncated": {Kind: modbussim.Partial, N: 12}, "hung up within": {Kind: modbussim.CloseAt, N: 12}, "foreign unit": {Kind: modbussim.WrongUnit},
		"other transaction": {Kind: modbussim.WrongTransaction}, "garbage": {Kind: modbussim.Garbage, N: 20, Seed: 1},
	}
}

// TestDamagedByLength: where only long answers are damaged, what is learned is how long they may be.
func TestDamagedByLength(t *testing.T) {
	for name, f := range damagedWays() {
		bubble(t, func(t *testing.T) {
			b := newBubbleBench(t, modbussim.Options{}, 1, tags(append(run("holding", 0, 200), run("holding", 210, 30)...)...)).open(t)
			f.Match = func(q modbussim.Request) bool { return q.Count > 50 }
			b.sim.Inject(f)
			for n := range 200 {
				if bad, err := b.read(drivers.Ref{}); wrong(err) || n > 60 && (bad > 0 || err != nil) {
					t.Fatalf("%s: poll %d: %d bad, %v\n%q", name, n, bad, err, b.driver.Plan(drivers.Ref{}))
				}
			}
			if l := b.driver.Learned(0); !maps.Equal(l, map[string]string{"max_registers": "50"}) {
				t.Errorf("%s: learned %q\n%q", name, l, b.driver.Plan(drivers.Ref{}))
			}
		})
	}
}

// TestForbiddenIsTriedAgain: what a restart brought, or was believed once, is tried again each hour, and forgotten when it is answered.
func TestForbiddenIsTriedAgain(t *testing.T) {
	b := newBench(t, 1, tags(append(run("holding", 0, 10), run("holding", 20, 10)...)...)).patient().open(t)
	b.again(t, map[string]string{"forbidden": "holding:10-19"})
	if n := b.requests(func() { b.read(drivers.Ref{}) }); n != 2 {
		t.Errorf("%d requests around a forbidden stretch, want 2", n)
	}
	b.clock += trialEvery
	b.read(drivers.Ref{})
	if n := b.requests(func() { b.read(drivers.Ref{}) }); n != 1 || b.driver.Learned(0) != nil {
		t.Errorf("%d requests, learned %q; want 1 and nothing", n, b.driver.Learned(0))
	}
}
