package opcua

import (
	"testing"
	"time"
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
	if level := childrenOf(t, c, "ns=1;s=Interop.Level"); !level["EURange"].Property {
		t.Errorf("%+v", level)
	}
}
