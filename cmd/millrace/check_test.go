package main

import (
	"bytes"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"millrace/drivers"
	"millrace/gateway/config"
)

// loaded reads a config with these lines below `devices:`, which may end in other top-level keys.
func loaded(t *testing.T, devices string) (cfg *config.Config, path string, err error) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "c.yaml")
	text := "gateway: hall\ndestinations: [{name: cloud, url: 'mqtt://broker.example'}]\ndevices:\n" + devices
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg, err = config.Load(path, protocols(), config.Options{})
	return cfg, path, err
}

// printed returns the devices as `millrace config print` has them.
func printed(t *testing.T, devices string) string {
	t.Helper()
	cfg, _, err := loaded(t, devices)
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := cfg.Print(&out); err != nil {
		t.Fatal(err)
	}
	_, after, _ := strings.Cut(out.String(), "\ndevices:\n")
	return after
}

// plan returns what check says of such a config.
func plan(t *testing.T, devices string) string {
	t.Helper()
	var out bytes.Buffer
	cfg, path, err := loaded(t, devices)
	if err == nil {
		err = printPlan(&out, cfg)
	}
	if err != nil {
		return strings.ReplaceAll(err.Error(), path, "c.yaml")
	}
	return strings.ReplaceAll(out.String(), path, "c.yaml")
}

// tagOf is a Modbus device with one tag, whose keys are given, on line 8; rest begins on line 9.
func tagOf(keys, rest string) string {
	return "  - name: press\n    driver: modbus\n    url: tcp://h\n    groups:\n      - {name: f, interval: 1s, tags: [{name: x, " + keys + "}]}\n" + rest
}

// TestGroupKeysSpareEvents: what a group says of its values is no mistake for the events in it.
func TestGroupKeysSpareEvents(t *testing.T) {
	got := plan(t, "  - name: cnc\n    driver: opcua\n    url: opc.tcp://h\n    groups:\n      - {name: f, interval: 1s, report: on-change, deadband: 1, heartbeat: 1m, tags: [{name: x, address: i=2253, type: event}]}\n")
	if !strings.HasSuffix(got, "ok\n") {
		t.Errorf("what the group says is not for its events: %s", got)
	}
}

