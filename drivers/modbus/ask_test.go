package modbus

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"testing"
	"time"

	"millrace/drivers"
	"millrace/drivers/drivertest"
	"millrace/drivers/modbus/modbussim"
)

// TestAsk passes single requests on: their answers, exceptions among them, come back as they are, and nothing that writes does.
func TestAsk(t *testing.T) {
	for _, name := range []string{"tcp", "rtuovertcp", "asciiovertcp"} {
		sim := startSim(t, modbussim.Options{Transport: name})
		sim.Unit(1).SetRegisters(modbussim.Holding, 5, 0x1234, 0x5678)
		sim.Unit(9).SetBits(modbussim.Coil, 3, true)
		sim.Inject(modbussim.Fault{Kind: modbussim.Exception, Code: 2, Match: modbussim.Touching(1, modbussim.Holding, 50, 51)})
		sim.Unit(2).Identify("Acme", "PX1", "1.2")
		sim.Inject(modbussim.Fault{Kind: modbussim.Silence, Match: modbussim.OfUnit(7)})
		c := drivers.Connection{URL: sim.URL(), Devices: []drivers.Device{device(sim.URL(), 1)}}
		c.Devices[0].Timeout = 300 * time.Millisecond
		d := connect(t, c)
		for _, q := range []struct{ ask, want string }{
			{"01 03 0005 0002", "0304" + "12345678"},
			{"01 03 0032 0001", "8302"},
			{"09 01 0000 0008", "010108"}, // a unit that the config does not have
			{"01 11", "9101"},
			{"01 2b0e0100", "ab01"},
			{"02 2b0e0100", "2b0e0181000003" + "000441636d65" + "0103505831" + "0203312e32"},
			{"02 2b0e0402", "2b0e0481000001" + "0203312e32"},
		} {
			b, _ := hex.DecodeString(strings.ReplaceAll(q.ask, " ", ""))
			got, err := d.Ask(context.Background(), b)
			if err != nil || hex.EncodeToString(got) != q.want {
				t.Errorf("%s: ask %s: %x, %v, want %s", name, q.ask, got, err, q.want)
			}
		}
		if _, err := d.Ask(context.Background(), []byte{7, 3, 0, 0, 0, 1}); !errors.Is(err, drivers.ErrDevice) || errors.Is(err, drivers.ErrLink) {
			t.Errorf("%s: a silent unit: %v", name, err)
		}
		before := sim.Requests()
		for _, bad := range []string{"", "01", "0105000aff00", "0106000a0001", "010f00000001" + "0101", "0110000000010200ff", "0116000000000000", "01030005",
			"010300050000", "01030005007e", "0103ffff0002", "012b0d0100", "010800000000", "0103000500020000"} {
			b, _ := hex.DecodeString(bad)
			if got, err := d.Ask(context.Background(), b); err == nil || errors.Is(err, drivers.ErrLink) || errors.Is(err, drivers.ErrDevice) {
				t.Errorf("%s: ask %s: %x, %v, want a refusal", name, bad, got, err)
			}
		}
		if sim.Requests() != before {
			t.Errorf("%s: a request that may write went out", name)
		}
	}
}

// TestVarying: how long an answer is that says so itself.
func TestVarying(t *testing.T) {
	for text, want := range map[string]int{
		"1103": 5, "11": maxPDU + 1, "2b0e018100000100034142": 12, "2b0e0181000001000341424344": 12, "2b0e0181000000": 7, "2b0d01810000": maxPDU + 1,
		"2b0e01810000" + "ff" + "00ff" + strings.Repeat("00", 240): maxPDU + 1,
	} {
		b, _ := hex.DecodeString(text)
		if got := varying(b); got != want {
			t.Errorf("%s: %d, want %d", text, got, want)
		}
	}
}

func FuzzVarying(f *testing.F) {
	f.Add([]byte{43, 14, 1, 0x81, 0, 0, 1, 0, 3, 'a', 'b', 'c'})
	f.Fuzz(func(t *testing.T, b []byte) {
		q := request{unit: 1, pdu: []byte{43, 14, 1, 0}, varies: true}
		q.findRTU(b)
		if n := varying(b); n <= 0 {
			t.Errorf("%d", n)
		}
	})
}

