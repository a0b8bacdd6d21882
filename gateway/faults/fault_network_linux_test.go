package faults

import (
	"bytes"
	"testing"
	"time"
)

// faultBlackHole, F11: the network swallows everything. Order is kept, live data is not starved by the
// drain, and the drain's rate is reported. (Thirty days of it are the publisher's own test, on a fake clock.)
func faultBlackHole(t *testing.T, order string) {
	b := newBed(t, 4, Setup{Words: 8, Order: order, Interval: "50ms"})
	b.start()
	b.await(20, 20*time.Second)
	hole := pick(14*time.Second, time.Hour) // longer than any time-out of the gateway
	b.net.Set(Faults{SilentUp: true, SilentDown: true})
	time.Sleep(hole)
	b.patience = 60*time.Second + hole/4
	b.drain(hole)
	r := b.judge()
	if r.Historical == 0 {
		t.Error("nothing was historical after the black hole: the scenario proves nothing")
	}
}

// drain heals the network and reports how soon live data came and how fast the backlog went.
func (b *bed) drain(outage time.Duration) {
	b.t.Helper()
	before := len(b.sub.Arrivals())
	healed := time.Now()
	b.heal()
	b.until(b.patience, "a message of after the outage", func() bool { return b.newest() >= healed.UnixMilli() })
	live := time.Since(healed)
	b.settle()
	took := time.Since(healed)
	n := len(b.sub.Arrivals()) - before
	b.t.Logf("FIGURES %s: outage %s; first live message %.2f s after it, all delivered %.2f s after it: %d messages, %.0f/s",
		b.t.Name(), outage, live.Seconds(), took.Seconds(), n, float64(n)/took.Seconds())
	if limit := 45 * time.Second; b.setup.Order == "live-first" && live > limit { // the longest back-off plus a time-out
		b.t.Errorf("live data came only %s after the outage, want within %s", live, limit)
	}
}

// newest returns the latest time in any message received, in ms since 1970.
func (b *bed) newest() int64 {
	var ts int64
	all := b.sub.Arrivals()
	for _, a := range all[max(0, len(all)-50):] {
		if m, err := ParseMessage(a.Payload); err == nil {
			ts = max(ts, m.TS)
		}
	}
	return ts
}

// faultHalfOpen, F12: what the gateway sends arrives, what the broker answers does not. Nothing is lost, and
// what comes twice is the same byte for byte.
func faultHalfOpen(t *testing.T) {
	b := newBed(t, 3, Setup{Words: 8})
	b.start()
	b.await(10, 20*time.Second)
	for range pick(2, 50) {
		b.net.Set(Faults{SilentDown: true})
		time.Sleep(4 * time.Second)
		b.net.Cut() // the acknowledgements on the way are gone
		b.net.Set(Faults{})
		time.Sleep(2 * time.Second)
	}
	if r := b.judge(); r.Duplicates == 0 {
		t.Error("nothing was sent twice: no acknowledgement was lost, the scenario proves nothing")
	}
	b.identical()
}

// identical holds every message that the tap saw twice to the same content, topic included.
func (b *bed) identical() {
	b.t.Helper()
	seen := map[number]Publish{}
	for _, p := range b.tap.Publishes() {
		m, err := ParseMessage(p.Payload)
		if err != nil {
			continue
		}
		n := number{m.Epoch, m.Seq}
		if first, ok := seen[n]; ok && (first.Topic != p.Topic || !bytes.Equal(content(first.Payload), content(p.Payload))) {
			b.t.Errorf("message %d was sent with two contents: %s %.200s and %s %.200s", m.Seq, first.Topic, first.Payload, p.Topic, p.Payload)
			return
		}
		seen[n] = p
	}
}

// faultFlapping, F13: the link is there for a second and gone for a second, again and again, now refused,
// now reset. Progress is monotone, and the gateway does not hammer.
func faultFlapping(t *testing.T) {
	b := newBed(t, 3, Setup{Words: 8})
	b.start()
	b.await(10, 20*time.Second)
	flaps := pick(6, 150)
	conns, progress := b.net.Accepted(), len(b.sub.Arrivals())
	for range flaps {
		b.net.Refuse()
		b.net.Cut()
		time.Sleep(time.Second)
		must(t, b.net.Accept())
		time.Sleep(time.Second)
	}
	conns, progress = b.net.Accepted()-conns, len(b.sub.Arrivals())-progress
	t.Logf("FIGURES %s: %d flaps, %d connections, %d messages meanwhile", t.Name(), flaps, conns, progress)
	if progress == 0 && *long { // six flaps may all fall into a back-off
		t.Error("nothing arrived while the link flapped")
	}
	if conns > 4*flaps {
		t.Errorf("%d connections in %d flaps: that is hammering", conns, flaps)
	}
	b.judge()
	b.identical()
}

// faultThinLink, F14: 64 kbit/s, two seconds there and back, one byte a packet, and a backlog to bring over
// it. No time-out may undo what the link carries: the rate has to come near the link's.
func faultThinLink(t *testing.T) {
	const rate = 8000 // bytes a second
	b := newBed(t, 2, Setup{Words: 4})
	b.start()
	b.await(10, 20*time.Second)
	b.net.Refuse()
	b.net.Cut()
	time.Sleep(pick(12*time.Second, 10*time.Minute))
	b.net.Set(Faults{Rate: rate, Delay: time.Second, Slice: 1})
	must(t, b.net.Accept())
	before := len(b.sub.Arrivals())
	b.await(before+1, 60*time.Second)
	for try := 1; ; try++ {
		begin := time.Now()
		time.Sleep(pick(12*time.Second, 5*time.Minute))
		got := 0
		for _, a := range b.sub.Arrivals()[before:] {
			got += len(a.Payload) + len(a.Topic) + 6
		}
		before = len(b.sub.Arrivals())
		share, starved := float64(got)/time.Since(begin).Seconds()/rate, b.machine.starved(begin, time.Now())
		publishes := len(b.tap.Publishes())
		t.Logf("FIGURES %s: %.0f %% of the link's rate, %d publishes for %d messages; processes waited for a processor %.0f %% of that time", t.Name(), 100*share, publishes, before, 100*starved)
		// A time-out livelock brings next to nothing, however often one looks. A machine without a processor to spare slows the proxy's single bytes.
		if share >= 0.15 {
			break
		}
		if try == 5 || starved < tooBusy {
			t.Errorf("the gateway brought %.0f %% of what the link carries, want at least 15 %%", 100*share)
			break
		}
	}
	b.net.Set(Faults{})
	b.judge()
}
