package faults

import (
	"slices"
	"testing"
	"time"
)

// faultDeadAndSlow, F20: of 50 devices one does not answer and one takes a hundred times as long. The others
// keep their interval.
func faultDeadAndSlow(t *testing.T) {
	const interval = 200 * time.Millisecond
	b := newBed(t, 50, Setup{Words: 8, Interval: interval.String(), Timeout: "1s"})
	dead, slow := b.devices[7], b.devices[23]
	b.excused[dead.Name], b.excused[slow.Name] = true, true
	b.start()
	b.await(100, 30*time.Second)
	dead.Freeze(true)
	slow.Slow(800 * time.Millisecond)
	time.Sleep(time.Second)
	from := time.Now()
	time.Sleep(pick(10*time.Second, 5*time.Minute))
	to := time.Now()
	var jitter []time.Duration
	still := b.stoodStill(interval / 2)
	for _, d := range b.devices {
		if !b.excused[d.Name] {
			jitter = append(jitter, jitters(d.Served(), from, to, interval, still)...)
		}
	}
	slices.Sort(jitter)
	if len(jitter) < 1000 {
		t.Fatalf("only %d polls of the healthy devices", len(jitter))
	}
	p99 := jitter[len(jitter)*99/100]
	t.Logf("FIGURES %s: %d polls of 48 healthy devices: jitter of the interval p50 %s, p99 %s, max %s", t.Name(), len(jitter),
		jitter[len(jitter)/2].Round(time.Microsecond), p99.Round(time.Microsecond), jitter[len(jitter)-1].Round(time.Microsecond))
	// A device that held others up would do so for its time-out of 1 s. The figure is what counts; this machine may be slow.
	if p99 > interval {
		t.Errorf("p99 of the jitter is %s, want at most the interval of %s: the dead device holds others up", p99, interval)
	}
	b.reasonIsGiven(dead)
	dead.Freeze(false)
	slow.Slow(0)
	b.judge()
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
