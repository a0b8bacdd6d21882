package main

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"millrace/drivers/opcua/opcuasim"
	"millrace/gateway/web"
)

const cncConfig = `  - name: cnc-1
    driver: opcua
    url: %s
    security_policy: none
    username: operator
    password: hush-hush
    allow_clear_password: true
    groups:
      - name: all
        interval: 100ms
        tags:
          - {name: override, address: "ns=2;s=override", read_back: true}
          - {name: doubled, address: "ns=2;s=override", scale: 2}
          - {name: offsets, address: "ns=2;s=offsets"}
          - {name: locked, address: "ns=2;s=locked"}
          - {name: fixed, address: "ns=2;s=fixed"}
writes:
  - {device: cnc-1, tag: override, min: 0, max: 120, rate: 1000/s}
  - {device: cnc-1, tag: doubled, min: 0, max: 240, rate: 1000/s}
  - {device: cnc-1, tag: offsets, min: -5, max: 5, rate: 1000/s}
  - {device: cnc-1, tag: locked, rate: 1000/s}
`

// TestOPCUACommand: a running gateway writes to an OPC UA server what writes: names, as the type that the server says, and nothing else. Beside
// it the tools have sessions of their own. That the config lets a password go unencrypted is said all the while.
func TestOPCUACommand(t *testing.T) {
	s := toolServerWith(t, opcuasim.Options{Username: "operator", Password: "hush-hush", ClearPassword: true})
	dir := filepath.Join(t.TempDir(), "data")
	file, stop := running(t, dir)
	defer stop()
	writeFile(t, file, readFile(t, file)+fmt.Sprintf(cncConfig, s.Endpoint()))
	until(t, "is in force", "reload", "--config", file)
	until(t, "cnc-1/override = 80, confirmed", "write", "cnc-1/override", "80", "--config", file)
	holds := func(name string, want any) {
		t.Helper()
		if got := fmt.Sprint(s.Written(name)); got != fmt.Sprint(want) {
			t.Errorf("%s holds %s, want %v", name, got, want)
		}
	}
	holds("override", uint8(80))
	until(t, "cnc-1/doubled = 90, confirmed", "write", "cnc-1/doubled", "90", "--config", file)
	holds("override", uint8(45))
	until(t, "confirmed", "write", "cnc-1/offsets", "[0.5, -5]", "--config", file)
	holds("offsets", []float32{0.5, -5})
	for _, no := range []struct{ tag, value, want string }{
		{"override", "121", "use 0 to 120"},
		{"override", "80.5", "the device holds 80 or 81"},
		{"override", "true", "use a number"},
		{"offsets", "[0.5, 5.1]", "element 1: value cannot be written: use -5 to 5; nothing was written"},
		{"offsets", "1", "use an array such as [1, 2, 3]"},
		{"locked", "y", "BadUserAccessDenied: "},
		{"fixed", "y", "not allowed"},
	} {
		if _, err := write(t.Context(), dir, "cnc-1/"+no.tag, no.value); err == nil || !strings.Contains(err.Error(), no.want) {
			t.Errorf("write %s to %s: %v, want %q", no.value, no.tag, err, no.want)
		}
	}
	holds("override", uint8(45))
	holds("offsets", []float32{0.5, -5})
	holds("locked", "x")
	until(t, "45", "values", "cnc-1/override", "--config", file) // what is published is what the server says
	both(t, 0, "write", s.Endpoint(), "ns=2;s=override", "70", "--option", "security_policy=none,username=operator,password=hush-hush,allow_clear_password=true", "--yes")
	until(t, "70", "values", "cnc-1/override", "--config", file)

	c, err := web.Dial(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	snap, err := c.Snapshot(t.Context())
	if err != nil || !slices.ContainsFunc(snap.States, func(st web.State) bool {
		return strings.HasPrefix(st.String(), `login "cnc-1": exposed since `) && strings.Contains(st.String(), "allow_clear_password lets its password go unencrypted")
	}) {
		t.Errorf("%+v, %v", snap.States, err)
	}
}
