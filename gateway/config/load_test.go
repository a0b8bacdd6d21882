package config

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"millrace/drivers"
	"millrace/drivers/telemetry"
)

func mustLoad(t *testing.T, path string) *Config {
	t.Helper()
	c, err := load(path)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestMinimalGetsDefaults(t *testing.T) {
	c := mustLoad(t, "testdata/minimal.good.yaml")
	want := Config{
		File: "testdata/minimal.good.yaml", Files: []string{"testdata/minimal.good.yaml"}, Gateway: "press-shop",
		GraceTime: 10 * time.Second, Log: Log{Level: "info", Format: "text"}, Web: Web{Enabled: true, Listen: "127.0.0.1:9280"},
		Buffer: Buffer{Path: filepath.Join("testdata", "data"), MaxSize: 2 << 30, MaxAge: 720 * time.Hour, CommitInterval: time.Second, WhenFull: DropOldest, Memory: 8 << 20},
		PKI:    PKI{Path: filepath.Join("testdata", "pki")},
		Destinations: []Destination{{
			Name: "cloud", URL: "mqtt://broker.example:1883", ClientID: "press-shop", Topic: "telemetry/{gateway}/{device}/{group}", Format: "json", Order: LiveFirst, Start: StartNow,
			Window: 100, MaxInFlightBytes: 4 << 20, KeepAlive: 30 * time.Second, AckTimeout: 10 * time.Second, Retry: Retry{200 * time.Millisecond, 8 * time.Second},
		}},
	}
	want.Devices = []Device{{
		Name: "press-1", Driver: "modbus", URL: "tcp://192.168.1.10:502", Timeout: 2 * time.Second, Retry: Retry{500 * time.Millisecond, 30 * time.Second},
		Groups: []Group{{Group: drivers.Group{Name: "fast", Interval: time.Second,
			Tags: []telemetry.Tag{{Name: "temperature", Address: "holding:100"}}}}},
	}}
	c.protocols = nil
	if !reflect.DeepEqual(*c, want) {
		t.Errorf("got  %+v\nwant %+v", *c, want)
	}
}

func TestEveryKeyArrives(t *testing.T) {
	c := mustLoad(t, "testdata/everything.good.yaml")
	wantBuffer := Buffer{Path: filepath.Join("testdata", "spool"), MaxSize: 3 << 29, MaxAge: 180 * time.Hour, WhenFull: DropNewest, Memory: 1 << 20}
	if c.Buffer != wantBuffer {
		t.Errorf("buffer %+v", c.Buffer)
	}
	if c.Processors != 2 || c.GraceTime != 20*time.Second || c.Log != (Log{"debug", "json"}) || c.Web != (Web{false, ":9280"}) {
		t.Errorf("grace time, log, web: %v %v %v", c.GraceTime, c.Log, c.Web)
	}
	wantDest := Destination{
		Name: "cloud", URL: "wss://broker.example:443/mqtt", ClientID: "press-shop-1", Username: "someone",
		Password: NewSecret("0123"), Topic: "{gateway}/{device}/{group}", Format: "json", Order: OldestFirst,
		Start: StartOldest, Window: 20, MaxInFlightBytes: 1e6, MaxMessage: 128 << 10, BacklogLimit: BacklogLimit{50, 256 << 10},
		KeepAlive: time.Minute, AckTimeout: 5 * time.Second, Retry: Retry{time.Second, time.Minute}, TLS: TLS{ServerName: "broker"}, Int64AsString: true,
	}
	if !reflect.DeepEqual(c.Destinations, []Destination{wantDest}) {
		t.Errorf("destination %+v", c.Destinations[0])
	}
	d := c.Devices[0]
	if d.Options["unit"] != "1" || len(d.Options) != 1 || d.Timeout != time.Second || d.Retry != (Retry{200 * time.Millisecond, 30 * time.Second}) {
		t.Errorf("device %+v", d)
	}
	if want := []telemetry.Label{{Name: "hall", Value: "north"}, {Name: "line", Value: "4"}}; d.Description != "the big press" || !reflect.DeepEqual(d.Labels, want) {
		t.Errorf("device: %q %v", d.Description, d.Labels)
	}
	wantWrites := []Write{{Device: "press-1", Tag: "temperature", Limits: Limits{-40, 10.5, true}, Count: 10, Per: time.Minute}, {Device: "press-1", Tag: "running", Count: 1, Per: time.Second},
		{Device: "cnc-1", Method: "start", Object: "nsu=urn:press;s=Press", Node: "Start", Arguments: []Limits{{0, 100, true}, {}, {-1.5, 0, true}}, Count: 1, Per: time.Minute},
		{Device: "cnc-1", Method: "stop", Object: "i=85", Count: 5, Per: time.Hour}}
	if !reflect.DeepEqual(c.Writes, wantWrites) {
		t.Errorf("writes %+v", c.Writes)
	}
	wantTag := telemetry.Tag{Name: "temperature", Address: "holding:100", Type: "float32", Unit: "°C", Scale: 0.1, Offset: -40,
		Description: "oil", Labels: []telemetry.Label{{Name: "a", Value: "1"}, {Name: "b", Value: "2"}},
		Options: map[string]string{"order": "ABCD"}}
	if !reflect.DeepEqual(d.Groups[0].Tags[0], wantTag) {
		t.Errorf("tag %+v", d.Groups[0].Tags[0])
	}
}

func TestTemplate(t *testing.T) {
	c := mustLoad(t, "testdata/template.good.yaml")
	one, two := c.Devices[0], c.Devices[1]
	if len(one.Groups) != 3 || one.Groups[0].Interval != time.Second || len(one.Groups[0].Tags) < 20 || one.Groups[0].Report != nil || one.Options["max_registers"] != "80" || one.Options["unit"] != "" {
		t.Errorf("%v %+v", one.Options, one.Groups[0])
	}
	var names []string
	for _, g := range two.Groups {
		names = append(names, g.Name)
	}
	if !reflect.DeepEqual(names, []string{"more", "a_power", "a_energy", "a_quality", "b_all"}) || two.Options["max_registers"] != "20" || two.Options["order"] != "ABCD" {
		t.Errorf("groups %v, options %v", names, two.Options)
	}
	a, b := two.Groups[1], two.Groups[4]
	if a.Interval != 10*time.Second || a.Tags[0].Name != "a_voltage_l1" || a.Report[0] != (TagReport{OnChange: true, Deadband: 1, DeadbandPercent: true, Heartbeat: 10 * time.Minute}) ||
		b.Tags[0].Name != "b_voltage" || b.Tags[0].Scale != 0.1 || b.Tags[0].Options["order"] != "CDAB" || a.Tags[0].Options != nil {
		t.Errorf("%+v\n%+v", a, b)
	}
	if p := b.Derived; len(p) != 1 || p[0].Name != "b_power" || p[0].Unit != "W" || !strings.Contains(p[0].Expr, "b_power_raw * 10 ** b_power_sf") || len(b.Tags) != 3 {
		t.Errorf("derived %+v of %+v", p, b.Tags)
	}
}

func TestCSV(t *testing.T) {
	c := mustLoad(t, "testdata/csv.good.yaml")
	g := c.Devices[0].Groups[0]
	want := []telemetry.Tag{
		{Name: "temperature", Address: "holding:100", Type: "float32", Scale: 0.1, Offset: -40, Unit: "°C", Options: map[string]string{"order": "CDAB"}},
		{Name: "a; b", Address: "holding:102"}, {Name: "half", Address: "holding:103", Type: "int16", Scale: 0.5},
	}
	if !reflect.DeepEqual(g.Tags, want) || g.Report[0].Deadband != 0.5 || g.Report[2].Deadband != 1.5 || !g.Report[2].DeadbandPercent || len(c.Files) != 2 {
		t.Errorf("%+v\n%+v\nfrom %v", g.Tags, g.Report, c.Files)
	}
}

func TestLinear(t *testing.T) {
	g := mustLoad(t, "testdata/derived.good.yaml").Devices[0].Groups[1]
	level := g.Tags[1]
	if at0, at27648 := level.Offset, 27648*level.Scale+level.Offset; at0 != 20 || at27648 != 4 {
		t.Errorf("27648..0 -> 4..20 makes %v of 0 and %v of 27648", at0, at27648)
	}
	if !reflect.DeepEqual(g.Clamps, map[int]Range{1: {4, 20}, 2: {-5, 5}}) {
		t.Errorf("clamps %v", g.Clamps)
	}
	fast := mustLoad(t, "testdata/derived.good.yaml").Devices[0].Groups[0]
	if !reflect.DeepEqual(g.Aggregates, map[int]Aggregate{2: {"rate", time.Hour}}) || !reflect.DeepEqual(fast.Aggregates, map[int]Aggregate{2: {"max", time.Minute}}) {
		t.Errorf("aggregates %v, %v", g.Aggregates, fast.Aggregates)
	}
}

func TestReports(t *testing.T) {
	d := mustLoad(t, "testdata/everything.good.yaml").Devices[0]
	want := [][]TagReport{
		{{}, {}, {OnChange: true, Deadband: 1, DeadbandPercent: true, Heartbeat: time.Minute}},
		{{OnChange: true, Deadband: 0.5, Heartbeat: 10 * time.Minute}, {}, {OnChange: true, Deadband: 0.5}},
	}
	for i, g := range d.Groups {
		if !reflect.DeepEqual(g.Report, want[i]) {
			t.Errorf("group %s: %+v", g.Name, g.Report)
		}
	}
	if r := mustLoad(t, "testdata/minimal.good.yaml").Devices[0].Groups[0].Report; r != nil {
		t.Errorf("a group that always reports has %+v", r)
	}
}

func TestConnections(t *testing.T) {
	c := mustLoad(t, "testdata/everything.good.yaml")
	var got []string
	for _, conn := range c.Connections() {
		names := conn.Protocol.Name
		for i, d := range conn.Connection.Devices {
			names += " " + d.Name
			if conn.Devices[i].Name != d.Name || len(conn.Devices[i].Groups) != len(d.Groups) {
				t.Errorf("device %s stands beside %s", d.Name, conn.Devices[i].Name)
			}
		}
		got = append(got, names)
	}
	if want := []string{"modbus press-1 press-2", "modbus press-4 press-5", "opcua cnc-1"}; !reflect.DeepEqual(got, want) {
		t.Errorf("connections %q, want %q", got, want)
	}
	if s := fmt.Sprint(c.Connections()[0]); s != "modbus tcp://192.168.1.10:502" {
		t.Errorf("String: %s", s)
	}
}

func TestAnchorsAndMergeKeys(t *testing.T) {
	c := mustLoad(t, "testdata/anchors.good.yaml")
	if d := c.Destinations[1]; d.Name != "second" || d.Window != 7 || d.ClientID != "other" {
		t.Errorf("merged destination %+v", d)
	}
	if len(c.Devices) != 3 || c.Devices[1].URL != c.Devices[0].URL || c.Devices[1].Options["unit"] != "2" ||
		c.Devices[0].Options != nil || !reflect.DeepEqual(c.Devices[2].Groups, c.Devices[0].Groups) {
		t.Errorf("devices %+v", c.Devices)
	}
}

func TestInclude(t *testing.T) {
	c := mustLoad(t, "testdata/include.good.yaml")
	var names []string
	for _, d := range c.Devices {
		names = append(names, d.Name)
	}
	if want := []string{"a-1", "b-1", "more-1"}; !reflect.DeepEqual(names, want) {
		t.Errorf("devices %q, want %q", names, want)
	}
	if len(c.Files) != 5 || len(c.Destinations) != 2 || c.Destinations[1].URL != "ws://127.0.0.1:80/mqtt" {
		t.Errorf("files %q, destinations %+v", c.Files, c.Destinations)
	}
}

func TestExpand(t *testing.T) {
	c := mustLoad(t, "testdata/expand.good.yaml")
	d := c.Destinations[0]
	if d.Username != "someone-${x" || d.Password.Reveal() != "hunter2-hunter2" || d.ClientID != "x-3-3" ||
		d.URL != "mqtts://broker.example:8883" || c.Devices[0].Options["unit"] != "3" {
		t.Errorf("destination %+v, password %q, device %+v", d, d.Password.Reveal(), c.Devices[0])
	}
}

func TestProcessEnvironmentIsTheDefault(t *testing.T) {
	t.Setenv("MILLRACE_TEST_GATEWAY", "from-env")
	data, _ := os.ReadFile("testdata/minimal.good.yaml")
	path := filepath.Join(t.TempDir(), "c.yaml")
	if err := os.WriteFile(path, bytes.Replace(data, []byte("press-shop"), []byte("${env:MILLRACE_TEST_GATEWAY}"), 1), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := Load(path, protocols(), Options{})
	if err != nil || c.Gateway != "from-env" {
		t.Errorf("%v, %v", c, err)
	}
}

func TestMissingFile(t *testing.T) {
	for path, want := range map[string]string{
		"testdata/no-such.yaml": `testdata/no-such.yaml: read config "testdata/no-such.yaml": it does not exist; check the path, which --config FILE gives`,
		"testdata":              `testdata: read config "testdata": it is a directory; name a file`,
	} {
		if _, err := load(path); err == nil || err.Error() != want {
			t.Errorf("got  %v\nwant %s", err, want)
		}
	}
}

func TestManyMistakesAreCounted(t *testing.T) {
	_, err := load("testdata/many-mistakes.bad.yaml")
	if e, ok := err.(*Errors); !ok || len(e.List) != maxErrors || e.More != 30 || len(e.Unwrap()) != maxErrors {
		t.Errorf("%v", err)
	}
}

func TestSecretNeverPrints(t *testing.T) {
	type nested struct {
		Pub  Secret
		priv Secret
		ptr  *Secret
	}
	s := NewSecret("hunter2")
	v := nested{s, s, &s}
	c := mustLoad(t, "testdata/expand.good.yaml")
	var out bytes.Buffer
	log := slog.New(slog.NewJSONHandler(&out, nil))
	slog.New(slog.NewTextHandler(&out, nil)).Info("x", "s", s, "v", v, "d", c.Destinations)
	log.Info("x", "s", s, "v", v, "d", c.Destinations)
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d", "%T", "%p"} {
		for _, x := range []any{s, &s, v, &v, []Secret{s}, map[string]Secret{"a": s}, c, *c} {
			fmt.Fprintf(&out, verb+"\n", x)
		}
	}
	if err := json.NewEncoder(&out).Encode(v); err != nil {
		t.Fatal(err)
	}
	if err := c.Print(&out); err != nil {
		t.Fatal(err)
	}
	for _, secret := range []string{"hunter2", fmt.Sprintf("%x", "hunter2"), fmt.Sprintf("%d", []byte("hunter2"))} {
		if strings.Contains(out.String(), secret) {
			t.Errorf("%q shows in\n%s", secret, out.String())
		}
	}
	if !strings.Contains(out.String(), mask) || s.Reveal() != "hunter2" || (Secret{}).String() != "" || !(Secret{}).IsZero() {
		t.Error("a secret cannot be told from none")
	}
}

func TestPrintLoadsAgain(t *testing.T) {
	for _, name := range []string{"everything", "minimal", "anchors", "derived", "template", "csv", "select"} {
		c := mustLoad(t, "testdata/"+name+".good.yaml")
		for i := range c.Destinations {
			if !c.Destinations[i].Password.IsZero() {
				c.Destinations[i].Password = NewSecret(mask)
			}
		}
		path := filepath.Join(t.TempDir(), "printed.yaml")
		c.Buffer.Path = filepath.Join(filepath.Dir(path), "data") // absolute, so that it stays
		c.PKI.Path = filepath.Join(filepath.Dir(path), "pki")
		var b bytes.Buffer
		if err := c.Print(&b); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, b.Bytes(), 0o600); err != nil {
			t.Fatal(err)
		}
		again, err := load(path)
		if err != nil {
			t.Fatalf("%v\n%s", err, b.String())
		}
		again.File, again.Files, again.protocols = c.File, c.Files, c.protocols
		if !reflect.DeepEqual(c, again) {
			t.Errorf("%s: got  %+v\nwant %+v", name, again, c)
		}
	}
}

