package modbus

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"millrace/drivers"
	"millrace/drivers/modbus/modbussim"
	"millrace/drivers/telemetry"
)

// bench is a driver on a simulated device whose every register says whose it is and when it was read, so
// that a value given to the wrong tag, or an old value under a new time, cannot pass.
type bench struct {
	sim        *modbussim.Server
	driver     *driver
	conn       drivers.Connection
	generation atomic.Uint32       // changes before each Read
	clock      time.Duration       // what the driver's clock is ahead
	last       []telemetry.Reading // of the last Read
	dialer     dialer              // nil = the network's
	places     map[string]address  // of the tags, read once
	slack      int                 // polls more that all may take to be well, on a line that has this machine's time and a short timeout
}

// newBench starts a device with these groups for each of the units.
func newBench(t testing.TB, units int, groups ...[]telemetry.Tag) *bench {
	t.Helper()
	b := newHastyBench(t, units, groups...)
	for i := range b.conn.Devices {
		b.conn.Devices[i].Timeout = 5 * time.Second // a slow machine is no silent device
	}
	return b
}

// newHastyBench is one for tests of silence: its units have a timeout of 200 ms.
func newHastyBench(t testing.TB, units int, groups ...[]telemetry.Tag) *bench {
	t.Helper()
	b := &bench{sim: startSim(t, modbussim.Options{})}
	b.conn.URL = b.sim.URL()
	for u := 1; u <= units; u++ {
		b.sim.Unit(uint8(u)).Fill(b.fill)
		b.conn.Devices = append(b.conn.Devices, device(b.conn.URL, u, groups...))
	}
	return b
}

// open makes the driver and connects it.
func (b *bench) open(t testing.TB) *bench {
	t.Helper()
	var err error
	if b.driver, err = newDriver(&b.conn, func() time.Time { return time.Now().Add(b.clock) }); err != nil {
		t.Fatal(err)
	}
	if b.dialer != nil {
		b.driver.link.dialer = b.dialer
	}
	for try := 0; ; try++ { // a secure connection costs a slow machine more than its time
		err := b.driver.Connect(context.Background())
		if err == nil {
			break
		}
		if try == 4 {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() { b.driver.Close() })
	return b
}

// stamp is what the register or bit holds: twelve bits of its whereabouts, four of the generation.
func (b *bench) stamp(unit uint8, t modbussim.Table, addr uint32) uint16 {
	h := (uint32(unit)*31+uint32(t))*70001 + addr
	h *= 2654435761
	return uint16(h>>20)<<4 | uint16(b.generation.Load()&15)
}

func (b *bench) fill(q modbussim.Request, dst []byte) {
	for i := range uint32(q.Count) {
		v := b.stamp(q.Unit, q.Table, uint32(q.Addr)+i)
		if q.Table.Bits() {
			dst[i/8] |= byte((v>>4^v)&1) << (i % 8)
		} else {
			binary.BigEndian.PutUint16(dst[2*i:], v)
		}
	}
}

// read polls one group into a slice full of old readings and checks whatever is good. It returns how many
// readings are bad.
func (b *bench) read(ref drivers.Ref) (bad int, err error) {
	b.generation.Add(1)
	group := &b.conn.Devices[ref.Device].Groups[ref.Group]
	stale := make([]telemetry.Reading, len(group.Tags))
	for i := range stale {
		stale[i] = telemetry.Reading{Tag: uint32(i), Value: telemetry.String("yesterday"), Time: 1}
	}
	start := time.Now().Add(b.clock).UnixMicro()
	readings, err := b.driver.Read(context.Background(), ref, stale[:0])
	end := time.Now().Add(b.clock).UnixMicro()
	if err != nil {
		if len(readings) != 0 {
			return 0, fmt.Errorf("WRONG: %d readings beside the error %w", len(readings), err)
		}
		return len(group.Tags), err
	}
	b.last = readings
	for i := range readings {
		r := &readings[i]
		if r.Time != 0 && (r.Time < start || r.Time > end) || int(r.Tag) != i {
			return 0, fmt.Errorf("WRONG: tag %d: time %d, tag %d: an old reading", i, r.Time, r.Tag)
		}
		if r.Quality == telemetry.Bad {
			bad++
			continue
		}
		if want := b.want(ref, &group.Tags[i]); r.Value != want {
			return 0, fmt.Errorf("WRONG: tag %d at %q: value %+v, want %+v", i, group.Tags[i].Address, r.Value, want)
		}
	}
	return bad, nil
}

// want is the right value of a uint16, float32 or bool tag at this moment.
func (b *bench) want(ref drivers.Ref, tag *telemetry.Tag) telemetry.Value {
	a := b.place(tag.Address)
	t := [...]modbussim.Table{coil: modbussim.Coil, discrete: modbussim.Discrete, input: modbussim.Input, holding: modbussim.Holding}[a.table]
	unit := uint8(ref.Device + 1)
	v := b.stamp(unit, t, a.number)
	switch {
	case a.table.bits():
		return telemetry.Bool((v>>4^v)&1 == 1)
	case a.bit >= 0:
		return telemetry.Bool(v>>a.bit&1 == 1)
	case tag.Type == "uint32":
		return telemetry.Uint(uint64(v)<<16 | uint64(b.stamp(unit, t, a.number+1)))
	}
	return telemetry.Uint(uint64(v))
}

// place is parseAddress, once for each word: every reading of every poll is looked at.
func (b *bench) place(word string) address {
	a, ok := b.places[word]
	if ok {
		return a
	}
	if b.places == nil {
		b.places = map[string]address{}
	}
	a, _ = parseAddress(word)
	b.places[word] = a
	return a
}

// pollAll reads every group once as the poller does: a link that is down is closed and connected again.
// It returns the number of bad readings and the last error.
func (b *bench) pollAll() (bad int, err error) {
	for i := range b.conn.Devices {
		for j := range b.conn.Devices[i].Groups {
			n, e := b.read(drivers.Ref{Device: i, Group: j})
			bad += n
			if e == nil {
				continue
			}
			if !wrong(err) {
				err = e
			}
			if !errors.Is(e, drivers.ErrDevice) {
				b.driver.Close()
				_ = b.driver.Connect(context.Background())
			}
		}
	}
	return bad, err
}

// requests runs f and returns how many requests the device saw meanwhile.
func (b *bench) requests(f func()) int {
	before := b.sim.Requests()
	f()
	return int(b.sim.Requests() - before)
}

// run returns the addresses of n consecutive registers or bits.
func run(table string, first, n int) []string {
	words := make([]string, n)
	for i := range words {
		words[i] = fmt.Sprintf("%s:%d", table, first+i)
	}
	return words
}
