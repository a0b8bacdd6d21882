package poller

import (
	"context"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"millrace/drivers"
	"millrace/drivers/telemetry"
)

// TestFourUnitsOneDead has four units on one serial line of 9600 baud, 60 registers each, which take 165 ms; one is dead and costs
// a timeout at each try, two at the first. In ten minutes the other three lose at most one poll in twenty; with a timeout of two
// intervals, where each try of the dead one costs two polls, about as many.
func TestFourUnitsOneDead(t *testing.T) {
	const healthy = 165 * time.Millisecond
	for _, c := range []struct {
		interval, timeout time.Duration
		most              float64
	}{
		{time.Second, time.Second, 5}, {2 * time.Second, time.Second, 5}, {2 * time.Second, 2 * time.Second, 5}, {5 * time.Second, 2 * time.Second, 5},
		{time.Second, 2 * time.Second, 7},
	} {
		synctest.Test(t, func(t *testing.T) {
			f := &line{fake: fake{deadUnit: map[int]bool{2: true}}, healthy: healthy, timeout: c.timeout}
			got := run(t, f, 10*time.Minute, slices.Repeat([]time.Duration{c.interval}, 4), nil)
			polls := map[int]int{}
			for _, k := range got {
				if k.good {
					polls[k.device]++
				}
			}
			ticks := int(10 * time.Minute / c.interval)
			for _, unit := range []int{0, 1, 3} {
				lost := 100 * float64(ticks-polls[unit]) / float64(ticks)
				t.Logf("every %v, timeout %v: unit %d loses %.1f %% of its polls", c.interval, c.timeout, unit, lost)
				if lost > c.most {
					t.Errorf("every %v, timeout %v: unit %d loses %.1f %% of its polls", c.interval, c.timeout, unit, lost)
				}
			}
		})
	}
}

// line is a serial line: who answers takes some time of it, who does not a timeout.
type line struct {
	fake
	healthy, timeout time.Duration
	tried            bool
}

func (l *line) Read(ctx context.Context, r drivers.Ref, dst []telemetry.Reading) ([]telemetry.Reading, error) {
	took := l.healthy
	if l.deadUnit[r.Device] {
		if took = l.timeout; !l.tried {
			l.tried, took = true, 2*l.timeout
		}
	}
	time.Sleep(took)
	return l.fake.Read(ctx, r, dst)
}
