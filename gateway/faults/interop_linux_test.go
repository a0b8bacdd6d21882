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
	"slices"
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
	t       *testing.T
	name    string
	addr    string
	command []string // PORT and FIRST in it are replaced
	out     tail
	proc    *process
}

func startPeer(t *testing.T, name string, command ...string) *peer {
	t.Helper()
	addr, err := freeAddr("127.0.0.1")
	must(t, err)
	p := &peer{t: t, name: name, addr: addr, command: command}
	p.start(0)
	t.Cleanup(func() { p.proc.kill() })
	return p
}

// start starts the server, also again after a kill; its scans go on after first.
func (p *peer) start(first uint32) {
	p.t.Helper()
	words := strings.NewReplacer("PORT", p.addr[strings.LastIndexByte(p.addr, ':')+1:], "FIRST", fmt.Sprint(first))
	var args []string
	for _, a := range p.command[1:] {
		args = append(args, words.Replace(a))
	}
	ready := strings.Count(p.out.String(), "READY")
	var err error
	p.proc, err = start(&p.out, nil, nil, p.command[0], args...)
	must(p.t, err)
	for end := time.Now().Add(60 * time.Second); strings.Count(p.out.String(), "READY") == ready; time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) || !p.proc.running() {
			p.t.Fatalf("%s does not start: %s", p.name, p.out.String())
		}
	}
}

func startPymodbus(t *testing.T) *peer {
	return startPeer(t, "pymodbus", python, "-u", "testdata/modbus/server.py", "PORT", "FIRST")
}

func startNodeOPCUA(t *testing.T) *peer {
	return startPeer(t, "nodeopcua", "node", "testdata/opcua/server.js", "PORT", "FIRST", filepath.Join(t.TempDir(), "pki"))
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

// awaitIdle waits until the server has answered what a client had asked that is gone: until it answers nothing for a while. Its clients do not say when they are done.
func (p *peer) awaitIdle(patience time.Duration) {
	p.t.Helper()
	end, n := time.Now().Add(patience), -1
	for now := len(p.served()); now != n; now = len(p.served()) {
		if n = now; time.Now().After(end) {
			p.t.Fatalf("%s still answers %s after its client is gone", p.name, patience)
		}
		time.Sleep(500 * time.Millisecond)
	}
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
	fmt.Fprintf(&b, "  - name: %s\n    driver: %s\n    url: %s\n    timeout: %s\n", name, driver, url, deviceTimeout)
	if driver == "opcua" {
		b.WriteString("    security_policy: none\n    mode: read\n") // the server counts the polls
	}
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
	b.compare("pymodbus", b.begin, modbusTags())
	b.compare("nodeopcua", b.begin, opcuaTags())
	r := b.judge()
	if r.Received < 10 {
		t.Errorf("received %d scans, want at least 10", r.Received)
	}
	b.stop()
}

// compare holds the third message after a moment of a device's fixed group to the table: the third with a value, since what is told before it
// is connected has none, and the first may come from before bad registers were isolated.
func (b *bed) compare(device string, after time.Time, tags []modbusTag) {
	b.t.Helper()
	var m Message
	b.until(30*time.Second, "the values of "+device, func() bool {
		n := 0
		for _, a := range b.sub.Arrivals() {
			if x, err := ParseMessage(a.Payload); err == nil && x.Device == device && x.Group == "fixed" && a.At.After(after) && len(x.Values) > 0 {
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

// TestInteropServerRestart, F22 and its like for Modbus: both servers are killed and started again. Meanwhile
// every message says that it is bad and why; afterwards data resumes by itself.
func TestInteropServerRestart(t *testing.T) {
	t.Parallel()
	b, peers := interop(t, Setup{})
	b.start()
	for _, p := range peers {
		b.until(30*time.Second, "a scan of "+p.name, func() bool { return b.lastScan(p.name) > 3 })
	}
	down := time.Now()
	var first []uint32
	for _, p := range peers {
		b.stops = append(b.stops, time.Now()) // what it has noted as served may not have been sent
		p.proc.kill()
		all := p.served()
		first = append(first, all[len(all)-1].Scan+1000)
	}
	for _, p := range peers {
		b.until(20*time.Second, "a bad reading of "+p.name+" with a reason", func() bool {
			m := b.lastOf(p.name, "scan")
			reason, _ := m.Bad["scan"].(string)
			return m.TS > down.UnixMilli() && reason != ""
		})
		t.Logf("FIGURES %s: %s is down: %v", t.Name(), p.name, b.lastOf(p.name, "scan").Bad["scan"])
	}
	for i, p := range peers {
		p.start(first[i])
		up := time.Now()
		b.until(30*time.Second, "a scan of the restarted "+p.name, func() bool { return b.lastScan(p.name) > first[i] })
		t.Logf("FIGURES %s: %s resumed %.1f s after its restart", t.Name(), p.name, time.Since(up).Seconds())
	}
	resumed := time.Now()
	b.compare("pymodbus", resumed, modbusTags())
	b.compare("nodeopcua", resumed, opcuaTags())
	b.judge()
}

// lastOf returns the last message of a device's group; the zero Message for none.
func (b *bed) lastOf(device, group string) Message {
	for _, a := range slices.Backward(b.sub.Arrivals()) {
		if m, err := ParseMessage(a.Payload); err == nil && m.Device == device && m.Group == group {
			return m
		}
	}
	return Message{}
}

func (b *bed) lastScan(device string) uint32 {
	m := b.lastOf(device, "scan")
	scan, _ := m.Scan()
	return scan
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
