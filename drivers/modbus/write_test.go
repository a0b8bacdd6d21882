package modbus

import (
	"context"
	"errors"
	"maps"
	"math"
	"strings"
	"sync"
	"testing"
	"time"

	"millrace/drivers"
	"millrace/drivers/modbus/modbussim"
	"millrace/drivers/telemetry"
)

// writer is a driver on a device that keeps what is written.
type writer struct {
	sim    *modbussim.Server
	driver *driver
	tags   []telemetry.Tag
}

func newWriter(t *testing.T, transport string, lines ...string) *writer {
	t.Helper()
	w := &writer{sim: startSim(t, modbussim.Options{Transport: transport})}
	w.sim.Unit(1)
	for _, line := range lines {
		w.tags = append(w.tags, tagOf(line))
	}
	d := device(w.sim.URL(), 1, w.tags)
	d.Timeout = 10 * time.Second
	w.driver = connect(t, drivers.Connection{URL: w.sim.URL(), Devices: []drivers.Device{d}})
	return w
}

func (w *writer) write(tag int, v telemetry.Value) error {
	return w.driver.Write(context.Background(), []drivers.Write{{Tag: tag, Value: v}})[0]
}

func (w *writer) read(t *testing.T, tag int) telemetry.Value {
	t.Helper()
	readings, err := w.driver.Read(context.Background(), drivers.Ref{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return readings[tag].Value
}

// TestWriteEveryKind writes values of every kind in every order, over three framings, and reads them again.
func TestWriteEveryKind(t *testing.T) {
	at := time.Date(2031, 12, 31, 23, 59, 58, 123e6, time.UTC)
	values := map[kind][]telemetry.Value{
		kindInt16: {telemetry.Int(-32768), telemetry.Int(32767)}, kindUint16: {telemetry.Uint(65535), telemetry.Uint(0)},
		kindInt32: {telemetry.Int(math.MinInt32), telemetry.Int(77)}, kindUint32: {telemetry.Uint(math.MaxUint32), telemetry.Uint(0x12345678)},
		kindInt64: {telemetry.Int(math.MinInt64), telemetry.Int(math.MaxInt64)}, kindUint64: {telemetry.Uint(math.MaxUint64), telemetry.Uint(1<<53 + 1)},
		kindFloat32: {telemetry.Float32(-1.5e30)}, kindFloat64: {telemetry.Float64(math.Pi)}, kindInt48: {telemetry.Int(-1 << 47)}, kindUint48: {telemetry.Uint(1<<48 - 1)},
		kindBCD16: {telemetry.Uint(9999)}, kindBCD32: {telemetry.Uint(12345678)}, kindBCD64: {telemetry.Uint(9999999999999999)},
		kindMod32: {telemetry.Uint(99999999)}, kindMod48: {telemetry.Uint(123456789012)}, kindMod64: {telemetry.Uint(9999999999999999)},
		kindInt8: {telemetry.Int(-128)}, kindUint8: {telemetry.Uint(255)}, kindUnix32: {telemetry.Time(at.Truncate(time.Second))},
		kindUnix64: {telemetry.Time(at.Truncate(time.Second))}, kindUnixMs64: {telemetry.Time(at)}, kindYMDHMS: {telemetry.Time(at.Truncate(time.Second))},
		kindYMDHMS3: {telemetry.Time(at.Truncate(time.Second))}, kindCP56: {telemetry.Time(at)},
		kindString: {telemetry.String("Grüße")}, kindBytes: {telemetry.String("00ff7fa512345678")},
	}
	for _, transport := range []string{"tcp", "rtuovertcp", "asciiovertcp"} {
		for k, list := range values {
			lines := []string{"holding:100 " + k.String()}
			if k.long() {
				lines = []string{lines[0] + " length=8", lines[0] + " length=8 order=BADC"}
			} else if kinds[k].ordered {
				for _, o := range orderNames {
					lines = append(lines, lines[0]+" order="+o)
				}
			}
			for _, line := range lines {
				w := newWriter(t, transport, line)
				for _, v := range list {
					if err := w.write(0, v); err != nil {
						t.Errorf("%s, %s: %v", transport, line, err)
					} else if got := w.read(t, 0); got != v {
						t.Errorf("%s, %s: wrote %+v, read %+v", transport, line, v, got)
					}
				}
			}
		}
	}
}

// TestWriteParts writes bits and bytes of a register and leaves the others alone, also on a device without function 22.
func TestWriteParts(t *testing.T) {
	for _, mask := range []bool{true, false} {
		w := newWriter(t, "tcp", "holding:5.3", "holding:5.4-7", "holding:5 uint8 byte=high", "holding:5", "holding:5.3 enum=0=open,1=shut", "coil:2")
		w.sim.Unit(1).SetRegisters(modbussim.Holding, 5, 0x1101)
		if !mask {
			w.sim.Inject(modbussim.Fault{Kind: modbussim.Exception, Code: 1, Match: func(q modbussim.Request) bool { return q.Write == maskRegister }})
		}
		for _, c := range []struct {
			tag   int
			value telemetry.Value
			want  uint64
		}{
			{0, telemetry.Bool(true), 0x1109}, {1, telemetry.Uint(10), 0x11a9}, {2, telemetry.Uint(0xfe), 0xfea9},
			{4, telemetry.String("open"), 0xfea1}, {0, telemetry.Float64(1), 0xfea9},
		} {
			if err := w.write(c.tag, c.value); err != nil {
				t.Error(err)
			} else if got := w.read(t, 3).Bits; got != c.want {
				t.Errorf("function 22 %v: wrote %+v to %q: register %04x, want %04x", mask, c.value, w.tags[c.tag].Address, got, c.want)
			}
		}
		if err := w.write(5, telemetry.Bool(true)); err != nil || w.read(t, 5) != telemetry.Bool(true) {
			t.Errorf("coil: %v", err)
		}
	}
}

// TestWriteFallsBack writes to a device that knows only the functions for several registers and coils, and remembers it.
func TestWriteFallsBack(t *testing.T) {
	w := newWriter(t, "tcp", "holding:1", "coil:1")
	w.sim.Inject(modbussim.Fault{Kind: modbussim.Exception, Code: 1, Match: func(q modbussim.Request) bool { return q.Write == writeRegister || q.Write == writeCoil }})
	for i := range uint64(3) {
		if err := w.write(0, telemetry.Uint(i)); err != nil || w.read(t, 0).Bits != i {
			t.Errorf("register: %v", err)
		}
		if err := w.write(1, telemetry.Bool(i == 1)); err != nil || w.read(t, 1) != telemetry.Bool(i == 1) {
			t.Errorf("coil: %v", err)
		}
	}
	before := w.sim.Requests()
	w.write(0, telemetry.Uint(7))
	if n := w.sim.Requests() - before; n != 1 {
		t.Errorf("%d requests for a write, want 1: it is known by now", n)
	}
}

// functions begins to count the requests by function, those that read as 0; what it returns tells the count.
func (w *writer) functions() func() map[uint8]int {
	var mu sync.Mutex
	seen := map[uint8]int{}
	w.sim.Inject(modbussim.Fault{Kind: modbussim.Exception, Match: func(q modbussim.Request) bool {
		mu.Lock()
		defer mu.Unlock()
		if q.Write != 0 {
			seen[q.Write]++
		} else if q.Table == modbussim.Holding || q.Table == modbussim.Coil {
			seen[0]++
		}
		return false
	}})
	return func() map[uint8]int {
		mu.Lock()
		defer mu.Unlock()
		return maps.Clone(seen)
	}
}

// TestWriteFunction: a tag's write_function is the one that is used, and 23 needs no other request to know what the device holds.
func TestWriteFunction(t *testing.T) {
	for _, transport := range []string{"tcp", "udp", "rtuovertcp", "asciiovertcp"} {
		for _, c := range []struct {
			line  string
			value telemetry.Value
			want  map[uint8]int
		}{
			{"holding:10 write_function=6", telemetry.Uint(7), map[uint8]int{6: 1}},
			{"holding:10 write_function=16", telemetry.Uint(7), map[uint8]int{16: 1}},
			{"holding:10 write_function=23", telemetry.Uint(7), map[uint8]int{23: 1}},
			{"holding:10 write_function=23 read_back=true", telemetry.Uint(7), map[uint8]int{23: 1}},
			{"holding:10 write_function=16 read_back=true", telemetry.Uint(7), map[uint8]int{16: 1, 0: 1}},
			{"holding:10 float64 order=CDAB write_function=23", telemetry.Float64(math.Pi), map[uint8]int{23: 1}},
			{"holding:10 string length=242 write_function=23", telemetry.String(strings.Repeat("x", 242)), map[uint8]int{23: 1}},
			{"holding:10 string length=246 write_function=16", telemetry.String(strings.Repeat("x", 246)), map[uint8]int{16: 1}},
			{"coil:10 write_function=5", telemetry.Bool(true), map[uint8]int{5: 1}},
			{"coil:10 write_function=15", telemetry.Bool(true), map[uint8]int{15: 1}},
		} {
			w := newWriter(t, transport, c.line)
			w.read(t, 0) // the first request to a unit may be made twice
			functions := w.functions()
			err := w.write(0, c.value)
			if seen := functions(); err != nil || !maps.Equal(seen, c.want) {
				t.Errorf("%s, %s: functions %v, want %v; %v", transport, c.line, seen, c.want, err)
			}
			if got := w.read(t, 0); got != c.value {
				t.Errorf("%s, %s: wrote %+v, read %+v", transport, c.line, c.value, got)
			}
		}
	}
}

// TestWriteFunctionFails: what the device holds afterwards counts, a function that it does not know is not replaced by another, and a lost answer is not
// asked for again.
func TestWriteFunctionFails(t *testing.T) {
	for _, c := range []struct {
		line  string
		fault modbussim.Fault
		want  string
	}{
		{"holding:1 write_function=23", modbussim.Fault{Kind: modbussim.Exception, Code: 1}, "exception 1: illegal function; leave write_function: 23 out"},
		{"holding:1 write_function=6", modbussim.Fault{Kind: modbussim.Exception, Code: 1}, "exception 1: illegal function; leave write_function: 6 out"},
		{"coil:1 write_function=5", modbussim.Fault{Kind: modbussim.Exception, Code: 1}, "exception 1: illegal function; leave write_function: 5 out"},
		{"holding:1 write_function=23", modbussim.Fault{Kind: modbussim.Exception, Code: 3}, "exception 3: illegal data value"},
		{"holding:1 write_function=23", modbussim.Fault{Kind: modbussim.Silence}, "it is not known whether the device took it"},
		{"holding:1 write_function=23", modbussim.Fault{Kind: modbussim.ShortValues}, "it is not known whether the device took it"},
		{"holding:1 write_function=23", modbussim.Fault{Kind: modbussim.LongValues}, "it is not known whether the device took it"},
		{"holding:1 write_function=23", modbussim.Fault{Kind: modbussim.WrongFunction}, "it is not known whether the device took it"},
		{"holding:1 write_function=23", modbussim.Fault{Kind: modbussim.WrongTransaction}, "it is not known whether the device took it"},
	} {
		w := newWriter(t, "tcp", c.line)
		w.read(t, 0)
		w.driver.units[0].timeout = 100 * time.Millisecond
		c.fault.Match = func(q modbussim.Request) bool { return q.Write != 0 }
		w.sim.Inject(c.fault)
		before := w.sim.Requests()
		value := telemetry.Uint(1)
		if strings.HasPrefix(c.line, "coil") {
			value = telemetry.Bool(true)
		}
		if err := w.write(0, value); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s, %+v: %v, want %q", c.line, c.fault, err, c.want)
		}
		if n := w.sim.Requests() - before; n != 1 {
			t.Errorf("%s, %+v: %d requests", c.line, c.fault, n)
		}
	}
	w := newWriter(t, "tcp", "holding:1 write_function=23")
	w.sim.Unit(1).Fill(func(modbussim.Request, []byte) {}) // reads as 0, whatever is written
	if err := w.write(0, telemetry.Uint(5)); err == nil || !strings.Contains(err.Error(), "the device confirmed it and holds another value") {
		t.Error(err)
	}
}

// TestWriteRefused holds what cannot be written, in words, and that nothing is sent for it.
func TestWriteRefused(t *testing.T) {
	w := newWriter(t, "tcp", "input:1", "discrete:1", "holding:1 int16", "holding:1", "holding:1.0-3", "holding:1 bcd16", "holding:1 float32",
		"holding:1 string length=4", "holding:1 bytes length=4", "holding:1 unix32", "holding:1 enum=1=on", "coil:1", "holding:1 uint64", "holding:1 float16", "holding:1 string length=247")
	before := w.sim.Requests()
	for _, c := range []struct {
		tag   int
		value telemetry.Value
		want  string
	}{
		{0, telemetry.Uint(1), "write input:1: it can only be read"},
		{1, telemetry.Bool(true), "write discrete:1: it can only be read"},
		{2, telemetry.Int(-32769), "write holding:1: -32769 is out of range for the type int16"},
		{2, telemetry.Uint(32768), "write holding:1: 32768 is out of range for the type int16"},
		{3, telemetry.Int(-1), "write holding:1: -1 is out of range for the type uint16"},
		{3, telemetry.Float64(1.5), "write holding:1: 1.5 is not a whole number that the type uint16 holds"},
		{3, telemetry.Float64(math.NaN()), "write holding:1: NaN is not a whole number that the type uint16 holds"},
		{3, telemetry.String("1"), "write holding:1: the type uint16 takes a number"},
		{4, telemetry.Uint(16), "write holding:1.0-3: 16 is out of range for the type bits"},
		{5, telemetry.Uint(10000), "write holding:1: 10000 has more than 4 digits"},
		{6, telemetry.Float64(1e39), "write holding:1: 1e+39 is out of range for the type float32"},
		{7, telemetry.String("abcde"), "write holding:1: the text has 5 bytes, and the tag 4"},
		{8, telemetry.String("zz"), "write holding:1: 4 bytes take 8 hex digits"},
		{9, telemetry.Uint(1), "write holding:1: the type unix32 takes a date and time"},
		{9, telemetry.Time(time.Date(1969, 1, 1, 0, 0, 0, 0, time.UTC)), "write holding:1: the year 1969 is out of range for the type unix32"},
		{10, telemetry.String("off"), `write holding:1: "off" is not in enum, which has "on"`},
		{11, telemetry.Uint(2), "write coil:1: a bit is true or false"},
		{12, telemetry.Float64(math.MaxFloat64), "write holding:1: 1.7976931348623157e+308 is not a whole number that the type uint64 holds"},
		{13, telemetry.Float32(1), "write holding:1: the type float16 can only be read"},
		{14, telemetry.String("a"), "write holding:1: one request writes at most 123 registers, and the string has 124"},
	} {
		if err := w.write(c.tag, c.value); err == nil || err.Error() != c.want || errors.Is(err, drivers.ErrLink) {
			t.Errorf("%+v to %q: %v, want %q", c.value, w.tags[c.tag].Address, err, c.want)
		}
	}
	if n := w.sim.Requests() - before; n != 0 {
		t.Errorf("%d requests for values that cannot be written", n)
	}
}

// TestWriteOnce holds that a write whose answer is lost is not made again, and what is said of it.
func TestWriteOnce(t *testing.T) {
	for name, f := range map[string]modbussim.Fault{"silence": {Kind: modbussim.Silence}, "closed": {Kind: modbussim.CloseAt}, "acknowledge": {Kind: modbussim.Exception, Code: 5}} {
		w := newWriter(t, "tcp", "holding:1")
		w.read(t, 0)
		w.driver.units[0].timeout = 100 * time.Millisecond
		w.sim.Inject(f)
		before := w.sim.Requests()
		err := w.write(0, telemetry.Uint(5))
		if n := w.sim.Requests() - before; n != 1 {
			t.Errorf("%s: %d requests", name, n)
		}
		if err == nil || name != "acknowledge" && !strings.Contains(err.Error(), "it is not known whether the device took it") {
			t.Errorf("%s: %v", name, err)
		}
		w.sim.Mend()
		if err := w.write(0, telemetry.Uint(5)); err != nil || w.read(t, 0).Bits != 5 {
			t.Errorf("%s: afterwards: %v", name, err)
		}
	}
}

// TestReadBack holds that a device that confirms and keeps another value is found out.
func TestReadBack(t *testing.T) {
	w := newWriter(t, "tcp", "holding:1 read_back=true", "coil:1 read_back=true", "holding:2.1 read_back=true", "holding:3 uint32 read_back=true")
	for tag, v := range []telemetry.Value{telemetry.Uint(5), telemetry.Bool(true), telemetry.Bool(true), telemetry.Uint(1 << 20)} {
		if err := w.write(tag, v); err != nil {
			t.Errorf("%q: %v", w.tags[tag].Address, err)
		}
	}
	w.sim.Unit(1).Fill(func(modbussim.Request, []byte) {}) // reads as 0, whatever is written
	for tag, v := range []telemetry.Value{telemetry.Uint(5), telemetry.Bool(true), telemetry.Bool(true), telemetry.Uint(1 << 20)} {
		if err := w.write(tag, v); err == nil || !strings.Contains(err.Error(), "the device confirmed it and holds another value") {
			t.Errorf("%q: %v", w.tags[tag].Address, err)
		}
	}
}

// TestPlausible judges scaled values by min and max.
func TestPlausible(t *testing.T) {
	sim := startSim(t, modbussim.Options{})
	sim.Unit(1).SetRegisters(modbussim.Holding, 0, 1000, 1001, 199, 200)
	list := tags("holding:0", "holding:1", "holding:2", "holding:3")
	for i := range list {
		list[i].Scale, list[i].Offset, list[i].Options = 0.1, -20, map[string]string{"min": "0", "max": "80"}
	}
	d := connect(t, drivers.Connection{URL: sim.URL(), Devices: []drivers.Device{device(sim.URL(), 1, list)}})
	readings, err := d.Read(context.Background(), drivers.Ref{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []string{"", "implausible: over max 80", "implausible: under min 0", ""} {
		if r := readings[i]; r.Reason != want || (r.Quality == telemetry.Uncertain) != (want != "") || r.Value.Kind != telemetry.KindUint {
			t.Errorf("tag %d: %+v, want reason %q", i, r, want)
		}
	}
}
