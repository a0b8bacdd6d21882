package faults

import (
	"slices"
	"testing"
	"time"
)

// faultDeadAndSlow, F20: of 50 devices one does not answer and one takes a hundred times as long. The others
// keep their interval: 99 of 100 of their polls within 5 % of it. What they do before and after it says whether this machine can
// tell: where it jitters itself, the figure is only logged.
func faultDeadAndSlow(t *testing.T) {
	const interval = 200 * time.Millisecond
	b := newBed(t, 50, Setup{Words: 8, Interval: interval.String(), Timeout: "3s"})
	dead, slow := b.devices[7], b.devices[23]
	b.excused[dead.Name], b.excused[slow.Name] = true, true
	b.start()
	b.await(100, 30*time.Second)
	before := b.jitter("before", interval, pick(5*time.Second, time.Minute))
	dead.Freeze(true)
	slow.Slow(800 * time.Millisecond)
	time.Sleep(time.Second)
	p99 := b.jitter("beside them", interval, pick(10*time.Second, 5*time.Minute))
	b.reasonIsGiven(dead)
	dead.Freeze(false)
	slow.Slow(0)
	control := max(before, b.jitter("after", interval, pick(5*time.Second, time.Minute)))
	// A device that held others up would do so for its time-out of 3 s. A busy machine holds up the gateway, too.
	if p99 > max(interval, 2*control) || p99 > interval/20 && control < interval/40 {
		t.Errorf("p99 of the jitter is %s, %s without the two devices, want at most 5 %% of %s: the dead device holds others up", p99, control, interval)
	}
	b.judge()
}

// jitter returns the 99th percentile of the jitter of the healthy devices in the time to come.
func (b *bed) jitter(when string, interval, length time.Duration) time.Duration {
	b.t.Helper()
	const least = 500
	from := time.Now()
	var all []time.Duration
	for tries := 0; len(all) < least; tries++ {
		if tries == 10 { // a machine that stands still most of the time takes longer
			b.t.Fatalf("%s: only %d polls of the healthy devices in %s", when, len(all), time.Since(from))
		}
		time.Sleep(length)
		all = b.healthy(from, time.Now(), interval)
	}
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

// reasonIsGiven looks for a message of bad quality with a reason, and none with yesterday's values.
func (b *bed) reasonIsGiven(dead *Device) {
	b.t.Helper()
	all := b.sub.Arrivals()
	for _, a := range slices.Backward(all) {
		m, err := ParseMessage(a.Payload)
		if err != nil || m.Device != dead.Name {
			continue
		}
		if reason, _ := m.Bad["scan"].(string); reason == "" {
			b.t.Errorf("the dead device's last message gives no reason: %s", a.Payload)
		}
		return
	}
	b.t.Error("no message tells of the dead device")
}
