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
// two timeouts at first, then little as a rule and a timeout now and then, as drivers/modbus has it on a serial line, or a timeout each
// time, as where a gateway waits for it. In ten minutes the other three lose at most one poll in twenty.
func TestFourUnitsOneDead(t *testing.T) {
	const healthy = 165 * time.Millisecond
	for _, c := range []struct {
		interval, timeout, brief time.Duration
		most                     float64
	}{
		{time.Second, time.Second, 0, 5}, {2 * time.Second, time.Second, 0, 5}, {2 * time.Second, 2 * time.Second, 0, 5}, {5 * time.Second, 2 * time.Second, 0, 5},
		{time.Second, 2 * time.Second, 0, 5},
		{time.Second, 2 * time.Second, 125 * time.Millisecond, 3}, {time.Second, 2 * time.Second, 660 * time.Millisecond, 5},
		{time.Second, 5 * time.Second, 125 * time.Millisecond, 5},
	} {
		synctest.Test(t, func(t *testing.T) {
			f := &line{fake: fake{deadUnit: map[int]bool{2: true}}, healthy: healthy, timeout: c.timeout, brief: c.brief}
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
				t.Logf("every %v, timeout %v, brief %v: unit %d loses %.1f %% of its polls", c.interval, c.timeout, c.brief, unit, lost)
				if lost > c.most {
					t.Errorf("every %v, timeout %v, brief %v: unit %d loses %.1f %% of its polls", c.interval, c.timeout, c.brief, unit, lost)
				}
			}
		})
	}
}

// line is a serial line: who answers takes some time of it, who does not a timeout.
type line struct {
	fake
	healthy, timeout time.Duration
	brief            time.Duration // what most tries of the dead unit take, 0 = the timeout
	tried            time.Time     // for a whole timeout
}

func (l *line) Read(ctx context.Context, r drivers.Ref, dst []telemetry.Reading) ([]telemetry.Reading, error) {
	took, dead := l.healthy, false
	l.change(func() { dead = l.deadUnit[r.Device] })
	if dead {
		switch took = l.timeout; {
		case l.tried.IsZero():
			l.tried, took = time.Now(), 2*l.timeout
		case l.brief > 0 && time.Since(l.tried) < 50*l.timeout:
			took = l.brief
		default:
			l.tried = time.Now()
		}
	}
	time.Sleep(took)
	return l.fake.Read(ctx, r, dst)
}

// TestDeadUnitIsBackSoon: a unit that was dead for ten minutes is read again within fifty times what a try takes, two seconds at least and a
// minute at most, and its next tick.
func TestDeadUnitIsBackSoon(t *testing.T) {
	for _, c := range []struct{ timeout, brief, within time.Duration }{
		{2 * time.Second, 125 * time.Millisecond, 50 * 125 * time.Millisecond},
		{2 * time.Second, 20 * time.Millisecond, 2 * time.Second},
		{2 * time.Second, 0, time.Minute},
	} {
		synctest.Test(t, func(t *testing.T) {
			f := &line{fake: fake{deadUnit: map[int]bool{2: true}}, healthy: 165 * time.Millisecond, timeout: c.timeout, brief: c.brief}
			var returned time.Duration
			got := run(t, f, 12*time.Minute, slices.Repeat([]time.Duration{time.Second}, 4), func(p *Poller) {
				start := time.Now()
				time.Sleep(10 * time.Minute)
				f.change(func() { f.deadUnit = nil })
				returned = time.Since(start)
			})
			for _, k := range got {
				if k.device == 2 && k.good {
					if after := k.at - returned; after > c.within+c.timeout+2*time.Second { // a try that was under way, and a late tick
						t.Errorf("a try of %v: back after %v", c.brief, after)
					}
					return
				}
			}
			t.Errorf("a try of %v: it is not back", c.brief)
		})
	}
}
