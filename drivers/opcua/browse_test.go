package opcua

import (
	"slices"
	"strings"
	"testing"
	"time"

	"millrace/drivers"
	"millrace/drivers/opcua/wire"
)

// TestNodeOPCUABrowsed walks through node-opcua: what it lists can be read by the address that it lists, a small answer is gone
// on with, and what is not there is said.
func TestNodeOPCUABrowsed(t *testing.T) {
	url := nodeOPCUA(t)
	c := connection(url, 10*time.Second, "i=2258")
	c.Devices[0].Options = map[string]string{"security_policy": "none", "mode": "read"}
	d := connect(t, c)
	children := func(parent string) (all []drivers.Node) {
		t.Helper()
		for n, err := range d.Browse(t.Context(), parent) {
			if err != nil {
				t.Fatal(parent, err)
			}
			all = append(all, n)
		}
		return all
	}
	at := func(all []drivers.Node, name string) drivers.Node {
		t.Helper()
		i := slices.IndexFunc(all, func(n drivers.Node) bool { return n.Name == name })
		if i < 0 {
			t.Fatalf("no %s in %+v", name, all)
		}
		return all[i]
	}
	folder := at(children(""), "Interop")
	if folder.Address != "" || folder.ID == "" {
		t.Errorf("a folder: %+v", folder)
	}
	found := children(folder.ID)
	double := at(found, "Double")
	if !strings.HasPrefix(double.Address, "nsu=") || !strings.HasSuffix(double.Address, ";s=Interop.Double") {
		t.Errorf("a variable: %+v", double)
	}
	var small []drivers.Node
	if err := d.browse(t.Context(), folder.ID, 3, func(c Child) bool { small = append(small, c.Node); return true }); err != nil || !slices.Equal(small, found) || len(found) < 7 {
		t.Errorf("%v: in answers of three %+v\nat once %+v", err, small, found)
	}
	other := connection(url, 10*time.Second, double.Address)
	other.Devices[0].Options = c.Devices[0].Options
	if r := read(t, connect(t, other)); r[0].Reason != "" {
		t.Errorf("read by the address that was listed: %+v", r[0])
	}
	for parent, want := range map[string]string{"ns=1;s=Interop.Nothing": "BadNodeIdUnknown", "nsu=urn:none;s=x": "no namespace", "Double": "no identifier"} {
		for _, err := range d.Browse(t.Context(), parent) {
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("browse %s: %v, want %s", parent, err, want)
			}
		}
	}
}

// FuzzChildren: whatever a server answers to Browse, what comes of it is bounded.
func FuzzChildren(f *testing.F) {
	f.Add([]byte{1, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0})
	f.Add([]byte("\x01\x00\x00\x00\x00\x00\x00\x00\x02\x00\x00\x00pt\x01\x00\x00\x00\x00\x23\x01\x01\x01\x05\x00\x00\x00\x01\x00\x00\x00a\x02\x01\x00\x00\x00b\x02\x00\x00\x00\x00\x3f"))
	f.Fuzz(func(t *testing.T, b []byte) {
		r := reader{Reader: wire.Reader{B: b}}
		nodes, more, _ := r.children([]string{"", "urn:a"})
		if len(nodes) > maxBrowsed || len(more) > len(b) {
			t.Errorf("%d nodes, a point of %d bytes", len(nodes), len(more))
		}
		for _, n := range nodes {
			if n.ID == "" {
				t.Errorf("a node without an id: %+v", n)
			}
		}
	})
}
