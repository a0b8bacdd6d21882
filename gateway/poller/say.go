package poller

import (
	"context"
	"log/slog"
	"time"
)

// A device that comes and goes is told of in full at first, then once a minute.
const (
	firstLines = 6
	sayEvery   = time.Minute
	calm       = 5 * time.Minute // without a line: what comes then is told in full again
)

// spoken is what the log was told of one device, and what was left out of it.
type spoken struct {
	lines int       // since it was calm
	last  time.Time // of them
	left  int       // lines since the last that were not written
	owed  *logLine  // the last of these: it is written when the minute is over, so that the log ends with how it stands
}

type logLine struct {
	level slog.Level
	text  string
	args  []any
}

// say logs how a device stands, unless it was told too often lately.
func (p *Poller) say(d *device, level slog.Level, text string, args ...any) {
	d.spoken.owed = &logLine{level, text, append([]any{"device", d.name}, args...)}
	d.spoken.left++
	p.sayOwed(d, time.Now())
}

// sayOwed logs the last line about a device that was left out, as soon as one may be written.
func (p *Poller) sayOwed(d *device, now time.Time) {
	s := &d.spoken
	since := now.Sub(s.last)
	if since >= calm {
		s.lines = 0
	}
	if s.lines >= firstLines && since < sayEvery {
		return
	}
	if s.left > 1 {
		s.owed.args = append(s.owed.args, "left_out", s.left-1)
	}
	p.log.Log(context.Background(), s.owed.level, s.owed.text, s.owed.args...)
	s.lines, s.last, s.left, s.owed = s.lines+1, now, 0, nil
}

// sayAllOwed does so for all devices.
func (p *Poller) sayAllOwed(now time.Time) {
	for _, d := range p.devices {
		if d.spoken.owed != nil {
			p.sayOwed(d, now)
		}
	}
}
