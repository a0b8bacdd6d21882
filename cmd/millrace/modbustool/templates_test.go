package modbustool

import (
	"encoding/binary"
	"math"
	"slices"
	"testing"
	"time"

	"millrace/configs/templates"
	"millrace/drivers"
	"millrace/drivers/modbus"
	"millrace/drivers/telemetry"
)

// templateDevice is a template on a transport.
func templateDevice(t *testing.T, name, transport string) drivers.Connection {
	t.Helper()
	tpl, err := templates.Load(name)
	if err != nil {
		t.Fatal(err)
	}
	c, err := templateConnection(tpl, &simulateFlags{transport: transport, unit: 7})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// TestEveryTemplate serves each template and reads it back with the driver over three framings: every reading is good and is
// what a decoder of this test's own makes of the registers that were served.
func TestEveryTemplate(t *testing.T) {
	names := templates.List()
	if len(names) < 20 {
		t.Fatalf("%d templates", len(names))
	}
	for i, name := range names {
		transport := []string{"tcp", "rtuovertcp", "asciiovertcp"}[i%3]
		t.Run(name, func(t *testing.T) {
			c := templateDevice(t, name, transport)
			p := &plant{started: time.Now()}
			defer p.close()
			if err := p.add(c, transport, "127.0.0.1:0"); err != nil {
				t.Fatal(err)
			}
			c.URL, c.Devices[0].URL, c.Devices[0].Timeout = p.servers[0].URL(), p.servers[0].URL(), 10*time.Second
			d, err := modbus.Protocol().New(c)
			if err != nil {
				t.Fatal(err)
			}
			if err := d.Connect(t.Context()); err != nil {
				t.Fatal(err)
			}
			defer d.Close()
			first := readAll(t, p, d, &c, p.started)
			second := readAll(t, p, d, &c, p.started.Add(9*time.Second))
			moved := 0
			for i := range first {
				if first[i] != second[i] {
					moved++
				}
			}
			if 3*moved < len(first) {
				t.Errorf("%d of %d values moved", moved, len(first))
			}
			for j := range c.Devices[0].Groups {
				if cost := d.(drivers.Coster).Cost(drivers.Ref{Group: j}); cost.Requests < 1 || cost.Requests > 30 || cost.Time <= 0 {
					t.Errorf("group %d: %+v", j, cost)
				}
			}
		})
	}
}

// readAll sets the device to a moment, reads all groups and holds each reading to the registers.
func readAll(t *testing.T, p *plant, d drivers.Driver, c *drivers.Connection, at time.Time) (all []telemetry.Value) {
	t.Helper()
	p.work(at)
	if len(p.left) > 0 {
		t.Errorf("no value fits %q", p.left)
	}
	for j := range c.Devices[0].Groups {
		readings, err := d.Read(t.Context(), drivers.Ref{Group: j}, nil)
		if err != nil {
			t.Fatal(err)
		}
		for k, r := range readings {
			s := p.signals[len(all)]
			tag := &c.Devices[0].Groups[j].Tags[k]
			if r.Quality != telemetry.Good {
				t.Errorf("%s (%s %s): %v %s", tag.Name, tag.Address, tag.Type, r.Quality, r.Reason)
			} else if want, ok := plainly(tag, c.Devices[0].Options["order"], s.last); ok && !p.shared(s) {
				if got, _ := r.Value.Float(); got != want {
					t.Errorf("%s (%s %s): %v, its registers % x hold %v", tag.Name, tag.Address, tag.Type, got, s.last, want)
				}
			}
			all = append(all, r.Value)
		}
	}
	return all
}

// plainly decodes numbers in the simplest way.
func plainly(tag *telemetry.Tag, order string, b []byte) (float64, bool) {
	if o := tag.Options["order"]; o != "" {
		order = o
	}
	b = slices.Clone(b)
	if order == "BADC" || order == "DCBA" {
		for i := 0; i < len(b); i += 2 {
			b[i], b[i+1] = b[i+1], b[i]
		}
	}
	if order == "CDAB" || order == "DCBA" {
		for i, j := 0, len(b)-2; i < j; i, j = i+2, j-2 {
			b[i], b[i+1], b[j], b[j+1] = b[j], b[j+1], b[i], b[i+1]
		}
	}
	if tag.Options["enum"] != "" || tag.Options["flags"] != "" {
		return 0, false
	}
	switch tag.Type {
	case "", "uint16":
		return float64(binary.BigEndian.Uint16(b)), len(b) == 2
	case "int16":
		return float64(int16(binary.BigEndian.Uint16(b))), true
	case "uint32":
		return float64(binary.BigEndian.Uint32(b)), true
	case "int32":
		return float64(int32(binary.BigEndian.Uint32(b))), true
	case "float32":
		return float64(math.Float32frombits(binary.BigEndian.Uint32(b))), true
	case "uint64":
		return float64(binary.BigEndian.Uint64(b)), true
	case "int64":
		return float64(int64(binary.BigEndian.Uint64(b))), true
	case "float64":
		return math.Float64frombits(binary.BigEndian.Uint64(b)), true
	}
	return 0, false
}

// TestCorpus plans the register lists of real devices: never more requests than a greedy planner that reads across 50 registers
// makes with the same gap, never more bus time on a serial line, and less for most groups that need more than one request.
func TestCorpus(t *testing.T) {
	lists, less, equal := 0, 0, 0
	for _, name := range templates.List() {
		serial := templateDevice(t, name, "rtu")
		serial.URL = "rtu:///dev/ttyUSB0?baud=9600"
		serial.Devices[0].URL = serial.URL
		delete(serial.Devices[0].Options, "max_gap") // of the template: it forbids what both planners would do
		most := 125
		if text := serial.Devices[0].Options["max_registers"]; text != "" {
			most, _ = bounded(text, 1, 125)
		}
		wide := serial
		wide.URL, wide.Devices = "tcp://h", slices.Clone(serial.Devices)
		wide.Devices[0].URL = wide.URL
		wide.Devices[0].Options = map[string]string{"max_gap": "50", "max_registers": serial.Devices[0].Options["max_registers"]}
		if wide.Devices[0].Options["max_registers"] == "" {
			delete(wide.Devices[0].Options, "max_registers")
		}
		places, err := modbus.Places(serial)
		if err != nil {
			t.Fatal(err)
		}
		ours, same := costs(t, serial), costs(t, wide)
		for j, group := range places[0] {
			lists++
			requests, took := greedy(group, 50, most)
			if same[j].Requests > requests {
				t.Errorf("%s group %d: %d requests with a gap of 50, the greedy plan has %d", name, j, same[j].Requests, requests)
			}
			switch {
			case ours[j].Time > took+time.Microsecond:
				t.Errorf("%s group %d: %v, the greedy plan takes %v", name, j, ours[j].Time, took)
			case ours[j].Time < took-time.Microsecond:
				less++
			case requests == 1:
				equal++ // nothing to gain in one dense request
			}
		}
	}
	t.Logf("%d lists: less bus time for %d, %d are one request for both", lists, less, equal)
	if lists < 10 || 2*less < lists-equal {
		t.Errorf("less bus time for %d of %d lists", less, lists-equal)
	}
}

func costs(t *testing.T, c drivers.Connection) (list []drivers.Cost) {
	t.Helper()
	d, err := modbus.Protocol().New(c)
	if err != nil {
		t.Fatal(err)
	}
	for j := range c.Devices[0].Groups {
		list = append(list, d.(drivers.Coster).Cost(drivers.Ref{Group: j}))
	}
	return list
}

// greedy is how many requests the usual planner makes, and how long they take at 9600 baud with 11 bits a character: 13
// characters, two pauses of 3.5 and 5 ms each, and two characters a register.
func greedy(group []modbus.Place, gap, most int) (requests int, took time.Duration) {
	list := slices.Clone(group)
	slices.SortStableFunc(list, func(a, b modbus.Place) int {
		return 1<<20*(int(a.Function)-int(b.Function)) + a.First - b.First
	})
	character := 11 * time.Second / 9600
	for i := 0; i < len(list); {
		first, end, j := list[i].First, list[i].First+list[i].Count, i+1
		for ; j < len(list) && list[j].Function == list[i].Function && list[j].First <= end+gap; j++ {
			last := max(end, list[j].First+list[j].Count)
			if last-first > most {
				break
			}
			end = last
		}
		bytes := 2 * (end - first)
		if list[i].Function <= 2 {
			bytes = (end - first + 7) / 8
		}
		requests++
		took += time.Duration(13+bytes+7)*character + 5*time.Millisecond
		i = j
	}
	return requests, took
}
