package modbus

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"millrace/drivers"
	"millrace/drivers/modbus/modbussim"
	"millrace/drivers/telemetry"
)

// TestLearn polls a device that refuses something and counts the requests it takes.
func TestLearn(t *testing.T) {
	refuse := func(code byte, first, last uint16) modbussim.Fault {
		return modbussim.Fault{Kind: modbussim.Exception, Code: code, Match: modbussim.Touching(1, modbussim.Holding, first, last)}
	}
	atMost := func(n uint16) modbussim.Fault {
		return modbussim.Fault{Kind: modbussim.Exception, Code: 3, Match: func(q modbussim.Request) bool { return q.Count > n }}
	}
	oddBad := modbussim.Fault{Kind: modbussim.Exception, Code: 2, Match: func(q modbussim.Request) bool { return q.Count > 1 || q.Addr%2 == 1 }}
	for _, c := range []struct {
		name   string
		tags   []string
		fault  modbussim.Fault
		bad    int // readings of the first poll
		first  int // requests of the first poll, at most
		steady int // of one poll after 300
	}{
		{"nothing", run("holding", 0, 100), modbussim.Fault{Match: func(modbussim.Request) bool { return false }}, 0, 1, 1},
		{"one register of 100", run("holding", 0, 100), refuse(2, 40, 40), 1, 15, 2},
		{"the first", run("holding", 0, 100), refuse(2, 0, 0), 1, 15, 1},
		{"three apart", run("holding", 0, 120), either(refuse(2, 3, 3), refuse(4, 60, 60), refuse(2, 119, 119)), 3, 45, 3},
		{"a gap between tags", append(run("holding", 0, 10), run("holding", 20, 10)...), refuse(2, 15, 15), 0, 5, 2},
		{"a gap and a register", append(run("holding", 0, 10), run("holding", 20, 10)...), refuse(2, 15, 20), 1, 15, 2},
		{"more than 50 at once", run("holding", 0, 120), atMost(50), 0, 8, 3},
		{"a float32 over a bad register", append(run("holding", 0, 10), "holding:10 uint32", "holding:12"), refuse(2, 11, 11), 1, 12, 2},
		{"bits of a bad register", append(run("holding", 0, 10), "holding:10.0", "holding:10.1", "holding:11"), refuse(2, 10, 10), 2, 12, 2},
		{"every coil but one table", append(run("coil", 0, 40), run("holding", 0, 3)...),
			modbussim.Fault{Kind: modbussim.Exception, Code: 1, Match: func(q modbussim.Request) bool { return q.Table.Bits() }}, 40, 4, 2},
		{"every register", run("holding", 0, 120), refuse(2, 0, 200), 120, 24, 1},
		{"every second register", run("holding", 0, 40), oddBad, 40, 40, 20},
		{"an unknown exception", run("holding", 0, 100), refuse(0x55, 40, 40), 1, 15, 2},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newBench(t, 1, tags(c.tags...)).open(t)
			b.sim.Inject(c.fault)
			var bad int
			poll := func() {
				var err error
				if bad, err = b.read(drivers.Ref{}); err != nil {
					t.Fatal(err)
				}
			}
			if n := b.requests(poll); n > c.first {
				t.Errorf("first poll: %d requests, want at most %d", n, c.first)
			}
			if bad != c.bad && c.name != "every second register" {
				t.Errorf("first poll: %d bad readings, want %d", bad, c.bad)
			}
			worst := 0
			for range 300 {
				worst = max(worst, b.requests(poll))
			}
			fewest := worst
			for range 8 { // between two polls that ask bad registers again
				fewest = min(fewest, b.requests(poll))
			}
			if fewest != c.steady || worst > 45 {
				t.Errorf("later: %d requests a poll, want %d; worst %d, want at most 45\n%q", fewest, c.steady, worst, b.driver.Plan(drivers.Ref{}))
			}
		})
	}
}

// either is a fault that strikes where any of several does.
func either(all ...modbussim.Fault) modbussim.Fault {
	f := all[0]
	f.Match = func(q modbussim.Request) bool {
		return slices.ContainsFunc(all, func(f modbussim.Fault) bool { return f.Match(q) })
	}
	return f
}

// TestExceptionWords holds the reasons that people read.
func TestExceptionWords(t *testing.T) {
	for code, want := range map[byte]string{
		0: "exception 0", 1: "exception 1: illegal function", 2: "exception 2: illegal data address", 3: "exception 3: illegal data value",
		4: "exception 4: device failure", 5: "exception 5: acknowledge", 6: "exception 6: device busy", 7: "exception 7",
		8: "exception 8: memory parity error", 0x99: "exception 153",
	} {
		b := newBench(t, 1, tags("holding:1", "input:2")).open(t)
		b.sim.Inject(modbussim.Fault{Kind: modbussim.Exception, Code: code, Match: modbussim.Touching(1, modbussim.Holding, 1, 1)})
		readings, err := b.driver.Read(context.Background(), drivers.Ref{}, nil)
		if err != nil || readings[0].Reason != want || readings[1].Quality != telemetry.Good {
			t.Errorf("exception %d: %v, %v; want %q and a good second tag", code, readings, err, want)
		}
	}
}

