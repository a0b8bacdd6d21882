package opcua

import (
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gopcua/opcua/id"
	"github.com/gopcua/opcua/ua"

	"millrace/drivers"
	"millrace/drivers/opcua/opcuasim"
	"millrace/drivers/telemetry"
)

// TestNoNotifier: a tag of events of which none can come is bad, also where the server takes it; what the server does not say counts as right.
func TestNoNotifier(t *testing.T) {
	said := map[string]map[ua.AttributeID]any{
		"ns=2;s=mute":   {ua.AttributeIDEventNotifier: byte(4), ua.AttributeIDNodeClass: int32(ua.NodeClassObject)},
		"ns=2;s=number": {ua.AttributeIDNodeClass: int32(ua.NodeClassVariable)},
		"ns=2;s=press":  {ua.AttributeIDNodeClass: int32(ua.NodeClassObject)},
		"i=85":          {ua.AttributeIDNodeClass: int32(ua.NodeClassObject)},
		"i=2915":        {ua.AttributeIDNodeClass: int32(ua.NodeClassObjectType)},
		"i=61":          {ua.AttributeIDNodeClass: int32(ua.NodeClassObjectType)},
		"ns=2;s=jam":    {ua.AttributeIDNodeClass: int32(ua.NodeClassObjectType)},
		"ns=2;s=loop":   {ua.AttributeIDNodeClass: int32(ua.NodeClassObjectType)},
	}
	above := map[string]string{"i=61": "i=58", "ns=2;s=jam": "i=2041", "i=2041": "i=58", "ns=2;s=loop": "ns=2;s=loop"}
	s := start(t, opcuasim.Options{Attribute: func(node string, a ua.AttributeID) any { return said[node][a] }, Refers: func(node string, reference uint32, inverse bool) []opcuasim.Reference {
		if reference != id.HasSubtype || !inverse || above[node] == "" {
			return nil
		}
		return []opcuasim.Reference{{Node: above[node]}}
	}}, 1)
	for _, name := range []string{"mute", "number", "press", "silent"} {
		s.AddNotifier(name)
	}
	c := connection(s.Endpoint(), 10*time.Second, "ns=2;s=mute", "ns=2;s=number", "ns=2;s=press", "ns=2;s=press", "ns=2;s=press", "ns=2;s=silent", "ns=2;s=press", "ns=2;s=press", "ns=2;s=press", "ns=2;s=press", "ns=2;s=press", "ns=2;s=press", "ns=2;s=v0")
	c.Devices[0].Groups[0].Interval = 20 * time.Millisecond
	for i := range 12 {
		eventTag(c, i, nil)
	}
	eventTag(c, 3, map[string]string{"event_type": "i=85"})
	eventTag(c, 4, map[string]string{"event_type": "i=2915"})
	eventTag(c, 6, map[string]string{"event_type": "ns=2;i=4711"})
	eventTag(c, 7, map[string]string{"event_type": "i=2955"}) // some servers leave OPC UA's own types out
	eventTag(c, 8, map[string]string{"event_type": "i=61"})
	eventTag(c, 9, map[string]string{"event_type": "ns=2;s=jam"})
	eventTag(c, 11, map[string]string{"event_type": "i=999999"})
	eventTag(c, 10, map[string]string{"event_type": "ns=2;s=loop"})
	_, pushes := subscribed(t, c)
	want := map[uint32]string{0: "the node tells no events", 1: "the node is of the class Variable, ", 2: "", 3: `event_type "i=85" is of the class Object, and no type`, 4: "", 5: "",
		6: `event_type "ns=2;i=4711": the server has no such node`, 7: "", 8: `event_type "i=61" is a type of objects, and none of events`, 9: "", 10: "", 11: ""}
	note := ""
	next(t, pushes, func(p *drivers.Push) bool {
		note += p.Note
		for _, r := range p.Readings {
			if why, of := want[r.Tag]; of && ((why == "") != (r.Quality == telemetry.Good) || !strings.HasPrefix(r.Reason, why)) {
				t.Errorf("tag %d: %v %q", r.Tag, r.Quality, r.Reason)
			}
			delete(want, r.Tag)
		}
		return len(want) == 0
	})
	if note != `the server does not know the event_type "i=999999", nor is it one of OPC UA's own that are known here: its tag may get no events` {
		t.Errorf("note %q", note)
	}
}

// TestNotifiersAreGivenUp: a server that drops the connection when it is asked what a node, or what an event_type is derived from, is asked so often and no more; then its events and values come.
func TestNotifiersAreGivenUp(t *testing.T) {
	for _, derived := range []bool{false, true} {
		var proxy atomic.Pointer[opcuasim.Proxy]
		cut := func(at bool) {
			if at == derived {
				proxy.Load().Cut()
			}
		}
		s := start(t, opcuasim.Options{Attribute: func(node string, a ua.AttributeID) any {
			if node != "ns=2;s=jam" || a != ua.AttributeIDNodeClass {
				return nil
			}
			cut(false)
			return int32(ua.NodeClassObjectType)
		}, Refers: func(string, uint32, bool) []opcuasim.Reference { cut(true); return nil }}, 1)
		p, err := opcuasim.NewProxy(s.Addr())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(p.Close)
		proxy.Store(p)
		c := connection(p.Endpoint(), 5*time.Second, "i=2253", "ns=2;s=v0")
		c.Devices[0].Groups[0].Interval = 50 * time.Millisecond
		eventTag(c, 0, map[string]string{"event_type": "ns=2;s=jam"})
		s.AddNotifier("press")
		d := connect(t, c)
		d.failures = maxFailures
		d.lapses.Store(maxLapses)
		for range maxLapses {
			if whole(t, d) != nil {
				t.Fatalf("derived %v: the connection stands", derived)
			}
			if err := d.Connect(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		if r := whole(t, d); r == nil || r[0].Quality != telemetry.Good || r[1].Quality != telemetry.Good {
			t.Errorf("derived %v: %+v", derived, r)
		}
	}
}
