package modbus

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"millrace/drivers"
	"millrace/drivers/drivertest"
	"millrace/drivers/modbus/modbussim"
	"millrace/drivers/telemetry"
)

// startSim starts a simulated device that ends with the test.
func startSim(t testing.TB, o modbussim.Options) *modbussim.Server {
	t.Helper()
	s, err := modbussim.Start(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

// tags makes tags from addresses, a type after a blank: "holding:100 float32".
func tags(words ...string) []telemetry.Tag {
	list := make([]telemetry.Tag, len(words))
	for i, w := range words {
		list[i].Name = fmt.Sprint("t", i)
		fmt.Sscan(w, &list[i].Address, &list[i].Type)
	}
	return list
}

func device(url string, unit int, groups ...[]telemetry.Tag) drivers.Device {
	d := drivers.Device{Name: fmt.Sprint("unit-", unit), URL: url, Timeout: 200 * time.Millisecond,
		Options: map[string]string{"unit": fmt.Sprint(unit)}}
	for i, g := range groups {
		d.Groups = append(d.Groups, drivers.Group{Name: fmt.Sprint("g", i), Interval: time.Second, Tags: g})
	}
	return d
}

// TestConformance runs the suite of drivers over sockets, where a busy machine takes its own time: a call that has not ended after half a
// minute hangs. How soon calls end is held by TestConformanceSoon, where no machine is slow.
func TestConformance(t *testing.T) {
	sim := startSim(t, modbussim.Options{})
	s := suite(Protocol(), sim, 2*time.Second)
	s.Soon = 30 * time.Second
	s.AllocsPerReading = 0.02 // what the simulated device's sockets cost
	drivertest.Run(t, s)
}

// TestConformanceSoon runs it over memory, by a clock of its own: no call takes longer than what it asks may be silent, which is two units and
// bad registers, at 200 ms each.
func TestConformanceSoon(t *testing.T) {
	drivertest.RunIn(t, bubble, func(t *testing.T) drivertest.Suite {
		m := newMemory(false)
		p := Protocol()
		p.New = func(c drivers.Connection) (drivers.Driver, error) {
			d, err := newDriver(&c, time.Now)
			if err != nil {
				return nil, err
			}
			d.link.dialer = m.dial
			return d, nil
		}
		sim := startSim(t, modbussim.Options{Listener: m})
		s := suite(p, sim, 200*time.Millisecond)
		s.Up = func() {
			synctest.Wait() // until what listened before has ended
			m.open()
			sim.Up()
		}
		s.Soon = time.Second
		return s
	})
}

// suite is the suite of a simulated device.
func suite(p drivers.Protocol, sim *modbussim.Server, timeout time.Duration) drivertest.Suite {
	sim.Unit(1).SetRegisters(modbussim.Holding, 0, 1, 2, 3)
	sim.Unit(2).SetBits(modbussim.Coil, 7, true)
	sim.Inject(modbussim.Fault{Kind: modbussim.Exception, Code: 2, Match: modbussim.Touching(1, modbussim.Holding, 50, 51)})
	words := make([]string, 100)
	for i := range words {
		words[i] = fmt.Sprint("holding:", i)
	}
	devices := []drivers.Device{device(sim.URL(), 1, tags(words...), tags("input:3 float32", "coil:1")), device(sim.URL(), 2, tags("coil:7", "40001"))}
	for i := range devices {
		devices[i].Timeout = timeout
	}
	thaw := func() {}
	return drivertest.Suite{
		Protocol:   p,
		Connection: drivers.Connection{URL: sim.URL(), Devices: devices},
		BadTags:    []int{50, 51},
		Mistaken: drivers.Connection{URL: "modbus:///dev/ttyUSB0", Devices: []drivers.Device{
			device("", 300, tags("holding:70000", "hold:1", "coil:1 int16")),
			device("", 1, tags("holding:65535 float32", "holding:1.3 uint16")),
		}},
		Mistakes: 7,
		Writes: []drivers.Write{{Tag: 7, Value: telemetry.Uint(4711)}, {Group: drivers.Ref{Group: 1}, Tag: 1, Value: telemetry.Bool(true)},
			{Group: drivers.Ref{Device: 1}, Tag: 1, Value: telemetry.Uint(65535)}},
		Refused: []drivers.Write{{Group: drivers.Ref{Group: 1}, Tag: 0, Value: telemetry.Float32(1)}, {Tag: 50, Value: telemetry.Uint(1)}},
		Down:    sim.Down,
		Up:      func() { sim.Up() },
		Freeze:  func() { thaw = sim.Inject(modbussim.Fault{Kind: modbussim.Silence}) },
		Thaw:    func() { thaw() },
	}
}

func connect(t testing.TB, c drivers.Connection) *driver {
	t.Helper()
	d, err := newDriver(&c, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Connect(context.Background()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

// BenchmarkRead1000 reads 1000 tags in 8 requests, or 17, over loopback, the device in the same process. Driver and device take turns, so that
// the time of a request is at least what both need of a processor.
func BenchmarkRead1000(b *testing.B) {
	for _, typ := range []string{"uint16", "float32"} {
		b.Run(typ, func(b *testing.B) {
			sim := startSim(b, modbussim.Options{})
			sim.Unit(1).SetRegisters(modbussim.Holding, 0, 1, 2, 3)
			words := make([]string, 1000)
			for i := range words {
				words[i] = fmt.Sprintf("holding:%d %s", i*map[string]int{"uint16": 1, "float32": 2}[typ], typ)
			}
			d := connect(b, drivers.Connection{URL: sim.URL(), Devices: []drivers.Device{device(sim.URL(), 1, tags(words...))}})
			var dst []telemetry.Reading
			b.ReportAllocs()
			asked := sim.Requests()
			for b.Loop() {
				var err error
				if dst, err = d.Read(context.Background(), drivers.Ref{}, dst[:0]); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(sim.Requests()-asked), "µs/request")
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/1000, "ns/reading")
		})
	}
}

// BenchmarkDecode decodes the registers of one full answer.
func BenchmarkDecode(b *testing.B) {
	for _, typ := range []string{"uint16", "float32", "float64"} {
		b.Run(typ, func(b *testing.B) {
			var fields []field
			dev := &unit{settings: settings{maxRegisters: 125}}
			k, _ := parseKind(typ)
			for n := 0; n+k.registers() <= 125; n += k.registers() {
				fields = append(fields, field{address: address{uint32(n), holding, -1, -1}, kind: k, order: orderCDAB, count: uint8(k.registers())})
			}
			g := newGroup(fields, dev)
			data, out := make([]byte, 250), make([]telemetry.Reading, len(fields))
			b.ReportAllocs()
			for b.Loop() {
				g.decodeRegisters(g.spans[0].ops, data, 0, 1, out)
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(len(fields)), "ns/reading")
		})
	}
}
