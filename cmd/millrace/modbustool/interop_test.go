package modbustool

import (
	"fmt"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"millrace/drivers/drivertest"
)

const foreignServer = `
import sys
from pymodbus.server import StartTcpServer
from pymodbus.device import ModbusDeviceIdentification as I
from pymodbus.datastore import ModbusSparseDataBlock as B, ModbusSlaveContext as S, ModbusServerContext as C
hr = {i: i for i in range(100, 180)}
hr.update({100: 0x42f6, 101: 0xe979})
i = I(); i.VendorName = "Acme"; i.ProductCode = "PX1"; i.MajorMinorRevision = "1.2"
unit = S(hr=B(hr), ir=B({5: 1}), co=B({5: True}), di=B({5: True}), zero_mode=True)
StartTcpServer(context=C(slaves={17: unit}, single=False), identity=i, address=("127.0.0.1", int(sys.argv[1])))
`

const foreignClient = `
import struct, sys
from pymodbus.client import ModbusTcpClient
c = ModbusTcpClient("127.0.0.1", port=int(sys.argv[1]))
c.connect()
print(struct.unpack(">f", struct.pack(">2H", *c.read_input_registers(0, 2, slave=1).registers))[0])
print(c.read_coils(0, 1, slave=9))
c.close()
`

// python runs a script that needs pymodbus.
func python(t *testing.T, script string, args ...string) *exec.Cmd {
	t.Helper()
	if err := exec.Command("/usr/bin/python3", "-c", "import pymodbus.server").Run(); err != nil {
		drivertest.Lacks(t, "python3-pymodbus is not here")
	}
	return exec.Command("/usr/bin/python3", append([]string{"-c", script}, args...)...)
}

// TestForeignServer uses the tools on a server of pymodbus.
func TestForeignServer(t *testing.T) {
	port := strconv.Itoa(drivertest.FreePort(t))
	server := python(t, foreignServer, port)
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { server.Process.Kill(); server.Wait() }()
	url := "tcp://127.0.0.1:" + port
	out, err := "", error(nil)
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		if out, err = run(t, "read", url, "40100", "--unit", "17", "--count", "3"); err == nil {
			break
		}
		if time.Now().After(end) {
			t.Fatal(err)
		}
	}
	has(t, out, "holding:99   (40100)  -     exception 2", "float32 ABCD 123.456")
	if out, err = run(t, "identify", url, "--unit", "17"); err != nil {
		t.Fatal(err)
	}
	has(t, out, `vendor: "Acme"`, `revision: "1.2"`, "server id: ")
	if out, err = run(t, "scan", url, "--units", "15-17", "--to", "299", "--pause", "0", "--fine", "1", "--tables", "holding,coil"); err != nil {
		t.Fatal(err)
	}
	has(t, out, "unit 17\n  holding: 100-179\n  coil: 5\n1 of 3 unit ids answer")
	if out, err = run(t, "write", url, "holding:120", "1.5", "--unit", "17", "--type", "float32", "--order", "CDAB", "--yes"); err != nil {
		t.Fatal(err)
	}
	has(t, out, "1.5 written and confirmed; now 1.5")
}

// TestForeignClient has pymodbus read a simulated device.
func TestForeignClient(t *testing.T) {
	url := simulating(t, 1, "eastron-sdm120")[0]
	out, err := python(t, foreignClient, url[strings.LastIndexByte(url, ':')+1:]).CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	var volts float64
	if _, err := fmt.Sscan(string(out), &volts); err != nil || volts < 220 || volts > 240 {
		t.Errorf("%v V, %v: %s", volts, err, out)
	}
	has(t, string(out), "Exception Response(129, 1, ") // a unit that is not there
}