func TestLongestSecretIsScrubbedFirst(t *testing.T) {
	l := newLoader(nil, Options{})
	for _, s := range []string{"hunter", "abcd", "hunter2-hunter2", "abc", "hunter"} {
		l.hide(s)
	}
	if got := l.scrub("a hunter2-hunter2 b hunter c abcd d abc"); got != "a *** b *** c *** d abc" || len(l.secrets) != 3 {
		t.Errorf("%q, %d secrets", got, len(l.secrets))
	}
}

func TestDriverMistakesAreCounted(t *testing.T) {
	text := strings.ReplaceAll(string(plant(2, 80)), "holding:", "holdng:")
	_, err := load(writeConfig(t, []byte(text)))
	if e, ok := err.(*Errors); !ok || len(e.List) != maxErrors || e.More != 60 {
		t.Errorf("%v", err)
	}
}

// TestStorePath: the store is found also through a config with mistakes, if they are not in its path.
func TestStorePath(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "millrace.yaml")
	for text, want := range map[string]string{
		"buffer: {path: store}\nnonsense: 1\n":              "store",
		"buffer: {path: /var/lib/millrace, memory: 7 GB}\n": "/var/lib/millrace",
		"gateway: x\n":                      "data",
		"buffer: {path: [1]}\n":             "data",
		"\tthis is not YAML":                "data",
		"buffer: {path: \"${env:NONE}\"}\n": "data",
	} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if !filepath.IsAbs(want) {
			want = filepath.Join(dir, want)
		}
		got, err := StorePath(file, protocols(), Options{LookupEnv: testEnv})
		if got != want || err == nil {
			t.Errorf("%q: store %q, want %q; %v", text, got, want, err)
		}
	}
}

