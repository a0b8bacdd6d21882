package opcua

import (
	"fmt"
	"slices"
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
	late := time.After(3 * time.Minute) // three times what is refused is tried again, after 10 s each, on a slow machine
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
			t.Fatal("not pushed within 3 min")
		}
	}
}

// counter adds a variable that a test sets.
func counter(s *opcuasim.Server, name string) *atomic.Int64 {
	var n atomic.Int64
	s.AddVariable(name, func() any { return n.Load() })
	return &n
}

// TestCrowded: at a server with room for few items, mode: auto polls a group that does not fit, and leaves nothing of it at the server; subscribe has the rest of its
// tags bad, and says what to do.
func TestCrowded(t *testing.T) {
	t.Parallel()
	s := start(t, opcuasim.Options{MaxItems: 2}, 3)
	c := connection(s.Endpoint(), 5*time.Second, variables(3)...)
	c.Devices[0].Options["mode"] = "auto"
	c.Devices[0].Groups = append(c.Devices[0].Groups, drivers.Group{Name: "few", Interval: time.Second, Tags: c.Devices[0].Groups[0].Tags[:2]})
	d := connect(t, c)
	if ok, err := d.Subscribe(t.Context(), drivers.Ref{}); ok || err != nil {
		t.Fatalf("Subscribe: %v, %v; want a poll", ok, err)
	}
	if n := s.Items(); n != 0 {
		t.Errorf("the server has %d items of a group that is polled", n)
	}
	if ok, err := d.Subscribe(t.Context(), drivers.Ref{Group: 1}); !ok || err != nil {
		t.Fatalf("Subscribe to what fits: %v, %v", ok, err)
	}
	pushes := d.Pushed()
	next(t, pushes, func(p *drivers.Push) bool { return len(p.Readings) > 0 && p.Group.Group == 1 })
	for _, r := range read(t, d) {
		if r.Quality != telemetry.Good {
			t.Errorf("%+v", r)
		}
	}
	c.Devices[0].Options["mode"] = "subscribe"
	_, pushes = subscribed(t, c)
	if r := firstOf(t, pushes, 2, telemetry.Bad); !strings.Contains(r.Reason, `BadTooManyMonitoredItems`) || !strings.Contains(r.Reason, `; with "mode: auto" such a group is polled, if it has no events`) {
		t.Errorf("%+v", r)
	}
}