// TestBadRegisterIsAskedAgain mends the device and waits for the driver to see it.
func TestBadRegisterIsAskedAgain(t *testing.T) {
	after := func(polls int, jump time.Duration) func(*testing.T) {
		return func(t *testing.T) {
			b := newBench(t, 1, tags(run("holding", 0, 100)...)).open(t)
			remove := b.sim.Inject(modbussim.Fault{Kind: modbussim.Exception, Code: 2, Match: modbussim.Touching(1, modbussim.Holding, 40, 40)})
			extra := 0
			for range 200 {
				extra += b.requests(func() { b.read(drivers.Ref{}) }) - 2
			}
			if extra > 14+200/64+7 {
				t.Errorf("%d requests more than two a poll in 200 polls: the bad register is asked too often", extra)
			}
			remove()
			b.clock += jump
			for n := 1; n <= polls; n++ {
				if bad, err := b.read(drivers.Ref{}); err != nil {
					t.Fatal(err)
				} else if bad == 0 {
					if n := b.requests(func() { b.read(drivers.Ref{}); b.read(drivers.Ref{}) }); n > 3 {
						t.Errorf("%d requests for two polls after all is well, want 2 or 3", n)
					}
					return
				}
			}
			t.Errorf("still bad after %d polls: %q", polls, b.driver.Plan(drivers.Ref{}))
		}
	}
	t.Run("after 64 polls", after(65, 0))
	t.Run("after five minutes", after(1, 5*time.Minute))
}

// TestDeviceInABadMood refuses everything for a while, as a PLC does that is in STOP.
func TestDeviceInABadMood(t *testing.T) {
	for _, polls := range []int{1, 2, 5, 30, 100} {
		t.Run(fmt.Sprint(polls), func(t *testing.T) {
			b := newBench(t, 1, tags(append(run("holding", 0, 100), "input:3", "coil:1")...)).open(t)
			b.read(drivers.Ref{})
			remove := b.sim.Inject(modbussim.Fault{Kind: modbussim.Exception, Code: 4})
			for range polls {
				n := b.requests(func() {
					if bad, err := b.read(drivers.Ref{}); bad != 102 || err != nil {
						t.Fatalf("%d bad, %v; want 102 bad readings and no error", bad, err)
					}
				})
				if n > 26 {
					t.Fatalf("%d requests in one poll of a device that refuses everything", n)
				}
			}
			remove()
			for n := range 2 {
				if bad, _ := b.read(drivers.Ref{}); bad > 0 && n == 1 {
					t.Errorf("%d bad readings in the second poll after all is well\n%q", bad, b.driver.Plan(drivers.Ref{}))
				}
			}
			b.read(drivers.Ref{})
			if n := b.requests(func() { b.read(drivers.Ref{}) }); n != 3 {
				t.Errorf("%d requests a poll after all is well, want 3\n%q", n, b.driver.Plan(drivers.Ref{}))
			}
		})
	}
}

// TestSilentRegister has a device that does not refuse a bad register but says nothing.
func TestSilentRegister(t *testing.T) {
	for _, c := range []struct {
		name string
		tags []string
	}{
		{"beside a good span", append(run("holding", 0, 16), "input:0")},
		{"in the only span", run("holding", 0, 16)},
	} {
		bubble(t, func(t *testing.T) {
			b := newBubbleBench(t, modbussim.Options{}, 1, tags(c.tags...)).open(t)
			b.sim.Inject(modbussim.Fault{Kind: modbussim.Silence, Match: modbussim.Touching(1, modbussim.Holding, 5, 5)})
			bad := 0
			for range 100 {
				start := time.Now()
				var err error
				bad, err = b.read(drivers.Ref{})
				if err != nil && !errors.Is(err, drivers.ErrDevice) {
					t.Fatal(err)
				}
				if took := time.Since(start); took > maxLost*200*time.Millisecond {
					t.Fatalf("%s: a poll took %v", c.name, took)
				}
			}
			if bad != 1 {
				t.Errorf("%s: %d bad readings after 100 polls, want the silent one\n%q", c.name, bad, b.driver.Plan(drivers.Ref{}))
			}
		})
	}
}