// TestPKI: devices that have certificates get the folder of all, wherever it is named, or their own, from the file that names it.
func TestPKI(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		t.Helper()
		file := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return file
	}
	const devices = `
- {name: a, driver: opcua, url: "opc.tcp://h", security_mode: sign, groups: &g [{name: g, interval: 1s, tags: [{name: t, address: "ns=2;i=1"}]}]}
- {name: b, driver: opcua, url: "opc.tcp://h", pki: own, groups: *g}
- {name: c, driver: opcua, url: "opc.tcp://h", pki: /abs, groups: *g}
- {name: d, driver: modbus, url: "tcp://h:1", groups: [{name: g, interval: 1s, tags: [{name: t, address: "holding:1"}]}]}
`
	write("sub/devices.yaml", devices)
	const text = "gateway: g\ndestinations: [{name: c, url: \"mqtt://h\"}]\ninclude: [sub/devices.yaml, sub/pki.yaml]\n"
	for _, c := range []struct{ pki, path string }{{"", "pki"}, {"pki: {path: ./certs}\n", "sub/certs"}, {"pki: {path: /etc/pki}\n", "/etc/pki"}} {
		write("sub/pki.yaml", c.pki+"grace_time: 9s\n")
		if !filepath.IsAbs(c.path) {
			c.path = filepath.Join(dir, c.path)
		}
		file := write("millrace.yaml", text)
		cfg := mustLoad(t, file)
		var got []string
		for _, d := range cfg.Devices {
			got = append(got, d.Options["pki"])
		}
		if want := []string{c.path, filepath.Join(dir, "sub/own"), "/abs", ""}; !slices.Equal(got, want) || cfg.Devices[0].Options["security_mode"] != "sign" {
			t.Errorf("%q: the devices have %q, want %q", c.pki, got, want)
		}
		write("millrace.yaml", text+"nonsense: 1\n")
		if path, err := PKIPath(file, protocols(), Options{LookupEnv: testEnv}); path != c.path || err == nil {
			t.Errorf("%q, with a mistake: %q, want %q; %v", c.pki, path, c.path, err)
		}
	}
}

