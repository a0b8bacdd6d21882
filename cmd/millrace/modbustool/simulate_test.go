package modbustool

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"testing"
	"time"

	"millrace/drivers"
	"millrace/drivers/drivertest"
	"millrace/drivers/modbus"
	"millrace/drivers/modbus/modbussim"
	"millrace/drivers/telemetry"
	"millrace/gateway/config"
)

// simulating runs `millrace modbus simulate ARGS` until the test ends, and returns the urls that it serves.
func simulating(t *testing.T, lines int, args ...string) (urls []string) {
	t.Helper()
	cmd := New(Host{
		Protocols: func() []drivers.Protocol { return []drivers.Protocol{modbus.Protocol()} },
		Failed:    func(err error) error { return err },
	})
	r, w := io.Pipe()
	cmd.SetOut(w)
	cmd.SetArgs(append([]string{"simulate", "--listen", "127.0.0.1:0"}, args...))
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- cmd.ExecuteContext(ctx); w.Close() }()
	in := bufio.NewScanner(r)
	for len(urls) < lines && in.Scan() {
		url, _, _ := strings.Cut(in.Text(), "  ")
		urls = append(urls, url)
	}
	go func() { _, _ = io.Copy(io.Discard, r) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	if len(urls) < lines {
		t.Fatalf("%d lines, want %d", len(urls), lines)
	}
	return urls
}

// TestSimulate serves a template with faults, moves its values, and leaves alone what a client writes.
func TestSimulate(t *testing.T) {
	url := simulating(t, 1, "eastron-sdm120", "--unit", "3", "--fault", "silent:input:70", "--fault", "exception:4:input:72-73")[0]
	read := func(address string) string {
		out, err := run(t, "read", url, address, "--unit", "3", "--count", "2", "--timeout", "100ms")
		if err != nil {
			return err.Error()
		}
		return out
	}
	before := read("input:0")
	voltage := regexp.MustCompile(`float32 ABCD 2[23]\d\.\d+`)
	if !voltage.MatchString(before) {
		t.Errorf("no voltage in\n%s", before)
	}
	for end := time.Now().Add(20 * time.Second); read("input:0") == before; time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the voltage does not move")
		}
	}
	has(t, read("input:70"), "no answer within 100ms")
	has(t, read("input:72"), "refuses all")
	out, err := run(t, "identify", url, "--unit", "3")
	if err != nil {
		t.Fatal(err)
	}
	has(t, out, `product code: "eastron-sdm120"`)
}

// TestSimulateConfig serves the devices of a config, a serial line among them, on lines of their own.
func TestSimulateConfig(t *testing.T) {
	serial, lines := "rtuovertcp://10.0.0.9", 3
	if runtime.GOOS == "linux" {
		serial = "rtu:///dev/ttyUSB0?baud=115200"
	}
	file := filepath.Join(t.TempDir(), "millrace.yaml")
	text := fmt.Sprintf(`gateway: shop
destinations: [{name: cloud, url: "mqtt://h", topic: "t/{device}/{group}"}]
devices:
  - {name: a, driver: modbus, url: "tcp://10.0.0.7", groups: [{name: g, interval: 1s, tags: [{name: mode, address: "holding:5", enum: "3=off, 4=on"}, {name: set, address: "holding:9"}]}]}
  - {name: b, driver: modbus, url: "tcp://10.0.0.7", unit: 2, groups: [{name: g, interval: 1s, tags: [{name: temperature, address: "input:20", type: int16, scale: 0.1, unit: "°C"}]}]}
  - {name: c, driver: modbus, url: "rtuovertcp://10.0.0.8", groups: [{name: g, interval: 1s, tags: [{name: run, address: "coil:1"}, {name: low, address: "holding:0.0-3"}]}]}
  - {name: d, driver: modbus, url: %q, groups: [{name: g, interval: 1s, tags: [{name: n, address: "holding:1", type: float32, order: CDAB, unit: "V"}]}]}
`, serial)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	urls := simulating(t, lines, file)
	for _, c := range []struct {
		line            int
		unit, addr, has string
	}{{0, "1", "holding:5", "int16 3"}, {0, "2", "input:20", "int16 2"}, {1, "1", "coil:1", "coil:1"}, {2, "1", "holding:1", "float32 CDAB 2"}} {
		out, err := run(t, "read", urls[c.line], c.addr, "--unit", c.unit, "--count", "2")
		if err != nil {
			t.Fatal(err)
		}
		if c.has == "int16 3" {
			out = strings.ReplaceAll(out, "int16 4", "int16 3")
		}
		has(t, out, c.has)
	}
	if _, err := run(t, "write", urls[0], "holding:9", "4711", "--yes"); err != nil {
		t.Fatal(err)
	}
	time.Sleep(500 * time.Millisecond) // two ticks of the simulation, if the machine is fast: more do no harm
	out, err := run(t, "read", urls[0], "holding:9")
	if err != nil {
		t.Fatal(err)
	}
	has(t, out, "4711")
}

