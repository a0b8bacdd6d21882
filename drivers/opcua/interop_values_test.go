package opcua

import (
	"slices"
	"testing"
	"time"

	"millrace/drivers"
	"millrace/drivers/telemetry"
)

// structured are tags of node-opcua's structures, arrays and enumerations (types.xml), and what they read.
var structured = []struct{ address, typ, field, enum, want string }{
	{"ns=1;s=Interop.Recipe", "", "", "server", `good string "{\"name\":\"A 7\",\"mode\":\"Automatic\",\"set\":{\"temperature\":180.5,\"pressure\":1.25},` +
		`\"steps\":[{\"name\":\"heat\",\"time\":1500},{\"name\":\"hold\",\"time\":2.5,\"note\":\"slow \\\"ramp\\\"\"},{\"name\":\"cool\",\"time\":0,\"note\":\"\",\"tries\":3}],` +
		`\"amount\":{\"weight\":2.75},\"codes\":[7,-8],\"made\":\"2026-01-02T03:04:05.678Z\",\"raw\":\"00ff\",\"title\":\"Größe\",\"large\":4294967298}"`},
	{"ns=1;s=Interop.Recipe", "", "set.temperature", "", "good float64 180.5"},
	{"ns=1;s=Interop.Recipe", "float32", "set.temperature", "", "good float32 0x43348000"},
	{"ns=1;s=Interop.Recipe", "", "mode", "", "good int 2"},
	{"ns=1;s=Interop.Recipe", "", "mode", "server", `good string "Automatic"`},
	{"ns=1;s=Interop.Recipe", "", "steps[2].tries", "", "good uint 3"},
	{"ns=1;s=Interop.Recipe", "", "steps[0].tries", "", `bad "field \"steps[0].tries\": it is optional, and not there now"`},
	{"ns=1;s=Interop.Recipe", "", "steps[3].time", "", `bad "field \"steps[3].time\": there is no element 3: the array has 3, from 0"`},
	{"ns=1;s=Interop.Recipe", "", "amount.weight", "", "good float64 2.75"},
	{"ns=1;s=Interop.Recipe", "", "amount.count", "", `bad "field \"amount.count\": the union holds \"weight\" now"`},
	{"ns=1;s=Interop.Recipe", "", "set", "", `good string "{\"temperature\":180.5,\"pressure\":1.25}"`},
	{"ns=1;s=Interop.Recipe", "", "codes", "", "good array [int 7, int -8]"},
	{"ns=1;s=Interop.Recipe", "", "codes[1]", "", "good int -8"},
	{"ns=1;s=Interop.Recipe", "", "temp", "", `bad "field \"temp\": Recipe has no field \"temp\"; it has name, mode, set, steps, amount, codes, made, raw, title, large"`},
	{"ns=1;s=Interop.Versioned", "", "version", "", "good uint 9"},
	{"ns=1;s=Interop.Versioned", "", "amount", "", `good string "{\"label\":\"x\"}"`},
	{"ns=1;s=Interop.Steps", "", "", "", `good string "[{\"name\":\"heat\",\"time\":1500},{\"name\":\"hold\",\"time\":2.5,\"note\":\"slow \\\"ramp\\\"\"},{\"name\":\"cool\",\"time\":0,\"note\":\"\",\"tries\":3}]"`},
	{"ns=1;s=Interop.Steps", "", "[1].time", "", "good float64 2.5"},
	{"ns=1;s=Interop.Amount", "", "count", "", "good uint 12"},
	{"ns=1;s=Interop.Mode", "", "", "", "good int 1"},
	{"ns=1;s=Interop.Mode", "", "", "server", `good string "Manual"`},
	{"ns=1;s=Interop.Mode", "", "", "0=aus, 1=hand", `good string "hand"`},
	{"ns=1;s=Interop.Mode", "", "", "0=aus", `uncertain string "1" "the value has no text in enum"`},
	{"ns=1;s=Interop.Gear", "", "", "server", `good string "2nd"`},
	{"ns=1;s=Interop.Matrix", "", "", "", "good array [array [float64 1, float64 2, float64 3], array [float64 4, float64 5, float64 6]]"},
	{"ns=1;s=Interop.Matrix", "", "[1,0]", "", "good float64 4"},
	{"ns=1;s=Interop.Matrix", "", "[0]", "", "good array [float64 1, float64 2, float64 3]"},
	{"ns=1;s=Interop.Matrix", "json", "", "", `good string "[[1,2,3],[4,5,6]]"`},
	{"ns=1;s=Interop.Text", "", "", "", `good string "Spindel"`},
	{"i=2256", "", "BuildInfo.ProductName", "", `good string "millrace interop"`}, // ServerStatus
	{"i=2256", "", "State", "server", `good string "Running"`},
}

