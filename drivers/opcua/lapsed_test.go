package opcua

import (
	"errors"
	"io"
	"strings"
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

// TestBrowsingIsGivenUp: a server that drops the connection when it is asked what is below a node is asked so often for a hint, or for a rule, and after a while once more; what is read is read all the while.
func TestBrowsingIsGivenUp(t *testing.T) {
	var cuts atomic.Bool
	var proxy atomic.Pointer[opcuasim.Proxy]
	s := start(t, opcuasim.Options{Browsable: true, OnBrowse: func() {
		if cuts.Load() {
			proxy.Load().Cut()
		}
	}}, 1)
	s.AddMachineTree(time.Now())
	p, err := opcuasim.NewProxy(s.Addr())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	proxy.Store(p)
	cuts.Store(true)
	c := ruled(p.Endpoint())
	c.Devices[0].Timeout = 5 * time.Second
	c.Devices[0].Groups[0].Tags = connection("", 0, "ns=2;s=v0", "/Objects/2:None").Devices[0].Groups[0].Tags
	made, err := newDriver(polled(c))
	if err != nil {
		t.Fatal(err)
	}
	d := made.(*driver)
	t.Cleanup(func() { d.Close() })
	d.failures = maxFailures
	d.lapses.Store(maxLapses)
	for i := range maxLapses { // of the path's hint
		if err := d.Connect(t.Context()); err == nil {
			t.Fatalf("connected after %d", i)
		}
	}
	for i := range maxLapses { // of the rule
		if err := d.Connect(t.Context()); err != nil {
			t.Fatal(err)
		}
		if _, err := selectAll(t, d); !errors.Is(err, drivers.ErrLink) {
			t.Fatalf("%d: %v", i, err)
		}
	}
	if err := d.Connect(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := selectAll(t, d); err == nil || errors.Is(err, drivers.ErrLink) || !strings.Contains(err.Error(), "when its nodes are looked through") {
		t.Errorf("the rule: %v", err)
	}
	if r := read(t, d); r[0].Quality != telemetry.Good || !strings.Contains(r[1].Reason, `the browse path ends at "2:None"; below "/Objects" is something else`) {
		t.Errorf("%+v", r)
	}
	for what, of := range d.lost.by {
		of.at = of.at.Add(-lapseRest)
		d.lost.by[what] = of
	}
	cuts.Store(false)
	if got, err := selectAll(t, d); err != nil || len(got.Tags) == 0 || d.lost.by[ruleOf(drivers.Ref{})].times != 0 {
		t.Errorf("after a while: %v %+v", err, got)
	}
}

// TestConditionsAreGivenUp: so it is where the server drops the connection when it is asked for its conditions, and the events come all the same.
func TestConditionsAreGivenUp(t *testing.T) {
	var proxy atomic.Pointer[opcuasim.Proxy]
	s := start(t, opcuasim.Options{OnRefresh: func() { proxy.Load().Cut() }}, 1)
	s.AddNotifier("press")
	p, err := opcuasim.NewProxy(s.Addr())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	proxy.Store(p)
	c := connection(p.Endpoint(), 5*time.Second, "ns=2;s=press", "ns=2;s=v0")
	c.Devices[0].Groups[0].Interval = 50 * time.Millisecond
	eventTag(c, 0, nil)
	d := connect(t, c)
	d.failures = maxFailures
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
	if r == nil || r[1].Quality != telemetry.Good || !strings.Contains(r[0].Value.Text, "does not tell which conditions stand (ConditionRefresh: the server drops the connection") {
		t.Fatalf("%+v", r)
	}
	s.Raise(opcuasim.Event{Node: "press", Message: "hot", Severity: 500})
	next(t, d.Pushed(), func(p *drivers.Push) bool {
		if p.Err != nil {
			t.Fatal(p.Err)
		}
		return len(p.Readings) > 0 && strings.Contains(p.Readings[0].Value.Text, `"message":"hot"`)
	})
}

// TestHistoryIsGivenUp: so it is where the server drops the connection when it is asked for history: what was asked is named meanwhile, then the tags are read on and a note of the device says it, until it is asked again.
func TestHistoryIsGivenUp(t *testing.T) {
	var proxy atomic.Pointer[opcuasim.Proxy]
	var cuts atomic.Bool
	s := start(t, opcuasim.Options{SpoilHistory: func(string, *ua.HistoryReadResult) {
		if cuts.Load() {
			proxy.Load().Cut()
		}
	}}, 1)
	s.SetHistory("v0", kept(10))
	p, err := opcuasim.NewProxy(s.Addr())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	proxy.Store(p)
	cuts.Store(true)
	d := connect(t, polled(connection(p.Endpoint(), 5*time.Second, "ns=2;s=v0")))
	for range maxLapses {
		if len(d.Notes()) > 0 {
			t.Errorf("too soon: %v", d.Notes())
		}
		if _, err := pastOf(t, d, 0, 10); err == nil || errors.Is(err, drivers.ErrDevice) || !strings.Contains(err.Error(), "when it was asked for history; after 3 times") {
			t.Fatalf("%v", err)
		}
		if err := d.Connect(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := pastOf(t, d, 0, 10); !errors.Is(err, drivers.ErrDevice) || err.Error() != unborne {
		t.Errorf("%v", err)
	}
	if r := read(t, d); r[0].Quality != telemetry.Good {
		t.Errorf("%+v", r)
	}
	next, err := newDriver(polled(connection(p.Endpoint(), 5*time.Second, "ns=2;s=v0")))
	if err != nil {
		t.Fatal(err)
	}
	next.(drivers.Heir).Inherit(d)
	if notes := next.(drivers.Noted).Notes(); len(notes) != 1 {
		t.Errorf("the driver that follows: %q", notes)
	}
	if notes := d.Notes(); len(notes) != 1 || !strings.Contains(notes[0], "3 times in a row when it was asked for history: what it has kept of outages is not read; it is asked again after 2") {
		t.Errorf("%q", notes)
	}
	for what, of := range d.lost.by {
		of.at = of.at.Add(-lapseRest)
		d.lost.by[what] = of
	}
	cuts.Store(false)
	if got, err := pastOf(t, d, 0, 10); err != nil || len(got[0]) != 10 || len(d.Notes()) > 0 {
		t.Errorf("after a while: %v %v %v", got, err, d.Notes())
	}
}

// TestConditionsInVain: a link that is lost over another request while the server does not answer a ConditionRefresh counts as lost over that, whoever has noticed first; one that we gave up does not.
func TestConditionsInVain(t *testing.T) {
	var now atomic.Pointer[feed]
	var ours atomic.Bool
	returned := make(chan struct{}, 1)
	s := start(t, opcuasim.Options{OnRefresh: func() {
		f := now.Load()
		if !ours.Load() {
			f.link.channel.Fail(io.EOF)
		}
		f.cancel()
		<-returned
	}}, 1)
	s.AddNotifier("press")
	c := connection(s.Endpoint(), 5*time.Second, "ns=2;s=press")
	eventTag(c, 0, nil)
	d := connect(t, c)
	for i, gaveUp := range []bool{false, true, false} {
		now.Store(d.feed)
		ours.Store(gaveUp)
		if _, err := d.feed.askConditions(1); err == nil {
			t.Fatal("it was answered")
		}
		returned <- struct{}{}
		if want := []int{1, 1, 2}[i]; d.lost.by[anyCondition].times != want {
			t.Errorf("%d: %d times", i, d.lost.by[anyCondition].times)
		}
		if err := d.Connect(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}

// TestEnumIsGivenUp: of a number whose texts the server does not bear to be asked for, that is said, and not that it has none.
func TestEnumIsGivenUp(t *testing.T) {
	var proxy atomic.Pointer[opcuasim.Proxy]
	s := start(t, opcuasim.Options{Attribute: func(_ string, a ua.AttributeID) any {
		if p := proxy.Load(); p != nil && a == ua.AttributeIDDataType {
			p.Cut()
		}
		return nil
	}}, 0)
	s.AddVariable("mode", func() any { return int32(1) })
	p, err := opcuasim.NewProxy(s.Addr())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	c := polled(connection(p.Endpoint(), 5*time.Second, "ns=2;s=mode"))
	c.Devices[0].Groups[0].Tags[0].Options = map[string]string{"enum": "server"}
	made, err := newDriver(c)
	if err != nil {
		t.Fatal(err)
	}
	d := made.(*driver)
	t.Cleanup(func() { d.Close() })
	d.failures = maxFailures
	d.lapses.Store(maxLapses)
	proxy.Store(p)
	for range maxLapses {
		if err := d.Connect(t.Context()); err != nil {
			t.Fatal(err)
		}
		_, _ = d.Read(t.Context(), drivers.Ref{}, nil)
		if d.link.channel.Err() == nil {
			t.Fatal("the connection stands")
		}
	}
	if err := d.Connect(t.Context()); err != nil {
		t.Fatal(err)
	}
	if r := read(t, d); r[0].Quality != telemetry.Uncertain || r[0].Value.Text != "1" || r[0].Reason != "the texts of its numbers are not known: "+unbearable {
		t.Errorf("%+v", r)
	}
}

// TestOneAfterTheOther: history is asked for when the server has answered about its conditions, or the link is lost over these, which then is not blamed on history.
func TestOneAfterTheOther(t *testing.T) {
	var proxy atomic.Pointer[opcuasim.Proxy]
	s := start(t, opcuasim.Options{OnRefresh: func() { proxy.Load().Cut() }}, 1)
	s.AddNotifier("press")
	s.SetHistory("v0", kept(10))
	p, err := opcuasim.NewProxy(s.Addr())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	proxy.Store(p)
	c := connection(p.Endpoint(), 5*time.Second, "ns=2;s=press", "ns=2;s=v0")
	eventTag(c, 0, nil)
	d := connect(t, c)
	d.failures = maxFailures
	d.lapses.Store(maxLapses)
	if ok, err := d.Subscribe(t.Context(), drivers.Ref{}); !ok || err != nil {
		t.Fatal(ok, err)
	}
	d.Pushed()
	if _, err := pastOf(t, d, 0, 10); err == nil || errors.Is(err, drivers.ErrDevice) || d.lost.by[anyHistory].times != 0 || d.lost.by[anyCondition].times != 1 {
		t.Errorf("%v %v", err, d.lost.by)
	}
}
