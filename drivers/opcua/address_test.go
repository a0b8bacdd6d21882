package opcua

import (
	"strings"
	"testing"

	"github.com/gopcua/opcua/ua"
)

func TestParseAddress(t *testing.T) {
	const guid = "09087e75-8e5e-499b-954f-f2a9603db28a"
	for _, c := range []struct{ in, canonical, node string }{
		{"i=85", "i=85", "i=85"},
		{"ns=0;i=2258", "i=2258", "i=2258"},
		{"ns=2;i=0", "ns=2;i=0", "ns=2;i=0"},
		{"ns=2;i=65535", "ns=2;i=65535", "ns=2;i=65535"},
		{"ns=65535;i=4294967295", "ns=65535;i=4294967295", "ns=65535;i=4294967295"},
		{"ns=2;s=Spindle.Speed", "ns=2;s=Spindle.Speed", "ns=2;s=Spindle.Speed"},
		{`ns=3;s="DB 1"."Motor"[0];x=1`, `ns=3;s="DB 1"."Motor"[0];x=1`, `ns=3;s="DB 1"."Motor"[0];x=1`},
		{"s=plain", "s=plain", "s=plain"},
		{"ns=2;g=" + strings.ToUpper(guid), "ns=2;g=" + guid, "ns=2;g=" + strings.ToUpper(guid)},
		{"ns=2;b=AQID", "ns=2;b=AQID", "ns=2;b=AQID"},
		{"nsu=http://example.com/m;s=a;b", "nsu=http://example.com/m;s=a;b", "ns=7;s=a;b"},
		{"nsu=urn:a%3Bb%25;i=5", "nsu=urn:a%3Bb%25;i=5", "ns=7;i=5"},
	} {
		a, m := parseAddress(c.in)
		if m != nil {
			t.Errorf("%q: %s; %s", c.in, m.what, m.mend)
			continue
		}
		if got := a.String(); got != c.canonical {
			t.Errorf("%q: canonical %q, want %q", c.in, got, c.canonical)
		}
		ns := a.ns
		if a.uri != "" {
			ns = 7
		}
		if got := a.nodeID(ns).String(); got != c.node {
			t.Errorf("%q: node id %q, want %q", c.in, got, c.node)
		}
		checkEncodes(t, a, ns)
	}
}

// checkEncodes holds that the node survives the wire and that its size is not underestimated.
func checkEncodes(t *testing.T, a address, ns uint16) {
	t.Helper()
	id := a.nodeID(ns)
	b, err := valueOf(id)
	if err != nil {
		t.Fatalf("%s: %v", a, err)
	}
	if len(b) > a.encodedSize() {
		t.Errorf("%s: takes %d bytes, estimated at most %d", a, len(b), a.encodedSize())
	}
	var back ua.NodeID
	if _, err := back.Decode(b); err != nil || back.String() != id.String() {
		t.Errorf("%s: comes back as %s (%v)", a, back.String(), err)
	}
}

