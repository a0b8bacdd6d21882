package publisher

import (
	"math"
	"time"
)

// bucket holds the backlog lane to so many messages or bytes a second: up to a quarter of a second's worth at once. Every
// message of the connection counts, but only that lane waits; live messages may run into debt, at most one second's worth.
// What does not fit is paid for later, so that one large message passes a small limit too.
type bucket struct {
	rate float64 // per second; 0 = no limit
	have float64
	last time.Time
}

// wait returns how long the lane must wait; 0 = it may send now.
func (b *bucket) wait(now time.Time) time.Duration {
	if b.rate <= 0 {
		return 0
	}
	b.have = min(b.have+b.rate*now.Sub(b.last).Seconds(), max(b.rate/4, 1)) // full at first: last is long ago
	b.last = now
	if b.have > 0 {
		return 0
	}
	return time.Duration(math.Ceil(-b.have/b.rate*1e9)) + time.Microsecond
}

func (b *bucket) spend(n float64) {
	b.have = max(b.have-n, -max(b.rate, n))
}
