package modbussim

import (
	"encoding/binary"
	"fmt"
	"math"
	"time"
)

// Point is one value that a machine offers: where it stands, how it is coded and what it shows at a time.
type Point struct {
	Name  string
	Table Table
	Addr  uint16
	Type  string  // bool, uint16, int16, uint32 or float32 (most significant register first)
	Unit  string  // engineering unit, "" for none
	Scale float64 // value = raw * Scale; 0 = 1

	at func(t float64) float64 // the value t seconds after the machine was switched on
}

// Address is the point's address as the gateway's config wants it, for example "holding:100".
func (p *Point) Address() string {
	words := [...]string{Coil: "coil", Discrete: "discrete", Holding: "holding", Input: "input"}
	return fmt.Sprintf("%s:%d", words[p.Table], p.Addr)
}

// width is how many registers or bits the point takes.
func (p *Point) width() int {
	if p.Type == "uint32" || p.Type == "float32" {
		return 2
	}
	return 1
}

// Machine is a simulated machine: points whose values are functions of time and of a seed alone, so
// that two runs of one seed show the same.
type Machine struct {
	Name   string
	Points []Point
}

// Fill returns a function for Unit.Fill that gives the machine's values at the time of each request.
// Addresses without a point read 0. start is when the machine was switched on.
func (m *Machine) Fill(start time.Time, now func() time.Time) func(Request, []byte) {
	return func(q Request, dst []byte) {
		t := now().Sub(start).Seconds()
		for i := range m.Points {
			if p := &m.Points[i]; p.Table == q.Table {
				p.write(q, dst, t)
			}
		}
	}
}

// Covered returns how many points of the machine stand wholly within the request: what one right answer
// to it serves.
func (m *Machine) Covered(q Request) int {
	n := 0
	for i := range m.Points {
		p := &m.Points[i]
		if p.Table == q.Table && p.Addr >= q.Addr && int(p.Addr)+p.width() <= int(q.Addr)+int(q.Count) {
			n++
		}
	}
	return n
}

// write puts the point's registers, or those of them that the request covers, into dst.
func (p *Point) write(q Request, dst []byte, t float64) {
	first := int(p.Addr) - int(q.Addr)
	if first+p.width() <= 0 || first >= int(q.Count) {
		return
	}
	v := p.at(t)
	if q.Table.Bits() {
		if v != 0 {
			dst[first/8] |= 1 << (first % 8)
		}
		return
	}
	var raw [4]byte
	p.encode(raw[:], v)
	for i := range 2 * p.width() {
		if at := 2*first + i; at >= 0 && at < len(dst) {
			dst[at] = raw[i]
		}
	}
}

func (p *Point) encode(dst []byte, v float64) {
	if p.Scale != 0 {
		v /= p.Scale
	}
	switch p.Type {
	case "float32":
		binary.BigEndian.PutUint32(dst, math.Float32bits(float32(v)))
	case "uint32":
		binary.BigEndian.PutUint32(dst, uint32(int64(math.Round(v))))
	default:
		binary.BigEndian.PutUint16(dst, uint16(int64(math.Round(v))))
	}
}

// EnergyMeter is a three phase meter: 14 points in the input table. Its load follows the shifts of a
// plant in fast motion, one working day in ten minutes.
func EnergyMeter(seed uint64) *Machine {
	const day = 600.0
	noise := func(i uint64, size float64) func(float64) float64 { return wander(seed+i, 2, size) }
	current := func(phase uint64) func(float64) float64 {
		n := noise(10+phase, 1.5)
		return func(t float64) float64 { return 40 - 25*math.Cos(2*math.Pi*t/day) + n(t) }
	}
	voltage := func(phase uint64) func(float64) float64 {
		n := noise(20+phase, 1.2)
		return func(t float64) float64 { return 230 + n(t) }
	}
	factor := func(t float64) float64 { return 0.93 + 0.04*math.Sin(2*math.Pi*t/day) }
	power := func(t float64) float64 {
		sum := 0.0
		for phase := range uint64(3) {
			sum += voltage(phase)(t) * current(phase)(t)
		}
		return sum * factor(t) / 1000
	}
	m := &Machine{Name: "energy meter"}
	for i, name := range []string{"l1", "l2", "l3"} {
		m.add("voltage_"+name, Input, uint16(2*i), "float32", "V", voltage(uint64(i)))
		m.add("current_"+name, Input, uint16(6+2*i), "float32", "A", current(uint64(i)))
	}
	m.add("power", Input, 12, "float32", "kW", power)
	m.add("power_factor", Input, 14, "float32", "", factor)
	m.add("frequency", Input, 16, "float32", "Hz", func(t float64) float64 { return 50 + noise(1, 0.02)(t) })
	m.add("temperature", Input, 20, "int16", "°C", func(t float64) float64 { return 31 + noise(2, 2)(t) }).Scale = 0.1
	// The integral of the mean power (40 A and 25 A of swing on three phases), so that it only rises.
	m.add("energy", Input, 22, "uint32", "Wh", func(t float64) float64 {
		return 1e6 + 3*230*0.93*(40*t-25*day/(2*math.Pi)*math.Sin(2*math.Pi*t/day))/3600
	})
	m.add("uptime", Input, 24, "uint32", "s", math.Floor)
	m.add("demand", Input, 26, "uint16", "kW", power).Scale = 0.1
	m.add("phase_alarm", Discrete, 0, "bool", "", func(t float64) float64 { return above(math.Abs(noise(1, 0.02)(t)), 0.018) })
	return m
}

