package modbus

import (
	"fmt"
	"maps"
	"strings"
	"testing"
	"time"

	"millrace/drivers"
	"millrace/drivers/modbus/modbussim"
)

// stubborn is a device with manners that are found by searching: limits of both kinds, and registers between the tags that
// cannot be read.
func stubborn() modbussim.Fault {
	return modbussim.Fault{Kind: modbussim.Exception, Code: 2, Match: func(q modbussim.Request) bool {
		if q.Table.Bits() {
			return q.Count > 30
		}
		return q.Count > 50 || q.Table == modbussim.Input && q.Addr <= 15 && q.Addr+q.Count > 12
	}}
}

func stubbornTags() []string {
	words := append(run("holding", 0, 120), run("coil", 0, 100)...)
	return append(append(words, run("input", 0, 10)...), run("input", 20, 10)...)
}

// again closes the driver and opens another one, as a restart does, with what it is given.
func (b *bench) again(t *testing.T, learned ...map[string]string) {
	t.Helper()
	_ = b.driver.Close()
	b.open(t)
	for i, l := range learned {
		if err := b.driver.Restore(i, l); err != nil {
			t.Fatal(err)
		}
	}
}

// TestLearnedOutlivesRestart counts the requests of the first polls after a restart: without what was learned they are a
// search, with it, or with it in the config, they are not.
func TestLearnedOutlivesRestart(t *testing.T) {
	b := newBench(t, 1, tags(stubbornTags()...)).patient().open(t)
	b.sim.Inject(stubborn())
	poll := func() {
		t.Helper()
		if bad, err := b.read(drivers.Ref{}); bad > 0 || err != nil {
			t.Errorf("%d bad, %v", bad, err)
		}
	}
	search := b.requests(poll)
	for range 100 {
		poll()
	}
	learned := b.driver.Learned(0)
	if want := map[string]string{"max_registers": "50", "max_bits": "30", "forbidden": "input:10-19"}; !maps.Equal(learned, want) {
		t.Fatalf("learned %q, want %q", learned, want)
	}
	const steady = 3 + 4 + 2 // of each table
	if n := b.requests(poll); n != steady || search < steady+6 {
		t.Fatalf("%d requests, %d in the first poll; want %d, and at least 6 more", n, search, steady)
	}
	b.again(t, learned)
	if now := b.driver.Learned(0); !maps.Equal(now, learned) {
		t.Errorf("restored %q, want %q", now, learned)
	}
	for range 5 {
		if n := b.requests(poll); n != steady {
			t.Errorf("%d requests after a restart, want %d", n, steady)
		}
	}
	for name, text := range learned { // as a person would paste it
		b.option(name, text)
	}
	b.again(t)
	for range 5 {
		if n := b.requests(poll); n != steady {
			t.Errorf("%d requests with it in the config, want %d", n, steady)
		}
	}
	if now := b.driver.Learned(0); now != nil {
		t.Errorf("learned %q beside the config", now)
	}
}

// TestLearnedIsTriedAgain: a restored limit that no longer holds is found out, as a learned one is.
func TestLearnedIsTriedAgain(t *testing.T) {
	b := newBench(t, 1, tags(run("holding", 0, 120)...)).patient().open(t)
	b.again(t, map[string]string{"max_registers": "50"})
	if n := b.requests(func() { b.read(drivers.Ref{}) }); n != 3 {
		t.Errorf("%d requests with a limit of 50, want 3", n)
	}
	b.clock += maxRest + time.Second
	for range 3 {
		b.read(drivers.Ref{})
	}
	if n := b.requests(func() { b.read(drivers.Ref{}) }); n != 1 || b.driver.Learned(0) != nil {
		t.Errorf("%d requests of a device that answers more now, want 1; learned %q", n, b.driver.Learned(0))
	}
}

