package faults

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

// python is the interpreter that Debian's packages belong to; another in PATH does not see them.
const python = "/usr/bin/python3"

func pymodbus() program {
	return program{"python3-pymodbus", func() error { return exec.Command(python, "-c", "import pymodbus.server").Run() },
		"apt-get install python3-pymodbus"}
}

func nodeOPCUA() program {
	return program{"node-opcua", func() error {
		if _, err := exec.LookPath("node"); err != nil {
			return err
		}
		_, err := os.Stat("testdata/opcua/node_modules/node-opcua/package.json")
		return err
	}, "npm ci --prefix gateway/faults/testdata/opcua"}
}

// peer is a third-party server as a child process that tells its scans on stdout.
type peer struct {
	name string
	addr string
	out  tail
	proc *process
}

func startPeer(t *testing.T, name, command string, args ...string) *peer {
	t.Helper()
	addr, err := freeAddr("127.0.0.1")
	must(t, err)
	p := &peer{name: name, addr: addr}
	for i, a := range args {
		args[i] = strings.ReplaceAll(a, "PORT", addr[strings.LastIndexByte(addr, ':')+1:])
	}
	p.proc, err = start(&p.out, nil, nil, command, args...)
	must(t, err)
	t.Cleanup(p.proc.kill)
	for end := time.Now().Add(60 * time.Second); !strings.Contains(p.out.String(), "READY"); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) || !p.proc.running() {
			t.Fatalf("%s does not start: %s", name, p.out.String())
		}
	}
	return p
}

func startPymodbus(t *testing.T) *peer {
	return startPeer(t, "pymodbus", python, "-u", "testdata/modbus/server.py", "PORT")
}

func startNodeOPCUA(t *testing.T) *peer {
	return startPeer(t, "nodeopcua", "node", "testdata/opcua/server.js", "PORT", filepath.Join(t.TempDir(), "pki"))
}

// served returns the scans that the server told of.
func (p *peer) served() []Served {
	var all []Served
	for line := range strings.Lines(p.out.String()) {
		var scan uint32
		var ms int64
		if n, _ := fmt.Sscanf(line, "SCAN %d %d\n", &scan, &ms); n == 2 {
			all = append(all, Served{Device: p.name, Scan: scan, At: time.UnixMilli(ms)})
		}
	}
	return all
}

// modbusTag is one tag of the pymodbus server and what it must be read as; testdata/modbus/server.py holds
// the same table.
type modbusTag struct {
	name, address, more string
	want                any // nil: a bad reading
}

func modbusTags() []modbusTag {
	var tags []modbusTag
	address := 100
	for _, f := range []struct {
		kind  string
		words int
		want  string
	}{
		{"float32", 2, "21.625"}, {"int32", 2, "-123456789"}, {"uint32", 2, "4000000000"},
		{"float64", 4, "2.718281828459045"}, {"int64", 4, "-8589934591"}, {"uint64", 4, "9007199254740993"},
	} {
		for _, order := range []string{"ABCD", "CDAB", "BADC", "DCBA"} {
			tags = append(tags, modbusTag{f.kind + order, fmt.Sprintf("holding:%d", address),
				", type: " + f.kind + ", order: " + order, json.Number(f.want)})
			address += f.words
		}
	}
	return append(tags,
		modbusTag{"int16", "holding:180", ", type: int16", json.Number("-12345")},
		modbusTag{"uint16", "holding:181", ", type: uint16", json.Number("54321")},
		modbusTag{"classic", "40182", ", type: uint16", json.Number("54321")},
		modbusTag{"text", "holding:190", ", type: string, length: 8", "Press 7"},
		modbusTag{"bit3", "holding:300.3", "", true},
		modbusTag{"bit4", "holding:300.4", "", false},
		modbusTag{"coil0", "coil:0", "", false},
		modbusTag{"coil1", "coil:1", "", true},
		modbusTag{"discrete3", "discrete:3", "", true},
		modbusTag{"discrete4", "discrete:4", "", false},
		modbusTag{"input5", "input:5", ", type: uint16", json.Number("35")},
		modbusTag{"absent", "holding:900", ", type: uint16", nil},
	)
}