// Press is a hydraulic press with a stroke of four seconds: 12 points in the holding, coil and discrete tables.
func Press(seed uint64) *Machine {
	const stroke = 4.0
	phase := func(t float64) float64 { return math.Mod(t, stroke) / stroke }
	position := func(t float64) float64 { // 400 mm open, 12 mm at the bottom
		return 12 + 388*(0.5+0.5*math.Cos(2*math.Pi*phase(t)))
	}
	force := func(t float64) float64 {
		return 1250 * math.Exp(-math.Pow((phase(t)-0.5)/0.06, 2)) * (1 + wander(seed+1, 5, 0.02)(t))
	}
	state := func(t float64) float64 {
		switch p := phase(t); {
		case p < 0.4:
			return 1 // closing
		case p < 0.6:
			return 2 // pressing
		}
		return 3 // opening
	}
	m := &Machine{Name: "press"}
	m.add("strokes", Holding, 0, "uint32", "", func(t float64) float64 { return 48120 + math.Floor(t/stroke) })
	m.add("state", Holding, 2, "uint16", "", state)
	m.add("force", Holding, 3, "float32", "kN", force)
	m.add("position", Holding, 5, "int16", "mm", position).Scale = 0.1
	m.add("oil_temperature", Holding, 6, "int16", "°C", func(t float64) float64 {
		return 48 - 20*math.Exp(-t/900) + wander(seed+2, 10, 0.8)(t)
	}).Scale = 0.1
	m.add("hydraulic_pressure", Holding, 7, "uint16", "bar", func(t float64) float64 { return 20 + force(t)/5 }).Scale = 0.1
	m.add("vibration", Holding, 8, "float32", "mm/s", func(t float64) float64 { return 1.1 + force(t)/800 + wander(seed+3, 0.5, 0.3)(t) })
	m.add("parts_good", Holding, 20, "uint32", "", func(t float64) float64 { return math.Floor(t / stroke * 0.98) })
	m.add("parts_scrap", Holding, 22, "uint16", "", func(t float64) float64 { return math.Floor(t / stroke * 0.02) })
	m.add("running", Coil, 7, "bool", "", func(float64) float64 { return 1 })
	m.add("guard_closed", Discrete, 0, "bool", "", func(t float64) float64 { return above(0.9, phase(t)) })
	m.add("lubrication_low", Discrete, 1, "bool", "", func(t float64) float64 { return above(math.Mod(t, 300), 280) })
	return m
}

// Tank is a tank that fills in two minutes and drains in three, with alarms: 10 points in all four tables.
func Tank(seed uint64) *Machine {
	const fill, cycle = 120.0, 300.0
	filling := func(t float64) float64 { return above(fill, math.Mod(t, cycle)) }
	level := func(t float64) float64 {
		p := math.Mod(t, cycle)
		if p < fill {
			return 10 + 80*p/fill
		}
		return 90 - 80*(p-fill)/(cycle-fill)
	}
	m := &Machine{Name: "tank"}
	m.add("level", Input, 0, "float32", "%", func(t float64) float64 { return level(t) + wander(seed+1, 3, 0.2)(t) })
	m.add("temperature", Input, 2, "int16", "°C", func(t float64) float64 { return 62 + wander(seed+2, 30, 4)(t) }).Scale = 0.1
	m.add("ph", Input, 3, "uint16", "", func(t float64) float64 { return 7.2 + wander(seed+3, 20, 0.3)(t) }).Scale = 0.01
	m.add("inflow", Input, 4, "float32", "l/min", func(t float64) float64 { return filling(t) * (400 + wander(seed+4, 2, 6)(t)) })
	m.add("outflow", Input, 6, "float32", "l/min", func(t float64) float64 { return (1 - filling(t)) * (266 + wander(seed+5, 2, 5)(t)) })
	m.add("setpoint", Holding, 0, "uint16", "%", func(float64) float64 { return 90 })
	m.add("valve", Coil, 0, "bool", "", filling)
	m.add("pump", Coil, 1, "bool", "", func(t float64) float64 { return 1 - filling(t) })
	m.add("high", Discrete, 0, "bool", "", func(t float64) float64 { return above(level(t), 85) })
	m.add("low", Discrete, 1, "bool", "", func(t float64) float64 { return above(15, level(t)) })
	return m
}

func (m *Machine) add(name string, t Table, addr uint16, typ, unit string, at func(float64) float64) *Point {
	m.Points = append(m.Points, Point{Name: name, Table: t, Addr: addr, Type: typ, Unit: unit, at: at})
	return &m.Points[len(m.Points)-1]
}

func above(v, limit float64) float64 {
	if v > limit {
		return 1
	}
	return 0
}

// wander returns a smooth random walk in [-size, size]: random values of the seed every period seconds,
// joined by half cosines.
func wander(seed uint64, period, size float64) func(float64) float64 {
	return func(t float64) float64 {
		n := math.Floor(t / period)
		a, b := dice(seed, n), dice(seed, n+1)
		w := 0.5 - 0.5*math.Cos(math.Pi*(t/period-n))
		return size * (a + (b-a)*w)
	}
}

// dice returns a number in [-1, 1) that depends on nothing but its arguments (splitmix64).
func dice(seed uint64, n float64) float64 {
	x := seed*0x9e3779b97f4a7c15 + uint64(int64(n))
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	x ^= x >> 31
	return float64(x>>11)/(1<<52) - 1
}
