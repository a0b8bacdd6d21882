package modbus

import (
	"context"
	"fmt"
	"math/rand/v2"
	"runtime"
	"testing"
	"time"

	"millrace/drivers"
	"millrace/drivers/modbus/modbussim"
	"millrace/drivers/telemetry"
)

// usual is the plan of a greedy planner that reads across up to gap registers: how many requests and how long they take.
func usual(l *link, fields []field, gap, most uint32) (requests int, took time.Duration) {
	for i := 0; i < len(fields); {
		first, end, j := fields[i].number, fields[i].number+uint32(fields[i].count), i+1
		for ; j < len(fields); j++ {
			f := &fields[j]
			last := max(end, f.number+uint32(f.count))
			if f.table != fields[i].table || f.number > end+gap || last-first > most {
				break
			}
			end = last
		}
		requests++
		took += l.time(&block{span: &span{table: fields[i].table}, first: first, count: end - first})
		i = j
	}
	return requests, took
}

// TestCheaperThanUsual plans 1,000 random lists on serial lines of several speeds: never more bus time than the usual plan with
// a gap of 50 registers takes, and less for most; on a network never more requests.
func TestCheaperThanUsual(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	less, saved := 0, 0.0
	const lists = 1000
	for range lists {
		fields := randomFields(r)
		url := fmt.Sprintf("rtu:///dev/ttyS0?baud=%d", []int{4800, 9600, 19200, 38400, 115200}[r.IntN(5)])
		ours, l := plannedOf(t, url, nil, fields)
		if _, usualTime := usual(l, fields, 50, 125); ours.Time > usualTime {
			t.Fatalf("%s: %v, the usual plan takes %v", url, ours.Time, usualTime)
		} else if ours.Time < usualTime {
			less++
			saved += 1 - ours.Time.Seconds()/usualTime.Seconds()
		}
		network, l := plannedOf(t, "tcp://h", nil, fields)
		if n, _ := usual(l, fields, 50, 125); network.Requests > n {
			t.Fatalf("%d requests on a network, the usual plan has %d", network.Requests, n)
		}
	}
	t.Logf("less bus time for %d of %d lists, by %.0f %% on average", less, lists, 100*saved/float64(less))
	if less < lists/2 {
		t.Errorf("less bus time for %d of %d lists only", less, lists)
	}
}

func plannedOf(t *testing.T, url string, options map[string]string, fields []field) (drivers.Cost, *link) {
	t.Helper()
	dev := drivers.Device{Timeout: time.Second, Options: options, Groups: []drivers.Group{{Interval: time.Second}}}
	for i := range fields {
		dev.Groups[0].Tags = append(dev.Groups[0].Tags, telemetry.Tag{Address: fields[i].address.String(), Type: fields[i].kind.String()})
	}
	d, err := newDriver(&drivers.Connection{URL: url, Devices: []drivers.Device{dev}}, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	return d.Cost(drivers.Ref{}), &d.link
}

// TestCostOnALine polls over pseudo-terminals whose device takes the time that the line's speed would, and compares with the
// plan: within 10 %. The best of many polls counts, because a busy machine only adds.
func TestCostOnALine(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("no pseudo-terminals here")
	}
	for _, c := range []struct {
		scheme, settings string
		tags             []telemetry.Tag
	}{
		{"rtu", "baud=9600&parity=even", tags(run("holding", 0, 60)...)},
		{"rtu", "baud=19200&parity=none&stop=1", tags(append(run("input", 0, 40), "holding:500 float32", "coil:3")...)},
		{"ascii", "baud=19200&data=7", tags(append(run("holding", 0, 20), "holding:200")...)},
	} {
		mode, _ := parseURL(c.scheme + ":///dev/x?" + c.settings)
		answer := serialAnswer
		if c.scheme == "rtu" {
			answer += mode.serial.silence() // by which the device knows that the request has ended
		}
		sim := startSim(t, modbussim.Options{Transport: c.scheme, Character: mode.serial.character(), Answer: answer})
		sim.Unit(1)
		url := sim.URL() + "?" + c.settings
		dev := device(url, 1, c.tags)
		dev.Timeout = 5 * time.Second
		d := connect(t, drivers.Connection{URL: url, Devices: []drivers.Device{dev}})
		plan := d.Cost(drivers.Ref{})
		best := time.Hour
		for range 300 {
			start := time.Now()
			if _, err := d.Read(context.Background(), drivers.Ref{}, nil); err != nil {
				t.Fatal(err)
			}
			if best = min(best, time.Since(start)); best < plan.Time*11/10 {
				break
			}
		}
		t.Logf("%s?%s: %d requests, planned %v, measured %v", c.scheme, c.settings, plan.Requests, plan.Time, best)
		if best > plan.Time*11/10 || best < plan.Time*9/10 {
			t.Errorf("%s?%s: planned %v, measured %v", c.scheme, c.settings, plan.Time, best)
		}
	}
}

