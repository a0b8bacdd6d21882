package opcua

import (
	"testing"
	"time"

	"github.com/gopcua/opcua/id"
	"github.com/gopcua/opcua/ua"

	"millrace/drivers/opcua/opcuasim"
	"millrace/drivers/telemetry"
)

// dialNone dials a server without security.
func dialNone(t *testing.T, url string) *Client {
	t.Helper()
	conn := connection(url, 20*time.Second)
	conn.Devices[0].Options = map[string]string{"security_policy": "none", "mode": "read"}
	c, err := Dial(t.Context(), conn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// childrenOf returns the children of a node by their names.
func childrenOf(t *testing.T, c *Client, node string) map[string]Child {
	t.Helper()
	all, err := c.Children(t.Context(), node)
	if err != nil {
		t.Fatal(err)
	}
	named := map[string]Child{}
	for _, n := range all {
		named[n.Name] = n
	}
	return named
}

// told is what is known of a node, in a form to compare.
func (c Child) told() [6]string {
	return [6]string{c.Class, c.Type, c.Unit, c.Access, c.Word, c.Description}
}

// TestNodeOPCUAChildren: what node-opcua tells of its nodes.
func TestNodeOPCUAChildren(t *testing.T) {
	c := dialNone(t, nodeOPCUA(t))
	for node, want := range map[string]map[string][6]string{
		"ns=1;s=Interop": {
			"Level":      {"variable", "Double", "mm", "read+write", "float64", "of the tank"},
			"Bool":       {"variable", "Boolean", "", "read+write", "bool", ""},
			"Int32Array": {"variable", "Int32[]", "", "read+write", "int32", ""},
			"Matrix":     {"variable", "Double[][]", "", "read+write", "", ""},
			"Text":       {"variable", "LocalizedText", "", "read+write", "string", ""},
			"Recipe":     {"variable", "Recipe", "", "read+write", "", ""},
			"Steps":      {"variable", "Step[]", "", "read+write", "", ""},
			"Mode":       {"variable", "Mode", "", "read+write", "", ""},
			"Beat":       {"variable", "UInt32", "", "read+write+history", "uint32", ""},
			"Tank":       {"object", "", "", "events", "", ""},
		},
		"ns=1;s=Interop.Level": {"EURange": {"variable", "Range", "", "read+write", "", ""}},
		"ns=1;s=Writable":      {"Sum": {"method", "method", "", "call", "", ""}, "Any": {"variable", "Variant", "", "read+write", "", ""}},
	} {
		all := childrenOf(t, c, node)
		for name, told := range want {
			if got := all[name].told(); got != told {
				t.Errorf("%s: %q, want %q", name, got, told)
			}
		}
	}
	if server := childrenOf(t, c, "i=2253"); !server["Tank"].Source || server["ServerStatus"].Source {
		t.Errorf("%+v", server)
	}
	if level := childrenOf(t, c, "ns=1;s=Interop")["Level"]; level.Range != (telemetry.Range{High: 2000}) {
		t.Errorf("%+v", level)
	}
	if level := childrenOf(t, c, "ns=1;s=Interop.Level"); !level["EURange"].Property {
		t.Errorf("%+v", level)
	}
}

// TestChildrenOfMachine: a machine with units and a history, of a server that takes few nodes in a request and does not say so.
func TestChildrenOfMachine(t *testing.T) {
	for name, o := range map[string]opcuasim.Options{"any": {}, "three": {MaxNodesPerRead: 3, HideLimit: true, MaxPathsPerCall: 1}, "one": {MaxNodesPerRead: 1}, "hidden": {MaxNodesPerRead: 1, HideLimit: true, MaxPathsPerCall: 2}} {
		o.Browsable = true
		s := start(t, o, 1)
		s.AddMachineTree(time.Now())
		c := dialNone(t, s.Endpoint())
		spindle := childrenOf(t, c, "ns=2;s=Machine.Spindle")
		for child, want := range map[string][6]string{
			"Speed": {"variable", "Double", "rev/min", "read+history", "float64", "speed of the spindle"},
			"Load":  {"variable", "Float", "%", "read+history", "float32", "load of the spindle's drive"},
		} {
			if got := spindle[child].told(); got != want {
				t.Errorf("%s: %s is %q, want %q", name, child, got, want)
			}
		}
		if speed, program := spindle["Speed"].Range, childrenOf(t, c, "ns=2;s=Machine.Program")["Name"].Range; speed != (telemetry.Range{High: 9000}) || program.Known() {
			t.Errorf("%s: ranges %v, %v", name, speed, program)
		}
		if tells, err := c.TellsEvents(t.Context(), "ns=2;s=Machine"); !tells || err != nil {
			t.Errorf("%s: the machine tells no events: %v", name, err)
		}
		if len(childrenOf(t, c, "")) < 3 || len(childrenOf(t, c, "ns=2;s=Machine")) < 8 {
			t.Errorf("%s: nodes are missing", name)
		}
	}
}

// FuzzInspect: whatever a server says of a node, what is kept of it is short.
func FuzzInspect(f *testing.F) {
	for _, v := range []any{ua.NewFourByteNodeID(0, 11), ua.NewStringNodeID(2, "Recipe"), int32(2), byte(7), true, ua.NewLocalizedText("of the tank")} {
		f.Add([]byte(bytesOf(f, ua.MustVariant(v))))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		n := Child{Class: "variable"}
		for _, a := range []ua.AttributeID{ua.AttributeIDDescription, ua.AttributeIDValueRank, ua.AttributeIDUserAccessLevel, ua.AttributeIDUserExecutable, ua.AttributeIDEventNotifier} {
			n.take(a, b)
		}
		n.named("", typeIn(b))
		if len(n.Type) > 300 || len(n.Description) > maxDescription || len(n.Access) > len("read+write+history") || len(unitIn(b)) > maxUnit || rangeIn(b) != (telemetry.Range{}) && !rangeIn(b).Known() {
			t.Errorf("%+v", n)
		}
	})
}

// TestTypeWords: a tag's type is given where a data type of OPC UA's own has one.
func TestTypeWords(t *testing.T) {
	for number, want := range map[uint32][2]string{
		id.Double: {"Double", "float64"}, id.Byte: {"Byte", "uint8"}, id.UtcTime: {"UtcTime", "time"}, id.Duration: {"Duration", "float64"}, id.LocalizedText: {"LocalizedText", "string"},
		id.Enumeration: {"Enumeration", ""}, id.ServerState: {"ServerState", ""}, id.Number: {"Number", ""}, id.BaseDataType: {"Variant", ""}, id.EUInformation: {"EUInformation", ""},
	} {
		var n Child
		n.named("", bytesOf(t, ua.NewNumericNodeID(0, number)))
		if got := [2]string{n.Type, n.Word}; got != want {
			t.Errorf("%d: %q, want %q", number, got, want)
		}
	}
}
