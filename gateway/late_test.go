package gateway

import (
	"testing"
	"time"

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
