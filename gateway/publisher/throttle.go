package publisher

import (
	"math"
	"time"
)

// throttle holds a lane to messages a second and bytes a second. Every message of the connection counts, but
// only the throttled lane waits: live messages may run into debt, at most one second's worth.
type throttle struct {
	messages, bytes bucket
}

// wait returns how long the lane must wait; 0 = it may send now.
func (t *throttle) wait(now time.Time) time.Duration {
	return max(t.messages.wait(now), t.bytes.wait(now))
}

// spend counts a message of so many bytes.
func (t *throttle) spend(bytes int) {
	t.messages.spend(1)
	t.bytes.spend(float64(bytes))
}

// bucket holds up to a quarter of a second's worth; rate 0 = no limit. What does not fit is paid for later,
// so that one large message passes a small limit too.
type bucket struct {
	rate float64 // per second
	have float64
	last time.Time
}

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
