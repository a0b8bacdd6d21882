package poller

import (
	"errors"
	"math/rand/v2"
	"net"
	"time"
)

// limits bound the wait before the next attempt.
type limits struct{ least, most, there time.Duration }

// thereRetry is the longest wait for a peer that is there: it takes connections, or is alone on its line.
const thereRetry = 2 * time.Second

func newLimits(least, most time.Duration) limits {
	most = max(least, most)
	return limits{least: least, most: most, there: min(most, max(least, thereRetry))}
}

// after returns the limits for a peer that is there, or is not.
func (l limits) after(there bool) limits {
	if there {
		l.most = l.there
	}
	return l
}

// share is how many times as long as a try takes a device waits that shares its line: a dead one has a fiftieth of the line.
const share = 50

// newShare is likewise the least for a device that never answered: no reading of it is lost.
const newShare = 5

// demoted returns the limits for a device that does not answer and shares its line, of which a try took so long. While others answer,
// it may wait for twice as long as a connection.
func (l limits) demoted(took time.Duration, others, heard bool) limits {
	if others {
		l.most *= 2
	}
	l.most = min(max(share*took, l.there), l.most)
	if !heard {
		l.least = min(max(newShare*took, l.least), l.most)
	}
	return l
}

// backoff is a capped exponential wait with jitter. The zero value is due at once.
type backoff struct {
	wait time.Duration
	at   time.Time
}

func (b *backoff) due(now time.Time) bool { return !now.Before(b.at) }

// fail doubles the wait and returns it: half of it fixed, half random, so that devices behind one dead
// switch do not come back in step.
func (b *backoff) fail(now time.Time, l limits) time.Duration {
	b.wait = min(max(2*b.wait, l.least), l.most)
	wait := b.wait - rand.N(b.wait/2+1)
	b.at = now.Add(wait)
	return wait
}

func (b *backoff) succeed() { *b = backoff{} }

// timedOutLater reports whether a peer that took the connection said nothing on it.
func timedOutLater(err error) bool {
	var timeout interface{ Timeout() bool }
	var op *net.OpError
	return errors.As(err, &timeout) && timeout.Timeout() && !(errors.As(err, &op) && op.Op == "dial")
}
