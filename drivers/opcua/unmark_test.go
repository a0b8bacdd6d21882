package opcua

import (
	"strings"
	"testing"
	"time"

	"millrace/drivers"
	"millrace/drivers/opcua/opcuasim"
	"millrace/drivers/telemetry"
)

// TestAcceptUnmarksWhatStandsStill: once somebody has accepted the server's namespaces, values that stand still lose their mark, too, whatever number of nodes the server lets be read at a time; one
// that changes is not read besides.
func TestAcceptUnmarksWhatStandsStill(t *testing.T) {
	t.Parallel()
	for name, limits := range map[string]opcuasim.Options{"any": {}, "hidden": {MaxNodesPerRead: 2, HideLimit: true}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			limits.Namespaces = []string{machineURI, "urn:more"}
			s := start(t, limits, 0)
			for _, name := range []string{"a", "b", "c"} {
				s.AddVariable(name, func() any { return int32(1) })
				s.AddNode("urn:more", "s="+name, func() any { return int32(2) })
			}
			c := connection(s.Endpoint(), 5*time.Second, "ns=2;s=a", "ns=2;s=b", "ns=2;s=c", "i=2255")
			c.Devices[0].Groups[0].Interval = 50 * time.Millisecond
			d := connect(t, c)
			s.SetNamespaces("urn:more", machineURI)
			if err := d.Connect(t.Context()); err != nil {
				t.Fatal(err)
			}
			if ok, err := d.Subscribe(t.Context(), drivers.Ref{}); !ok || err != nil {
				t.Fatal(ok, err)
			}
			pushes := d.Pushed()
			for tag, r := range all(t, pushes, 4) {
				if marked := strings.HasPrefix(r.Reason, "namespace 2 of its address was "); marked != (tag < 3) {
					t.Fatalf("tag %d: %+v", tag, r)
				}
			}
			d.Accept()
			good := 0
			next(t, pushes, func(p *drivers.Push) bool {
				for _, r := range p.Readings {
					if r.Tag > 2 || r.Quality != telemetry.Good || r.Reason != "" || r.Value.Bits != 2 {
						t.Errorf("%+v", r)
					}
					good++
				}
				return good == 3
			})
		})
	}
}

// TestVerifiedWithinLimit: of a server that lets few nodes be read at a time, and does not say so, a tag that it does not report is found, too.
func TestVerifiedWithinLimit(t *testing.T) {
	t.Parallel()
	s := start(t, opcuasim.Options{MaxNodesPerRead: 2, HideLimit: true}, 7)
	n := counter(s, "n")
	c := connection(s.Endpoint(), 5*time.Second, append(variables(7), "ns=2;s=n")...)
	c.Devices[0].Options["verify_interval"] = "1s"
	c.Devices[0].Groups[0].Interval = 50 * time.Millisecond
	_, pushes := subscribed(t, c)
	all(t, pushes, 8)
	s.SetMute("n", true)
	n.Add(1)
	p := next(t, pushes, func(p *drivers.Push) bool { return p.Err != nil })
	if !strings.Contains(p.Err.Error(), `does not report changes of "ns=2;s=n"`) {
		t.Error(p.Err)
	}
}
