package opcua

import (
	"sync/atomic"
	"testing"
	"time"

	"github.com/gopcua/opcua/ua"

	"millrace/drivers"
	"millrace/drivers/opcua/opcuasim"
	"millrace/drivers/telemetry"
)

// TestTypesAreGivenUp: a server that drops the connection when it is asked for a data type is asked so often and no more: the value of that type is bad, and all others are read, or pushed, on.
func TestTypesAreGivenUp(t *testing.T) {
	for name, mode := range map[string]string{"polled": "read", "pushed": "subscribe"} {
		t.Run(name, func(t *testing.T) {
			var proxy atomic.Pointer[opcuasim.Proxy]
			var asked atomic.Int32
			s := newSpace()
			s.structure(100, "Pair", ua.StructureTypeStructure, "x i=6", "y i=6")
			o := s.options()
			o.Attribute = func(_ string, a ua.AttributeID) any {
				if a == ua.AttributeIDDataTypeDefinition {
					asked.Add(1)
					proxy.Load().Cut()
				}
				return nil
			}
			sim := start(t, o, 1)
			sim.AddVariable("pair", func() any { return extension("ns=2;i=101", bytesOf(t, int32(1), int32(2))) })
			p, err := opcuasim.NewProxy(sim.Addr())
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(p.Close)
			proxy.Store(p)
			c := connection(p.Endpoint(), 5*time.Second, "ns=2;s=v0", "ns=2;s=pair")
			c.Devices[0].Options["mode"] = mode
			c.Devices[0].Groups[0].Interval = 50 * time.Millisecond
			d := connect(t, c)
			d.failures, d.lapses = maxFailures, atomic.Int32{} // no census, nor details: they have limits of their own
			d.lapses.Store(maxLapses)
			for range maxLapses {
				if whole(t, d) != nil {
					t.Fatal("the connection stands")
				}
				if err := d.Connect(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
			r := whole(t, d)
			if r == nil || r[0].Quality != telemetry.Good || r[1].Quality != telemetry.Bad || r[1].Reason != unbearable || asked.Load() != maxLapses {
				t.Errorf("asked %d times: %+v", asked.Load(), r)
			}
		})
	}
}

// whole returns readings of both tags, nil when the link is lost before.
func whole(t *testing.T, d *driver) []telemetry.Reading {
	t.Helper()
	ok, err := d.Subscribe(t.Context(), drivers.Ref{})
	if err != nil {
		return nil
	}
	if !ok {
		r, err := d.Read(t.Context(), drivers.Ref{}, nil)
		if err != nil || d.link.channel.Err() != nil {
			return nil
		}
		return r
	}
	got := make([]telemetry.Reading, 2)
	for n := 0; n < 2; {
		p, ok := <-d.Pushed()
		if !ok || p.Err != nil {
			return nil
		}
		for _, r := range p.Readings {
			got[r.Tag] = r
			n++
		}
	}
	if d.link.channel.Err() != nil {
		return nil
	}
	return got
}
