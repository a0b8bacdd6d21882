package opcua

import (
	"slices"
	"strings"
	"testing"
	"time"

	"millrace/drivers"
	"millrace/drivers/telemetry"
)

// TestNodeOPCUAConformance walks through the nodes that node-opcua has for conformance tests (all types, arrays, matrices, access rights, analog items, …), and reads and
// subscribes all variables.
func TestNodeOPCUAConformance(t *testing.T) {
	t.Parallel()
	url := nodeOPCUA(t, "conformance")
	walker := connect(t, connection(url, 20*time.Second, "i=2258"))
	var found []string
	seen := map[string]bool{}
	var walk func(parent string, depth int)
	walk = func(parent string, depth int) {
		for n, err := range walker.Browse(t.Context(), parent) {
			if err != nil {
				t.Fatal(parent, err)
			}
			if seen[n.ID] {
				continue
			}
			seen[n.ID] = true
			if n.Address != "" {
				found = append(found, n.Address)
			}
			if depth < 5 && n.ID != "" {
				walk(n.ID, depth+1)
			}
		}
	}
	walk("nsu=urn://node-opcua-simulator;s=SimulationFolder", 0)
	c := connection(url, 20*time.Second, found...)
	d, pushes := subscribed(t, c)
	got := all(t, pushes, len(found))
	polled, err := d.Read(t.Context(), drivers.Ref{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	bad := 0
	for i, r := range polled {
		p := got[uint32(i)]
		if (r.Quality == telemetry.Bad) != (p.Quality == telemetry.Bad) {
			t.Errorf("%s: read %+v, pushed %+v", found[i], r, p)
		}
		if r.Quality != telemetry.Bad {
			continue
		}
		if bad++; !slices.ContainsFunc(within, func(reason string) bool { return strings.Contains(r.Reason, reason) }) {
			t.Errorf("%s: %s", found[i], r.Reason)
		}
	}
	if len(found) < 390 || bad > 40 {
		t.Errorf("%d variables, %d of them bad", len(found), bad)
	}
	t.Logf("FIGURES %s: %d variables read and pushed, %d of them bad for what they are", t.Name(), len(found), bad)
}

// within are the reasons that README.md gives: of access rights, of types that are no reading, and of bounds.
var within = []string{"BadNotReadable: ", "the server holds no value (null)", "a value within a value cannot be read", "element 0: null", "values of type DiagnosticInfo cannot be read",
	" is over 65535", "array of more than 1048576 bytes", "value of more than 98304 parts"}
