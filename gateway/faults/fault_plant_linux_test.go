package faults

import (
	"slices"
	"testing"
	"time"
)

// faultDeadAndSlow, F20: of 50 devices one does not answer and one takes a hundred times as long. The others
// keep their interval: 99 of 100 of their polls within 5 % of it. What another gateway does without the two at the same time says whether this machine can
// tell: where it jitters itself, the figure is only logged.
func faultDeadAndSlow(t *testing.T) {
	const interval = 200 * time.Millisecond
	setup := Setup{Words: 8, Interval: interval.String(), Timeout: "5s"}
	b, control := newBed(t, 50, setup), newBed(t, 48, setup)
	dead, slow := b.devices[7], b.devices[23]
	b.excused[dead.Name], b.excused[slow.Name] = true, true
	for _, b := range []*bed{b, control} {
		b.start()
		b.await(100, 30*time.Second)
	}
	dead.Freeze(true)
	slow.Slow(800 * time.Millisecond)
	time.Sleep(time.Second)
	held := true
	for look := 0; held && look < 3; look++ {
		if look > 0 {
			t.Log("once more: a device that holds others up does so each time")
		}
		from := time.Now()
		for tries := 0; len(b.healthy(from, time.Now(), interval)) < 500 || len(control.healthy(from, time.Now(), interval)) < 500; tries++ {
			if tries == 10 { // a machine that stands still most of the time takes longer
				t.Fatalf("hardly any poll of the healthy devices in %s", time.Since(from))
			}
			time.Sleep(pick(10*time.Second, 5*time.Minute))
		}
		to := time.Now()
		p99, without := b.jitter("beside them", from, to, interval), control.jitter("another gateway at the same time, without them", from, to, interval)
		// A device that held others up would do so for its time-out of 5 s. A busy machine holds up both gateways.
		held = p99 > max(interval, 2*without) || p99 > interval/20 && without < interval/40
	}
	if held {
		t.Errorf("the dead device holds others up: want at most 5 %% of %s for 99 of 100 polls", interval)
	}
	b.reasonIsGiven(dead)
	dead.Freeze(false)
	slow.Slow(0)
	b.judge()
}

// jitter returns the 99th percentile of the jitter of the healthy devices.
func (b *bed) jitter(when string, from, to time.Time, interval time.Duration) time.Duration {
	b.t.Helper()
	all := b.healthy(from, to, interval)
	slices.Sort(all)
	p99 := all[len(all)*99/100]
	b.t.Logf("FIGURES %s, %s: %d polls of 48 healthy devices: jitter of %s p50 %s, p99 %s (%.1f %%), max %s", b.t.Name(), when, len(all), interval,
		all[len(all)/2].Round(time.Microsecond), p99.Round(time.Microsecond), 100*p99.Seconds()/interval.Seconds(), all[len(all)-1].Round(time.Microsecond))
	return p99
}

// healthy returns the jitter of the healthy devices where the machine itself did not stand still.
func (b *bed) healthy(from, to time.Time, interval time.Duration) (all []time.Duration) {
	still := b.stoodStill(interval / 2)
	for _, d := range b.devices {
		if !b.excused[d.Name] {
			all = append(all, jitters(d.Served(), from, to, interval, still)...)
		}
	}
	return all
}

// jitters returns by how much each interval between two polls differs from the configured one, where the machine
// itself did not stand still.
func jitters(served []Served, from, to time.Time, interval time.Duration, still []Stall) []time.Duration {
	var out []time.Duration
	for i := 1; i < len(served); i++ {
		if served[i-1].At.Before(from) || served[i].At.After(to) {
			continue
		}
		if slices.ContainsFunc(still, func(s Stall) bool { return s.To.After(served[i-1].At) && s.From.Before(served[i].At) }) {
			continue
		}
		d := served[i].At.Sub(served[i-1].At) - interval
		out = append(out, max(d, -d))
	}
	return out
}

// reasonIsGiven waits until the last message of a dead device is of bad quality and has a reason: no message repeats yesterday's values.
func (b *bed) reasonIsGiven(dead *Device) {
	b.t.Helper()
	b.until(2*time.Minute, "the last message of the dead device to be one that gives a reason", func() bool {
		for _, a := range slices.Backward(b.sub.Arrivals()) {
			if m, err := ParseMessage(a.Payload); err == nil && m.Device == dead.Name {
				reason, _ := m.Bad["scan"].(string)
				return reason != ""
			}
		}
		return false
	})
}