func TestMistakesInAddresses(t *testing.T) {
	for in, want := range map[string]string{
		"":                         `the node id is empty; use a node id such as "ns=2;s=Spindle.Speed"`,
		" i=85":                    `a space stands before or after the node id; use "i=85"`,
		"ns=2;s=a\x00b":            `the node id is not text; use UTF-8 without NUL`,
		"\xff":                     `the node id is not text; use UTF-8 without NUL`,
		"svr=1;i=85":               `svr= names another server; give that server a device of its own`,
		"Spindle.Speed":            `no identifier of the form i=, s=, g= or b=; for a text identifier use "ns=2;s=Spindle.Speed" with the server's namespace index`,
		"ns=2":                     `no ';' and identifier follow the namespace; use for example "ns=2;s=Spindle.Speed"`,
		"ns=2,s=x":                 `no ';' and identifier follow the namespace; use for example "ns=2;s=Spindle.Speed"`,
		"ns=2;":                    `no identifier of the form i=, s=, g= or b=; use for example "ns=2;s=Spindle.Speed"`,
		"ns=2;Spindle.Speed":       `no identifier of the form i=, s=, g= or b=; for a text identifier use "ns=2;s=Spindle.Speed"`,
		"ns=x;i=1":                 `namespace index "x" is not a number from 0 to 65535; use for example "ns=2", or "nsu=" with the namespace URI`,
		"ns=65536;i=1":             `namespace index "65536" is not a number from 0 to 65535; use for example "ns=2", or "nsu=" with the namespace URI`,
		"ns=+2;i=1":                `namespace index "+2" is not a number from 0 to 65535; use for example "ns=2", or "nsu=" with the namespace URI`,
		"ns=;i=1":                  `namespace index "" is not a number from 0 to 65535; use for example "ns=2", or "nsu=" with the namespace URI`,
		"nsu=;i=1":                 `no usable namespace URI after nsu=; use for example "nsu=http://example.com/machine;s=Spindle.Speed"`,
		"ns=2;i=-1":                `numeric identifier "-1" is not a number from 0 to 4294967295; use for example "ns=2;i=1001", or s= for a text identifier`,
		"ns=2;i=4294967296":        `numeric identifier "4294967296" is not a number from 0 to 4294967295; use for example "ns=2;i=1001", or s= for a text identifier`,
		"ns=2;i=0x10":              `numeric identifier "0x10" is not a number from 0 to 4294967295; use for example "ns=2;i=1001", or s= for a text identifier`,
		"ns=2;i=":                  `numeric identifier "" is not a number from 0 to 4294967295; use for example "ns=2;i=1001", or s= for a text identifier`,
		"ns=2;s=":                  `the identifier is empty; use for example "ns=2;s=Spindle.Speed"`,
		"ns=2;g=1234":              `GUID "1234" is not 32 hex digits in groups of 8-4-4-4-12; use for example "ns=2;g=09087e75-8e5e-499b-954f-f2a9603db28a"`,
		"ns=2;b=***":               `opaque identifier "***" is not base64; use for example "ns=2;b=M/RbKBsRVkePCePcx24oRA=="`,
		"ns=2;b=AR==":              `opaque identifier "AR==" is not base64; use for example "ns=2;b=M/RbKBsRVkePCePcx24oRA=="`,
		"ns=2;b=AQI":               `opaque identifier "AQI" is not base64; use for example "ns=2;b=M/RbKBsRVkePCePcx24oRA=="`,
		"s=" + repeat("x", 4097):   `an identifier of 4097 bytes is too long; use at most 4096 bytes`,
		"s=" + repeat("x", 100000): `100002 bytes are too long for a node id; use at most 4096 bytes for the identifier`,
		"NS=2;s=x":                 `"NS" is not known; write "ns" in small letters`,
		"Nsu=urn:x;s=x":            `"Nsu" is not known; write "nsu" in small letters`,
		"nS=":                      `no identifier of the form i=, s=, g= or b=; for a text identifier use "ns=2;s=nS=" with the server's namespace index`,
	} {
		_, m := parseAddress(in)
		if m == nil {
			t.Errorf("%q is taken", in)
		} else if got := m.what + "; " + m.mend; got != want {
			t.Errorf("%q:\ngot  %s\nwant %s", in, got, want)
		}
	}
}

func repeat(s string, n int) string { return strings.Repeat(s, n) }

func FuzzParseAddress(f *testing.F) {
	for _, s := range []string{
		"i=85", "ns=2;s=Spindle.Speed", "nsu=urn:a%3Bb;i=1", "ns=2;b=AQID", "svr=1;i=1", "ns=2;Spindle", "",
		"ns=2;g=09087e75-8e5e-499b-954f-f2a9603db28a", "ns=0;s= ;", "nsu=%3B%25%3b;s=;", "ns=2;b=AQ==", "i=00",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		a, m := parseAddress(s)
		if m != nil {
			if m.what == "" || m.mend == "" {
				t.Fatalf("%q: a mistake without words: %+v", s, m)
			}
			return
		}
		again, m := parseAddress(a.String())
		if m != nil || again != a {
			t.Fatalf("%q parses to %+v, its text %q to %+v (%v)", s, a, a.String(), again, m)
		}
		checkEncodes(t, a, a.ns)
	})
}
