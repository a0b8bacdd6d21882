package importer

import (
	"bytes"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	yaml "go.yaml.in/yaml/v4"

	"millrace/configs/templates"
	"millrace/drivers"
	"millrace/drivers/modbus"
	"millrace/drivers/telemetry"
	"millrace/gateway/config"
)

var samples = map[string]string{"kepware-csv": "kepware.csv", "kepware-json": "kepware.json", "neuron-csv": "neuron.csv", "telegraf": "telegraf.toml", "benthos-umh": "umh.yaml",
	"openmodbus": "openmodbus.yaml"}

func imported(t *testing.T, format string) *Result {
	t.Helper()
	data, err := os.ReadFile("testdata/" + samples[format])
	if err != nil {
		t.Fatal(err)
	}
	r, err := Import(format, data, Options{})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// lines is a result as one line a tag: device url unit order group interval tag.
func lines(r *Result) []string {
	var out []string
	for _, d := range r.Devices {
		for _, g := range d.Groups {
			for _, t := range g.Tags {
				s := fmt.Sprintf("%s %s %d %s|%s %s|%s %s %s", d.Name, d.URL, d.Unit, d.Order, g.Name, telemetry.Short(g.Interval), t.Name, t.Address, t.Type)
				if t.Length > 0 {
					s += fmt.Sprintf(" length %d", t.Length)
				}
				if t.Order != "" {
					s += " " + t.Order
				}
				if t.Scale != 0 && t.Scale != 1 || t.Offset != 0 {
					s += fmt.Sprintf(" *%.6g%+.6g", t.Scale, t.Offset)
				}
				if t.Byte != "" {
					s += " " + t.Byte
				}
				if t.Clamp != "" {
					s += " clamp " + t.Clamp
				}
				out = append(out, strings.TrimSpace(s+" "+t.Unit))
			}
		}
	}
	return out
}

var importCases = []struct {
	format   string
	tags     []string
	problems []string // a part of each, in order
}{
	{"kepware-csv", []string{
		"imported tcp://192.0.2.1:502 1 CDAB|every-1s 1s|Press.Temperature holding:100 float32 °C",
		"imported tcp://192.0.2.1:502 1 CDAB|every-1s 1s|Press.Level holding:102 uint16 *0.02442-10 clamp -10..90 %",
		"imported tcp://192.0.2.1:502 1 CDAB|every-1s 1s|Press.Count holding:129 uint32",
		"imported tcp://192.0.2.1:502 1 CDAB|every-1s 1s|Press.Old holding:139 bcd16",
		"imported tcp://192.0.2.1:502 1 CDAB|every-1s 1s|Press.List[0] holding:149 uint16",
		"imported tcp://192.0.2.1:502 1 CDAB|every-1s 1s|Press.List[1] holding:150 uint16",
		"imported tcp://192.0.2.1:502 1 CDAB|every-1s 1s|Press.List[2] holding:151 uint16",
		"imported tcp://192.0.2.1:502 1 CDAB|every-1s 1s|Press.List[3] holding:152 uint16",
		"imported tcp://192.0.2.1:502 1 CDAB|every-1s 1s|Press.List[4] holding:153 uint16",
		"imported tcp://192.0.2.1:502 1 CDAB|every-1s 1s|Press.List[5] holding:154 uint16",
		"imported tcp://192.0.2.1:502 1 CDAB|every-1s 1s|Press.List[6] holding:155 uint16",
		"imported tcp://192.0.2.1:502 1 CDAB|every-1s 1s|Press.List[7] holding:156 uint16",
		"imported tcp://192.0.2.1:502 1 CDAB|every-1s 1s|Press.List[8] holding:157 uint16",
		"imported tcp://192.0.2.1:502 1 CDAB|every-1s 1s|Press.List[9] holding:158 uint16",
		"imported tcp://192.0.2.1:502 1 CDAB|every-1s 1s|Press.Flow holding:159 uint16",
		"imported tcp://192.0.2.1:502 1 CDAB|every-100ms 100ms|Press.Run coil:7",
		"imported tcp://192.0.2.1:502 1 CDAB|every-100ms 100ms|Press.Door holding:119.3",
		"imported tcp://192.0.2.1:502 1 CDAB|every-10s 10s|Press.Serial input:40 string length 12",
	}, []string{"the unit id of the device", "put its url", "first word low", "the array became 10 tags", `scaling "Square Root"`, "these columns were not translated: Respect Data Type", "1 tag: writable there"}},
	{"kepware-json", []string{
		"Press-1 tcp://192.168.1.10:1502 7 ABCD|every-500ms 500ms|Speed holding:0 int16",
		"Press-1 tcp://192.168.1.10:1502 7 ABCD|every-500ms 500ms|Oil.Temp input:9 float32",
		"Press-1 tcp://192.168.1.10:1502 7 ABCD|every-1s 1s|Oil.Raw input:19 uint16 *-0.05-0 bar",
	}, []string{`"Press/1" became "Press-1"`, "only Modbus", "1 tag: no interval"}},
	{"neuron-csv", []string{
		"imported tcp://192.0.2.1:502 1 |fast 100ms|temperature holding:0 float32 CDAB *0.1-5",
		"imported tcp://192.0.2.1:502 1 |fast 100ms|run coil:6",
		"imported tcp://192.0.2.1:502 1 |fast 100ms|door holding:9.4",
		"imported-2 tcp://192.0.2.1:502 2 |slow 1m|name holding:19 string length 10 BADC",
		"imported-2 tcp://192.0.2.1:502 2 |slow 1m|count input:4 uint32",
	}, []string{"its first register", "put its url", "put its url", "order of bytes", "a length such as .20H belongs", "static tag", "columns were not translated: precision", "1 tag: sent there when changed"}},
	{"telegraf", []string{
		"Meter tcp://192.168.1.20:502 3 |every-10s 10s|door discrete:2",
		"Meter tcp://192.168.1.20:502 3 |every-10s 10s|run coil:7",
		"Meter tcp://192.168.1.20:502 3 |every-10s 10s|power holding:10 float32 ABCD",
		"Meter tcp://192.168.1.20:502 3 |every-10s 10s|level holding:12 int16 *0.1+0",
		"Meter tcp://192.168.1.20:502 3 |every-10s 10s|energy holding:20 uint32 CDAB *0.01+0",
		"Drive rtuovertcp://192.168.1.21:502 5 |motor 2s|work input:2 uint64 DCBA",
		"Drive rtuovertcp://192.168.1.21:502 5 |motor 2s|fault input:7.11",
	}, []string{"do not follow each other", "old fixed point", `"speed": left out: byte order "DCBA" swaps`, `"half": left out: byte order "DCBA" swaps`, "3 tags: true and false here"}},
	{"benthos-umh", []string{
		"imported tcp://192.168.1.30:502 1 |every-5s 5s|power holding:100 float32 CDAB",
		"imported tcp://192.168.1.30:502 1 |every-5s 5s|run coil:3",
		"imported tcp://192.168.1.30:502 1 |every-5s 5s|bit input:9.2",
		"imported tcp://192.168.1.30:502 1 |every-5s 5s|low holding:5 uint8",
		"imported-2 tcp://192.168.1.30:502 2 |every-5s 5s|power holding:100 float32 CDAB",
		"imported-2 tcp://192.168.1.30:502 2 |every-5s 5s|run coil:3",
		"imported-2 tcp://192.168.1.30:502 2 |every-5s 5s|bit input:9.2",
		"imported-2 tcp://192.168.1.30:502 2 |every-5s 5s|low holding:5 uint8",
		"imported-2 tcp://192.168.1.30:502 2 |every-5s 5s|only input:7 int16 *0.5+0",
	}, []string{"4 tags: true and false here"}},
}

func TestImport(t *testing.T) {
	for _, c := range importCases {
		t.Run(c.format, func(t *testing.T) {
			r := imported(t, c.format)
			got := lines(r)
			for i := range max(len(got), len(c.tags)) {
				if at(got, i) != at(c.tags, i) {
					t.Errorf("tag %d is\n%s, want\n%s", i, at(got, i), at(c.tags, i))
				}
			}
			if len(r.Problems) != len(c.problems) {
				t.Errorf("%d problems, want %d: %v", len(r.Problems), len(c.problems), r.Problems)
			}
			for i, p := range r.Problems {
				if !strings.Contains(p.String(), at(c.problems, i)) {
					t.Errorf("problem %d is %q, want %q", i, p, at(c.problems, i))
				}
				goodWords(t, p)
			}
		})
	}
}

// goodWords tells whether a remark is a cause and at most one cure behind a semicolon.
func goodWords(t *testing.T, p Problem) {
	t.Helper()
	if strings.Count(p.What, ";") > 1 || strings.ContainsAny(p.What[len(p.What)-1:], ":;,. ") || strings.Contains(p.What, ":;") || strings.Contains(p.What, " ours") {
		t.Errorf("the remark %q is not in good words", p)
	}
}

func at(list []string, i int) string {
	if i < len(list) {
		return list[i]
	}
	return "(none)"
}

// TestConfigAcceptsTheOutput loads what was written with the real config and driver.
func TestConfigAcceptsTheOutput(t *testing.T) {
	for format := range samples {
		t.Run(format, func(t *testing.T) {
			r := imported(t, format)
			for _, d := range r.Devices {
				d.URL = strings.Replace(d.URL, "rtuovertcp", "tcp", 1) // whether the driver has the transport is not the question here
			}
			var list bytes.Buffer
			if err := r.WriteYAML(&list); err != nil {
				t.Fatal(err)
			}
			cfg := load(t, list.String())
			tags := 0
			for _, d := range cfg.Devices {
				for _, g := range d.Groups {
					tags += len(g.Tags)
				}
			}
			if tags != r.Tags {
				t.Errorf("the config has %d tags of %d:\n%s", tags, r.Tags, &list)
			}
		})
	}
}

func load(t *testing.T, devices string) *config.Config {
	t.Helper()
	folder := t.TempDir()
	write(t, filepath.Join(folder, "devices.yaml"), devices)
	write(t, filepath.Join(folder, "millrace.yaml"), "gateway: g\ninclude: devices.yaml\ndestinations: [{name: d, url: \"mqtt://127.0.0.1\"}]\n")
	cfg, err := config.Load(filepath.Join(folder, "millrace.yaml"), []drivers.Protocol{modbus.Protocol()}, config.Options{})
	if err != nil {
		t.Fatalf("%v\n%s", err, devices)
	}
	return cfg
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestDriverAcceptsEveryTemplate loads each built-in template as a device of a config.
func TestDriverAcceptsEveryTemplate(t *testing.T) {
	for _, name := range templates.List() {
		tpl, err := templates.Load(name)
		if err != nil {
			t.Fatal(err)
		}
		r, err := fromTemplate(tpl, Options{URL: placeholder}, templates.Params{Unit: 1})
		if err != nil {
			t.Fatal(err)
		}
		var list bytes.Buffer
		if err := r.WriteYAML(&list); err != nil {
			t.Fatal(err)
		}
		load(t, list.String())
	}
}

func TestParseManual(t *testing.T) {
	for _, c := range []struct {
		text  string
		first int
		want  string
	}{
		{"400001", 1, "holding:0"}, {"40001", 1, "holding:0"}, {"465536", 1, "holding:65535"}, {"300010", 1, "input:9"}, {"100001", 1, "discrete:0"}, {"000008", 1, "coil:7"},
		{"400001", 0, "holding:1"}, {"400000", 0, "holding:0"}, {"400001.15", 1, "holding:0.15"}, {"400001.20H", 1, "holding:0 20"}, {"400001.250L", 1, "holding:0 250"},
		{"400000", 1, ""}, {"465537", 1, ""}, {"4001", 1, ""}, {"500001", 1, ""}, {"400001.16", 1, ""}, {"400001.251H", 1, ""}, {"400001.0H", 1, ""}, {"000001.1", 1, ""}, {"400001[4]", 1, ""}, {"", 1, ""},
	} {
		a, err := parseManual(c.text, c.first)
		got := ""
		if err == nil {
			got = fmt.Sprintf("%s:%d", a.table, a.number)
			if a.bit >= 0 {
				got += fmt.Sprintf(".%d", a.bit)
			}
			if a.length > 0 {
				got += fmt.Sprintf(" %d", a.length)
			}
		}
		if got != c.want {
			t.Errorf("%q from %d is %q, %v; want %q", c.text, c.first, got, err, c.want)
		}
	}
}

func TestHostileTextStaysText(t *testing.T) {
	name := "a\"}\n- evil: ${env:HOME}\u0085\u2028\x7f"
	b := newBuilder(Options{URL: "tcp://h${env:HOME}:502"})
	d := b.device("x", name, "", 1)
	b.add("x", b.group("x", d, name, 0), Tag{Name: name, Address: "holding:1", Type: "uint16", Unit: name, Description: strings.Repeat(name+"\n- mehr ä\ufffd", 30)})
	b.add("x", d.Groups[0], Tag{Name: name, Address: "holding:2", Type: "uint16", Scale: math.Inf(1)})
	var out bytes.Buffer
	if err := b.result.WriteYAML(&out); err != nil {
		t.Fatal(err)
	}
	var list []map[string]any
	if err := yaml.Load(out.Bytes(), &list); err != nil || len(list) != 1 || list[0]["evil"] != nil {
		t.Fatalf("%v\n%s", err, &out)
	}
	if url := list[0]["url"]; url != "tcp://h$${env:HOME}:502" {
		t.Errorf("url is %q, where a variable of ours is not masked", url)
	}
	groups := list[0]["groups"].([]any)[0].(map[string]any)
	if tags := groups["tags"].([]any); len(tags) != 2 || tags[1].(map[string]any)["scale"] != nil {
		t.Errorf("tags %v", tags)
	} else if d, _ := tags[0].(map[string]any)["description"].(string); len(d) < 200 || len(strings.ReplaceAll(d, "$${", "${")) > 256 || strings.ContainsAny(d, "\n\ufffd") {
		t.Errorf("description of %d bytes: %q", len(d), d)
	}
}

func TestCommand(t *testing.T) {
	var out, remarks bytes.Buffer
	cmd := New(func(err error) error { return err })
	cmd.SetOut(&out)
	cmd.SetErr(&remarks)
	cmd.SetArgs([]string{"kepware-csv", "testdata/kepware.csv", "--device", "press-1", "--url", "tcp://192.168.1.10:502"})
	if err := cmd.Execute(); err != nil {
		t.Fatal(err)
	}
	load(t, out.String())
	if !strings.Contains(remarks.String(), "18 tags imported") || !strings.Contains(remarks.String(), "Square Root") || !strings.Contains(out.String(), `- name: "press-1"`) {
		t.Errorf("remarks:\n%s\noutput:\n%s", &remarks, &out)
	}
	cmd.SetArgs([]string{"kepware-csv", "testdata"})
	cmd.SilenceUsage, cmd.SilenceErrors = true, true
	if err := cmd.Execute(); err == nil {
		t.Error("a folder was imported")
	}
	cmd.SetArgs([]string{"kepware-csv", "testdata/none.csv"})
	if err := cmd.Execute(); err == nil || !strings.Contains(err.Error(), "there is no such file; ") {
		t.Errorf("a file that is not there: %v", err)
	}
}

func TestTemplateCommand(t *testing.T) {
	run := func(args ...string) (string, string, error) {
		var out, remarks bytes.Buffer
		cmd := NewTemplate()
		cmd.SilenceUsage, cmd.SilenceErrors = true, true
		cmd.SetOut(&out)
		cmd.SetErr(&remarks)
		cmd.SetArgs(args)
		err := cmd.Execute()
		return out.String(), remarks.String(), err
	}
	out, remarks, err := run("eastron-sdm630", "--device", "meter-1", "--url", "tcp://192.168.1.10:502", "--unit", "7", "--interval", "3s", "--prefix", "a_")
	if err != nil {
		t.Fatal(err)
	}
	load(t, out)
	for _, want := range []string{`- name: "meter-1"`, "unit: 7", "interval: 3s", `name: "a_`} {
		if !strings.Contains(out, want) {
			t.Errorf("no %s in\n%s", want, out)
		}
	}
	if !strings.Contains(remarks, "compared with:") {
		t.Errorf("nothing says what it was compared with: %s", remarks)
	}
	if out, _, err = run(); err != nil || strings.Count(out, "\n") != 1+len(templates.List()) {
		t.Errorf("the list: %v\n%s", err, out)
	}
	if out, _, err = run("eastron-sdm630", "-o", "template"); err != nil {
		t.Fatal(err)
	}
	if own, err := templates.Parse([]byte(out)); err != nil || own.Name != "eastron-sdm630" {
		t.Errorf("what -o template prints is not taken: %v", err)
	}
	for _, wrong := range [][]string{{"sdm-630"}, {"../secret"}, {"eastron-sdm630", "--unit", "256"}, {"eastron-sdm630", "--interval", "1ms"}} {
		if _, _, err := run(wrong...); err == nil {
			t.Errorf("%q is accepted", wrong)
		}
	}
}

func TestImportRefuses(t *testing.T) {
	for format, text := range map[string]string{"kepware-csv": "a,b\n1,2\n", "kepware-json": "[", "neuron-csv": "\xff\xfeg\x00", "telegraf": "= 1", "benthos-umh": "input: {}", "openmodbus": "registers: {}", "excel": ""} {
		if r, err := Import(format, []byte(text), Options{}); err == nil {
			t.Errorf("%s: %q gave %+v", format, text, r)
		}
	}
	if _, err := Import("telegraf", make([]byte, maxInput+1), Options{}); err == nil {
		t.Error("a file over the bound was read")
	}
}

func fuzz(f *testing.F, format string) {
	data, err := os.ReadFile("testdata/" + samples[format])
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := Import(format, data, Options{})
		if err != nil {
			return
		}
		var out bytes.Buffer
		if err := r.WriteYAML(&out); err != nil {
			t.Fatal(err)
		}
		var list []struct {
			Groups []struct{ Tags []map[string]any }
		}
		if err := yaml.Load(out.Bytes(), &list); err != nil && r.Tags > 0 {
			t.Fatalf("the output is not YAML: %v\n%s", err, &out)
		}
		tags := 0
		for _, d := range list {
			for _, g := range d.Groups {
				tags += len(g.Tags)
			}
		}
		if tags != r.Tags {
			t.Fatalf("%d tags of %d in the output:\n%s", tags, r.Tags, &out)
		}
	})
}

func FuzzKepwareCSV(f *testing.F)  { fuzz(f, "kepware-csv") }
func FuzzKepwareJSON(f *testing.F) { fuzz(f, "kepware-json") }
func FuzzNeuronCSV(f *testing.F)   { fuzz(f, "neuron-csv") }
func FuzzTelegraf(f *testing.F)    { fuzz(f, "telegraf") }
func FuzzUMH(f *testing.F)         { fuzz(f, "benthos-umh") }
func FuzzOpenModbus(f *testing.F)  { fuzz(f, "openmodbus") }