// identityServer is a device of pymodbus that says what it is, on a framing.
const identityServer = `
import sys
from pymodbus.server import StartTcpServer
from pymodbus.device import ModbusDeviceIdentification as I
from pymodbus.datastore import ModbusSequentialDataBlock as B, ModbusSlaveContext as S, ModbusServerContext as C
from pymodbus.transaction import ModbusRtuFramer, ModbusAsciiFramer, ModbusSocketFramer
framer = {"tcp": ModbusSocketFramer, "rtuovertcp": ModbusRtuFramer, "asciiovertcp": ModbusAsciiFramer}[sys.argv[1]]
i = I(); i.VendorName = "Acme"; i.ProductCode = "PX1"; i.MajorMinorRevision = "1.2"
StartTcpServer(context=C(slaves={17: S(hr=B(0, [0] * 10))}, single=False), identity=i, address=("127.0.0.1", int(sys.argv[2])), framer=framer)
`

// TestIdentifyPymodbus reads the identification of a foreign device over three framings.
func TestIdentifyPymodbus(t *testing.T) {
	need(t, "python3-pymodbus 3.0", exec.Command("/usr/bin/python3", "-c", "import pymodbus.server").Run() == nil)
	for _, name := range []string{"tcp", "rtuovertcp", "asciiovertcp"} {
		port := fmt.Sprint(drivertest.FreePort(t))
		server := exec.Command("/usr/bin/python3", "-c", identityServer, name, port)
		if err := server.Start(); err != nil {
			t.Fatal(err)
		}
		defer func() { server.Process.Kill(); server.Wait() }()
		url := name + "://127.0.0.1:" + port
		dev := device(url, 17, tags("holding:0"))
		dev.Timeout = 10 * time.Second
		d := connectSoon(t, drivers.Connection{URL: url, Devices: []drivers.Device{dev}})
		got, err := d.Ask(context.Background(), []byte{17, 43, 14, 1, 0})
		if err != nil || !strings.Contains(string(got), "Acme\x01\x03PX1\x02\x031.2") {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
}

// TestTrace shows exchanges while somebody looks, and only then.
func TestTrace(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b := newBubbleBench(t, modbussim.Options{Transport: "rtuovertcp"}, 1, tags("holding:1", "coil:5"))
		b.conn.Devices[0].Timeout = 300 * time.Millisecond
		b.open(t)
		if bad, err := b.read(drivers.Ref{}); bad > 0 || err != nil {
			t.Fatal(bad, err)
		}
		var seen []string
		look := func(e *drivers.Exchange) {
			seen = append(seen, fmt.Sprintf("%x %x %s %x", e.Request, e.Answer, e.Reason, e.Raw))
		}
		b.driver.Trace(look)
		if bad, err := b.read(drivers.Ref{}); bad > 0 || err != nil {
			t.Fatal(bad, err)
		}
		if len(seen) != 2 || !strings.HasPrefix(seen[0], "010100050001 010101") || !strings.HasPrefix(seen[1], "010300010001 010302") {
			t.Errorf("seen %q", seen)
		}
		b.sim.Inject(modbussim.Fault{Kind: modbussim.Garbage, N: 1000, Seed: 2, Times: 1})
		if _, err := b.read(drivers.Ref{}); err != nil {
			t.Fatal(err)
		}
		if len(seen) < 4 || !strings.Contains(seen[2], "  the answer is not valid Modbus ") || len(seen[2]) > 2*maxRaw+100 {
			t.Errorf("seen %.100q", seen)
		}
		b.driver.Trace(nil)
		n := len(seen)
		if _, err := b.read(drivers.Ref{}); err != nil || len(seen) != n {
			t.Errorf("shown to nobody: %v", err)
		}
	})
}

// TestAskGivenUp: a tool that has no more time leaves a request whose answer still comes. Where no transaction id tells it apart it
// must not be taken for that of the next request.
func TestAskGivenUp(t *testing.T) {
	for _, name := range []string{"rtuovertcp", "asciiovertcp", "tcp", "tcp any"} {
		name, accept, _ := strings.Cut(name, " ")
		bubble(t, func(t *testing.T) {
			b := newBubbleBench(t, modbussim.Options{Transport: name}, 1, tags("holding:300"))
			b.conn.Devices[0].Timeout = 600 * time.Millisecond
			if accept != "" {
				b.option("accept_transaction_id", accept)
			}
			b.open(t)
			if err := b.mustBeWell("at first", 1); err != nil {
				t.Fatal(err)
			}
			b.sim.Inject(modbussim.Fault{Kind: modbussim.Delay, Wait: 300 * time.Millisecond, Times: 1})
			ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
			_, err := b.driver.Ask(ctx, []byte{1, 3, 0, 7, 0, 1})
			cancel()
			if !errors.Is(err, drivers.ErrDevice) {
				t.Errorf("%s: %v, want that the device did not answer", name, err)
			}
			for range 3 {
				if _, err := b.read(drivers.Ref{}); wrong(err) {
					t.Errorf("%s: %v", name, err)
				}
			}
		})
	}
}