// opcuaTags are the nodes of testdata/opcua/server.js.
func opcuaTags() []modbusTag {
	n := func(s string) json.Number { return json.Number(s) }
	var tags []modbusTag
	for _, f := range []struct {
		name string
		want any
	}{
		{"Bool", true}, {"SByte", n("-7")}, {"Byte", n("200")}, {"Int16", n("-12345")}, {"UInt16", n("54321")},
		{"Int32", n("-123456789")}, {"UInt32", n("4000000000")}, {"Int64", n("-8589934591")}, {"UInt64", n("4294967298")},
		{"Float", n("3.1415927")}, {"Double", n("2.718281828459045")}, {"String", "Größe 5 µm"},
		{"DateTime", "2026-01-02T03:04:05.678Z"},
		{"FloatArray", []any{n("1.5"), n("-2.25"), n("3")}}, {"Int32Array", []any{n("1"), n("-2"), n("3"), n("-4")}},
		{"Unsure", n("42.5")}, {"Broken", nil}, {"Missing", nil},
	} {
		tags = append(tags, modbusTag{f.name, "ns=1;s=Interop." + f.name, "", f.want})
	}
	return tags
}

// devicesYAML is the config of one third-party server: a group for the scan and one for the fixed values.
func devicesYAML(name, driver, url, scan string, tags []modbusTag) string {
	var b strings.Builder
	fmt.Fprintf(&b, "  - name: %s\n    driver: %s\n    url: %s\n    timeout: 2s\n", name, driver, url)
	fmt.Fprintf(&b, "    groups:\n      - name: scan\n        interval: 100ms\n        tags:\n          - {name: scan, %s}\n", scan)
	b.WriteString("      - name: fixed\n        interval: 500ms\n        tags:\n")
	for _, t := range tags {
		fmt.Fprintf(&b, "          - {name: %s, address: %q%s}\n", t.name, t.address, t.more)
	}
	return b.String()
}

// interop is a bed with both third-party servers instead of our own devices.
func interop(t *testing.T, setup Setup) (*bed, []*peer) {
	t.Helper()
	need(t, mosquitto(), pymodbus(), nodeOPCUA())
	modbus, opcua := startPymodbus(t), startNodeOPCUA(t)
	setup.More = devicesYAML("pymodbus", "modbus", "tcp://"+modbus.addr,
		`address: "holding:200", type: uint32`, modbusTags()) +
		devicesYAML("nodeopcua", "opcua", "opc.tcp://"+opcua.addr,
			`address: "ns=1;s=Interop.Scan"`, opcuaTags())
	b := newBed(t, 0, setup)
	b.peers = []*peer{modbus, opcua}
	return b, b.peers
}

// TestInteropValues compares every value of both servers, through the whole line, with what the servers hold.
func TestInteropValues(t *testing.T) {
	t.Parallel()
	b, _ := interop(t, Setup{})
	b.start()
	b.compare("pymodbus", modbusTags())
	b.compare("nodeopcua", opcuaTags())
	r := b.judge()
	if r.Received < 10 {
		t.Errorf("received %d scans, want at least 10", r.Received)
	}
	b.stop()
}