// TestLearnedGapOutlivesRestart: a device that refuses to be read across gaps is asked around them from the first poll on.
func TestLearnedGapOutlivesRestart(t *testing.T) {
	const n, gap = 20, 3
	b := newBench(t, 1, tags(islands(n, gap)...)).patient().open(t)
	b.sim.Inject(modbussim.Fault{Kind: modbussim.Exception, Code: 2, Match: func(q modbussim.Request) bool { return int(q.Addr)%(5+gap)+int(q.Count) > 5 }})
	poll := func() {
		t.Helper()
		if bad, err := b.read(drivers.Ref{}); bad > 0 || err != nil {
			t.Errorf("%d bad, %v", bad, err)
		}
	}
	want := map[string]string{"max_gap": "0"}
	for range 40 {
		poll()
	}
	if l := b.driver.Learned(0); !maps.Equal(l, want) {
		t.Fatalf("learned %q", l)
	}
	b.again(t, want)
	for range 5 {
		if n1 := b.requests(poll); n1 != n || !maps.Equal(b.driver.Learned(0), want) {
			t.Errorf("%d requests after a restart, want %d; learned %q", n1, n, b.driver.Learned(0))
		}
	}
	b.sim.Mend()
	for range 200 {
		poll()
	}
	if n1 := b.requests(poll); n1 > 3 || b.driver.Learned(0) != nil {
		t.Errorf("%d requests of a device that reads across gaps now; learned %q", n1, b.driver.Learned(0))
	}
	b.again(t, want)
	b.driver.Forget(0)
	if n1 := b.requests(poll); n1 > 3 {
		t.Errorf("%d requests after it was forgotten", n1)
	}
}

// TestForget: what was learned is not there any more at once, and is searched anew; what a neighbour on the line learned of
// itself stays.
func TestForget(t *testing.T) {
	b := newBench(t, 2, tags(stubbornTags()...)).patient().open(t)
	b.sim.Inject(stubborn())
	for range 100 {
		b.pollAll()
	}
	before := b.driver.Learned(1)
	if len(before) != 3 || !maps.Equal(before, b.driver.Learned(0)) {
		t.Fatalf("learned %q and %q", before, b.driver.Learned(0))
	}
	b.driver.Forget(0)
	if now := b.driver.Learned(0); now != nil {
		t.Errorf("still learned: %q", now)
	}
	if n := b.requests(func() { b.read(drivers.Ref{}) }); n < 15 {
		t.Errorf("%d requests in the first poll after it: that is no search", n)
	}
	if n := b.requests(func() { b.read(drivers.Ref{Device: 1}) }); n != 9 || !maps.Equal(before, b.driver.Learned(1)) {
		t.Errorf("the neighbour: %d requests, learned %q", n, b.driver.Learned(1))
	}
	for range 100 {
		b.pollAll()
	}
	if now := b.driver.Learned(0); !maps.Equal(before, now) {
		t.Errorf("learned anew %q, before %q", now, before)
	}
}

// TestForgetPace: the pace is the line's, so that all devices on it lose it.
func TestForgetPace(t *testing.T) {
	b := newBench(t, 2, tags("holding:1")).open(t)
	pace := map[string]string{"pause_between_requests": "55ms", "pause_after_connect": "300ms"}
	b.again(t, pace, pace)
	if p := &b.driver.link.pace; p.between != 55*time.Millisecond || p.connect != 300*time.Millisecond || !maps.Equal(b.driver.Learned(1), pace) {
		t.Fatalf("restored %v and %v, %q", p.between, p.connect, b.driver.Learned(1))
	}
	b.driver.Forget(0)
	for i := range 2 {
		if l := b.driver.Learned(i); l != nil {
			t.Errorf("device %d: %q", i, l)
		}
	}
	b.read(drivers.Ref{Device: 1})
	if p := &b.driver.link.pace; p.between != 0 || p.connect != 0 || b.driver.Learned(0) != nil || b.driver.Learned(1) != nil {
		t.Errorf("still %v and %v, %q", p.between, p.connect, b.driver.Learned(1))
	}
	b.option("pause_between_requests", "5ms").again(t, pace)
	b.driver.Forget(0)
	b.read(drivers.Ref{})
	if p := &b.driver.link.pace; p.between != 5*time.Millisecond {
		t.Errorf("the config says 5ms, and not %v", p.between)
	}
}

