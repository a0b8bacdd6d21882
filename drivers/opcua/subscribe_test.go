package opcua

import (
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"millrace/drivers"
	"millrace/drivers/opcua/opcuasim"
	"millrace/drivers/telemetry"
)

// subscribed connects a driver and subscribes its first group.
func subscribed(t testing.TB, c drivers.Connection) (*driver, <-chan drivers.Push) {
	t.Helper()
	d := connect(t, c)
	if ok, err := d.Subscribe(t.Context(), drivers.Ref{}); !ok || err != nil {
		t.Fatalf("Subscribe: %v, %v", ok, err)
	}
	return d, d.Pushed()
}

// next returns the next push that is wanted; others are passed over.
func next(t testing.TB, c <-chan drivers.Push, want func(p *drivers.Push) bool) drivers.Push {
	t.Helper()
	late := time.After(30 * time.Second)
	for {
		select {
		case p, ok := <-c:
			if !ok {
				t.Fatal("the channel of pushes is closed")
			}
			if want(&p) {
				return p
			}
		case <-late:
			t.Fatal("not pushed within 30 s")
		}
	}
}

// counter adds a variable that a test sets.
func counter(s *opcuasim.Server, name string) *atomic.Int64 {
	var n atomic.Int64
	s.AddVariable(name, func() any { return n.Load() })
	return &n
}

// TestPushed: the first values come, and then each change, with its source time.
func TestPushed(t *testing.T) {
	s := start(t, opcuasim.Options{}, 0)
	n := counter(s, "n")
	c := connection(s.Endpoint(), time.Second, "ns=2;s=n", "ns=2;s=nobody")
	c.Devices[0].Groups[0].Interval = 20 * time.Millisecond
	_, pushes := subscribed(t, c)
	p := next(t, pushes, func(p *drivers.Push) bool { return p.Readings[0].Tag == 1 })
	if r := p.Readings[0]; r.Quality != telemetry.Bad || !strings.HasPrefix(r.Reason, "BadNodeIdUnknown: ") {
		t.Errorf("%+v", r)
	}
	for want := range int64(5) {
		n.Store(want)
		p := next(t, pushes, func(p *drivers.Push) bool { return len(p.Readings) > 0 && p.Readings[0].Tag == 0 })
		if r := p.Readings[0]; r.Value != telemetry.Int(want) || r.Time == 0 || p.Lost != 0 {
			t.Errorf("%+v, want %d", p, want)
		}
	}
	if fmt.Sprint(s.Reads()) == "0" {
		t.Error("the limits were not read")
	}
}
