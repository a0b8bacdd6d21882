package publisher

import (
	"math/rand/v2"
	"time"
)

// backoff says how long to wait before the next connection. The waits double from min to max and carry
// jitter, so that a thousand gateways do not come back to a broker in one moment.
type backoff struct {
	min, max time.Duration
	level    int
}

// The bounds that are not options.
const (
	settled     = 5 * time.Second // a session that lived so long was a good one
	flapping    = 2 * time.Second // longest wait after a short session in which the broker did acknowledge
	refusedMin  = 5 * time.Second
	refusedMax  = time.Minute
	largestStep = 20
)

// next returns the wait after a session that ended so.
func (b *backoff) next(e *ending) time.Duration {
	low, high := b.min, b.max
	switch {
	case e.refused:
		low, high = max(refusedMin, b.min), max(refusedMax, b.max)
	case e.held, e.acked > 0 && e.lived >= settled:
		b.level = 0
	case e.acked > 0:
		high = max(b.min, min(flapping, b.max))
	}
	d := min(low<<min(b.level, largestStep), high)
	b.level++
	if d > 1 {
		d = d/2 + rand.N(d/2+1)
	}
	return d
}