// TestRestoreRefuses: what is not valid is left out and told, the rest is taken.
func TestRestoreRefuses(t *testing.T) {
	for name, texts := range map[string][]string{
		"max_registers": {"0", "126", "-1", "ten", ""}, "max_bits": {"0", "2001", "x"}, "pause_between_requests": {"1h", "-1s", "soon"},
		"pause_after_connect": {"11s", "1"}, "max_gap": {"125", "-1", "few"}, "forbidden": {"holding", "holding:70000", "holding:9-3", "nowhere:1", ","}, "retries": {"3"},
	} {
		for _, text := range texts {
			b := newBench(t, 1, tags(run("holding", 0, 100)...)).open(t)
			learned := map[string]string{name: text, "max_bits": "70"}
			learned[name] = text
			err := b.driver.Restore(0, learned)
			if err == nil || !strings.Contains(err.Error(), name) {
				t.Errorf("%s %q: %v", name, text, err)
			}
			want := map[string]string{"max_bits": "70"}
			if name == "max_bits" {
				want = nil
			}
			if got := b.driver.Learned(0); !maps.Equal(got, want) {
				t.Errorf("%s %q: restored %q", name, text, got)
			}
			if bad, err := b.read(drivers.Ref{}); bad > 0 || err != nil {
				t.Errorf("%s %q: %d bad, %v", name, text, bad, err)
			}
		}
	}
}

// TestLearnedLoads: a limit under the length of a tag is not said, because no config could hold both.
func TestLearnedLoads(t *testing.T) {
	words := append(run("holding", 0, 40), "holding:100 uint32")
	b := newBench(t, 1, tags(words...)).patient().open(t)
	b.sim.Inject(modbussim.Fault{Kind: modbussim.Exception, Code: 3, Match: func(q modbussim.Request) bool { return q.Count > 1 }})
	for range 50 {
		b.read(drivers.Ref{})
	}
	if learned := b.driver.Learned(0); learned != nil {
		t.Errorf("learned %q, but a tag of two registers is there", learned)
	}
}

// FuzzRestore gives the driver what may be in a file that was damaged.
func FuzzRestore(f *testing.F) {
	f.Add("max_registers", "50", "forbidden", "holding:10-19")
	f.Add("pause_between_requests", "25ms", "max_bits", "30")
	f.Add("max_gap", "0", "forbidden", "input:12")
	f.Add("forbidden", strings.Repeat("coil:1, ", 50), "", "\xff")
	f.Fuzz(func(t *testing.T, a, x, b, y string) {
		conn := drivers.Connection{URL: "tcp://127.0.0.1", Devices: []drivers.Device{device("tcp://127.0.0.1", 1, tags(stubbornTags()...))}}
		d, err := newDriver(&conn, time.Now)
		if err != nil {
			t.Fatal(err)
		}
		_ = d.Restore(0, map[string]string{a: x, b: y})
		for name, text := range d.Learned(0) { // what is shown must load
			conn.Devices[0].Options[name] = text
		}
		if _, err := newDriver(&conn, time.Now); err != nil {
			t.Error(err)
		}
		if n := len(fmt.Sprint(d.Learned(0))); n > 32*30+200 {
			t.Errorf("%d bytes", n)
		}
	})
}

// TestLearnedFromOutside: what others look at and ask for meanwhile is not what the poll works on (for -race), and after the
// last Forget all is learned anew.
func TestLearnedFromOutside(t *testing.T) {
	second := startSim(t, modbussim.Options{})
	b := newBench(t, 2, tags(stubbornTags()...)).patient().spares(second.URL()).open(t)
	b.sim.Inject(stubborn())
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			case <-time.After(time.Millisecond):
			}
			for _, text := range b.driver.Learned(i % 2) {
				_ = len(text)
			}
			if i%10 == 0 {
				b.driver.Forget(i / 10 % 2)
			}
			b.driver.Paths()
		}
	}()
	for range 100 {
		if bad, err := b.pollAll(); bad > 0 || err != nil {
			t.Errorf("%d bad, %v", bad, err)
		}
	}
	close(stop)
	<-stopped
	for range 100 {
		b.pollAll()
	}
	for i := range 2 {
		if l := b.driver.Learned(i); len(l) != 3 {
			t.Errorf("device %d: learned %q", i, l)
		}
	}
}