// TestCost holds the arithmetic of one request to figures that were computed by hand.
func TestCost(t *testing.T) {
	one := func(url, address string, options map[string]string) drivers.Cost {
		a, m := parseAddress(address)
		if m != nil {
			t.Fatal(m)
		}
		c, _ := plannedOf(t, url, options, []field{{address: a, kind: map[bool]kind{true: kindBool, false: kindUint16}[a.table.bits()], count: 1}})
		return c
	}
	for _, c := range []struct {
		url, address string
		options      map[string]string
		bytes        int
		took         time.Duration
	}{
		// 11 bits a character, 15 characters and twice 3.5 between frames: 22 × 1145.83 µs, and 5 ms.
		{"rtu:///dev/x?baud=9600", "holding:0", nil, 15, 30208333},
		{"rtu:///dev/x?baud=9600", "coil:0", nil, 14, 29062500},
		// 10 bits, 1.75 ms between frames.
		{"rtu:///dev/x?baud=115200&parity=none", "holding:0", nil, 15, 9802083},
		// 10 bits (7 data, parity), 32 characters.
		{"ascii:///dev/x?baud=9600", "holding:0", nil, 32, 38333333},
		{"rtu:///dev/x?baud=9600", "holding:0", map[string]string{"pause_between_requests": "50ms"}, 15, 30208333 + 50e6 - 4010417},
		{"tcp://h", "holding:0", nil, 23, networkAnswer},
		{"tcp://h", "holding:0", map[string]string{"pause_between_requests": "50ms"}, 23, networkAnswer + 50e6},
		{"rtuovertcp://h", "holding:0", nil, 15, networkAnswer},
	} {
		got := one(c.url, c.address, c.options)
		if got.Bytes != c.bytes || (got.Time-c.took).Abs() > 2*time.Microsecond || got.Requests != 1 || got.Assumes == "" {
			t.Errorf("%s %s %v: %+v, want %d bytes, %v", c.url, c.address, c.options, got, c.bytes, c.took)
		}
	}
}

// TestGapOfALine: how far is read across follows what a register costs on the line.
func TestGapOfALine(t *testing.T) {
	for _, c := range []struct {
		url   string
		units []int
		want  int
	}{
		{"tcp://h", []int{1}, 50},
		{"tcp://h", []int{1, 1}, 50},
		{"tcp://h", []int{1, 2}, 16}, // a gateway
		{"udp://h", []int{9}, 50},
		{"rtuovertcp://h", []int{1}, 16},
		{"asciioverudp://h", []int{1}, 16},
		{"rtu:///dev/x?baud=9600", []int{1}, 12},
		{"rtu:///dev/x?baud=115200&parity=none", []int{1, 2}, 55},
		{"ascii:///dev/x?baud=9600", []int{1}, 8},
	} {
		conn := drivers.Connection{URL: c.url}
		for _, unit := range c.units {
			conn.Devices = append(conn.Devices, device(c.url, unit, tags("holding:0")))
		}
		d, err := newDriver(&conn, time.Now)
		if err != nil {
			t.Fatal(err)
		}
		if got := d.units[0].maxGap; got != c.want {
			t.Errorf("%s, units %v: a gap of %d, want %d", c.url, c.units, got, c.want)
		}
	}
}