// TestSimulateCaller serves a config whose devices call: they do, with their registrations, and again when the gateway has hung up; what
// they refuse between tags is read around.
func TestSimulateCaller(t *testing.T) {
	where := fmt.Sprint("127.0.0.1:", drivertest.FreePort(t))
	file := filepath.Join(t.TempDir(), "millrace.yaml")
	text := fmt.Sprintf(`gateway: shop
destinations: [{name: cloud, url: "mqtt://h", topic: "t/{device}/{group}"}]
devices:
  - {name: a, driver: modbus, url: "tcp-listen://%[1]s", registration: gw-a, heartbeat_packet: "0xFE", groups: [{name: g, interval: 1s, tags: [{name: n, address: "holding:5"}, {name: m, address: "holding:9"}]}]}
  - {name: b, driver: modbus, url: "tcp-listen://%[1]s", registration: gw-b, unit: 2, groups: [{name: g, interval: 1s, tags: [{name: n, address: "input:20", type: float32}]}]}
`, where)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	simulating(t, 2, file, "--fault", "exception-gaps")
	cfg, err := config.Load(file, func() []drivers.Protocol { return []drivers.Protocol{modbus.Protocol()} }(), config.Options{})
	if err != nil {
		t.Fatal(err)
	}
	for range 2 { // the second time after the gateway's end
		for _, c := range cfg.Connections() {
			d, err := c.Protocol.New(c.Connection)
			if err != nil {
				t.Fatal(err)
			}
			if err := d.Connect(t.Context()); err != nil {
				t.Fatal(err)
			}
			defer d.Close()
			good := false
			for end := time.Now().Add(30 * time.Second); !good && time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
				readings, _ := d.Read(t.Context(), drivers.Ref{}, nil)
				good = len(readings) > 0
				for _, r := range readings {
					good = good && r.Quality == telemetry.Good
				}
			}
			if !good {
				t.Errorf("%s does not call", c.Connection.Devices[0].Name)
			}
			d.Close()
		}
	}
}

func TestSimulateRefuses(t *testing.T) {
	opcua := filepath.Join(t.TempDir(), "o.yaml")
	if err := os.WriteFile(opcua, []byte("gateway: x\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"simulate", "no-such-thing"}, {"simulate", opcua}, {"simulate", "eastron-sdm120", "--listen", "127.0.0.1:99999"},
		{"simulate", "eastron-sdm120", "--transport", "carrier-pigeon"}, {"simulate", "eastron-sdm120", "--unit", "256"}} {
		if _, err := run(t, append(args, "--for", "1ms")...); !errors.Is(err, errFailed) {
			t.Errorf("%q: %v", args, err)
		}
	}
}

// TestFaults reads each word for a fault, and refuses what is none.
func TestFaults(t *testing.T) {
	for text, want := range map[string]modbussim.Fault{
		"silent": {Kind: modbussim.Silence}, "silent:holding:10": {Kind: modbussim.Silence}, "exception:2:40041-49": {Kind: modbussim.Exception, Code: 2},
		"close:unit:5": {Kind: modbussim.CloseAt}, "close-after-answer": {Kind: modbussim.CloseAfter}, "deaf-after-connect:2s": {Kind: modbussim.Deaf, Wait: 2 * time.Second},
		"hasty:30ms": {Kind: modbussim.Hasty, Wait: 30 * time.Millisecond}, "delay:1s:coil:1": {Kind: modbussim.Delay, Wait: time.Second},
		"silent-over:10": {Kind: modbussim.Silence, Code: 3}, "exception-over:10": {Kind: modbussim.Exception, Code: 3}, "noise:5": {Kind: modbussim.LineNoise, N: 5, Seed: 1},
		"transaction-zero": {Kind: modbussim.ZeroTransaction}, "wrong-unit": {Kind: modbussim.WrongUnit}, "wrong-transaction": {Kind: modbussim.WrongTransaction},
		"exception:6/2": {Kind: modbussim.Exception, Code: 6, Every: 2}, "damage:0/10": {Kind: modbussim.Spoil, Seed: 1, Every: 10}, "cut:3": {Kind: modbussim.Partial, N: 3, Seed: 1},
		"garbage:9": {Kind: modbussim.Garbage, N: 9, Seed: 1}, "junk:2": {Kind: modbussim.JunkAfter, N: 2, Seed: 1}, "drip:5ms": {Kind: modbussim.Drip, Wait: 5 * time.Millisecond},
		"stale": {Kind: modbussim.StaleInstead}, "flood": {Kind: modbussim.Flood}, "exception-gaps": {},
	} {
		got, err := parseFault(text)
		matches := got.Match != nil
		if got.Match = nil; err != nil || fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("%q: %+v, %v, want %+v", text, got, err, want)
		}
		if where := strings.Count(text, ":") > 1 || strings.HasPrefix(text, "silent:") || strings.Contains(text, "over"); matches != where {
			t.Errorf("%q: strikes only some requests: %v", text, matches)
		}
	}
	f, err := parseFault("silent:holding:10-19")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		table       modbussim.Table
		addr, count uint16
		want        bool
	}{{modbussim.Holding, 0, 10, false}, {modbussim.Holding, 0, 11, true}, {modbussim.Holding, 19, 1, true}, {modbussim.Holding, 20, 5, false}, {modbussim.Input, 10, 1, false}} {
		if got := f.Match(modbussim.Request{Table: c.table, Addr: c.addr, Count: c.count}); got != c.want {
			t.Errorf("%+v: %v", c, got)
		}
	}
	for _, bad := range []string{"", "silence", "exception", "exception:0", "exception:128", "silent:holding", "silent:holding:9-5", "silent:unit:256", "delay", "delay:2", "delay:2h", "hasty:-1s", "noise:0", "wrong-unit:5", "silent-over:0", "silent/1", "silent/x", "stale/", "cut:0", "damage:201", "flood:1"} {
		if _, err := parseFault(bad); err == nil {
			t.Errorf("%q is taken for a fault", bad)
		}
	}
}
