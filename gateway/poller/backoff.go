package poller

import (
	"math/rand/v2"
	"time"
)

// Bounds of the wait before the next attempt. The first is short because most losses are brief; the
// last is what an operator who has just plugged a cable in will wait for.
const (
	firstRetry = 500 * time.Millisecond
	lastRetry  = 30 * time.Second
)

// backoff is a capped exponential wait with jitter. The zero value is due at once.
type backoff struct {
	wait time.Duration
	at   time.Time
}

func (b *backoff) due(now time.Time) bool { return !now.Before(b.at) }

// fail doubles the wait and returns it: half of it fixed, half random, so that devices behind one dead
// switch do not come back in step.
func (b *backoff) fail(now time.Time) time.Duration {
	b.wait = min(max(2*b.wait, firstRetry), lastRetry)
	wait := b.wait/2 + rand.N(b.wait/2)
	b.at = now.Add(wait)
	return wait
}

func (b *backoff) succeed() { *b = backoff{} }