// TestHash: it changes with what the gateway does and with nothing else, secrets and the working directory included.
func TestHash(t *testing.T) {
	file := filepath.Join(t.TempDir(), "millrace.yaml")
	hash := func(text string) string {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return mustLoad(t, file).Hash()
	}
	const text = "gateway: g\ndestinations: [{name: c, url: \"mqtt://h\", username: u, password: one}]\n" +
		"devices: [{name: d, driver: modbus, url: \"tcp://h:1\", groups: [{name: g, interval: 1s, tags: [{name: t, address: \"holding:1\"}]}]}]\n"
	want := hash(text)
	for _, same := range []string{text + "# a comment\n", strings.Replace(text, "one", "two", 1), text + "grace_time: 10s\n"} {
		if got := hash(same); got != want {
			t.Errorf("%s, before %s: %q", got, want, same)
		}
	}
	for _, other := range []string{strings.Replace(text, "holding:1", "holding:2", 1), strings.Replace(text, "1s", "2s", 1), text + "grace_time: 11s\n",
		strings.Replace(text, "username: u", "username: v", 1), text + "buffer: {path: other}\n"} {
		if got := hash(other); got == want {
			t.Errorf("the same as before: %q", other)
		}
	}
	hash(text)
	t.Chdir(filepath.Dir(file))
	if got := mustLoad(t, "millrace.yaml").Hash(); got != want {
		t.Errorf("from its own folder %s, before %s", got, want)
	}
}

