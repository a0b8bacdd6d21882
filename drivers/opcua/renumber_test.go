package opcua

import (
	"errors"
	"strings"
	"testing"
	"time"

	"millrace/drivers"
	"millrace/drivers/opcua/opcuasim"
	"millrace/drivers/telemetry"
)

func renumbering(t *testing.T) (*opcuasim.Server, drivers.Connection) {
	t.Helper()
	s := start(t, opcuasim.Options{Namespaces: []string{machineURI, "urn:more"}}, 3)
	c := connection(s.Endpoint(), 5*time.Second, "nsu="+machineURI+";s=v1", "ns=2;s=v2", "nsu=urn:later;s=v", "i=2258")
	c.Devices[0].Groups[0].Interval = 20 * time.Millisecond
	return s, c
}

// TestRenumberedWhilePushed: a server that numbers its namespaces anew within a session costs the session, when its nodes turn unknown; the next one has the nodes by
// their namespaces, and says what an index meant.
func TestRenumberedWhilePushed(t *testing.T) {
	t.Parallel()
	s, c := renumbering(t)
	d, pushes := subscribed(t, c)
	firstOf(t, pushes, 0, telemetry.Good)
	s.SetNamespaces("urn:another", machineURI)
	p := next(t, pushes, func(p *drivers.Push) bool { return p.Err != nil })
	if !strings.Contains(p.Err.Error(), "numbers its namespaces in another way") || errors.Is(p.Err, drivers.ErrClosed) {
		t.Fatal(p.Err)
	}
	if err := d.Connect(t.Context()); err != nil {
		t.Fatal(err)
	}
	if what := d.Changed().What; !strings.Contains(what, `namespace 2 is "urn:another" now`) {
		t.Errorf("changed: %q", what)
	}
	if ok, err := d.Subscribe(t.Context(), drivers.Ref{}); !ok || err != nil {
		t.Fatal(ok, err)
	}
	pushes = d.Pushed()
	firstOf(t, pushes, 0, telemetry.Good)
}

// TestRenumberedWhilePolled: so it is where the group is polled; the poll after the one that finds it has the value.
func TestRenumberedWhilePolled(t *testing.T) {
	t.Parallel()
	s, c := renumbering(t)
	d := connect(t, polled(c))
	if r := read(t, d); r[0].Value != telemetry.Float64(1) || r[2].Quality != telemetry.Bad {
		t.Fatalf("%+v", r)
	}
	first := d.link
	d.seek = time.Time{}
	if read(t, d); d.link != first {
		t.Fatal("a new session, and the namespaces are as they were")
	}
	d.seek = time.Time{}
	s.SetNamespaces("urn:another", machineURI)
	read(t, d)
	if r := read(t, d); r[0].Value != telemetry.Float64(1) {
		t.Errorf("%+v", r[0])
	}
	if what := d.Changed().What; !strings.Contains(what, `namespace 2 is "urn:another" now`) {
		t.Errorf("changed: %q", what)
	}
	second := d.link
	d.seek = time.Time{}
	if read(t, d); d.link != second {
		t.Error("a third session for the same change")
	}
}
