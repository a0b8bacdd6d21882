package demo

import (
	"encoding/binary"
	"io"
	"net"
	"testing"
	"time"

	"millrace/drivers/modbus/modbussim"
	"millrace/gateway/config"
)

// ask reads registers or bits as a Modbus client does; nil when no answer comes.
func ask(t *testing.T, c net.Conn, unit byte, table modbussim.Table, addr, count uint16, patience time.Duration) []byte {
	t.Helper()
	q := []byte{0, 1, 0, 0, 0, 6, unit, byte(table), 0, 0, 0, 0}
	binary.BigEndian.PutUint16(q[8:], addr)
	binary.BigEndian.PutUint16(q[10:], count)
	if _, err := c.Write(q); err != nil {
		t.Fatal(err)
	}
	_ = c.SetReadDeadline(time.Now().Add(patience))
	head := make([]byte, 9)
	if _, err := io.ReadFull(c, head); err != nil {
		return nil
	}
	values := make([]byte, head[8])
	if _, err := io.ReadFull(c, values); err != nil {
		return nil
	}
	return values
}

// TestPlantCountsReadings holds that the plant's own account counts a tag when all of it was served, that
// registers which are no tag do not count, and that a quiet plant neither answers nor counts.
func TestPlantCountsReadings(t *testing.T) {
	p, err := startPlant()
	if err != nil {
		t.Fatal(err)
	}
	defer p.hangUp()
	s := p.served["meter-1"]
	for _, tag := range [][2]string{{"input:0", "float32"}, {"input:2", "float32"}, {"input:7", "uint16"}, {"coil:3", ""}} {
		at, err := portOf(tag[0], tag[1])
		if err != nil {
			t.Fatal(err)
		}
		s.ports = append(s.ports, at)
	}
	c, err := net.Dial("tcp", p.meter.Addr())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for _, r := range []struct {
		table       modbussim.Table
		addr, count uint16
		want        uint64
	}{
		{modbussim.Input, 0, 8, 3}, {modbussim.Input, 0, 3, 1}, {modbussim.Input, 1, 2, 0}, {modbussim.Input, 2, 2, 1},
		{modbussim.Holding, 0, 8, 0}, {modbussim.Coil, 0, 8, 1}, {modbussim.Input, 4, 3, 0},
	} {
		before := s.count.Load()
		if ask(t, c, 1, r.table, r.addr, r.count, 10*time.Second) == nil {
			t.Fatal("the meter does not answer")
		}
		if got := s.count.Load() - before; got != r.want {
			t.Errorf("table %d from %d, %d long: %d readings served, want %d", r.table, r.addr, r.count, got, r.want)
		}
	}
	before := s.count.Load()
	p.quiet()
	if ask(t, c, 1, modbussim.Input, 0, 8, 200*time.Millisecond) != nil || s.count.Load() != before {
		t.Error("a quiet plant answers or counts")
	}
}

// TestPlantMoves holds that the signals live and stay within what such machines do.
func TestPlantMoves(t *testing.T) {
	p, err := startPlant()
	if err != nil {
		t.Fatal(err)
	}
	defer p.hangUp()
	c, err := net.Dial("tcp", p.press.Addr())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	forces := map[int16]bool{}
	for n := range 40 {
		p.work(float64(n) * 0.1)
		v := ask(t, c, 1, modbussim.Holding, 100, 5, 10*time.Second)
		force, position := int16(binary.BigEndian.Uint16(v)), binary.BigEndian.Uint16(v[2:])
		if force < 0 || force > 800 || position > 3200 {
			t.Errorf("force %d kN at %d/10 mm", force, position)
		}
		forces[force] = true
	}
	if len(forces) < 5 {
		t.Errorf("the press does not move: %v", forces)
	}
}

// TestPlantRefusesForeignDevices holds that no tag goes uncounted because nobody plays its device.
func TestPlantRefusesForeignDevices(t *testing.T) {
	p, err := startPlant()
	if err != nil {
		t.Fatal(err)
	}
	defer p.hangUp()
	if p.expect(&config.Config{Devices: []config.Device{{Name: "robot-1"}}}) == nil {
		t.Error("a device that no simulator plays passes")
	}
	if _, err := portOf("register:1", ""); err == nil {
		t.Error("an address without a table passes")
	}
}
