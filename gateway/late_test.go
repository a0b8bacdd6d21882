package gateway

import (
	"testing"
	"testing/synctest"
	"time"

	"millrace/gateway/link"
	"millrace/gateway/web"
)

// TestLateEnds: polls that were missed long ago make nothing late, however rarely the group is polled.
func TestLateEnds(t *testing.T) {
	for _, c := range []struct {
		interval, ago time.Duration
		want          string
	}{{time.Second, 59 * time.Second, web.StateLate}, {time.Second, time.Minute, web.StateOK}, {time.Minute, 2 * time.Minute, web.StateLate}, {time.Minute, 3 * time.Minute, web.StateOK}} {
		s := wellSnapshot()
		g := &s.Devices[0].Groups[0]
		g.Interval, g.Behind, g.MissedAt = c.interval, "poll", judged.Add(-c.ago)
		if s.Judge(); s.Devices[0].State != c.want {
			t.Errorf("interval %v, missed %v ago: %s, want %s", c.interval, c.ago, s.Devices[0].State, c.want)
		}
	}
}

// late lets a group miss polls.
func late(cause string) func(s *web.Snapshot) {
	return func(s *web.Snapshot) {
		g := &s.Devices[0].Groups[0]
		g.Behind, g.BehindFor, g.MissedAt = cause, 1800*time.Millisecond, judged.Add(-time.Second)
		if cause == "line" {
			g.BehindBy = `1.5s for group "g" of "d", which gives no answer`
		}
	}
}

// TestNotLateWhileStopping: the gateway itself has ended polling, and drains.
func TestNotLateWhileStopping(t *testing.T) {
	b := newGatewayBed(t, plan{devices: []string{device("a")}})
	b.polled(2, "a")
	if d := b.g.Snapshot().Devices[0]; d.Ended {
		t.Error("it runs, and counts as ended")
	}
	b.g.finish()
	s := b.g.Snapshot()
	s.Now = s.Now.Add(time.Minute)
	if s.Judge(); s.Devices[0].State != web.StateOK {
		t.Errorf("while the gateway stops: %+v", s.States)
	}
	s.Devices[0].Ended = false
	if s.Judge(); s.Devices[0].State != web.StateLate {
		t.Errorf("and if it did not: %+v", s.States)
	}
}

// TestFirstPollHasItsTime: a device whose first poll is under way is late when that has had its timeout and no sooner, at a start and when a
// reload makes it new.
func TestFirstPollHasItsTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBubble(t)
		b.broker.take = func(string, link.Message) {}
		defer func() { b.end() }()
		config := func(name string) {
			b.write("gateway: shop\nweb: {enabled: false}\nbuffer: {path: " + b.store + ", max_size: 16MiB}\ndestinations:\n  - {name: cloud, url: \"mqtt://cloud\"}\n" +
				"devices:\n" + device(name, "timeout: 4s") + "\n")
		}
		b.plant.slow = 10 * time.Second
		watch := func(name string) {
			t.Helper()
			for began := time.Now(); time.Since(began) < 9*time.Second; {
				time.Sleep(100 * time.Millisecond)
				d := b.g.Snapshot().Devices[0]
				late, took := d.State == web.StateLate, time.Since(began)
				if d.Name != name || late != (took >= 5500*time.Millisecond) && (took < 5*time.Second || took > 6*time.Second) {
					t.Fatalf("after %v: %q is %q, connected %t: %q", took, d.Name, d.State, d.Connected, d.Reason)
				}
			}
		}
		config("a")
		b.begin()
		watch("a")
		config("b")
		b.reload()
		watch("b")
		time.Sleep(5 * time.Second)
		if d := b.g.Snapshot().Devices[0]; d.State == web.StateDown {
			t.Errorf("%+v", d)
		}
	})
}
