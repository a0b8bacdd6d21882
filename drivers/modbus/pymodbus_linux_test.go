package modbus

import (
	"context"
	"encoding/binary"
	"fmt"
	"os/exec"
	"strings"
	"testing"
	"time"

	"millrace/drivers"
	"millrace/drivers/drivertest"
	"millrace/drivers/modbus/modbussim"
	"millrace/drivers/telemetry"
)

// foreign is a command of testdata/foreign.py.
func foreign(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	need(t, "python3-pymodbus 3.0, or python3-serial-asyncio", exec.Command("/usr/bin/python3", "-c", "import pymodbus.server, serial_asyncio").Run() == nil)
	return exec.Command("/usr/bin/python3", append([]string{"testdata/foreign.py"}, args...)...)
}

// leastKinds is how many kinds of tag foreign.py has: every type in every order that it knows, but bits and bytes of a register
// at more places.
const leastKinds = 14*4 + 2 + 4 + 4 + 4

// TestPymodbusKinds reads every type in every order, out of all four tables, from a device on pymodbus over each transport that it
// has, serial lines through socat, and writes each to another place, where the same registers must then stand.
func TestPymodbusKinds(t *testing.T) {
	for _, kind := range []string{"tcp", "udp", "rtuovertcp", "rtuoverudp", "asciiovertcp", "asciioverudp", "rtu", "ascii"} {
		t.Run(kind, func(t *testing.T) {
			where := fmt.Sprint(drivertest.FreePort(t))
			url := kind + "://127.0.0.1:" + where
			if kind == "rtu" || kind == "ascii" {
				var other string
				where, other = cable(t)
				url = kind + "://" + other + "?baud=115200&parity=none&data=8&stop=1"
			}
			foreignDevice(t, url, serving(t, foreign(t, "serve", kind, where)), leastKinds)
		})
	}
}

// TestPymodbusClient has pymodbus lay every kind of value into the simulated device, where the driver reads it, and the driver write
// all of it to another one, where pymodbus finds the same registers and coils.
func TestPymodbusClient(t *testing.T) {
	for _, kind := range []string{"tcp", "udp", "rtu", "ascii"} {
		t.Run(kind, func(t *testing.T) {
			one, other := startSim(t, modbussim.Options{Transport: kind}), startSim(t, modbussim.Options{Transport: kind})
			one.Unit(17)
			other.Unit(17)
			said, err := foreign(t, "put", kind, placeOf(one)).CombinedOutput()
			if err != nil {
				t.Fatalf("%v: %s", err, said)
			}
			var list []telemetry.Tag
			var want []telemetry.Value
			for line := range strings.Lines(string(said)) {
				more, value := told(t, line)
				list, want = append(list, more[0]), append(want, value)
			}
			copied(t, one, other, list, want)
			result, err := foreign(t, "get", kind, placeOf(other)).CombinedOutput()
			if err != nil || strings.Count(string(result), "\n") != 1 || !strings.HasSuffix(string(result), " registers and 300 coils compared\n") {
				t.Errorf("%v: %s", err, result)
			}
			t.Logf("%d values; %s", len(list), result)
		})
	}
}

// placeOf is where a client on this machine finds a simulated device: a port, or a pseudo-terminal.
func placeOf(s *modbussim.Server) string {
	return s.Addr()[strings.LastIndexByte(s.Addr(), ':')+1:]
}

// copied reads all values from one device and writes them to the other, but those that can only be read.
func copied(t *testing.T, one, other *modbussim.Server, list []telemetry.Tag, want []telemetry.Value) {
	t.Helper()
	readings, err := aloneOn(t, one, list).Read(context.Background(), drivers.Ref{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	var writes []drivers.Write
	for i := range readings {
		if r := &readings[i]; r.Value != want[i] || r.Reason != "" {
			t.Errorf("%q: %+v, want %+v", list[i].Name, *r, want[i])
		}
		if f := fieldOf(t, list[i]); f.kind == kindFloat16 {
			b := one.Unit(17).Held(modbussim.Holding, uint16(f.number), 1)
			other.Unit(17).SetRegisters(modbussim.Holding, uint16(f.number), binary.BigEndian.Uint16(b))
			continue
		}
		writes = append(writes, drivers.Write{Tag: i, Value: readings[i].Value})
	}
	for i, err := range aloneOn(t, other, list).Write(context.Background(), writes) {
		if err != nil {
			t.Errorf("%q: write %+v: %v", list[writes[i].Tag].Name, writes[i].Value, err)
		}
	}
}

// aloneOn is a driver for unit 17 of a device.
func aloneOn(t *testing.T, s *modbussim.Server, list []telemetry.Tag) *driver {
	dev := device(s.URL(), 17, list)
	dev.Timeout = 10 * time.Second
	return connect(t, drivers.Connection{URL: s.URL(), Devices: []drivers.Device{dev}})
}
