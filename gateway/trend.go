package gateway

import "time"

// trend tells whether what waits for a destination grows though the destination takes messages. It compares the least that
// waited in each span with that of the span before, which a backlog that is going out, or messages in flight, do not raise.
type trend struct {
	began         time.Time // of the present span
	least, before uint64    // records: in it, and in the span before
	growing       int       // spans in a row in which it grew, less those since in which it did not
	first         time.Time // when the first of them began
	behind        bool
}

const (
	trendSpan  = 20 * time.Second
	trendSpans = 3                // so many that grow make it behind, so many that do not end it
	tooOld     = 30 * time.Second // age of the oldest record below which nothing is behind
)

// see takes in how many records wait now, and returns since when they grow, zero when they do not. possible says that the destination takes
// messages, and that the oldest of those that wait is too old.
func (t *trend) see(now time.Time, possible bool, waiting uint64) time.Time {
	if !possible || t.began.IsZero() {
		*t = trend{began: now, least: waiting, before: waiting}
		return time.Time{}
	}
	if t.least = min(t.least, waiting); now.Sub(t.began) < trendSpan {
		return t.since()
	}
	if t.least > t.before {
		if t.growing++; t.growing == 1 {
			t.first = t.began
		}
	} else {
		t.growing--
	}
	t.growing = min(max(t.growing, 0), trendSpans)
	t.behind = t.growing == trendSpans || t.behind && t.growing > 0
	t.began, t.before, t.least = now, t.least, waiting
	return t.since()
}

func (t *trend) since() time.Time {
	if t.behind {
		return t.first
	}
	return time.Time{}
}