// TestKeysThatCannotWork: a key that means nothing for the type of a tag's values is a mistake at its place.
func TestKeysThatCannotWork(t *testing.T) {
	const opcua = "  - name: cnc\n    driver: opcua\n    url: opc.tcp://h\n    groups:\n      - {name: f, interval: 1s, tags: [{name: x, address: 'ns=2;s=x', "
	for keys, want := range map[string]string{
		`address: "holding:51", type: string, length: 4, aggregate: mean 2s`:               `: aggregate is of numbers, and its values are texts; delete it`,
		`address: "holding:51", type: bytes, length: 4, scale: 2`:                          `: scale is of numbers, and its values are texts; delete it`,
		`address: "holding:51", type: string, length: 4, report: on-change, deadband: 1`:   `: deadband is of numbers, and its values are texts; delete it`,
		`address: "holding:51", type: unix32, aggregate: rate 2s`:                          `: aggregate is of numbers, and its values are date-times; delete it`,
		`address: "holding:51", enum: "0=off, 1=on", aggregate: max 2s`:                    `: aggregate is of numbers, and its values are texts; delete it, or read the number in a tag of its own, without enum`,
		`address: "holding:51", flags: "0=door", report: on-change, deadband: 1%`:          `: deadband is of numbers, and its values are texts; delete it, or read the number in a tag of its own, without flags`,
		`address: "coil:3", linear: "0..1 -> 0..100"`:                                      `: linear is of numbers, and its values are true or false; delete it`,
		`address: "coil:3", offset: 1`:                                                     `: offset is of numbers, and its values are true or false; delete it`,
		`address: "holding:3.1", clamp: 0..1`:                                              `: clamp is of numbers, and its values are true or false; delete it`,
		`address: "discrete:3", aggregate: max 2s`:                                         `: aggregate is of numbers, and its values are true or false; take it of a tag with expr: 'x ? 1 : 0', or delete it`,
		`address: "holding:1"}, {name: y, expr: "x > 3", aggregate: mean 5s`:               `: aggregate is of numbers, and its values are true or false; let the formula give a number, as with ? 1 : 0, or delete it`,
		`address: "holding:1"}, {name: y, expr: string(x), report: on-change, deadband: 1`: `: deadband is of numbers, and its values are texts; let the formula give a number, as with ? 1 : 0, or delete it`,
		`address: "holding:51", enum: "0=off, 1=on", min: 1`:                               `: min "1" of a tag with enum: its values are texts; delete it`,
	} {
		got := plan(t, tagOf(keys, ""))
		if !strings.HasPrefix(got, "c.yaml:8:") || !strings.Contains(got, want) || strings.Contains(got, "\n") {
			t.Errorf("%s: %s\nwant %s", keys, got, want)
		}
	}
	for keys, want := range map[string]string{
		"type: string, aggregate: mean 2s":             "aggregate is of numbers, and its values are texts",
		"type: json, scale: 2":                         "scale is of numbers, and its values are texts",
		"type: bool, linear: '0..1 -> 0..2'":           "linear is of numbers, and its values are true or false",
		"type: time, clamp: 0..1":                      "clamp is of numbers, and its values are date-times",
		"enum: server, report: on-change, deadband: 1": "deadband is of numbers, and its values are texts",
		"type: event, aggregate: max 1m":               "aggregate is of numbers, and the tag takes events; delete it",
		"type: event, clamp: 0..1":                     "clamp is of numbers, and the tag takes events; delete it",
		"type: event, scale: 2":                        "events cannot be scaled",
		"type: event, linear: '0..1 -> 0..2'":          "events cannot be scaled",
		"type: event, report: on-change, deadband: 1":  "deadband is of numbers, and the tag takes events; delete it",
		"type: event, heartbeat: 1m":                   "heartbeat has no effect while every reading is reported",
		"type: event, unit: bar":                       "unit is of values, and the tag takes events; delete it",
		"type: event, read_back: true":                 "read_back is of values, and the tag takes events; remove it",
	} {
		if got := plan(t, opcua+keys+"}]}\n"); !strings.HasPrefix(got, "c.yaml:8:") || !strings.Contains(got, want) || strings.Contains(got, "\n") {
			t.Errorf("opcua %s: %s\nwant %s", keys, got, want)
		}
	}
	if got := plan(t, opcua+"enum: '0=off', type: event, report: on-change, deadband: 1}]}\n"); !strings.Contains(got, "enum is of values, and the tag takes events") ||
		!strings.Contains(got, "deadband is of numbers, and the tag takes events; delete it") || strings.Contains(got, "without enum") {
		t.Errorf("events with enum and deadband: %s", got)
	}
	for _, keys := range []string{
		`address: "holding:1", aggregate: mean 2s, linear: "0..10 -> 0..1", clamp: true`,
		`address: "coil:1"}, {name: y, expr: "x ? 1 : 0", aggregate: mean 5s`,
		`address: "holding:51", type: string, length: 4, report: on-change, heartbeat: 1m`,
	} {
		if got := plan(t, tagOf(keys, "")); !strings.HasSuffix(got, "ok\n") {
			t.Errorf("%s: %s", keys, got)
		}
	}
	if got := plan(t, opcua+"aggregate: mean 2s}]}\n"); !strings.HasSuffix(got, "ok\n") {
		t.Errorf("an OPC UA tag of any type: %s", got)
	}
	inherited := "  - name: press\n    driver: modbus\n    url: tcp://h\n    groups:\n      - {name: f, interval: 1s, report: on-change, deadband: 1, tags: [{name: x, address: 'coil:1'}]}\n"
	if got := plan(t, inherited); !strings.HasSuffix(got, "ok\n") {
		t.Errorf("a deadband of the group: %s", got)
	}
	if got := plan(t, printed(t, inherited)); !strings.HasSuffix(got, "ok\n") {
		t.Errorf("a deadband of the group, printed: %s", got)
	}
	if got := plan(t, tagOf(`address: "holdng:1", type: string, length: 4, aggregate: mean 2s`, "")); strings.Count(got, "\n") != 1 {
		t.Errorf("two mistakes at once: %s", got)
	}
}

