package opcua

import (
	"slices"
	"strings"
	"testing"
	"time"

	"millrace/drivers/opcua/opcuasim"
	"millrace/drivers/telemetry"
)

// steps are fields as a config may have them, and what they say; "" = a mistake.
var steps = map[string]string{
	"temperature":                          "temperature",
	"set.temperature":                      "set|temperature",
	"zones[2].name":                        "zones|2|name",
	"[3]":                                  "3",
	"3":                                    "3",
	"[1,2]":                                "1|2",
	"[1][ 2 ]":                             "1|2",
	`"a.b".c`:                              "a.b|c",
	`"a[0]"[1]`:                            "a[0]|1",
	"Größe":                                "Größe",
	"a.":                                   "",
	".a":                                   "",
	"a..b":                                 "",
	"a[":                                   "",
	"a[x]":                                 "",
	"a[-1]":                                "",
	"a[]":                                  "",
	"a[1]b":                                "",
	"a[1].":                                "",
	`"a`:                                   "",
	`"a"b`:                                 "",
	`""`:                                   "",
	strings.Repeat("a", 5):                 "aaaaa",
	strings.Repeat("[1]", maxFieldSteps+1): "",
}

func TestSteps(t *testing.T) {
	for text, want := range steps {
		got, m := parseSteps(text)
		if (m != nil) != (want == "") || m == nil && strings.Join(got, "|") != want {
			t.Errorf("%q: %q, %v; want %q", text, got, m, want)
		}
		if m != nil && (!strings.HasPrefix(m.what, "field ") || m.mend == "") {
			t.Errorf("%q: %+v", text, m)
		}
	}
}

// FuzzSteps holds that whatever a config says of a field or an enum is read or is a mistake with a mend.
func FuzzSteps(f *testing.F) {
	for text := range steps {
		f.Add(text)
	}
	f.Add("0=off, 1=on")
	f.Fuzz(func(t *testing.T, text string) {
		got, m := parseSteps(text)
		if m != nil && m.mend == "" || m == nil && text != "" && len(got) == 0 || len(got) > maxFieldSteps || slices.Contains(got, "") {
			t.Fatalf("%q: %q, %v", text, got, m)
		}
		if all, m := parseNames(text); m == nil && (len(all.of) == 0 || len(all.of) > maxTexts) || m != nil && m.mend == "" {
			t.Fatalf("%q: %+v, %v", text, all, m)
		}
	})
}

// TestTagOptions has options of tags that are wrong.
func TestTagOptions(t *testing.T) {
	for _, c := range []struct {
		typ, field, enum string
		scale            float64
		want             string
	}{
		{"", "set.temperature", "server", 0, ""},
		{"string", "", "0=off, 0x10=on,-1 = lost", 0, ""},
		{"", "a[", "", 0, `0/0/0 field: field "a[": a ']' is missing; use for example "set.temperature", "zones[2].name" or "[3]"`},
		{"", "", "off", 0, `0/0/0 enum: enum: "off" is not a number and its text; write "server" for the server's texts, or a table such as "0=off, 1=on"`},
		{"", "", "0=off, 0x0=on", 0, `0/0/0 enum: enum: 0 has two texts, "off" and "on"; delete one of them`},
		{"uint8", "", "server", 0, "0/0/0 enum: enum makes texts, and type is uint8; remove one of them"},
		{"", "", "server", 2, "0/0/0 enum: enum of a tag that is scaled; remove one of them"},
	} {
		conn := connection("opc.tcp://plc", time.Second, "i=1")
		conn.Devices[0].Groups[0].Tags[0] = telemetry.Tag{Address: "i=1", Type: c.typ, Scale: c.scale, Options: map[string]string{"field": c.field, "enum": c.enum}}
		_, err := newDriver(conn)
		if got := strings.Join(mistakes(err), "\n"); got != c.want {
			t.Errorf("%+v:\ngot  %s\nwant %s", c, got, c.want)
		}
	}
}

func TestLanguages(t *testing.T) {
	for text, want := range map[string]string{
		"": "en", "de": "de", "de-AT, de,en": "de-AT|de|en", "zh-Hant-TW": "zh-Hant-TW",
		"d": "!", "de;q=1": "!", "deutsch1": "!", "a,b,": "!", strings.Repeat("de,", 8) + "de": "!",
	} {
		conn := connection("opc.tcp://plc", time.Second, "i=1")
		conn.Devices[0].Options["language"] = text
		made, err := newDriver(conn)
		got := "!"
		if err == nil {
			got = strings.Join(made.(*driver).set.locales, "|")
		} else if !strings.Contains(err.Error(), "is not a language") {
			t.Errorf("%q: %v", text, err)
		}
		if got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
}

// TestLanguageIsAsked holds that a session asks for the languages of the config.
func TestLanguageIsAsked(t *testing.T) {
	sim := start(t, opcuasim.Options{}, 1)
	c := connection(sim.Endpoint(), 10*time.Second, "ns=2;s=v0")
	c.Devices[0].Options["language"] = "de-AT, de"
	connect(t, c)
	if got := sim.Locales(); !slices.Equal(got, []string{"de-AT", "de"}) {
		t.Errorf("it asks for %q", got)
	}
}
