package gateway

import (
	"testing"
	"time"

	"millrace/drivers/telemetry"
	"millrace/gateway/web"
)

// TestClockStates: the kernel's flag and a time long past mark readings; a jump does not, and is told for ten minutes.
func TestClockStates(t *testing.T) {
	var synced, known bool
	now, mono := time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC), time.Duration(0)
	c := &clock{now: func() (time.Time, time.Duration) { return now, mono }, synced: func() (bool, bool) { return synced, known }}
	want := func(when, state string, marked bool) {
		t.Helper()
		c.look()
		if got := c.view(); got.State != state || c.unset.Load() != marked || (got.State != web.StateOK) != (got.Reason != "" && !got.Since.IsZero()) {
			t.Errorf("%s: %+v, marked %v; want %q, %v", when, got, c.unset.Load(), state, marked)
		}
	}
	want("no flag", web.StateOK, false)
	known = true
	want("the kernel says no", web.StateUnset, true)
	synced = true
	want("the kernel says yes", web.StateOK, false)
	now, mono = now.Add(time.Hour), mono+time.Hour
	want("an hour later", web.StateOK, false)
	now, mono = now.Add(-time.Hour), mono+time.Second
	want("an hour back", web.StateJumped, false)
	now, mono = now.Add(jumpTold), mono+jumpTold
	want("ten minutes later", web.StateOK, false)
	known = false
	now = time.Unix(100, 0)
	want("1970", web.StateUnset, true)
}

// TestSkew: what is news tells; the age of a value that has not changed for long, of the first ones, and of the first ones after an outage does not.
func TestSkew(t *testing.T) {
	s, seen := &newSkews(1)[0], int64(0)
	at := time.Now().UnixMicro()
	put := func(n int, readings func() []telemetry.Reading) {
		for range n {
			at += 1e6
			s.measure(at, &seen, readings())
		}
	}
	want := func(what string, seconds float64) {
		t.Helper()
		if got := s.get(); got == nil || *got != seconds {
			t.Errorf("%s: %v, want %v", what, got, seconds)
		}
	}
	old := telemetry.Reading{Time: at - 3600e6}
	put(3, func() []telemetry.Reading { return []telemetry.Reading{{Time: at}} })
	put(300, func() []telemetry.Reading { return []telemetry.Reading{old} })
	if got := s.get(); got != nil {
		t.Errorf("%v of a device that tells nothing new", *got)
	}
	put(300, func() []telemetry.Reading {
		return []telemetry.Reading{old, {Time: at + 5e6}, {Time: at + 9e6, Quality: telemetry.Bad}}
	})
	want("ahead", 5)
	put(200, func() []telemetry.Reading { return []telemetry.Reading{old, {Time: at - 2e6}} })
	want("set back", -2)
	put(130, func() []telemetry.Reading { return []telemetry.Reading{{Time: at, Quality: telemetry.Bad}} })
	put(1, func() []telemetry.Reading { return []telemetry.Reading{{Time: at - 60e6}} })
	if got := s.get(); got != nil {
		t.Errorf("%v by the first value after an outage", *got)
	}
	put(1, func() []telemetry.Reading { return []telemetry.Reading{{Time: at - 2e6}} })
	want("after an outage", -2)
}
