package modbus

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"millrace/drivers"
	"millrace/drivers/modbus/modbussim"
	"millrace/drivers/telemetry"
)

// faultTags are two spans of registers and one of bits: answers of 29, 21 and 10 bytes.
func faultTags() []telemetry.Tag {
	return tags(append(append(run("holding", 100, 9), "holding:109.3"), "input:20", "input:24 uint32", "coil:7", "coil:8")...)
}

// named is a fault with the name that a failing test shows.
type named struct {
	name string
	modbussim.Fault
}

// faults are those of F19 in FAULTS.md, but for the endless answers, which cost a core.
func faults() []named {
	k := func(name string, f modbussim.Fault) named { return named{name, f} }
	list := []named{
		k("silence", modbussim.Fault{Kind: modbussim.Silence}),
		k("late answer", modbussim.Fault{Kind: modbussim.Delay, Wait: 600 * time.Millisecond}),
		k("very late answer", modbussim.Fault{Kind: modbussim.Delay, Wait: 2 * time.Second}),
		k("answer one byte at a time", modbussim.Fault{Kind: modbussim.Drip, Wait: 20 * time.Millisecond}),
		k("wrong transaction", modbussim.Fault{Kind: modbussim.WrongTransaction}),
		k("wrong protocol", modbussim.Fault{Kind: modbussim.WrongProtocol}),
		k("wrong unit", modbussim.Fault{Kind: modbussim.WrongUnit}),
		k("wrong function", modbussim.Fault{Kind: modbussim.WrongFunction}),
		k("two bytes too few", modbussim.Fault{Kind: modbussim.ShortValues}),
		k("two bytes too many", modbussim.Fault{Kind: modbussim.LongValues}),
		k("stale answer first", modbussim.Fault{Kind: modbussim.StaleBefore}),
		k("stale answer only", modbussim.Fault{Kind: modbussim.StaleInstead}),
	}
	for code := range 13 {
		list = append(list, k(fmt.Sprint("exception ", code), modbussim.Fault{Kind: modbussim.Exception, Code: byte(code)}))
	}
	for _, n := range []int{0, 1, 19, 21, 255} {
		list = append(list, k(fmt.Sprint("byte count ", n), modbussim.Fault{Kind: modbussim.WrongCount, N: n}))
	}
	for _, n := range []int{0, 1, 2, 3, 22, 24, 254, 255, 65535} {
		list = append(list, k(fmt.Sprint("length ", n), modbussim.Fault{Kind: modbussim.Length, N: n}))
	}
	for n := range 29 {
		list = append(list, k(fmt.Sprint("close after byte ", n), modbussim.Fault{Kind: modbussim.CloseAt, N: n}))
	}
	for _, n := range []int{1, 5, 6, 7, 8, 9, 10, 20, 28} {
		list = append(list, k(fmt.Sprint("partial frame of ", n), modbussim.Fault{Kind: modbussim.Partial, N: n}))
	}
	for seed := range 12 {
		list = append(list, k(fmt.Sprint("garbage ", seed), modbussim.Fault{Kind: modbussim.Garbage, N: 1 << seed, Seed: uint64(seed)}))
	}
	return list
}

// TestFaults injects each fault into one answer, into the answers of one unit, and into all of them, and
// polls on. Every good reading must be right, and the driver well again soon after the device is.
func TestFaults(t *testing.T) {
	for _, f := range faults() {
		for _, when := range []string{"once", "unit 1", "all"} {
			bubble(t, func(t *testing.T) {
				b := newBubbleBench(t, modbussim.Options{}, 2, faultTags())
				b.conn.Devices[0].Timeout = 400 * time.Millisecond
				b.open(t)
				if err := b.survive(f.Fault, when); err != nil {
					t.Errorf("%s, %s: %v", f.name, when, err)
				}
			})
		}
	}
}

// TestEndlessAnswers has answers to other transactions come as fast as the socket takes them.
func TestEndlessAnswers(t *testing.T) {
	for _, when := range []string{"once", "unit 1"} {
		b := newBench(t, 2, faultTags()).open(t)
		if err := b.survive(modbussim.Fault{Kind: modbussim.Flood}, when); err != nil {
			t.Errorf("%s: %v", when, err)
		}
	}
}

