package opcua

import (
	"reflect"
	"testing"
)

func TestBrowsePaths(t *testing.T) {
	for in, want := range map[string]struct {
		steps []step
		text  string // "" = as it is
	}{
		"/Objects":                          {[]step{{name: "Objects"}}, ""},
		"/0:Objects/2:Machine/2:Speed":      {[]step{{name: "Objects"}, {ns: 2, name: "Machine"}, {ns: 2, name: "Speed"}}, "/Objects/2:Machine/2:Speed"},
		"/Objects/nsu=http://a.b/c;M/2:S":   {[]step{{name: "Objects"}, {uri: "http://a.b/c", name: "M"}, {ns: 2, name: "S"}}, ""},
		"/nsu=urn:a%3Bb%25;M":               {[]step{{uri: "urn:a;b%", name: "M"}}, ""},
		"/2:DB 1.Motor[0] ü/3:a&/b&:c&&":    {[]step{{ns: 2, name: "DB 1.Motor[0] ü"}, {ns: 3, name: "a/b:c&"}}, ""},
		"/2:a&.b":                           {[]step{{ns: 2, name: "a.b"}}, "/2:a.b"},
		"/0:nsu=a":                          {[]step{{name: "nsu=a"}}, ""},
		"/2a/65535:7":                       {[]step{{name: "2a"}, {ns: 65535, name: "7"}}, ""},
		"/1:a" + repeat("/2:b", maxSteps-1): {append([]step{{ns: 1, name: "a"}}, sameSteps(maxSteps-1)...), ""},
	} {
		a, m := parseAddress(in)
		if m != nil {
			t.Errorf("%q: %s; %s", in, m.what, m.mend)
			continue
		}
		if want.text == "" {
			want.text = in
		}
		if steps, _ := parsePath(a.text); !reflect.DeepEqual(steps, want.steps) || a.String() != want.text || a.kind != byPath {
			t.Errorf("%q:\ngot  %q %+v\nwant %q %+v", in, a, steps, want.text, want.steps)
		}
	}
}

func sameSteps(n int) []step {
	all := make([]step, n)
	for i := range all {
		all[i] = step{ns: 2, name: "b"}
	}
	return all
}

func TestMistakesInBrowsePaths(t *testing.T) {
	for in, want := range map[string]string{
		"/":                             `element 1 of the browse path: it has no name; use for example "/Objects/2:Machine/2:Speed"`,
		"//Objects":                     `element 1 of the browse path: it has no name; use for example "/Objects/2:Machine/2:Speed"`,
		"/Objects/":                     `element 2 of the browse path: it has no name; use for example "/Objects/2:Machine/2:Speed"`,
		"/Objects/2:":                   `element 2 of the browse path: it has no name; use for example "/Objects/2:Machine/2:Speed"`,
		"/Objects/65536:a":              `element 2 of the browse path: namespace index 65536 is not a number from 0 to 65535; use for example "/Objects/2:Machine"`,
		"/Objects/2:a.2:b":              `element 2 of the browse path: a ':' stands in a name; write "&:" for a colon, and "/" between elements, as in "/Objects/2:Machine/2:Speed"`,
		"/Objects/ns=2:a":               `element 2 of the browse path: a ':' stands in a name; write "&:" for a colon, and "/" between elements, as in "/Objects/2:Machine/2:Speed"`,
		"/Objects/2:a<b":                `element 2 of the browse path: "<" has a meaning of its own in browse paths; write "&<" for the character itself`,
		"/Objects/2:a&b":                `element 2 of the browse path: "&" has a meaning of its own in browse paths; write "&&" for the character itself`,
		"/Objects/2:a&":                 `element 2 of the browse path: "&" has a meaning of its own in browse paths; write "&&" for the character itself`,
		"/Objects/nsu=http://a/b":       `element 2 of the browse path: no namespace URI, ';' and name follow nsu=; use for example "/Objects/nsu=http://example.com/machine;Machine"`,
		"/Objects/nsu=a:b/M/nsu=c;d":    `element 2 of the browse path: no namespace URI, ';' and name follow nsu=; use for example "/Objects/nsu=http://example.com/machine;Machine"`,
		"/Objects/nsu=;a":               `element 2 of the browse path: no namespace URI, ';' and name follow nsu=; use for example "/Objects/nsu=http://example.com/machine;Machine"`,
		"/Objects/nsu=a:b;":             `element 2 of the browse path: it has no name; use for example "/Objects/2:Machine/2:Speed"`,
		repeat("/a", maxSteps+1):        `the browse path has more than 32 elements; use the node id`,
		"/" + repeat("x", maxName+1):    `element 1 of the browse path: a name of 2049 bytes is too long; use at most 2048 bytes`,
		repeat("/"+repeat("x", 1e3), 5): `a browse path of 5005 bytes is too long; use at most 4096 bytes, or the node id`,
		"Objects/2:Machine":             `no identifier of the form i=, s=, g= or b=; for a browse path use "/Objects/2:Machine"`,
	} {
		_, m := parseAddress(in)
		if m == nil {
			t.Errorf("%q is taken", in)
		} else if got := m.what + "; " + m.mend; got != want {
			t.Errorf("%q:\ngot  %s\nwant %s", in, got, want)
		}
	}
}

// FuzzBrowsePath: what is taken is written canonically and taken again, within the bounds.
func FuzzBrowsePath(f *testing.F) {
	for _, s := range []string{"/Objects/2:Machine/2:Speed", "/nsu=urn:a%3Bb%25;M/3:a&/b&:c&&", "/0:nsu=a", "//", "/65536:a", "/nsu=a/nsu=b;c", "/2:a&", "/ü"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		a, m := parseAddress("/" + s)
		if m != nil {
			if m.what == "" || m.mend == "" {
				t.Fatalf("%q: a mistake without words: %+v", s, m)
			}
			return
		}
		steps, m := parsePath(a.text)
		if m != nil || len(steps) == 0 || len(steps) > maxSteps || len(a.text) > maxIdentifier || pathText(steps) != a.text {
			t.Fatalf("%q is %q, %d elements: %v", s, a.text, len(steps), m)
		}
		if direct, _ := parsePath("/" + s); !reflect.DeepEqual(direct, steps) {
			t.Fatalf("%q parses to %+v, its text %q to %+v", s, direct, a.text, steps)
		}
		for _, s := range steps {
			if s.name == "" || len(s.name) > maxName {
				t.Fatalf("%q has an element %+v", a.text, s)
			}
		}
	})
}
