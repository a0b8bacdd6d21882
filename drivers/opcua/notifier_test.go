package opcua

import (
	"strings"
	"testing"
	"time"

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
	}
	s := start(t, opcuasim.Options{Attribute: func(node string, a ua.AttributeID) any { return said[node][a] }}, 1)
	for _, name := range []string{"mute", "number", "press", "silent"} {
		s.AddNotifier(name)
	}
	c := connection(s.Endpoint(), 10*time.Second, "ns=2;s=mute", "ns=2;s=number", "ns=2;s=press", "ns=2;s=press", "ns=2;s=press", "ns=2;s=silent", "ns=2;s=press", "ns=2;s=press", "ns=2;s=v0")
	c.Devices[0].Groups[0].Interval = 20 * time.Millisecond
	for i := range 8 {
		eventTag(c, i, nil)
	}
	eventTag(c, 3, map[string]string{"event_type": "i=85"})
	eventTag(c, 4, map[string]string{"event_type": "i=2915"})
	eventTag(c, 6, map[string]string{"event_type": "ns=2;i=4711"})
	eventTag(c, 7, map[string]string{"event_type": "i=2955"}) // some servers leave OPC UA's own types out
	_, pushes := subscribed(t, c)
	want := map[uint32]string{0: "the node tells no events", 1: "the node is of the class Variable, ", 2: "", 3: `event_type "i=85" is of the class Object, and no type`, 4: "", 5: "",
		6: `event_type "ns=2;i=4711": the server has no such node`, 7: ""}
	next(t, pushes, func(p *drivers.Push) bool {
		for _, r := range p.Readings {
			if why, of := want[r.Tag]; of && ((why == "") != (r.Quality == telemetry.Good) || !strings.HasPrefix(r.Reason, why)) {
				t.Errorf("tag %d: %v %q", r.Tag, r.Quality, r.Reason)
			}
			delete(want, r.Tag)
		}
		return len(want) == 0
	})
}
