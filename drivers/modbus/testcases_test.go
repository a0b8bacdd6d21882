package modbus

import (
	"context"
	"encoding/hex"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"millrace/drivers"
	"millrace/drivers/modbus/modbussim"
	"millrace/drivers/telemetry"
)

// TestCases reads each folder of testcases: tags.txt (address, type and options of a tag a line; "device"
// and its options first), wire.txt (what the device holds, in hex, from an address on; bits as 0 and 1)
// and want.txt (a reading a line). The device is simulated, so the requests are real.
func TestCases(t *testing.T) {
	folders, err := filepath.Glob("testcases/*")
	if err != nil || len(folders) < 20 {
		t.Fatalf("%d folders, %v", len(folders), err)
	}
	for _, folder := range folders {
		t.Run(filepath.Base(folder), func(t *testing.T) {
			sim := startSim(t, modbussim.Options{})
			for _, line := range lines(t, folder, "wire.txt") {
				hold(t, sim.Unit(1), line)
			}
			dev := device(sim.URL(), 1)
			var list []telemetry.Tag
			for _, line := range lines(t, folder, "tags.txt") {
				if rest, ok := strings.CutPrefix(line, "device "); ok {
					dev.Options = options(rest)
					continue
				}
				list = append(list, tagOf(line))
			}
			dev.Groups = []drivers.Group{{Name: "g", Interval: time.Second, Tags: list}}
			d := connect(t, drivers.Connection{URL: sim.URL(), Devices: []drivers.Device{dev}})
			for range 2 { // the second poll meets the texts of the first
				readings, err := d.Read(context.Background(), drivers.Ref{}, nil)
				if err != nil {
					t.Fatal(err)
				}
				want := lines(t, folder, "want.txt")
				for i := range readings {
					if got := say(&readings[i]); got != want[i] {
						t.Errorf("%q: %s, want %s", list[i].Address, got, want[i])
					}
				}
			}
		})
	}
}

// lines returns the lines of a file, less blank ones and comments.
func lines(t *testing.T, folder, name string) []string {
	text, err := os.ReadFile(filepath.Join(folder, name))
	if err != nil {
		t.Fatal(err)
	}
	var list []string
	for line := range strings.Lines(string(text)) {
		if line = strings.TrimSpace(line); line != "" && line[0] != '#' {
			list = append(list, line)
		}
	}
	return list
}

// tagOf reads "holding:100 float32 order=ABCD".
func tagOf(line string) telemetry.Tag {
	words := strings.Fields(line)
	tag := telemetry.Tag{Name: line, Address: words[0], Options: map[string]string{}}
	for _, w := range words[1:] {
		if k, v, ok := strings.Cut(w, "="); ok {
			tag.Options[k] = v
		} else {
			tag.Type = w
		}
	}
	return tag
}

// hold reads "holding 100: 42f6 e979" into the simulated device.
func hold(t *testing.T, u *modbussim.Unit, line string) {
	place, values, _ := strings.Cut(line, ":")
	word, number, _ := strings.Cut(place, " ")
	addr, err := strconv.Atoi(number)
	if err != nil {
		t.Fatal(err)
	}
	tables := map[string]modbussim.Table{"coil": modbussim.Coil, "discrete": modbussim.Discrete, "input": modbussim.Input, "holding": modbussim.Holding}
	values = strings.ReplaceAll(values, " ", "")
	if tables[word].Bits() {
		for i, c := range values {
			u.SetBits(tables[word], uint16(addr+i), c == '1')
		}
		return
	}
	raw, err := hex.DecodeString(values)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(raw); i += 2 {
		u.SetRegisters(tables[word], uint16(addr+i/2), uint16(raw[i])<<8|uint16(raw[i+1]))
	}
}