// TestWritesThatCannotWork: an entry of `writes:` that can never write anything is a mistake at its place, and one without a
// range a warning.
func TestWritesThatCannotWork(t *testing.T) {
	for _, c := range []struct{ keys, rule, want string }{
		{`address: "input:3"`, "min: 0, max: 1", `c.yaml:10:26: write of tag "x" of device "press": input:3 can only be read; delete the entry`},
		{`address: "discrete:3"`, "", `c.yaml:10:26: write of tag "x" of device "press": discrete:3 can only be read; delete the entry`},
		{`address: "holding:3", type: unix32`, "", `c.yaml:10:26: write of tag "x" of device "press": date-times can only be read; delete the entry`},
		{`address: "holding:3", type: float16`, "min: 0, max: 1", `c.yaml:10:26: write of tag "x" of device "press": the type float16 can only be read; delete the entry`},
		{`address: "holding:3", flags: "0=door"`, "", `c.yaml:10:26: write of tag "x" of device "press": a tag with flags can only be read; delete the entry`},
		{`address: "coil:3"`, "min: 0, max: 1", `c.yaml:10:34: min and max of tag "x" are of numbers, and its values are true or false; delete them`},
		{`address: "holding:3", type: string, length: 4`, "min: 0, max: 1", `c.yaml:10:34: min and max of tag "x" are of numbers, and its values are texts; delete them`},
		{`address: "holding:3", enum: "0=off"`, "min: 0, max: 1", `c.yaml:10:34: min and max of tag "x" are of numbers, and its values are texts; delete them`},
		{`address: "holding:3"`, "min: 0, max: 100000", `c.yaml:10:42: max 100000 of tag "x": the type uint16 holds 0 to 65535; use a range within that`},
		{`address: "holding:3"`, "min: -1, max: 10", `c.yaml:10:34: min -1 of tag "x": the type uint16 holds 0 to 65535; use a range within that`},
		{`address: "holding:3", type: int16, scale: 0.1, offset: 5`, "min: -4000, max: 10", `c.yaml:10:34: min -4000 of tag "x": the type int16, scaled, holds -3271.8 to 3281.7; use a range within that`},
		{`address: "holding:3", type: uint16, scale: -1`, "min: -10, max: 1", `c.yaml:10:44: max 1 of tag "x": the type uint16, scaled, holds -65535 to 0; use a range within that`},
		{`address: "holding:3", type: uint64`, "min: -1, max: 1e18", `c.yaml:10:34: min -1 of tag "x": the type uint64 holds 0 to 1.84467440737096e+19; use a range within that`},
		{`address: "holding:3", type: bcd16`, "min: 0, max: 10000", `c.yaml:10:42: max 10000 of tag "x": 10000 has more than 4 digits; use a range that the device can take`},
		{`address: "holding:3.4-7"`, "min: 0, max: 16", `c.yaml:10:42: max 16 of tag "x": 16 is out of range for the type bits; use a range that the device can take`},
		{`address: "holding:3", type: float32`, "min: 0, max: 1e39", `c.yaml:10:42: max 1e+39 of tag "x": 1e+39 is out of range for the type float32; use a range that the device can take`},
		{`address: "holding:3", scale: 10`, "min: 1, max: 9", `c.yaml:10:34: no value from min 1 to max 9 of tag "x" is one of the device's, which are 10 apart; widen the range`},
		{`address: "holding:3"`, "", `c.yaml:10:5: no number is ever written to tag "x" of device "press" without min and max; add both`},
		{`address: "holding:3", type: int64`, "min: -1e18, max: 1e18", ""},
		{`address: "holding:3", scale: 0.1`, "min: 0, max: 6553.5", ""},
		{`address: "holding:3", type: int16`, "min: -32768, max: 32767", ""},
		{`address: "holding:3", type: bytes, length: 4`, "", ""},
		{`address: "holding:3", enum: "0=off"`, "", ""},
		{`address: "holding:3.4-7"`, "min: 0, max: 15", ""},
		{`address: "coil:3"`, "", ""},
	} {
		rule := c.rule
		if rule != "" {
			rule += ", "
		}
		got := plan(t, tagOf(c.keys, "writes:\n  - {device: press, tag: x, "+rule+"rate: 1/s}\n"))
		warned := strings.HasSuffix(got, "\nWARNING: "+c.want+"\nok\n")
		if c.want == "" && (!strings.HasSuffix(got, "ok\n") || strings.Contains(got, "WARN")) || c.want != "" && got != c.want && !(warned && c.rule == "") {
			t.Errorf("%s, %s: %s\nwant %s", c.keys, c.rule, got, c.want)
		}
	}
}