// TestPushed: the first values come, and then each change, with its source time.
func TestPushed(t *testing.T) {
	s := start(t, opcuasim.Options{}, 0)
	n := counter(s, "n")
	c := connection(s.Endpoint(), patience, "ns=2;s=n", "ns=2;s=nobody")
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

// all collects pushes until each of so many tags has had a reading, and returns the last of each.
func all(t testing.TB, c <-chan drivers.Push, tags int) map[uint32]telemetry.Reading {
	t.Helper()
	got := map[uint32]telemetry.Reading{}
	next(t, c, func(p *drivers.Push) bool {
		for _, r := range p.Readings {
			got[r.Tag] = r
		}
		return len(got) == tags
	})
	return got
}

// TestBadNodesAmongMany: 10 of 1,000 nodes do not exist. They cost the others nothing, and one that comes to be is taken up.
func TestBadNodesAmongMany(t *testing.T) {
	for name, o := range map[string]opcuasim.Options{
		"limit said":    {MaxItemsPerCall: 300},
		"limit unsaid":  {MaxItemsPerCall: 70, HideLimit: true},
		"without limit": {},
	} {
		t.Run(name, func(t *testing.T) {
			s := start(t, o, 1000)
			addresses := variables(1000)
			for i := 0; i < 1000; i += 100 {
				addresses[i] = fmt.Sprintf("ns=2;s=nobody%d", i)
			}
			c := connection(s.Endpoint(), 5*time.Second, addresses...)
			c.Devices[0].Groups[0].Interval = 50 * time.Millisecond
			begin := time.Now()
			d, pushes := subscribed(t, c)
			good := 0
			for tag, r := range all(t, pushes, 1000) {
				if want := tag%100 != 0; (r.Quality == telemetry.Good) != want || !want && !strings.HasPrefix(r.Reason, "BadNodeIdUnknown: ") {
					t.Errorf("tag %d: %+v", tag, r)
				} else if want {
					good++
				}
			}
			t.Logf("FIGURES %d of 1000 good after %.2f s", good, time.Since(begin).Seconds())
			for _, s := range d.feed.subs {
				if s := s.members[0]; len(s.refused) != 10 || len(s.reasons) != 10 {
					t.Errorf("%d refused, %d reasons", len(s.refused), len(s.reasons))
				}
			}
		})
	}
}

// TestRefusedTagIsRetried: a node that comes to be is monitored soon after, and one that stays away is not told of again.
func TestRefusedTagIsRetried(t *testing.T) {
	t.Parallel()
	s := start(t, opcuasim.Options{}, 1)
	_, pushes := subscribed(t, connection(s.Endpoint(), patience, "ns=2;s=v0", "ns=2;s=late", "ns=2;s=never"))
	all(t, pushes, 3)
	n := counter(s, "late")
	n.Store(7)
	p := next(t, pushes, func(p *drivers.Push) bool { return len(p.Readings) > 0 })
	if r := p.Readings; len(r) != 1 || r[0].Tag != 1 || r[0].Value != telemetry.Int(7) {
		t.Errorf("%+v", p)
	}
}

// TestRevised: where the server does not do what was asked for, that is said once.
func TestRevised(t *testing.T) {
	s := start(t, opcuasim.Options{MinPublishing: 250 * time.Millisecond, MaxQueue: 2}, 1)
	c := connection(s.Endpoint(), patience, "ns=2;s=v0")
	c.Devices[0].Groups[0].Interval = 100 * time.Millisecond
	d, pushes := subscribed(t, c)
	p := next(t, pushes, func(p *drivers.Push) bool { return p.Note != "" })
	if want := "the server publishes every 250ms, not every 100ms; it samples some tags every 250ms, not every 100ms; it keeps 2 values of some tags, not 10; " +
		"it may be silent for 16.5s, not 10s, until that is noticed"; p.Note != want || p.Lost != 0 {
		t.Errorf("%q, want %q", p.Note, want)
	}
	if err := d.Connect(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Subscribe(t.Context(), drivers.Ref{}); err != nil {
		t.Fatal(err)
	}
	if p := next(t, d.Pushed(), func(*drivers.Push) bool { return true }); p.Note != "" {
		t.Errorf("it is said again: %q", p.Note)
	}
}

// TestOverflow: values that the server had to discard are counted, and it is said of which tag; nothing is missing from when the push
// before came.
func TestOverflow(t *testing.T) {
	s := start(t, opcuasim.Options{}, 1)
	tally(s, "n")
	c := connection(s.Endpoint(), patience, "ns=2;s=v0", "ns=2;s=n")
	c.Devices[0].Groups[0].Interval = 20 * time.Millisecond
	c.Devices[0].Options["queue_size"] = "3"
	_, pushes := subscribed(t, c)
	next(t, pushes, func(p *drivers.Push) bool { return len(p.Readings) > 0 })
	s.SetUnpublished(true)
	time.Sleep(500 * time.Millisecond)
	s.SetUnpublished(false)
	p := next(t, pushes, func(p *drivers.Push) bool { return p.Lost > 0 })
	if len(p.Readings) != 3 || p.Readings[0].Quality != telemetry.Good || p.Note != "" || p.Lost != 1 || !slices.Equal(p.Tags, []uint32{1}) || time.Since(p.At) > 5*time.Second {
		t.Errorf("%+v", p)
	}
}

// TestRepublished: a message that is asked for again says nothing of those behind it. Nothing is missing up to the message before the
// gap, and once it is closed, up to that behind it.
func TestRepublished(t *testing.T) {
	s := start(t, opcuasim.Options{}, 0)
	tally(s, "n")
	c := connection(s.Endpoint(), patience, "ns=2;s=n")
	c.Devices[0].Groups[0].Interval = 50 * time.Millisecond
	stalled := watchMachine(t)
	_, pushes := subscribed(t, c)
	at := []time.Time{next(t, pushes, func(p *drivers.Push) bool { return len(p.Readings) > 0 }).At}
	s.SkipMessages(5, false)
	for len(at) < 30 {
		next(t, pushes, func(p *drivers.Push) bool {
			if len(p.Readings) > 0 { // of several samples, where the machine stood still
				at = append(at, p.At)
			}
			return true
		})
	}
	same, last := 0, 0
	for i := 1; i < len(at); i++ {
		if at[i].Equal(at[i-1]) {
			same, last = same+1, i
		}
		if at[i].Before(at[i-1]) {
			t.Errorf("push %d came before the one before it", i)
		}
	}
	if same != 5 || !at[last+1].After(at[last]) || at[last+1].Sub(at[last]) < 200*time.Millisecond-2*stalled() {
		t.Errorf("%d pushes are as old as the one before them, want the 5 that were asked for again; the next is %v younger", same, at[last+1].Sub(at[last]))
	}
}

// TestFewPublishRequests: a server that lets fewer wait than we would gets fewer.
func TestFewPublishRequests(t *testing.T) {
	s := start(t, opcuasim.Options{MaxPublish: 1}, 0)
	tally(s, "n")
	c := connection(s.Endpoint(), patience, "ns=2;s=n")
	c.Devices[0].Groups[0].Interval = 20 * time.Millisecond
	_, pushes := subscribed(t, c)
	for range 20 {
		next(t, pushes, func(p *drivers.Push) bool { return len(p.Readings) > 0 })
	}
}

// TestNoSubscriptions: a server without them is said to be one, or is polled, as the config has it.
func TestNoSubscriptions(t *testing.T) {
	s := start(t, opcuasim.Options{NoSubscriptions: true}, 1)
	for mode, want := range map[string]string{"subscribe": `the server refuses a subscription: BadServiceUnsupported`, "": "mode: auto", "read": "", "auto": ""} {
		c := connection(s.Endpoint(), patience, "ns=2;s=v0")
		c.Devices[0].Options["mode"] = mode
		d := connect(t, c)
		pushed, err := d.Subscribe(t.Context(), drivers.Ref{})
		if pushed || (err != nil) != (want != "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("mode %q: %v, %v; want %q", mode, pushed, err, want)
		}
		if err == nil {
			if r := read(t, d); r[0].Quality != telemetry.Good {
				t.Errorf("mode %q: %+v", mode, r)
			}
		}
		d.Close()
	}
}