// survive is one fault scenario.
func (b *bench) survive(f modbussim.Fault, when string) error {
	if err := b.mustBeWell("before the fault", 1); err != nil {
		return err
	}
	switch when {
	case "once":
		f.Skip, f.Times = 1, 1
	case "unit 1":
		f.Match = modbussim.OfUnit(1)
	}
	b.sim.Inject(f)
	for range 3 {
		if _, err := b.pollAll(); wrong(err) {
			return fmt.Errorf("under the fault: %w", err)
		}
		if when == "unit 1" {
			if bad, err := b.read(drivers.Ref{Device: 1}); bad > 0 || err != nil {
				return fmt.Errorf("the other unit: %d bad, %w", bad, err)
			}
		}
	}
	b.sim.Mend()
	return b.mustBeWell("after the fault", 3)
}

// mustBeWell polls until every reading is good, so many times at most, and slack more.
func (b *bench) mustBeWell(when string, polls int) error {
	var bad int
	var err error
	for range polls + b.slack {
		if bad, err = b.pollAll(); wrong(err) {
			return fmt.Errorf("%s: %w", when, err)
		} else if bad == 0 && err == nil {
			return nil
		}
	}
	return fmt.Errorf("%s: %d bad readings in poll %d: %w", when, bad, polls+b.slack, err)
}

func wrong(err error) bool { return err != nil && strings.HasPrefix(err.Error(), "WRONG") }

// TestDeadUnit has one of three units behind a gateway dead: an ErrDevice for it, nothing for the others.
func TestDeadUnit(t *testing.T) { bubble(t, testDeadUnit) }

func testDeadUnit(t *testing.T) {
	b := newBubbleBench(t, modbussim.Options{}, 3, faultTags()).open(t)
	b.sim.Inject(modbussim.Fault{Kind: modbussim.Silence, Match: modbussim.OfUnit(2)})
	for range 3 {
		for i := range 3 {
			start := time.Now()
			bad, err := b.read(drivers.Ref{Device: i})
			if dead := i == 1; errors.Is(err, drivers.ErrDevice) != dead || !dead && (bad > 0 || err != nil) {
				t.Fatalf("unit %d: %d bad, %v", i+1, bad, err)
			}
			if took := time.Since(start); i == 1 && took > 450*time.Millisecond {
				t.Errorf("the dead unit took %v of the line's time, want one timeout of 200ms", took)
			}
		}
	}
	b.sim.Mend()
	if bad, err := b.read(drivers.Ref{Device: 1}); bad > 0 || err != nil {
		t.Errorf("the unit is back: %d bad, %v", bad, err)
	}
	if n := b.sim.Connections(); n > 1 {
		t.Errorf("%d connections are open", n)
	}
}

// TestLongDeadUnit has a device dead for many polls: the first one after must read all of it, without
// many requests.
func TestLongDeadUnit(t *testing.T) {
	bubble(t, testLongDeadUnit)
}

func testLongDeadUnit(t *testing.T) {
	b := newBubbleBench(t, modbussim.Options{}, 1, tags(append(run("holding", 0, 64), "input:3", "coil:7", "holding:500")...)).open(t)
	b.sim.Inject(modbussim.Fault{Kind: modbussim.Silence})
	for i := range 25 {
		n := b.requests(func() {
			if _, err := b.read(drivers.Ref{}); !errors.Is(err, drivers.ErrDevice) {
				t.Fatal(err)
			}
		})
		if n > 2 || n > 1 && i > 0 {
			t.Errorf("%d requests to a dead device in poll %d", n, i)
		}
	}
	b.sim.Mend()
	n := b.requests(func() {
		if bad, err := b.read(drivers.Ref{}); bad > 0 || err != nil {
			t.Errorf("%d bad, %v, in the first poll after it is back", bad, err)
		}
	})
	if n > 3+4 {
		t.Errorf("%d requests in the first poll, want at most 7", n)
	}
	if n := b.requests(func() { b.read(drivers.Ref{}) }); n != 4 {
		t.Errorf("%d requests in the second, want 4\n%q", n, b.driver.Plan(drivers.Ref{}))
	}
}

