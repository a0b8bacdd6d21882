package gateway

import (
	"fmt"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"millrace/drivers/telemetry"
	"millrace/gateway/web"
)

// clock knows whether the machine's clock can be believed: not when the kernel says that nothing sets it, nor when it shows a
// time before this program was made. A jump is told for a while, because what was read before it has another time.
type clock struct {
	now    func() (wall time.Time, mono time.Duration)
	synced func() (synced, known bool) // the kernel's own flag

	unset atomic.Bool // readings taken now are marked

	mu       sync.Mutex
	last     time.Time // the last look
	mono     time.Duration
	why      string
	since    time.Time
	jump     time.Duration
	jumpedAt time.Time
}

const (
	jumpLeast = 2 * time.Second  // a smaller step is not told; NTP slews what is below half a second
	jumpTold  = 10 * time.Minute // for so long
)

// made is a day before this program was made: no clock that is set shows an earlier one.
var made = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

func newClock() *clock {
	start := time.Now()
	c := &clock{now: func() (time.Time, time.Duration) { return time.Now(), time.Since(start) }, synced: kernelSynced}
	c.look()
	return c
}

// look is called each second.
func (c *clock) look() {
	c.mu.Lock()
	defer c.mu.Unlock()
	now, mono := c.now()
	now = now.Round(0) // or Sub would go by the monotonic part
	if !c.last.IsZero() {
		if off := now.Sub(c.last) - (mono - c.mono); off.Abs() >= jumpLeast {
			c.jump, c.jumpedAt = off, now
		}
	}
	c.last, c.mono = now, mono
	why := ""
	switch synced, known := c.synced(); {
	case now.Before(made):
		why = "it shows a time before this program was made"
	case known && !synced:
		why = "the kernel says that nothing sets it"
	}
	if why != c.why {
		c.why, c.since = why, now
	}
	c.unset.Store(why != "")
}

// view is what is to be said.
func (c *clock) view() web.Clock {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.why != "":
		return web.Clock{State: web.StateUnset, Reason: c.why, Since: c.since}
	case !c.jumpedAt.IsZero() && c.last.Sub(c.jumpedAt) < jumpTold:
		return web.Clock{State: web.StateJumped, Reason: fmt.Sprintf("by %s", c.jump.Round(time.Second)), Since: c.jumpedAt}
	}
	return web.Clock{State: web.StateOK}
}

// skew is how far a device's clock is from ours, by source times that are news: a value that has not changed says when it changed, not what time it is. Of
// those of the last minute or two the newest counts, which was on its way, or waited for its poll, for the shortest. The poller's goroutine measures, others look.
type skew struct {
	newest, before atomic.Int64 // µs, source time less ours; of this minute and of the one before; none = unknown
	turned         atomic.Int64 // when the minute began, µs since 1970
}

const unknownSkew = math.MinInt64

func newSkews(n int) []skew {
	list := make([]skew, n)
	for i := range list {
		list[i].newest.Store(unknownSkew)
		list[i].before.Store(unknownSkew)
	}
	return list
}

// measure takes in the readings of a group at a time, in µs since 1970; one without a source time has that of the poll. seen is the newest source time that the
// group had when it was last heard, 0 for none: only a later one is news. What comes first, also after an outage, may be of any age.
func (s *skew) measure(at int64, seen *int64, readings []telemetry.Reading) {
	if off := at - s.turned.Load(); off > time.Minute.Microseconds() || off < 0 {
		s.before.Store(s.newest.Load())
		s.newest.Store(unknownSkew)
		s.turned.Store(at)
	}
	newest := int64(0)
	for i := range readings {
		if r := &readings[i]; r.Time != at && r.Quality != telemetry.Bad {
			newest = max(newest, r.Time)
		}
	}
	if off := newest - at; *seen != 0 && newest > *seen && off > s.newest.Load() {
		s.newest.Store(off)
	}
	*seen = newest
}

// get returns the skew, nil when it is not known.
func (s *skew) get() *float64 {
	us := max(s.newest.Load(), s.before.Load())
	if us == unknownSkew {
		return nil
	}
	seconds := float64(us) / 1e6
	return &seconds
}
