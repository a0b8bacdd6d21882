package poller

import (
	"sync/atomic"
	"time"
)

// busy says since when something is at work. Its owner sets it, a watchdog looks, and neither waits.
type busy struct {
	base  time.Time // its monotonic part is the clock
	since atomic.Int64
	of    atomic.Pointer[group] // nil = of none
}

func (b *busy) begin(of *group) {
	b.of.Store(of)
	b.since.Store(max(int64(time.Since(b.base)), 1))
}

func (b *busy) end() { b.since.Store(0) }

func (b *busy) lasts() time.Duration {
	since := b.since.Load()
	if since == 0 {
		return 0
	}
	return time.Since(b.base) - time.Duration(since)
}

// At is what a poller is at. It is put into words only where somebody reads them.
type At struct {
	of    *group // nil = a job
	dials bool
}

// String returns it in words, for a log line or a page.
func (a At) String() string {
	switch {
	case a.dials:
		return "an attempt to connect"
	case a.of != nil:
		return "a poll of " + a.of.String()
	}
	return "a job"
}

// Busy returns what the poller has been at the longest, a poll or a job or an attempt to connect, and for how long; 0 when it
// waits for its next tick. It never waits itself, so that a watchdog sees a driver that does not return.
func (p *Poller) Busy() (what At, lasts time.Duration) {
	poll, dial := p.reading.lasts(), p.dialling.lasts()
	if dial > poll {
		return At{dials: true}, dial
	}
	return At{of: p.reading.of.Load()}, poll
}