// TestWritesToServersThatCannotWork: what a node takes only the server knows, but for what the tag's own keys say.
func TestWritesToServersThatCannotWork(t *testing.T) {
	for _, c := range []struct{ keys, rule, want string }{
		{"type: event", "", `c.yaml:9:24: write of tag "x" of device "cnc": events cannot be written; delete the entry`},
		{"field: a", "min: 0, max: 1, ", `c.yaml:9:24: write of tag "x" of device "cnc": a field or element alone cannot be written; write a tag of the whole array, or call a method; delete the entry`},
		{"type: time", "", `c.yaml:9:24: write of tag "x" of device "cnc": date-times can only be read; delete the entry`},
		{"type: string", "min: 0, max: 1, ", `c.yaml:9:32: min and max of tag "x" are of numbers, and its values are texts; delete them`},
		{"type: uint16", "min: 0, max: 100000, ", `c.yaml:9:40: max 100000 of tag "x": the type uint16 holds 0 to 65535; use a range within that`},
		{"type: uint16", "", "c.yaml:9:5: no number is ever written"},
		{"enum: server", "", `c.yaml:9:5: of tag "x" of device "cnc", which has enum, numbers are written and not their texts, and none without min and max; add both`},
		{"enum: '0=off, 1=on'", "", `c.yaml:9:5: of tag "x" of device "cnc", which has enum, numbers are written and not their texts, and none without min and max; add both`},
		{"enum: '0=off, 1=on'", "min: 0, max: 1, ", ""},
		{"unit: V", "", ""},
		{"unit: V", "min: 0, max: 1e9, ", ""},
		{"enum: server", "min: 0, max: 3, ", ""},
		{"type: json", "min: 0, max: 3, ", ""},
		{"field: a, read_back: true", "", `c.yaml:7:97: device "cnc", tag "x": read_back: a field or element alone cannot be written; write a tag of the whole array, or call a method; leave it out`},
	} {
		got := plan(t, "  - name: cnc\n    driver: opcua\n    url: opc.tcp://h\n    groups: [{name: f, interval: 1s, tags: [{name: x, address: 'ns=2;s=x', "+c.keys+"}]}]\nwrites:\n  - {device: cnc, tag: x, "+c.rule+"rate: 1/s}\n")
		if c.want != "" && c.rule == "" && strings.Contains(got, "WARNING: "+c.want) {
			continue
		}
		if got != c.want && !(c.want == "" && strings.HasSuffix(got, "ok\n") && !strings.Contains(got, "WARN")) {
			t.Errorf("%s, %s: %s\nwant %s", c.keys, c.rule, got, c.want)
		}
	}
}

