package pipeline

import (
	"math"
	"slices"
	"time"

	"millrace/drivers/telemetry"
)

// Report says when a reading of one tag is worth a place in a record. The zero value reports always.
type Report struct {
	OnChange  bool          // only when value, quality or reason differ from the last one reported
	Event     bool          // set by New: each reading that is not bad is reported, and none of these repeated
	Deadband  float64       // numeric change that does not count: absolute, or % of the last reported value
	Percent   bool          // Deadband is in percent
	Heartbeat time.Duration // report at least this often even if unchanged, by the gateway's monotonic clock; 0 = never
}

// changes is report by exception: what each tag of a group reported last, and when.
type changes struct {
	reports []Report
	last    []reported
	start   time.Time // of the first poll; elapsed time is counted from it
}

// reported is what a tag reported last.
type reported struct {
	value   telemetry.Value
	reason  string
	latest  telemetry.Value // within the deadband of value
	time    int64           // source time of latest
	after   time.Duration   // from the first poll; the clock may be set meanwhile
	quality telemetry.Quality
	once    bool // something has been reported
}

func newChanges(reports []Report) *changes {
	if !slices.ContainsFunc(reports, func(r Report) bool { return r.OnChange }) {
		return nil
	}
	return &changes{reports: reports, last: make([]reported, len(reports))}
}

// filter keeps the readings worth reporting, in place and in order, and remembers them.
func (c *changes) filter(at time.Time, readings []telemetry.Reading) []telemetry.Reading {
	if c.start.IsZero() {
		c.start = at
	}
	after := at.Sub(c.start)
	kept := readings[:0]
	for i := range readings {
		r := &readings[i]
		rep, last := &c.reports[r.Tag], &c.last[r.Tag]
		if rep.OnChange {
			if !rep.worth(last, r, after) {
				last.latest, last.time = r.Value, r.Time
				continue
			}
			*last = reported{value: r.Value, latest: r.Value, time: r.Time, reason: r.Reason, after: after, quality: r.Quality, once: true}
		}
		kept = append(kept, *r)
	}
	return kept
}

// beats appends the tags whose heartbeat is due, as they were seen last. An event happens once.
func (c *changes) beats(at time.Time, dst []telemetry.Reading) []telemetry.Reading {
	after := at.Sub(c.start)
	for i := range c.last {
		rep, last := &c.reports[i], &c.last[i]
		if !rep.OnChange || !last.once || rep.Event && last.quality < telemetry.Bad || !rep.beats(last, after) {
			continue
		}
		last.value, last.after = last.latest, after
		dst = append(dst, telemetry.Reading{Tag: uint32(i), Value: last.latest, Time: last.time, Quality: last.quality, Reason: last.reason})
	}
	return dst
}

// pollJitter is how much earlier than a heartbeat a poll may come and count: else each that came a millisecond too soon
// would put it off to the next.
const pollJitter = 100 * time.Millisecond

func (p *Report) worth(last *reported, now *telemetry.Reading, after time.Duration) bool {
	switch {
	case !last.once, last.quality != now.Quality, last.reason != now.Reason:
		return true
	case p.beats(last, after):
		return true
	case last.value == now.Value:
		return p.Event && now.Quality < telemetry.Bad
	}
	return p.outside(last.value, now.Value)
}

// beats reports whether the heartbeat is due.
func (p *Report) beats(last *reported, after time.Duration) bool {
	return p.Heartbeat > 0 && after-last.after >= p.Heartbeat-min(p.Heartbeat/10, pollJitter)
}

// outside reports whether a value has left the deadband around the one reported last.
func (p *Report) outside(last, now telemetry.Value) bool {
	a, ok1 := last.Float()
	b, ok2 := now.Float()
	if p.Deadband == 0 || !ok1 || !ok2 || last.Kind == telemetry.KindBool {
		return true
	}
	band := p.Deadband
	if p.Percent {
		band = math.Abs(a) * p.Deadband / 100
	}
	return !(math.Abs(b-a) <= band) // NaN is always worth it
}
