package publisher

import (
	"errors"
	"math/rand/v2"
	"time"

	"millrace/gateway/link"
)

// backoff says how long to wait before the next connection. The waits double from min to max and carry
// jitter, so that a thousand gateways do not come back to a broker in one moment.
type backoff struct {
	min, max time.Duration
	level    int
}

// The bounds that are not options.
const (
	settled    = 5 * time.Second        // a session that lived so long was a good one
	flapping   = 500 * time.Millisecond // longest wait after a short session in which the receiver did acknowledge
	patient    = 16                     // short sessions in a row after which it doubles, up to four times as long
	refusedMin = 5 * time.Second
	refusedMax = time.Minute
)

// next returns the wait after a session that ended so.
func (b *backoff) next(e *ending) time.Duration {
	low, high := b.min, b.max
	switch {
	case errors.Is(e.err, link.ErrRefused):
		low, high = max(refusedMin, b.min), max(refusedMax, b.max)
	case e.progress: // each refused stream costs two sessions, and the others wait meanwhile
		low, high, b.level = b.min/4, b.min/2, 0
	case e.acked > 0 && e.lived >= settled:
		b.level = 0
	case e.acked > 0:
		high = max(b.min, min(flapping<<min(b.level/patient, 2), b.max))
	}
	d := min(low<<min(b.level, 20), high)
	b.level++
	if d > 1 {
		d = d/2 + rand.N(d/2+1)
	}
	return d
}
