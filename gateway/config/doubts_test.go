package config

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// doubtsOf are the warnings of a config with these top-level keys, and devices given as driver, url, unit or none, and address.
func doubtsOf(t *testing.T, keys string, devices ...[4]string) string {
	t.Helper()
	var b strings.Builder
	fmt.Fprintf(&b, "gateway: g\n%s\ndevices:\n", keys)
	for i, d := range devices {
		fmt.Fprintf(&b, "  - name: d%d\n    driver: %s\n    url: %s\n", i, d[0], d[1])
		if d[2] != "" {
			fmt.Fprintf(&b, "    unit: %s\n", d[2])
		}
		what := fmt.Sprintf("tags: [{name: t, address: %q}]", d[3])
		if rule, ok := strings.CutPrefix(d[3], "browse "); ok {
			what = fmt.Sprintf("browse: %q", rule)
		}
		fmt.Fprintf(&b, "    groups: [{name: g, interval: 1s, %s}]\n", what)
	}
	file := filepath.Join(t.TempDir(), "c.yaml")
	if err := os.WriteFile(file, []byte(b.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg, err := load(file)
	if err != nil {
		t.Fatal(err)
	}
	var said []string
	for _, w := range cfg.Warnings {
		if w.Pos.Line == 0 || w.Mend == "" {
			t.Errorf("warning without a place or what to do: %v", w)
		}
		said = append(said, w.What)
	}
	return strings.Join(said, "\n")
}

const oneDestination = "destinations: [{name: a, url: 'mqtt://h'}]"

// TestDoubts: what can be meant and often is not is a warning, and nothing else is.
func TestDoubts(t *testing.T) {
	const two = "destinations: [{name: a, url: 'mqtt://h'}, {name: b, url: 'mqtt://i'}]"
	plain := [4]string{"modbus", "tcp://h:502", "1", "holding:1"}
	for _, c := range []struct{ keys, want string }{
		{oneDestination, ""},
		{oneDestination + "\nweb: {listen: 127.0.0.2:9280}", ""},
		{oneDestination + "\nweb: {listen: 'localhost:9280'}", ""},
		{oneDestination + "\nweb: {listen: '[::1]:9280'}", ""},
		{oneDestination + "\nweb: {listen: ':9280', enabled: false}", ""},
		{oneDestination + "\nweb: {listen: ':9280'}", "no login"},
		{oneDestination + "\nweb: {listen: '0.0.0.0:9280'}", "no login"},
		{oneDestination + "\nweb: {listen: 'edge-box:9280'}", "no login"},
		{two, ""},
		{dest("mqtt://h:8883"), `url "mqtt://h:8883": port 8883 is the usual one of mqtts`},
		{dest("mqtts://h:1883"), "port 1883 is the usual one of mqtt"},
		{dest("wss://h:80/mqtt"), "port 80 is the usual one of ws"},
		{dest("ws://h:443"), "port 443 is the usual one of wss"},
		{dest("mqtt://h:1884"), ""},
		{dest("mqtts://h:443"), ""},
		{dest("mqtt://h", "mqtts://h."), `destination "d1" has the same client_id at the same host as "d0"`},
		{dest("mqtt://127.0.0.1", "ws://localhost"), `destination "d1" has the same client_id at the same host as "d0"`},
		{dest("mqtt://h", "mqtts://h:8884"), ""},
		{dest("mqtt://127.0.0.1", "mqtts://127.0.0.2"), ""},
	} {
		if got := doubtsOf(t, c.keys, plain); (got == "") != (c.want == "") || !strings.Contains(got, c.want) {
			t.Errorf("%s: got %q, want %q", c.keys, got, c.want)
		}
	}
}

// dest is a config's destinations with these urls.
func dest(urls ...string) string {
	var list []string
	for i, url := range urls {
		list = append(list, fmt.Sprintf("{name: d%d, url: %q}", i, url))
	}
	return "destinations: [" + strings.Join(list, ", ") + "]"
}

// TestOneBroker: two with one client_id at one broker are a mistake however its host is written.
func TestOneBroker(t *testing.T) {
	for _, c := range []struct {
		one, other string
		mistake    bool
	}{
		{"mqtt://localhost:1884", "mqtt://127.0.0.1:1884", true},
		{"mqtt://[::1]:1884", "mqtt://LOCALHOST:1884", true},
		{"mqtt://127.0.0.1", "mqtt://[::ffff:127.0.0.1]:1883", true},
		{"mqtt://0.0.0.0", "mqtt://localhost", true},
		{"mqtt://h.", "ws://h:1883", true},
		{"mqtt://[2001:db8::1]", "mqtt://[2001:db8:0::1]:1883", true},
		{"mqtt://127.0.0.1", "mqtt://127.0.0.2", false},
		{"mqtt://h", "mqtt://h:1884", false},
	} {
		file := filepath.Join(t.TempDir(), "c.yaml")
		text := "gateway: g\n" + dest(c.one, c.other) + "\ndevices: [{name: d, driver: modbus, url: 'tcp://h', groups: [{name: g, interval: 1s, tags: [{name: t, address: 'holding:1'}]}]}]\n"
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := load(file); (err != nil) != c.mistake || err != nil && !strings.Contains(err.Error(), "the same client_id at the same broker") {
			t.Errorf("%s and %s: %v", c.one, c.other, err)
		}
	}
}

// TestLongTimeout: a timeout beside which the polls are many is a warning, that of a slow device is none.
func TestLongTimeout(t *testing.T) {
	for timeout, want := range map[string]string{
		"1m": `timeout 1m of device "d0" is 60 times the interval of group "g"`, "11s": "11 times", "10s": "", "2s": "",
	} {
		if got := doubtsOf(t, oneDestination, [4]string{"modbus", "tcp://h\n    timeout: " + timeout, "1", "holding:1"}); (got == "") != (want == "") || !strings.Contains(got, want) {
			t.Errorf("timeout %s: got %q, want %q", timeout, got, want)
		}
	}
}

// TestTwins: one device that stands twice is a warning; several units of a line, and several machines of one server, are none.
func TestTwins(t *testing.T) {
	for _, c := range []struct {
		what    string
		devices [][4]string
		want    string
	}{
		{"units", [][4]string{{"modbus", "tcp://h:502", "1", "holding:1"}, {"modbus", "tcp://h:502", "2", "holding:1"}}, ""},
		{"urls", [][4]string{{"modbus", "tcp://h:502", "1", "holding:1"}, {"modbus", "tcp://i:502", "1", "holding:1"}}, ""},
		{"a copy", [][4]string{{"modbus", "tcp://h:502", "1", "holding:1"}, {"modbus", "tcp://H:502", "1", "holding:9"}}, `device "d1" has the same driver and url and unit as "d0"`},
		{"a copy without the unit that is usual", [][4]string{{"modbus", "tcp://h:502", "1", "holding:1"}, {"modbus", "tcp://h:502", "", "holding:9"}}, `device "d1" has the same driver and url and unit as "d0"`},
		{"a copy without unit", [][4]string{{"modbus", "tcp://h:502", "", "holding:1"}, {"modbus", "tcp://h:502", "", "holding:1"}}, `device "d1" has the same driver and url and unit as "d0"`},
		{"machines of a server", [][4]string{{"opcua", "opc.tcp://h:4840", "", "ns=1;s=a"}, {"opcua", "opc.tcp://h:4840", "", "ns=1;s=b"}}, ""},
		{"rules of a server", [][4]string{{"opcua", "opc.tcp://h:4840", "", "browse ns=1;s=a"}, {"opcua", "opc.tcp://h:4840", "", "browse ns=1;s=b"}}, ""},
		{"a copy of a machine", [][4]string{{"opcua", "opc.tcp://h:4840", "", "ns=1;s=a"}, {"opcua", "opc.tcp://h:4840", "", "ns=1;s=b"}, {"opcua", "opc.tcp://h:4840", "", "ns=1;s=a"}}, `device "d2" has the same driver and url and addresses as "d0"`},
	} {
		if got := doubtsOf(t, oneDestination, c.devices...); (got == "") != (c.want == "") || !strings.Contains(got, c.want) {
			t.Errorf("%s: got %q, want %q", c.what, got, c.want)
		}
	}
}
