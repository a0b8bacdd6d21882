package templates

import (
	"fmt"
	"maps"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"time"
)

func TestEveryTemplateLoadsAndExpands(t *testing.T) {
	names := List()
	if len(names) < 20 {
		t.Fatalf("there are %d templates, want at least 20", len(names))
	}
	for _, name := range names {
		t.Run(name, func(t *testing.T) {
			tpl, err := Load(name)
			if err != nil {
				t.Fatal(err)
			}
			plain := expand(t, tpl, Params{})
			other := expand(t, tpl, Params{Prefix: "m1_", Interval: 2 * time.Second})
			for i, g := range plain {
				if other[i].Name != "m1_"+g.Name || other[i].Interval < 2*time.Second {
					t.Errorf("group %q became %q every %v", g.Name, other[i].Name, other[i].Interval)
				}
				for j, tag := range g.Tags {
					if other[i].Tags[j].Name != "m1_"+tag.Name || other[i].Tags[j].Address != tag.Address {
						t.Errorf("tag %q became %q at %s, want the same address %s", tag.Name, other[i].Tags[j].Name, other[i].Tags[j].Address, tag.Address)
					}
				}
			}
		})
	}
}

func expand(t *testing.T, tpl *Template, p Params) []Group {
	t.Helper()
	groups, err := tpl.Expand(p)
	if err != nil {
		t.Fatal(err)
	}
	return groups
}

// TestFactsAgreeWithTheirDocument compares tags with testdata/facts.txt, which was typed from the lists that the
// templates name and not from the templates.
func TestFactsAgreeWithTheirDocument(t *testing.T) {
	text, err := os.ReadFile("testdata/facts.txt")
	if err != nil {
		t.Fatal(err)
	}
	checked := map[string]int{}
	var have map[string]string
	name := ""
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		if title, ok := strings.CutSuffix(line, ":"); ok {
			name, have = title, facts(t, title)
			continue
		}
		tag, want, _ := strings.Cut(line, " ")
		var table string
		var number int
		var rest string
		if n, _ := fmt.Sscanf(want, "%s %v %s", &table, &number, &rest); n != 3 {
			t.Fatalf("facts.txt: %q", line)
		}
		if want := fmt.Sprintf("%s:%d %s", table, number, rest); have[tag] != want {
			t.Errorf("%s: %s is %q, the document has %q", name, tag, have[tag], want)
		}
		checked[name]++
	}
	for _, name := range List() {
		if checked[name] < 5 {
			t.Errorf("facts.txt has %d facts of %s, want 5", checked[name], name)
		}
	}
}

// facts returns the tags of a template as "holding:100 float32*0.1[V]".
func facts(t *testing.T, name string) map[string]string {
	tpl, err := Load(name)
	if err != nil {
		t.Fatal(err)
	}
	have := map[string]string{}
	for _, g := range expand(t, tpl, Params{}) {
		for _, tag := range g.Tags {
			scale := ""
			if tag.Scale != 0 {
				scale = fmt.Sprintf("*%g", tag.Scale)
			}
			have[tag.Name] = fmt.Sprintf("%s %s%s[%s]", tag.Address, tag.Type, scale, tag.Unit)
		}
	}
	return have
}

const good = `name: pump
device: Pump 1
source: {title: manual}
verified: none
note: compare it
formula: danfoss
base: 40070
invalid: {int16: ["0x8000"]}
groups:
  - name: fast
    interval: 1s
    tags:
      - {name: speed, address: {param: "16-13"}, type: int16, scale: 0.1, unit: Hz}
      - {name: text, address: {offset: 14}, type: string, length: 12}
      - {name: run, address: "holding:3.2", access: read-write}
      - {name: level, address: "input:7", type: float32, invalid: "NaN, -1", order: CDAB}
  - {name: slow, interval: 1m, tags: [{name: hours, address: "input:9", type: uint32}]}
`