// compare holds the third message of a device's fixed group to the table; the first may come from before
// bad registers were isolated.
func (b *bed) compare(device string, tags []modbusTag) {
	b.t.Helper()
	var m Message
	b.until(30*time.Second, "the values of "+device, func() bool {
		n := 0
		for _, a := range b.sub.Arrivals() {
			if x, err := ParseMessage(a.Payload); err == nil && x.Device == device && x.Group == "fixed" {
				n, m = n+1, x
			}
		}
		return n >= 3
	})
	for _, tag := range tags {
		value, good := m.Values[tag.name]
		reason, bad := m.Bad[tag.name]
		switch {
		case good == bad:
			b.t.Errorf("%s %s is in values: %v, in bad: %v; want exactly one", device, tag.name, good, bad)
		case tag.want == nil && (good || reason == ""):
			b.t.Errorf("%s %s is %v with the reason %q, want a bad reading with a reason", device, tag.name, value, reason)
		case tag.want != nil && !sameValue(value, tag.want):
			b.t.Errorf("%s %s is %v (bad: %v), want %v", device, tag.name, value, reason, tag.want)
		}
	}
	if b.t.Failed() {
		b.t.Logf("the message: %v", m)
	}
}

// sameValue compares as text: a number that differs in its last digit is another number, 3.0 and 3 are one.
func sameValue(got, want any) bool {
	g, ok1 := got.(json.Number)
	w, ok2 := want.(json.Number)
	if !ok1 || !ok2 {
		if gs, ok := got.([]any); ok {
			ws, ok := want.([]any)
			if !ok || len(gs) != len(ws) {
				return false
			}
			for i := range gs {
				if !sameValue(gs[i], ws[i]) {
					return false
				}
			}
			return true
		}
		return reflect.DeepEqual(got, want)
	}
	return g == w || strings.TrimSuffix(string(g), ".0") == string(w)
}

// TestInteropOutage is the whole line with the broker killed and restarted in the middle, and then the
// gateway killed with an outage on.
func TestInteropOutage(t *testing.T) {
	t.Parallel()
	b, _ := interop(t, Setup{Commit: "500ms"})
	b.window = 500*time.Millisecond + commitSlack
	b.start()
	b.await(40, 60*time.Second)
	b.killBroker()
	time.Sleep(3 * time.Second)
	b.kill()
	b.start()
	time.Sleep(2 * time.Second)
	b.restartBroker()
	time.Sleep(2 * time.Second)
	b.judge()
	b.identical()
}

// TestInteropKillCycles is the bar of issue 2: cycles of SIGKILL for the gateway and for mosquitto, on
// equipment and a broker that none of us wrote. Nothing older than commit_interval is lost, nothing is
// inverted, no sequence number is used for two contents. -long makes it 20 cycles.
func TestInteropKillCycles(t *testing.T) {
	t.Parallel()
	chance := random(t)
	b, _ := interop(t, Setup{Order: "oldest-first"})
	b.window = time.Second + commitSlack // the default commit_interval
	b.start()
	b.await(20, 60*time.Second)
	cycles := pick(3, 20)
	for range cycles {
		pause := func() { time.Sleep(time.Duration(300+chance.IntN(2200)) * time.Millisecond) }
		pause()
		b.killBroker()
		pause()
		b.kill()
		b.start()
		pause()
		b.restartBroker()
		pause()
		b.kill() // with a healthy broker, too
		b.start()
	}
	b.judge()
	b.identical()
	t.Logf("FIGURES %s: %d kills of the gateway, %d of the broker", t.Name(), len(b.kills), cycles)
}

// TestServersTellScans guards the ground truth itself: without it every scenario would pass.
func TestServersTellScans(t *testing.T) {
	need(t, pymodbus(), nodeOPCUA())
	for _, p := range []*peer{startPymodbus(t), startNodeOPCUA(t)} {
		p.out.Write([]byte("SCAN 7 1766480000123\nSCAN\n"))
		if got := p.served(); len(got) != 1 || got[0].Scan != 7 || got[0].At.UnixMilli() != 1766480000123 {
			t.Errorf("%s: served %v", p.name, got)
		}
	}
	lock, err := os.ReadFile("testdata/opcua/package-lock.json")
	if errors.Is(err, os.ErrNotExist) || bytes.Contains(lock, []byte(`"resolved"`)) {
		t.Errorf("package-lock.json is missing or names the hosts it was made with: %v", err)
	}
}
