package modbus

import (
	"bytes"
	"context"
	"encoding/hex"
	"fmt"
	"net"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"time"

	"millrace/drivers"
	"millrace/drivers/drivertest"
	"millrace/drivers/modbus/modbussim"
	"millrace/drivers/telemetry"
)

// need ends a test that wants a foreign program which is not here.
func need(t *testing.T, what string, there bool) {
	t.Helper()
	if !there {
		drivertest.Lacks(t, "%s is not here", what)
	}
}

// pymodbusServer serves registers 0 to 999, each its address, over one framing.
const pymodbusServer = `
import sys
from pymodbus.server import StartTcpServer, StartUdpServer
from pymodbus.datastore import ModbusSequentialDataBlock as B, ModbusSlaveContext as S, ModbusServerContext as C
from pymodbus.transaction import ModbusRtuFramer, ModbusAsciiFramer, ModbusSocketFramer
kind, port = sys.argv[1], int(sys.argv[2])
framer = {"tcp": ModbusSocketFramer, "udp": ModbusSocketFramer, "rtuovertcp": ModbusRtuFramer, "asciiovertcp": ModbusAsciiFramer}[kind]
bits = [a % 3 == 0 for a in range(1000)]
unit = S(co=B(0, bits), di=B(0, bits), hr=B(0, list(range(1000))), ir=B(0, list(range(1000))), zero_mode=True)
start = StartUdpServer if kind == "udp" else StartTcpServer
start(context=C(slaves={17: unit}, single=False), address=("127.0.0.1", port), framer=framer)
`

// TestPymodbus reads and writes a server of pymodbus over four transports.
func TestPymodbus(t *testing.T) {
	need(t, "python3-pymodbus 3.0", exec.Command("/usr/bin/python3", "-c", "import pymodbus.server").Run() == nil)
	for _, kind := range []string{"tcp", "udp", "rtuovertcp", "asciiovertcp"} {
		t.Run(kind, func(t *testing.T) {
			port := drivertest.FreePort(t)
			server := exec.Command("/usr/bin/python3", "-c", pymodbusServer, kind, fmt.Sprint(port))
			if err := server.Start(); err != nil {
				t.Fatal(err)
			}
			defer func() { server.Process.Kill(); server.Wait() }()
			url := fmt.Sprintf("%s://127.0.0.1:%d", kind, port)
			words := append(append(run("holding", 0, 300), run("input", 990, 10)...), append(run("coil", 1, 50), run("discrete", 900, 60)...)...)
			list := append(tags(words...), tagOf("holding:400 float64 order=CDAB"), tagOf("holding:410.2-5"))
			dev := device(url, 17, list)
			dev.Timeout = 10 * time.Second
			d := connectSoon(t, drivers.Connection{URL: url, Devices: []drivers.Device{dev}})
			want := make([]telemetry.Value, len(list))
			for i := range 300 {
				want[i] = telemetry.Uint(uint64(i))
			}
			for i := range 10 {
				want[300+i] = telemetry.Uint(uint64(990 + i))
			}
			for i := range 50 {
				want[310+i] = telemetry.Bool((1+i)%3 == 0)
			}
			for i := range 60 {
				want[360+i] = telemetry.Bool((900+i)%3 == 0)
			}
			want[420], want[421] = telemetry.Float64(-1.25e100), telemetry.Uint(9)
			want[7], want[315] = telemetry.Uint(54321), telemetry.Bool(true)
			for i, err := range d.Write(context.Background(), []drivers.Write{{Tag: 7, Value: want[7]}, {Tag: 315, Value: want[315]}, {Tag: 420, Value: want[420]}, {Tag: 421, Value: want[421]}}) {
				if err != nil {
					t.Errorf("write %d: %v", i, err)
				}
			}
			readings, err := d.Read(context.Background(), drivers.Ref{}, nil)
			if err != nil {
				t.Fatal(err)
			}
			for i := range readings {
				if readings[i].Value != want[i] {
					t.Errorf("%q: %+v, want %+v", list[i].Address, readings[i], want[i])
				}
			}
		})
	}
}