// TestNodeOPCUAStructures reads and subscribes structures, unions, matrices and enumerations of node-opcua, each node once.
func TestNodeOPCUAStructures(t *testing.T) {
	t.Parallel()
	url := nodeOPCUA(t)
	c := connection(url, 10*time.Second)
	for _, x := range structured {
		tag := telemetry.Tag{Name: "t", Address: x.address, Type: x.typ, Options: map[string]string{"field": x.field, "enum": x.enum}}
		c.Devices[0].Groups[0].Tags = append(c.Devices[0].Groups[0].Tags, tag)
	}
	d := connect(t, c)
	check := func(how string, tag uint32, r telemetry.Reading) {
		t.Helper()
		if got := show(r); got != structured[tag].want {
			t.Errorf("%s %s %q: %s\nwant %s", how, structured[tag].address, structured[tag].field, got, structured[tag].want)
		}
	}
	for range 2 {
		for i, r := range read(t, d) {
			if r.Tag != uint32(i) {
				t.Fatalf("tag %d is %d", i, r.Tag)
			}
			check("read", r.Tag, r)
		}
	}
	if n := len(d.groups[0][0].ask.nodes); n != 9 {
		t.Errorf("%d nodes are asked for", n)
	}
	if ok, err := d.Subscribe(t.Context(), drivers.Ref{}); !ok || err != nil {
		t.Fatal(ok, err)
	}
	seen := map[uint32]bool{}
	next(t, d.Pushed(), func(p *drivers.Push) bool {
		for _, r := range p.Readings {
			check("pushed", r.Tag, r)
			seen[r.Tag] = true
		}
		return len(seen) == len(structured)
	})
}

// TestNodeOPCUADetails: what node-opcua says of its variables is told once, where the config says nothing.
func TestNodeOPCUADetails(t *testing.T) {
	t.Parallel()
	url := nodeOPCUA(t)
	for _, mode := range []string{"read", "subscribe"} {
		c := connection(url, 10*time.Second, "ns=1;s=Interop.Level", "ns=1;s=Interop.Level", "ns=1;s=Interop.Double", "ns=1;s=Interop.Missing")
		c.Devices[0].Groups[0].Tags[1].Unit, c.Devices[0].Groups[0].Tags[1].Description = "m", "as configured"
		c.Devices[0].Options["mode"] = mode
		d := connect(t, c)
		if mode == "subscribe" {
			if ok, err := d.Subscribe(t.Context(), drivers.Ref{}); !ok || err != nil {
				t.Fatal(ok, err)
			}
			d.Pushed()
		}
		var got []telemetry.Details
		for end := time.Now().Add(30 * time.Second); got == nil && time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
			if mode == "read" {
				read(t, d)
			}
			got = d.Details(drivers.Ref{})
		}
		want := []telemetry.Details{{Unit: "mm", Description: "of the tank", Range: telemetry.Range{High: 2000}}, {Range: telemetry.Range{High: 2000}}, {}, {}}
		if !slices.Equal(got, want) {
			t.Errorf("%s: %+v, want %+v", mode, got, want)
		}
	}
}