func TestExpand(t *testing.T) {
	tpl, err := Parse([]byte(good))
	if err != nil {
		t.Fatal(err)
	}
	got := expand(t, tpl, Params{Prefix: "p_", Interval: 5 * time.Second, Base: 50000})
	want := []Group{
		{Name: "p_fast", Interval: 5 * time.Second, Tags: []Tag{
			{Name: "p_speed", Address: "holding:16129", Type: "int16", Scale: 0.1, Unit: "Hz", Options: map[string]string{"invalid": "-32768"}},
			{Name: "p_text", Address: "holding:50014", Type: "string", Options: map[string]string{"length": "12"}},
			{Name: "p_run", Address: "holding:3.2", Writable: true},
			{Name: "p_level", Address: "input:7", Type: "float32", Options: map[string]string{"invalid": "NaN,-1", "order": "CDAB"}},
		}},
		{Name: "p_slow", Interval: time.Minute, Tags: []Tag{{Name: "p_hours", Address: "input:9", Type: "uint32"}}},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	got[0].Tags[0].Options["invalid"] = "changed"
	if again := expand(t, tpl, Params{}); again[0].Tags[0].Options["invalid"] != "-32768" || again[0].Interval != time.Second {
		t.Errorf("a caller's change reached the template: %+v", again[0])
	}
	if o := tpl.Options(Params{Unit: 7}); !maps.Equal(o, map[string]string{"unit": "7"}) {
		t.Errorf("options %v", o)
	}
}

func TestExpandRefuses(t *testing.T) {
	tpl, err := Parse([]byte(good))
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range []Params{{Interval: time.Millisecond}, {Interval: 48 * time.Hour}, {Base: -1}, {Base: 65536}, {Base: 65520}, {Prefix: strings.Repeat("x", 255)}} {
		if _, err := tpl.Expand(p); err == nil {
			t.Errorf("%+v was expanded", p)
		}
	}
	if _, err := tpl.Expand(Params{Base: 65535 - 14 - 5}); err != nil {
		t.Errorf("the last base that fits: %v", err)
	}
}

func TestParameter(t *testing.T) {
	for _, c := range []struct {
		formula, param string
		want           int
	}{
		{danfoss, "16-13", 16129}, {danfoss, "0-01", 9}, {danfoss, "15-00", 14999}, {danfoss, "49-99", 49989},
		{abb16, "3-18", 317}, {abb16, "01-06", 105}, {abb32, "1-27", 20253}, {abb32, "01-07", 20213},
		{danfoss, "00-00", -1}, {danfoss, "16", -1}, {danfoss, "100-1", -1}, {danfoss, "1-100", -1}, {"", "16-13", -1},
	} {
		got, err := parameter(c.formula, c.param)
		if (err != nil) != (c.want < 0) || err == nil && got != c.want {
			t.Errorf("%s of %q is %d, %v; want %d", c.param, c.formula, got, err, c.want)
		}
	}
}

func TestInvalidValue(t *testing.T) {
	for _, c := range []struct{ typ, text, want string }{
		{"int16", "0x8000", "-32768"}, {"int16", "-32768", "-32768"}, {"int16", "0x7fff", "32767"}, {"uint16", "0xffff", "65535"},
		{"int32", "0x80000000", "-2147483648"}, {"int64", "0x8000000000000000", "-9223372036854775808"}, {"uint64", "0xffffffffffffffff", "18446744073709551615"},
		{"float32", "NaN", "NaN"}, {"float32", "-1", "-1"}, {"float64", "1e300", "1e+300"},
		{"int16", "65535", ""}, {"int16", "40000", ""}, {"uint16", "-1", ""}, {"uint16", "65536", ""}, {"uint16", "NaN", ""}, {"float32", "Inf", ""}, {"string", "x", ""}, {"int16", "", ""},
	} {
		got, ok := invalidValue(c.typ, c.text)
		if ok != (c.want != "") || ok && got != c.want {
			t.Errorf("%s %q is %q, %v; want %q", c.typ, c.text, got, ok, c.want)
		}
	}
}

// TestPowerOfTen: a value that counts in a power of ten is read raw, and a formula beside it makes the value.
func TestPowerOfTen(t *testing.T) {
	text := strings.Replace(good, "type: uint32}", "type: uint32}, {name: w_raw, address: 'input:20', type: int16, unit: W, power_of_ten: w_sf}, {name: w_sf, address: 'input:21', type: int16}", 1)
	tpl, err := Parse([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	for prefix, want := range map[string]Derived{
		"":    {Name: "w", Unit: "W", Expr: "w_sf < 0 ? w_raw / 10 ** -w_sf : w_raw * 10 ** w_sf"},
		"m1_": {Name: "m1_w", Unit: "W", Expr: "m1_w_sf < 0 ? m1_w_raw / 10 ** -m1_w_sf : m1_w_raw * 10 ** m1_w_sf"},
		`1 "`: {Name: `1 "w`, Unit: "W", Expr: `$env["1 \"w_sf"] < 0 ? $env["1 \"w_raw"] / 10 ** -$env["1 \"w_sf"] : $env["1 \"w_raw"] * 10 ** $env["1 \"w_sf"]`},
	} {
		groups := expand(t, tpl, Params{Prefix: prefix})
		want.Raw = prefix + "w_raw"
		if got := groups[1].Derived; len(got) != 1 || got[0] != want || len(groups[0].Derived) != 0 {
			t.Errorf("%q: %+v, want %+v", prefix, got, want)
		}
		if raw := groups[1].Tags[1]; raw.Name != prefix+"w_raw" || raw.Unit != "" {
			t.Errorf("%q: %+v", prefix, raw)
		}
	}
	for _, c := range []struct{ old, new, want string }{
		{"power_of_ten: w_sf", "power_of_ten: v_sf", `power_of_ten "v_sf" is no tag`},
		{"power_of_ten: w_sf", "power_of_ten: w_raw", `power_of_ten "w_raw" is no tag`},
		{"name: w_raw", "name: w", "whose name ends in _raw"},
		{"unit: W", "scale: 0.1", "without scale"},
		{"name: hours", "name: w", `tag "w" stands there twice`},
	} {
		if _, err := Parse([]byte(strings.Replace(text, c.old, c.new, 1))); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q: %v; want %q", c.new, err, c.want)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	for _, c := range []struct{ old, new, want string }{
		{"name: pump", "name: Pump 1", "use lower case"},
		{"device: Pump 1", "devise: Pump 1", "devise"},
		{"device: Pump 1\n", "", "device is missing"},
		{"verified: none", "verified: perhaps", `verified "perhaps" is not known`},
		{"verified: none", "verified: document", "needs source.checked"},
		{"note: compare it\n", "", "needs a note"},
		{"formula: danfoss", "formula: siemens", `formula "siemens" is not known`},
		{"formula: danfoss\n", "", `parameter "16-13" has no formula`},
		{"base: 40070\n", "", `offset "14"`},
		{"base: 40070", "base: 65530", "ends behind 65535"},
		{"base: 40070", "base: 70000", "base 70000 is out of range"},
		{"input:9", "input:65535", "ends behind 65535"},
		{"input:9", "inputs:9", `address "inputs:9"`},
		{"holding:3.2", "holding:3.16", "no bit 16"},
		{"holding:3.2", "coil:3.2", "single bit"},
		{"holding:3.2", "holding:65536.2", "ends behind"},
		{`{param: "16-13"}`, "[1]", "an address is"},
		{`{param: "16-13"}`, `{register: "1"}`, `no key "register"`},
		{"type: int16", "type: word", `type "word" is not known`},
		{"length: 12", "length: 251", "length 251 is out of range"},
		{"type: uint32", "type: uint32, length: 3", "only a string has a length"},
		{"scale: 0.1", "scale: 0", "scale is not 0"},
		{"scale: 0.1", "scale: .nan", "scale and offset are numbers"},
		{"interval: 1m", "interval: 1ms", `interval "1ms"`},
		{"interval: 1m", "interval: 60", `interval "60"`},
		{"name: slow", "name: fast", `group "fast" stands there twice`},
		{"name: hours", "name: speed", `tag "speed" stands there twice`},
		{"name: hours", "name: a/b", "none of / + # { }"},
		{"access: read-write", "access: write", `access "write" is not known`},
		{"order: CDAB", "order: ACBD", `order "ACBD" is not known`},
		{`"NaN, -1"`, `"NaN, x"`, "is no float32"},
		{"device: Pump 1\nsource: {title: manual}", "device: &a Pump 1\nsource: {title: *a}", "alias"},
		{"groups:", "groups: []\nother:", "other"},
		{good, "", "empty"},
		{good, good + "---\n" + good, "more than one template"},
		{good, strings.Repeat(" ", maxFile+1), "over 256 KiB"},
	} {
		text := strings.Replace(good, c.old, c.new, 1)
		if text == good {
			t.Fatalf("%q is not in the template", c.old)
		}
		if _, err := Parse([]byte(text)); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q for %q: %v; want %q", c.new, c.old, err, c.want)
		}
	}
}

func TestLoadFrom(t *testing.T) {
	folder := fstest.MapFS{"pump.yaml": {Data: []byte(good)}, "other.yaml": {Data: []byte(good)}}
	if tpl, err := LoadFrom(folder, "pump"); err != nil || tpl.Device != "Pump 1" {
		t.Errorf("%v, %v", tpl, err)
	}
	for _, name := range []string{"other", "none", "../pump", ""} {
		if _, err := LoadFrom(folder, name); err == nil {
			t.Errorf("%q was loaded", name)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(good))
	for _, name := range List() {
		data, err := embedded.ReadFile(name + ".yaml")
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		tpl, err := Parse(data)
		if err != nil {
			return
		}
		groups, err := tpl.Expand(Params{})
		if err != nil {
			t.Fatalf("it parses and does not expand: %v", err)
		}
		names := map[string]bool{}
		for _, g := range groups {
			for _, tag := range g.Tags {
				if !addressForm.MatchString(tag.Address) || names[tag.Name] || !slices.Contains(append(slices.Collect(maps.Keys(numbers)), "string", "bool", ""), tag.Type) {
					t.Fatalf("tag %+v", tag)
				}
				names[tag.Name] = true
			}
		}
	})
}