// connectSoon makes a driver and waits until its device, which is just starting, answers.
func connectSoon(t *testing.T, c drivers.Connection) *driver {
	d, err := newDriver(&c, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	for n := 0; ; n++ {
		d.units[0].timeout = time.Second
		if err = d.Connect(context.Background()); err == nil {
			if _, err = d.Read(context.Background(), drivers.Ref{}, nil); err == nil {
				d.units[0].timeout = 10 * time.Second
				return d
			}
		}
		if n == 100 {
			t.Fatal(err)
		}
		time.Sleep(100 * time.Millisecond)
	}
}

// TestMbpoll has mbpoll, on libmodbus, read and write every table of the simulated device over TCP and RTU, numbers of 32 bits in both
// orders among it.
func TestMbpoll(t *testing.T) {
	_, err := exec.LookPath("mbpoll")
	need(t, "mbpoll", err == nil)
	for _, transport := range []string{"tcp", "rtu"} {
		if transport == "rtu" && runtime.GOOS != "linux" {
			continue
		}
		sim := startSim(t, modbussim.Options{Transport: transport})
		u := sim.Unit(5)
		u.SetRegisters(modbussim.Holding, 10, 0x1234, 0xffff, 0xe979, 0x42f6, 0x42f6, 0xe979)
		u.SetRegisters(modbussim.Input, 65534, 7, 65535)
		u.SetRegisters(modbussim.Input, 20, 0xfffe, 0xffff)
		u.SetBits(modbussim.Coil, 3, true, false)
		u.SetBits(modbussim.Discrete, 8, false, true)
		sim.Inject(modbussim.Fault{Kind: modbussim.Exception, Code: 2, Match: modbussim.Touching(5, modbussim.Holding, 900, 900)})
		line := []string{"-m", "rtu", "-b", "19200", "-P", "even", "-a", "5", "-0", "-1", sim.Addr()}
		if host, port, err := net.SplitHostPort(sim.Addr()); err == nil {
			line = []string{"-m", "tcp", "-p", port, "-a", "5", "-0", "-1", host}
		}
		for _, c := range []struct {
			args string
			want []string
		}{
			{"-r 10 -c 2 -t 4:hex", []string{"[10]: \t0x1234", "[11]: \t0xFFFF"}},
			{"-r 12 -c 1 -t 4:float", []string{"[12]: \t123.456"}},
			{"-r 14 -c 1 -t 4:float -B", []string{"[14]: \t123.456"}},
			{"-r 20 -c 1 -t 3:int", []string{"[20]: \t-2"}},
			{"-r 65534 -c 2 -t 3", []string{"[65534]: \t7", "[65535]: \t65535"}},
			{"-r 3 -c 2 -t 0", []string{"[3]: \t1", "[4]: \t0"}},
			{"-r 8 -c 2 -t 1", []string{"[8]: \t0", "[9]: \t1"}},
			{"-r 900 -c 1 -t 4", []string{"Illegal data address"}},
			{"-r 40 -t 4 = 258 65535 7", []string{"Written 3 references."}},
			{"-r 50 -t 4 = 9", []string{"Written 1 references."}},
			{"-r 60 -t 4:float -B = -1.5", []string{"Written 1 references."}},
			{"-r 30 -t 0 = 1 0 1", []string{"Written 3 references."}},
			{"-r 33 -t 0 = 1", []string{"Written 1 references."}},
		} {
			args, values, _ := strings.Cut(c.args, " =")
			all := append(append(strings.Fields(args), line...), "--")
			out, _ := exec.Command("mbpoll", append(all, strings.Fields(values)...)...).CombinedOutput()
			for _, want := range c.want {
				if !strings.Contains(string(out), want) {
					t.Errorf("%s: mbpoll %s: %q, want %q", transport, c.args, out, want)
				}
			}
		}
		for addr, want := range map[uint16]string{40: "0102ffff0007", 50: "000900000000", 60: "bfc000000000"} {
			if got := hex.EncodeToString(u.Held(modbussim.Holding, addr, 3)); got != want {
				t.Errorf("%s: mbpoll laid %s at %d, want %s", transport, got, addr, want)
			}
		}
		if got := u.Held(modbussim.Coil, 30, 4); !bytes.Equal(got, []byte{1, 0, 1, 1}) {
			t.Errorf("%s: mbpoll laid the coils %v", transport, got)
		}
	}
}

// TestSocatModem has socat dial in and pass on what comes, as a modem does, to a server of pymodbus.
func TestSocatModem(t *testing.T) {
	need(t, "python3-pymodbus 3.0", exec.Command("/usr/bin/python3", "-c", "import pymodbus.server").Run() == nil)
	_, err := exec.LookPath("socat")
	need(t, "socat", err == nil)
	for scheme, kind := range map[string]string{"tcp-listen": "tcp", "rtu-listen": "rtuovertcp"} {
		t.Run(scheme, func(t *testing.T) {
			port := drivertest.FreePort(t)
			server := exec.Command("/usr/bin/python3", "-c", pymodbusServer, kind, fmt.Sprint(port))
			if err := server.Start(); err != nil {
				t.Fatal(err)
			}
			defer func() { server.Process.Kill(); server.Wait() }()
			url := fmt.Sprintf("%s://127.0.0.1:%d", scheme, drivertest.FreePort(t))
			dev := device(url, 17, tags(run("holding", 0, 300)...))
			dev.Timeout, dev.Options["registration"] = 10*time.Second, "modem-17"
			d := connect(t, drivers.Connection{URL: url, Devices: []drivers.Device{dev}})
			// The registration first, then the bytes of the server.
			modem := exec.Command("socat", "TCP:"+d.link.address, fmt.Sprintf(`SYSTEM:printf modem-17; exec socat - TCP\:127.0.0.1\:%d\,retry=50\,interval=0.2`, port))
			if err := modem.Start(); err != nil {
				t.Fatal(err)
			}
			defer func() { modem.Process.Kill(); modem.Wait() }()
			var readings []telemetry.Reading
			for start := time.Now(); ; time.Sleep(100 * time.Millisecond) {
				if readings, err = d.Read(context.Background(), drivers.Ref{}, nil); err == nil {
					break
				}
				if time.Since(start) > 30*time.Second {
					t.Fatal(err)
				}
			}
			for i := range readings {
				if readings[i].Value != telemetry.Uint(uint64(i)) {
					t.Errorf("holding:%d: %+v", i, readings[i])
				}
			}
		})
	}
}