// TestPausesAreTriedAgain: a learned pause is left out once an hour. A device that needs it still costs one request more and
// no reading; of one that does not the pause is forgotten.
func TestPausesAreTriedAgain(t *testing.T) {
	for name, c := range map[string]struct {
		trial trial
		fault modbussim.Fault
		known map[string]string
	}{
		"between": {trialBetween, modbussim.Fault{Kind: modbussim.Hasty, Wait: 100 * time.Millisecond}, map[string]string{"pause_between_requests": "150ms"}},
		"connect": {trialConnect, modbussim.Fault{Kind: modbussim.Deaf, Wait: 400 * time.Millisecond}, map[string]string{"pause_after_connect": "500ms"}},
	} {
		bubble(t, func(t *testing.T) {
			b := newBubbleBench(t, modbussim.Options{}, 1, tags(blocksOf(2)...)).patient().open(t)
			if err := b.mustBeWell("at first", 1); err != nil { // so that its blocks are known to be good
				t.Fatal(err)
			}
			b.conn.Devices[0].Timeout = 700 * time.Millisecond
			b.driver.units[0].timeout = 700 * time.Millisecond
			pace := &b.driver.link.pace
			pace.forget()
			pace.easy = time.Second // nothing is known that contradicts it
			if err := b.driver.Restore(0, c.known); err != nil {
				t.Fatal(err)
			}
			poll := func() int {
				t.Helper()
				time.Sleep(200 * time.Millisecond) // only the second request would have to wait
				if c.trial == trialConnect {
					_ = b.driver.link.close()
					if err := b.driver.Connect(t.Context()); err != nil {
						t.Fatal(err)
					}
				}
				return b.requests(func() {
					if bad, err := b.read(drivers.Ref{}); bad > 0 || err != nil {
						t.Errorf("%s: %d bad, %v", name, bad, err)
					}
				})
			}
			b.sim.Inject(c.fault)
			if n := poll(); n != 2 || !maps.Equal(b.driver.Learned(0), c.known) {
				t.Errorf("%s: %d requests within the hour, want 2; learned %q", name, n, b.driver.Learned(0))
			}
			pace.tried[c.trial] = time.Now().Add(-2 * trialEvery)
			if n := poll(); n != 3 || !maps.Equal(b.driver.Learned(0), c.known) {
				t.Errorf("%s: %d requests with the trial, want 3; learned %q", name, n, b.driver.Learned(0))
			}
			if n := poll(); n != 2 {
				t.Errorf("%s: %d requests after the trial, want 2", name, n)
			}
			b.sim.Mend()
			pace.tried[c.trial] = time.Now().Add(-2 * trialEvery)
			if n := poll(); n != 2 || b.driver.Learned(0) != nil {
				t.Errorf("%s: %d requests of a device that needs no pause, want 2; learned %q", name, n, b.driver.Learned(0))
			}
		})
	}
}

// TestForbiddenNamesNoTag: registers between the tags of one group that a tag of another group reads are not said to be forbidden, so that the
// config line that is shown loads and takes no reading away; a restart with it asks around them.
func TestForbiddenNamesNoTag(t *testing.T) {
	b := newBench(t, 1, tags(append(run("holding", 0, 10), run("holding", 20, 10)...)...), tags("holding:12 uint32")).patient().open(t)
	b.sim.Inject(modbussim.Fault{Kind: modbussim.Exception, Code: 2, Match: modbussim.Touching(1, modbussim.Holding, 15, 15)})
	for range 100 {
		b.pollAll()
	}
	want := map[string]string{"forbidden": "holding:10-11, holding:14-19"}
	if l := b.driver.Learned(0); !maps.Equal(l, want) {
		t.Fatalf("learned %q, want %q", l, want)
	}
	b.again(t, want)
	if n := b.requests(func() { b.read(drivers.Ref{}) }); n != 2 || !maps.Equal(b.driver.Learned(0), want) {
		t.Errorf("%d requests after a restart, want 2; learned %q", n, b.driver.Learned(0))
	}
	b.option("forbidden", want["forbidden"]).again(t)
	for range 3 {
		if bad, err := b.pollAll(); bad > 0 || err != nil {
			t.Errorf("with it in the config: %d bad, %v", bad, err)
		}
	}
}
