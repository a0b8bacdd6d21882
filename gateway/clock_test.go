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

// TestSkew: the newest source time of the last minutes tells; a value that has not changed for long does not.
func TestSkew(t *testing.T) {
	s := &newSkews(1)[0]
	at := time.Now().UnixMicro()
	s.measure(at, []telemetry.Reading{{Time: at}})
	if s.get() != nil {
		t.Error("a skew without source times")
	}
	old := telemetry.Reading{Time: at - 3600e6}
	for i := range int64(300) {
		at += 1e6
		s.measure(at, []telemetry.Reading{old, {Time: at + 5e6}, {Time: at + 9e6, Quality: telemetry.Bad}})
		if got := s.get(); got == nil || *got != 5 {
			t.Fatalf("second %d: %v", i, got)
		}
	}
	for range 200 {
		at += 1e6
		s.measure(at, []telemetry.Reading{old, {Time: at - 2e6}})
	}
	if got := s.get(); *got != -2 {
		t.Errorf("after the device's clock was set back: %v", *got)
	}
}