// TestSwitchedOffInMidPoll delivers what was read before the device went, and then says that it is down.
func TestSwitchedOffInMidPoll(t *testing.T) {
	b := newBench(t, 1, faultTags())
	var asked atomic.Int32
	b.sim.Inject(modbussim.Fault{Kind: modbussim.CloseAt, Match: func(modbussim.Request) bool {
		if asked.Add(1) != 2 {
			return false
		}
		go b.sim.Down()
		time.Sleep(50 * time.Millisecond)
		return true
	}})
	b.open(t)
	bad, err := b.read(drivers.Ref{})
	if err != nil || bad == 0 || bad == len(faultTags()) {
		t.Errorf("%d bad, %v; want some bad, some good", bad, err)
	}
	for _, r := range b.last {
		if r.Quality == telemetry.Bad && r.Reason != "the device closed the connection" {
			t.Errorf("tag %d is bad because %q", r.Tag, r.Reason)
		}
	}
	if _, err = b.read(drivers.Ref{}); err == nil || errors.Is(err, drivers.ErrDevice) {
		t.Errorf("the next Read: %v, want a link that is down", err)
	}
	if err := b.sim.Up(); err != nil {
		t.Fatal(err)
	}
	if err := b.mustBeWell("after it is back", 3); err != nil {
		t.Error(err)
	}
}

// TestIdleConnectionClosed has a device that hangs up after each answer: no reading is lost by that.
func TestIdleConnectionClosed(t *testing.T) {
	b := newBench(t, 1, tags("holding:1", "holding:2")).open(t)
	for range 5 {
		if bad, err := b.read(drivers.Ref{}); bad > 0 || err != nil {
			t.Fatalf("%d bad, %v", bad, err)
		}
		b.sim.Cut()
	}
}

// TestReasonsAreStable holds the reasons free of what changes from one attempt to the next.
func TestReasonsAreStable(t *testing.T) {
	for want, f := range map[string]modbussim.Fault{
		"device gives no usable answer: unit 1: no answer within 200ms":                                                             {Kind: modbussim.Silence},
		"device gives no usable answer: unit 1: the answer is not valid Modbus":                                                     {Kind: modbussim.ShortValues},
		"device gives no usable answer: unit 1: the answer came from another unit id, 2; accept_unit: 2 takes it, if that is right": {Kind: modbussim.WrongUnit},
		"device gives no usable answer: unit 1: the device closed the connection":                                                   {Kind: modbussim.CloseAt},
	} {
		bubble(t, func(t *testing.T) {
			b := newBubbleBench(t, modbussim.Options{}, 1, tags("holding:1")).open(t)
			b.sim.Inject(f)
			b.read(drivers.Ref{}) // whether another unit always answers is known after three answers
			for range 2 {
				if _, err := b.read(drivers.Ref{}); err == nil || err.Error() != want {
					t.Errorf("%v, want %q", err, want)
				}
			}
		})
	}
}

// TestDamagedUnitIsNotNamed has answers whose unit id is damaged: the reason is the same each time, and names no number and no option.
func TestDamagedUnitIsNotNamed(t *testing.T) {
	n := byte(0)
	b := newBench(t, 1, tags("holding:1"))
	b.sim = startSim(t, modbussim.Options{Wire: func(to io.Writer, frame []byte) bool {
		n++
		frame[6] = 10 + n
		_, err := to.Write(frame)
		return err == nil
	}})
	b.conn.URL, b.conn.Devices[0].URL = b.sim.URL(), b.sim.URL()
	b.open(t)
	for range 5 {
		if _, err := b.read(drivers.Ref{}); err == nil || err.Error() != "device gives no usable answer: unit 1: the answer came from another unit id" {
			t.Errorf("%v", err)
		}
	}
}

// TestQuiet holds that the library writes nothing to standard output, where `demo --json` writes.
func TestQuiet(t *testing.T) {
	stdout := os.Stdout
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	os.Stdout = w
	b := newHastyBench(t, 1, tags("holding:1")).open(t)
	b.sim.Inject(modbussim.Fault{Kind: modbussim.WrongTransaction, Times: 1})
	b.sim.Inject(modbussim.Fault{Kind: modbussim.WrongFunction, Times: 1})
	for range 3 {
		b.read(drivers.Ref{})
	}
	os.Stdout = stdout
	w.Close()
	if out, _ := io.ReadAll(r); len(out) > 0 {
		t.Errorf("written to standard output: %s", out)
	}
}