// TestGatewayException has a gateway that says that the device behind it is dead: no need to connect again.
func TestGatewayException(t *testing.T) {
	for _, code := range []byte{10, 11} {
		b := newBench(t, 2, tags("holding:1", "input:1", "coil:2")).open(t)
		client := b.driver.link.wire
		b.sim.Inject(modbussim.Fault{Kind: modbussim.Exception, Code: code, Match: modbussim.OfUnit(2)})
		if _, err := b.read(drivers.Ref{Device: 1}); !errors.Is(err, drivers.ErrDevice) {
			t.Errorf("exception %d: %v, want ErrDevice", code, err)
		}
		if bad, err := b.read(drivers.Ref{Device: 0}); bad != 0 || err != nil || b.driver.link.wire != client {
			t.Errorf("exception %d of the neighbour: %d bad, %v, same connection %v", code, bad, err, b.driver.link.wire == client)
		}
	}
}

// TestManyBadRegistersMended isolates twenty registers, holds how often they are asked again, and mends them.
func TestManyBadRegistersMended(t *testing.T) {
	b := newBench(t, 1, tags(run("holding", 0, 100)...)).open(t)
	remove := b.sim.Inject(modbussim.Fault{Kind: modbussim.Exception, Code: 2, Match: modbussim.Touching(1, modbussim.Holding, 20, 39)})
	poll := func() (bad int) {
		bad, err := b.read(drivers.Ref{})
		if err != nil {
			t.Fatal(err)
		}
		return bad
	}
	for range 20 {
		poll()
	}
	for range 5 {
		b.clock += 5 * time.Minute // all are due
		if n := b.requests(func() { poll() }); n > 2+maxProbes {
			t.Errorf("%d requests in one poll, want at most two and %d", n, maxProbes)
		}
	}
	remove()
	b.clock += 5 * time.Minute
	poll()
	if bad := poll(); bad > 0 {
		t.Errorf("%d bad readings in the second poll after one of them answered\n%q", bad, b.driver.Plan(drivers.Ref{}))
	}
}

// TestTableInABadMood refuses one table of a device for a hundred polls: when it answers again, all of it
// does at once.
func TestTableInABadMood(t *testing.T) {
	b := newBench(t, 1, tags(append(run("holding", 0, 5), "input:3")...)).open(t)
	remove := b.sim.Inject(modbussim.Fault{Kind: modbussim.Exception, Code: 4, Match: modbussim.Touching(1, modbussim.Holding, 0, 99)})
	for range 100 {
		if bad, err := b.read(drivers.Ref{}); bad != 5 || err != nil {
			t.Fatalf("%d bad, %v", bad, err)
		}
	}
	remove()
	if bad, err := b.read(drivers.Ref{}); bad > 0 || err != nil {
		t.Errorf("%d bad, %v, in the first poll after all is well", bad, err)
	}
}

// TestSilenceIsBounded has most of a device fall silent: no poll may cost more than two timeouts.
func TestSilenceIsBounded(t *testing.T) {
	bubble(t, testSilenceIsBounded)
}

func testSilenceIsBounded(t *testing.T) {
	b := newBubbleBench(t, modbussim.Options{}, 1, tags("holding:0", "holding:100", "holding:200", "holding:300", "holding:400", "holding:500")).open(t)
	b.sim.Inject(modbussim.Fault{Kind: modbussim.Silence, Match: modbussim.Touching(1, modbussim.Holding, 100, 999)})
	for i := range 12 {
		n := b.requests(func() {
			if bad, err := b.read(drivers.Ref{}); bad != 5 || err != nil {
				t.Errorf("poll %d: %d bad, %v", i, bad, err)
			}
		})
		limit := 1 + maxLost // while there are some of which nothing is known
		if i >= 3 {
			limit = 1 + 1
		}
		if n > limit {
			t.Errorf("poll %d made %d requests, want at most %d: each silent one costs a timeout", i, n, limit)
		}
	}
	b.sim.Mend()
	b.clock += 5 * time.Minute
	if bad, err := b.read(drivers.Ref{}); bad > 0 || err != nil {
		t.Errorf("%d bad, %v, in the first poll after all is well", bad, err)
	}
}

// TestBusyAltogether has a device that answers nothing but "busy" for a while: it is asked little, and is well at once after.
func TestBusyAltogether(t *testing.T) {
	for _, code := range []byte{5, 6, 11} {
		b := newBench(t, 1, tags(append(run("holding", 0, 300), "input:5")...)).patient().open(t)
		remove := b.sim.Inject(modbussim.Fault{Kind: modbussim.Exception, Code: code})
		for poll := range 4 {
			limit := 1 + busyTries
			if poll == 0 {
				limit *= 4 + 2*maxAlone // every request of the plan, and single registers of each table
			}
			if n := b.requests(func() { b.read(drivers.Ref{}) }); n > limit {
				t.Errorf("exception %d: %d requests in poll %d, want at most %d", code, n, poll, limit)
			}
		}
		remove()
		if bad, err := b.read(drivers.Ref{}); bad > 0 || err != nil {
			t.Errorf("exception %d: %d bad, %v in the first poll after it", code, bad, err)
		}
	}
}