// TestListenersThatClash: two that cannot both listen are a mistake, whoever they are of.
func TestListenersThatClash(t *testing.T) {
	modbus := func(name, url, more string) string {
		return "  - {name: " + name + ", driver: modbus, url: '" + url + "', " + more + "groups: [{name: f, interval: 1s, tags: [{name: x, address: 'holding:1'}]}]}\n"
	}
	opcua := func(name, url, server string) string {
		return "  - {name: " + name + ", driver: opcua, url: '" + url + "', server_uri: '" + server + "', groups: [{name: f, interval: 1s, tags: [{name: x, address: 'ns=2;s=x'}]}]}\n"
	}
	const only, port = ": only one of them can; give one another port", "c.yaml:5:"
	for _, c := range []struct{ devices, want string }{
		{modbus("a", "tcp-listen://127.0.0.1:9280", ""), `c.yaml:4:36: device "a" listens on 127.0.0.1:9280, and the page on 127.0.0.1:9280` + only},
		{modbus("a", "tcp-listen://:9280", ""), `c.yaml:4:36: device "a" listens on :9280, and the page on 127.0.0.1:9280` + only},
		{modbus("a", "tcp-listen://127.0.0.1:9281", "") + "web: {listen: ':9281'}\n", `c.yaml:4:36: device "a" listens on 127.0.0.1:9281, and the page on :9281` + only},
		{opcua("a", "opc.tcp-listen://127.0.0.1:9280", "urn:a"), `c.yaml:4:35: device "a" listens on 127.0.0.1:9280, and the page on 127.0.0.1:9280` + only},
		{modbus("a", "tcp-listen://127.0.0.1:1502", "registration: a, ") + modbus("b", "tcp-listen://0.0.0.0:1502", "registration: b, "), port + `36: device "b" listens on 0.0.0.0:1502, and device "a" on 127.0.0.1:1502` + only},
		{modbus("a", "tcp-listen://:1502", "registration: a, ") + modbus("b", "tcp-listen://[::]:1502", "registration: b, "), port + `36: device "b" listens on [::]:1502, and device "a" on :1502` + only},
		{modbus("a", "tcp-listen://localhost:1502", "registration: a, ") + modbus("b", "tcp-listen://127.0.0.1:1502", "registration: b, "), port + `36: device "b" listens on 127.0.0.1:1502, and device "a" on localhost:1502` + only},
		{modbus("a", "tcp-listen://:4841", "") + opcua("b", "opc.tcp-listen://:4841", "urn:b"), port + `35: device "b" listens on :4841, and device "a" on :4841` + only},
		{modbus("a", "tcp-listen://:1502", "") + modbus("b", "tcp-listen://:1502", "registration: b, "), port + `36: device "b" listens on :1502 as device "a" does, and nothing tells their callers apart; give each a registration of its own, or another port`},
		{modbus("a", "tcp-listen://:1502", "registration: b, ") + modbus("b", "rtu-listen://:1502", "registration: b, "), port + `36: device "b" listens on :1502 as device "a" does, and nothing tells their callers apart; give each a registration of its own, or another port`},
		{opcua("a", "opc.tcp-listen://:4841", "urn:b") + opcua("b", "opc.tcp-listen://:4841", "urn:b"), port + `35: device "b" listens on :4841 as device "a" does, and nothing tells their callers apart; give each a server_uri of its own, or another port`},
		{modbus("a", "tcp-listen://:1502", "registration: a, ") + modbus("b", "tcp-listen://:1502", "registration: b, "), ""},
		{modbus("a", "tcp-listen://:1502", "unit: 1, ") + modbus("b", "tcp-listen://:1502", "unit: 2, "), ""},
		{modbus("a", "tcp-listen://127.0.0.1:1502", "") + modbus("b", "tcp-listen://127.0.0.2:1502", ""), ""},
		{opcua("a", "opc.tcp-listen://:4841", "urn:a") + opcua("b", "opc.tcp-listen://:4841", "urn:b"), ""},
		{modbus("a", "tcp://127.0.0.1:9280", ""), ""},
		{modbus("a", "tcp-listen://127.0.0.1:9280", "") + "web: {enabled: false}\n", ""},
		{modbus("a", "tcp-listen://127.0.0.1:9280", "") + "web: {listen: ':0'}\n", ""},
	} {
		if got := plan(t, c.devices); got != c.want && !(c.want == "" && strings.HasSuffix(got, "ok\n")) {
			t.Errorf("%s%s\nwant %s", c.devices, got, c.want)
		}
	}
}

// TestStoreThatIsNoFolder: a file where a folder is to be is a mistake, and a path that is not there is none.
func TestStoreThatIsNoFolder(t *testing.T) {
	device := tagOf(`address: "holding:1"`, "")
	for top, want := range map[string]string{
		"buffer: {path: c.yaml}\n":          `c.yaml:9:16: buffer.path "c.yaml" is a file; name a folder, which is made when it is missing`,
		"pki: {path: ./c.yaml}\n":           `c.yaml:9:13: pki.path "./c.yaml" is a file; name a folder, which is made when it is missing`,
		"buffer: {path: none/at/all}\n":     "",
		"buffer: {path: c.yaml/..}\n":       "",
		"pki: {path: .}\nbuffer: {path: .}": "",
	} {
		if got := plan(t, device+top); got != want && !(want == "" && strings.HasSuffix(got, "ok\n")) {
			t.Errorf("%s: %s\nwant %s", top, got, want)
		}
	}
}