// say puts a reading into words, losing nothing.
func say(r *telemetry.Reading) string {
	v := r.Value
	switch v.Kind {
	case telemetry.KindBool:
		return fmt.Sprint("bool ", v.Bits == 1)
	case telemetry.KindInt:
		return fmt.Sprint("int ", int64(v.Bits))
	case telemetry.KindUint:
		return fmt.Sprint("uint ", v.Bits)
	case telemetry.KindFloat32:
		f := math.Float32frombits(uint32(v.Bits))
		if f != f {
			return fmt.Sprintf("float32 NaN %08x", v.Bits)
		}
		return "float32 " + strconv.FormatFloat(float64(f), 'g', -1, 32)
	case telemetry.KindFloat64:
		return "float64 " + strconv.FormatFloat(math.Float64frombits(v.Bits), 'g', -1, 64)
	case telemetry.KindString:
		return strings.TrimSpace("string " + strconv.Quote(v.Text) + " " + r.Reason)
	case telemetry.KindTime:
		return "time " + v.AsTime().Format("2006-01-02T15:04:05.000Z")
	}
	return "bad " + r.Reason
}

// FuzzDecode decodes any registers with any set of tags: nothing may be read beyond the answer, every tag
// gets one good reading, and reading one tag alone gives what reading them together does.
func FuzzDecode(f *testing.F) {
	f.Add([]byte{0x42, 0xf6, 0xe9, 0x79, 0, 0, 0xff, 0xff}, []byte{2, 0, 0, 5, 1, 2, 9, 0, 7})
	f.Add([]byte("text with blanks  \x00\x00"), []byte{9, 0, 19, 9, 2, 4, 0, 3, 15})
	f.Add(make([]byte, 250), []byte{8, 121, 3, 7, 0, 1, 6, 60, 2, 1, 124, 0})
	f.Fuzz(func(t *testing.T, data, config []byte) {
		data = data[:min(len(data), 250)&^1]
		fields := fuzzFields(config, uint32(len(data)/2))
		if len(fields) == 0 {
			return
		}
		dev := &unit{settings: settings{maxRegisters: 125, maxGap: 124}}
		out := make([]telemetry.Reading, len(fields))
		for i := range out {
			out[i] = telemetry.BadReading(99, 1, "stale")
		}
		g := newGroup(fields, dev)
		for _, s := range g.spans {
			b := s.blocks[0]
			g.decodeRegisters(b.ops, data[2*b.first:2*(b.first+b.count)], b.first, 7, out)
		}
		for i := range out {
			r := &out[i]
			if good := r.Quality == telemetry.Good; int(r.Tag) != i || r.Time != 7 || good != (r.Reason == "") || good == (r.Value.Kind == telemetry.KindNone) {
				t.Fatalf("tag %d %+v: %+v", i, fields[i], r)
			}
			alone := newGroup(fields[i:i+1], dev)
			one := make([]telemetry.Reading, 1)
			b := alone.spans[0].blocks[0]
			alone.decodeRegisters(b.ops, data[2*b.first:2*(b.first+b.count)], b.first, 7, one)
			if one[0].Value != r.Value {
				t.Fatalf("tag %d %+v: %+v with the others, %+v alone", i, fields[i], r.Value, one[0].Value)
			}
		}
	})
}

// fuzzFields makes fields that fit into so many registers: three bytes each, for kind, place and the rest.
func fuzzFields(config []byte, registers uint32) []field {
	var fields []field
	for ; len(config) >= 3; config = config[3:] {
		f := field{address: address{uint32(config[1]), holding, -1, -1}, kind: kind(config[0] % byte(kindEnd)), order: order(config[2] % 4)}
		f.count = uint8(f.kind.registers())
		switch f.kind {
		case kindBool:
			f.bit = int8(config[2] % 16)
		case kindBits:
			f.bit, f.last = int8(config[2]%16), 15
		case kindString, kindBytes:
			f.length, f.order = config[2]%250+1, order(config[2]%2)
			f.count = (f.length + 1) / 2
		}
		if f.number+uint32(f.count) <= registers {
			fields = append(fields, f)
		}
	}
	return fields
}