// TestTimes holds that the readings of the last request have the time of the poll, and those before it their own.
func TestTimes(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b := newBubbleBench(t, modbussim.Options{}, 1, tags("holding:0", "holding:1", "coil:0"), tags("holding:0", "holding:100"))
		b.option("max_gap", "0").open(t)
		start := time.Now().UnixMicro()
		if bad, err := b.read(drivers.Ref{}); bad > 0 || err != nil {
			t.Fatal(bad, err)
		}
		for i, own := range []bool{false, false, true} { // coils are read first
			if at := b.last[i].Time; own != (at >= start && at <= time.Now().UnixMicro()) || !own && at != 0 {
				t.Errorf("tag %d: time %d after %d, want its own: %v", i, at, start, own)
			}
		}
		if _, err := b.read(drivers.Ref{Group: 1}); err != nil || b.last[0].Time == 0 || b.last[1].Time != 0 {
			t.Errorf("times %d and %d, %v; want its own and that of the poll", b.last[0].Time, b.last[1].Time, err)
		}
		b.sim.Inject(modbussim.Fault{Kind: modbussim.Exception, Code: 2, Match: modbussim.Touching(1, modbussim.Holding, 100, 100)})
		if _, err := b.read(drivers.Ref{Group: 1}); err != nil || b.last[0].Time != 0 || b.last[1].Time != 0 {
			t.Errorf("times %d and %d, %v; want those of the poll: one answer only", b.last[0].Time, b.last[1].Time, err)
		}
	})
}

// TestTimesBeforeSilence has a request answered and those after it met by silence, by a device that first says that it is busy, and one that
// takes its time: readings that came well before the end of the poll have the middle of their own request, also in the polls after it.
func TestTimesBeforeSilence(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b := newBubbleBench(t, modbussim.Options{}, 1, tags("holding:0", "holding:100"))
		b.conn.Devices[0].Timeout = 2 * time.Second
		b.option("max_gap", "0").open(t)
		poll := func(what string, want time.Duration) {
			t.Helper()
			start := time.Now()
			if _, err := b.read(drivers.Ref{}); err != nil {
				t.Fatal(err)
			}
			if got := time.UnixMicro(b.last[0].Time).Sub(start); (got-want).Abs() > time.Millisecond || want > 0 && time.Since(start) < want {
				t.Errorf("%s: the reading's time is %v after the poll's begin, want %v", what, got, want)
			}
		}
		first := modbussim.Touching(1, modbussim.Holding, 0, 0)
		b.sim.Inject(modbussim.Fault{Kind: modbussim.Silence, Match: modbussim.Touching(1, modbussim.Holding, 100, 100)})
		poll("silence behind it", 0)
		b.sim.Inject(modbussim.Fault{Kind: modbussim.Delay, Wait: 300 * time.Millisecond, Match: first})
		poll("silence behind a slow answer", 150*time.Millisecond)
		b.sim.Mend()
		b.sim.Inject(modbussim.Fault{Kind: modbussim.Silence, Match: modbussim.Touching(1, modbussim.Holding, 100, 100)})
		b.sim.Inject(modbussim.Fault{Kind: modbussim.Exception, Code: 6, Times: 1, Match: first})
		poll("busy, asked again", busyWait)
	})
}

// TestTimesAlone has groups of one request, whose answer takes its time.
func TestTimesAlone(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b := newBubbleBench(t, modbussim.Options{}, 1, tags("holding:0"))
		b.conn.Devices[0].Timeout = 2 * time.Second
		b.open(t)
		for _, c := range []struct{ took, want time.Duration }{{0, 0}, {190 * time.Millisecond, 0}, {800 * time.Millisecond, 400 * time.Millisecond}, {190 * time.Millisecond, 95 * time.Millisecond}} {
			b.sim.Mend()
			b.sim.Inject(modbussim.Fault{Kind: modbussim.Delay, Wait: c.took})
			start := time.Now()
			if _, err := b.read(drivers.Ref{}); err != nil {
				t.Fatal(err)
			}
			at := b.last[0].Time
			if got := time.UnixMicro(at).Sub(start); at == 0 != (c.want == 0) || at != 0 && (got-c.want).Abs() > time.Millisecond {
				t.Errorf("an answer after %v: time %d, %v after the poll's begin, want %v", c.took, at, got, c.want)
			}
		}
	})
}