// TestEstimateCountsTexts: the lengths of texts that the config tells are in the estimate of an outage, as far as they go.
func TestEstimateCountsTexts(t *testing.T) {
	estimate := func(tags, top string) string {
		got := plan(t, "  - name: press\n    driver: modbus\n    url: tcp://h\n    groups:\n      - {name: f, interval: 50ms, tags: ["+tags+"]}\n"+top)
		_, after, _ := strings.Cut(got, "\n  estimate: ")
		line, _, _ := strings.Cut(after, "\n")
		return line
	}
	const small, n = "buffer: {max_size: 4MiB, commit_interval: 200ms}\n", "{name: n, address: 'holding:0'}"
	tag := func(name, rest string) string { return ", {name: " + name + ", address: 'holding:9', " + rest + "}" }
	for _, c := range []struct{ tags, want string }{
		{n, "the store is full after 0.8 hours of outage"},
		{n + tag("a", "type: bytes, length: 250") + tag("b", "type: bytes, length: 250"), "full after 3.0 minutes of outage if every text is as long as it can be and another each time, 0.7 hours if none changes"},
		{n + tag("a", "type: string, length: 250"), "full after 10.0 minutes of outage if"},
		{n + tag("a", "enum: '0=off, 1=a text of about 30 characters'"), "full after 0.5 hours of outage if"},
		{n + tag("a", "flags: '0=a text of about 30 characters, 1=a text of about 30 characters'"), "full after 0.4 hours of outage if"},
	} {
		if got := estimate(c.tags, small); !strings.Contains(got, c.want) {
			t.Errorf("%s: %s\nwant %s", c.tags, got, c.want)
		}
	}
	got := plan(t, "  - name: cnc\n    driver: opcua\n    url: opc.tcp://h\n    groups:\n      - {name: f, interval: 1s, tags: [{name: a, address: 'ns=2;s=a', type: string}, {name: b, address: 'ns=2;s=b'}, {name: c, address: 'ns=2;s=c', type: json}, {name: d, address: 'ns=2;s=d', enum: '0=off'}]}\n")
	if want := "2 texts whose length only the device knows are not in it"; !strings.Contains(got, want) {
		t.Errorf("%s\nwant %s", got, want)
	}
}