// TestReasons holds what is said of answers that drip in too slowly, and of those of another unit in ASCII.
func TestReasons(t *testing.T) {
	for _, c := range []struct {
		framing  framing
		in, want string
	}{
		{mbap, "0008 0000 0009 11 03 06", "the answer was incomplete after 1s: 9 of 15 bytes; raise timeout, if the device is slow"},
		{mbap, "0008 0000", "the answer was incomplete after 1s: 4 of 15 bytes; raise timeout, if the device is slow"},
		{rtu, "11", "the answer was incomplete after 1s: 1 of 11 bytes; raise timeout, if the device is slow"},
		{rtu, "ff 00 11 03 06 022b 0000", "the answer was incomplete after 1s: 7 of 11 bytes; raise timeout, if the device is slow"},
		{rtu, "11 83 02", "the answer was incomplete after 1s: 3 of 5 bytes; raise timeout, if the device is slow"},
		{rtu, "11 03 08 022b 0000", "the answer is not valid Modbus"},
		{rtu, "11 03 06 022b 0000 0064 0000", "the answer is not valid Modbus"},
		{rtu, "ff 00 11", "the answer is not valid Modbus"},
		{ascii, hex.EncodeToString([]byte("?:120306\r\n:110306022B")), "the answer was incomplete after 1s: 11 of 23 bytes; raise timeout, if the device is slow"},
		{ascii, hex.EncodeToString([]byte("110306022B")), "the answer is not valid Modbus"},
		{ascii, hex.EncodeToString([]byte(":120306022B0000006454\r\n")), "the answer came from another unit id"},
		{ascii, hex.EncodeToString([]byte(":120306022B0000006453\r\n")), "the answer is not valid Modbus"},
	} {
		s := &script{portion: 3, end: os.ErrDeadlineExceeded, in: fromHex(t, c.in)}
		w := &wire{port: s, framing: c.framing, number: 7}
		_, err := w.exchange(t.Context(), &request{unit: 0x11, pdu: fromHex(t, "03 006b 0003"), want: 6}, time.Second)
		if l := asLoss(err); l == nil || l.words(time.Second) != c.want {
			t.Errorf("framing %d, %s: %v, want %q", c.framing, c.in, err, c.want)
		}
	}
}

// TestDrip has an answer come a byte at a time: what comes is bounded by the device's timeout as a whole, and the words are the same at each poll.
func TestDrip(t *testing.T) {
	for transport, want := range map[string]string{"tcp": "14 of 17", "rtuovertcp": "10 of 13", "asciiovertcp": "21 of 27"} {
		bubble(t, func(t *testing.T) {
			network := newMemory(false)
			drip := func(to io.Writer, frame []byte) bool {
				for i := range frame {
					_, _ = to.Write(frame[i : i+1])
					time.Sleep(260 * time.Millisecond / time.Duration(max(len(frame), 13))) // all of it within two timeouts
				}
				return true
			}
			b := &bench{sim: startSim(t, modbussim.Options{Transport: transport, Listener: network, Wire: drip}), dialer: network.dial}
			b.conn.URL = b.sim.URL()
			b.sim.Unit(1).Fill(b.fill)
			b.conn.Devices = append(b.conn.Devices, device(b.conn.URL, 1, tags("holding:100 uint64")))
			b.open(t)
			for range 6 {
				start := time.Now()
				_, err := b.read(drivers.Ref{})
				if err == nil { // it answered something shorter
					err = fmt.Errorf("%w: unit 1: %s", drivers.ErrDevice, b.last[0].Reason)
				}
				words := "device gives no usable answer: unit 1: the answer was incomplete after 200ms: " + want + " bytes; raise timeout, if the device is slow"
				if took := time.Since(start); err == nil || err.Error() != words || took > 4*maxSilent*200*time.Millisecond {
					t.Errorf("%s: %v after %v; want %s", transport, err, took, words)
				}
			}
		})
	}
}