// TestConnectionsApart: devices that share a port but say who they are have connections of their own.
func TestConnectionsApart(t *testing.T) {
	c := &Config{protocols: []drivers.Protocol{{Name: "modbus", Shares: true, Apart: "registration"}}}
	for _, r := range []string{"a", "b", "a", ""} {
		c.Devices = append(c.Devices, Device{Name: "d" + r, Driver: "modbus", URL: "tcp-listen://:1502", Options: map[string]string{"registration": r}})
	}
	if got, want := c.links(), [][]int{{0, 2}, {1}, {3}}; !reflect.DeepEqual(got, want) {
		t.Errorf("links %v, want %v", got, want)
	}
}

// TestLongText: a text that is far too long is refused before it is parsed, which takes several times its size; long files of what is usual
// are parsed, whether they are on many lines or on one.
func TestLongText(t *testing.T) {
	const head = "gateway: g\ndestinations: [{name: a, url: 'mqtt://h'}]\n"
	rest := "    driver: modbus\n    url: tcp://h\n    groups: [{name: g, interval: 1s, tags: [{name: t, address: 'holding:1'}]}]\n"
	device := func(i int) string {
		return fmt.Sprintf("{name: d%d, driver: modbus, url: tcp://h%d, groups: [{name: g, interval: 1s, tags: [{name: t, address: 'holding:1'}]}]}", i, i)
	}
	var lines, one strings.Builder
	for i := range 8000 {
		lines.WriteString("  - " + device(i) + "\n# a comment that says something of the one above it " + strings.Repeat("- ", 20) + "\n")
		one.WriteString(device(i) + ", ")
	}
	for _, c := range []struct{ what, text, want string }{
		{"one line", head + "devices:\n  - name: " + strings.Repeat("p", maxRun+1) + "\n" + rest, "c.yaml:4:1: a text that begins here is longer than 512KiB"},
		{"many lines", head + "devices:\n  - name: |\n" + strings.Repeat("      lorem ipsum\n", maxRun/16) + rest, "c.yaml:4:1: a text that begins here is longer than 512KiB"},
		{"as long as it may be for the reader", head + "devices:\n  - name: " + strings.Repeat("p", maxRun/2) + "\n" + rest, "name has 262144 bytes, more than 255"},
		{"many devices", head + "devices:\n" + lines.String(), ""},
		{"many devices on one line", head + "devices: [" + one.String() + "]\n", ""},
	} {
		t.Chdir(t.TempDir())
		if err := os.WriteFile("c.yaml", []byte(c.text), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := load("c.yaml")
		if got := fmt.Sprint(err); (err == nil) != (c.want == "") || !strings.Contains(got, c.want) {
			t.Errorf("%s: %.300s", c.what, got)
		}
	}
}