// TestPlanOfSubscriptions: what a server is asked to push is in the plan, with what servers take at least, and is no request.
func TestPlanOfSubscriptions(t *testing.T) {
	cnc := func(keys string) string {
		return plan(t, "  - name: cnc\n    driver: opcua\n    url: opc.tcp://h\n"+keys+"    groups:\n"+
			"      - {name: f, interval: 100ms, tags: [{name: a, address: 'ns=2;s=a'}, {name: b, address: 'ns=2;s=b', type: event}, {name: c, address: 'ns=2;s=c', field: x}, {name: d, address: 'ns=2;s=c', field: y}]}\n"+
			"      - {name: s, interval: 1m, tags: [{name: a, address: 'ns=2;s=a'}]}\n")
	}
	const all = "\n      in all 2 subscriptions with 4 items; a server must take 1 with 2 items by the Micro profile, 2 with 100 each by Embedded, 5 with 500 each by Standard; groups share one, published as often as the fastest of them, where the server has too few; `mode: auto` polls what is refused, of a group with events its values, and only where the whole subscription is\n"
	for _, c := range []struct {
		keys string
		want []string
	}{
		{"", []string{`group "f" each 100ms: 4 tags, pushed by the device`, "\n      subscribe to 3 items: sampled every 100ms, published every 100ms if the server can, 10 values or 1000 events of each kept until then\n",
			"\n      subscribe to 1 item: sampled every 1m, published every 5s if the server can", all, ", 0 requests/s\n"}},
		{"    queue_size: 1\n    verify_interval: 1m\n", []string{"1 value of each kept until then; what was not pushed for 1m is read\n", "1 value or 1000 events of each kept until then; what was not pushed for 1m is read\n"}},
	} {
		got := cnc(c.keys)
		for _, want := range c.want {
			if !strings.Contains(got, want) {
				t.Errorf("%s: %s\nwant %s", c.keys, got, want)
			}
		}
	}
	events := plan(t, "  - name: cnc\n    driver: opcua\n    url: opc.tcp://h\n    backfill: history\n    groups: [{name: f, interval: 500ms, tags: [{name: a, address: i=2253, type: event}]}]\n")
	if want := "\n      subscribe to 1 item: published every 500ms if the server can, 1000 events of each kept until then; events are in no history, and those of an outage are lost\n"; !strings.Contains(events, want) || strings.Contains(events, "polls") {
		t.Errorf("events alone: %s\nwant %s", events, want)
	}
	for _, c := range []struct{ value, want string }{{"", "or, where"}, {", {name: v, address: 'ns=2;s=a'}", "\n      or, where the server refuses the whole subscription, read 1 node in 1 request of up to 500\n"}} {
		got := plan(t, "  - name: cnc\n    driver: opcua\n    url: opc.tcp://h\n    mode: auto\n    register_nodes: true\n    groups: [{name: f, interval: 500ms, tags: [{name: a, address: i=2253, type: event}"+c.value+"]}]\n")
		if strings.Contains(got, c.want) != (c.value != "") {
			t.Errorf("%s: %s", c.value, got)
		}
	}
	polled := func(mode string) string {
		return plan(t, "  - name: cnc\n    driver: opcua\n    url: opc.tcp://h\n    mode: "+mode+"\n    groups: [{name: f, interval: 500ms, tags: [{name: a, address: 'ns=2;s=a'}]}]\n")
	}
	if got := polled("auto"); !strings.Contains(got, "\n      or, where the server refuses that, read 1 node in 1 request of up to 500\n") || !strings.Contains(got, "in all 1 subscription with 1 item;") {
		t.Error(got)
	}
	if got := polled("read"); !strings.Contains(got, "1 tag, 1 request a cycle\n      read 1 node in 1 request of up to 500\n") || strings.Contains(got, "subscri") || !strings.Contains(got, ", 2 requests/s\n") {
		t.Error(got)
	}
}

// TestPlanOfTwoPaths: a spare path is no request.
func TestPlanOfTwoPaths(t *testing.T) {
	got := plan(t, "  - name: press\n    driver: modbus\n    urls: [tcp://h, tcp://i]\n    groups:\n      - {name: f, interval: 500ms, tags: [{name: x, address: 'holding:1'}]}\n")
	for _, want := range []string{"1 tag, 1 request a cycle", "line: 2 requests/s", "2 records/s, 2 requests/s"} {
		if !strings.Contains(got, want) {
			t.Errorf("%s\nwant %s", got, want)
		}
	}
}

// TestDriversListsEveryKey: `millrace drivers` names each key that a driver adds, whatever it is of.
func TestDriversListsEveryKey(t *testing.T) {
	var out bytes.Buffer
	if code := execute([]string{"drivers"}, &out); code != 0 {
		t.Fatalf("exit %d", code)
	}
	_, modbus, _ := strings.Cut(out.String(), "driver: modbus\n")
	modbus, opcua, _ := strings.Cut(modbus, "driver: opcua\n")
	for _, p := range protocols() {
		said := map[string]string{"modbus": modbus, "opcua": opcua}[p.Name]
		for level, options := range map[string][]drivers.Option{"device": slices.Concat(p.DeviceOptions, p.ConnectionOptions), "group": p.GroupOptions, "tag": p.TagOptions} {
			for _, o := range options {
				if !regexp.MustCompile(`(?m)^  ` + level + ` +` + o.Name + ` +\S`).MatchString(said) {
					t.Errorf("%s of a %s with driver %s is not in\n%s", o.Name, level, p.Name, said)
				}
			}
		}
	}
}
