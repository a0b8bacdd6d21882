package modbussim

import (
	"bytes"
	"encoding/binary"
	"math"
	"testing"
	"time"
)

// machines returns each machine with two seeds.
func machines(seed uint64) []*Machine {
	return []*Machine{EnergyMeter(seed), Press(seed), Tank(seed)}
}

// fill reads a table of a machine at a time, 64 registers or bits from 0 on.
func fill(m *Machine, table Table, at time.Duration) []byte {
	start := time.Unix(1700000000, 0)
	dst := make([]byte, 128)
	m.Fill(start, func() time.Time { return start.Add(at) })(Request{Unit: 1, Table: table, Count: 64}, dst)
	return dst
}

func TestMachinesAreDeterministic(t *testing.T) {
	for i, m := range machines(7) {
		same, other, changed := machines(7)[i], machines(8)[i], false
		for _, table := range []Table{Coil, Discrete, Holding, Input} {
			for s := range 50 {
				at := time.Duration(s) * 1700 * time.Millisecond
				if !bytes.Equal(fill(m, table, at), fill(same, table, at)) {
					t.Errorf("%s: one seed gives two histories", m.Name)
				}
				changed = changed || !bytes.Equal(fill(m, table, at), fill(other, table, at))
			}
		}
		if !changed {
			t.Errorf("%s: the seed changes nothing", m.Name)
		}
	}
}

func TestPointsStandApart(t *testing.T) {
	for _, m := range machines(1) {
		taken, names := map[[2]int]string{}, map[string]bool{}
		for i := range m.Points {
			p := &m.Points[i]
			if names[p.Name] {
				t.Errorf("%s: two points are called %q", m.Name, p.Name)
			}
			names[p.Name] = true
			for n := range p.width() {
				at := [2]int{int(p.Table), int(p.Addr) + n}
				if other := taken[at]; other != "" {
					t.Errorf("%s: %q and %q share %v", m.Name, p.Name, other, at)
				}
				taken[at] = p.Name
			}
			if p.Table.Bits() != (p.Type == "bool") {
				t.Errorf("%s: %q is a %s in table %d", m.Name, p.Name, p.Type, p.Table)
			}
		}
	}
}

// TestValuesAreBelievable holds each point for an hour within what its coding can show, and meters rising.
func TestValuesAreBelievable(t *testing.T) {
	rising := map[string]bool{"energy": true, "uptime": true, "strokes": true, "parts_good": true, "parts_scrap": true}
	for _, m := range machines(3) {
		for i := range m.Points {
			p := &m.Points[i]
			last, low, high := math.Inf(-1), math.Inf(1), math.Inf(-1)
			for s := 0.0; s < 3600; s += 0.7 {
				v := p.at(s)
				if rising[p.Name] && v < last {
					t.Errorf("%s %s falls from %v to %v", m.Name, p.Name, last, v)
				}
				last, low, high = v, min(low, v), max(high, v)
			}
			scale := p.Scale
			if scale == 0 {
				scale = 1
			}
			limits := map[string][2]float64{"bool": {0, 1}, "uint16": {0, 65535}, "int16": {-32768, 32767}, "uint32": {0, math.MaxUint32}, "float32": {-1e6, 1e6}}[p.Type]
			if low/scale < limits[0] || high/scale > limits[1] {
				t.Errorf("%s %s goes from %v to %v, which no %s of scale %v can show", m.Name, p.Name, low, high, p.Type, scale)
			}
			if low == high && p.Name != "setpoint" && p.Name != "running" {
				t.Errorf("%s %s is always %v", m.Name, p.Name, low)
			}
		}
	}
}

// TestPartOfAMachine holds that a request for some registers gives what one for all does.
func TestPartOfAMachine(t *testing.T) {
	start := time.Unix(0, 0)
	for _, m := range machines(5) {
		f := m.Fill(start, func() time.Time { return start.Add(time.Hour) })
		for _, table := range []Table{Holding, Input} {
			all := make([]byte, 128)
			f(Request{Table: table, Count: 64}, all)
			for addr := range uint16(40) {
				part := make([]byte, 6)
				f(Request{Table: table, Addr: addr, Count: 3}, part)
				if !bytes.Equal(part, all[2*addr:2*addr+6]) {
					t.Fatalf("%s: registers %d to %d are %x, in the whole %x", m.Name, addr, addr+2, part, all[2*addr:2*addr+6])
				}
			}
		}
	}
}

func TestCovered(t *testing.T) {
	m := EnergyMeter(1)
	for q, want := range map[Request]int{
		{Table: Input, Addr: 0, Count: 28}:   13,
		{Table: Input, Addr: 0, Count: 2}:    1,
		{Table: Input, Addr: 1, Count: 2}:    0,
		{Table: Input, Addr: 26, Count: 1}:   1,
		{Table: Discrete, Addr: 0, Count: 1}: 1,
		{Table: Holding, Addr: 0, Count: 99}: 0,
	} {
		if got := m.Covered(q); got != want {
			t.Errorf("%+v covers %d points, want %d", q, got, want)
		}
	}
	dst := make([]byte, 4)
	m.Fill(time.Unix(0, 0), func() time.Time { return time.Unix(77, 0) })(Request{Table: Input, Addr: 24, Count: 2}, dst)
	if got := binary.BigEndian.Uint32(dst); got != 77 {
		t.Errorf("uptime is %d after 77 s", got)
	}
	if got := m.Points[0].Address(); got != "input:0" {
		t.Errorf("address %q", got)
	}
}
