package buffer

import (
	"context"
	"log/slog"
	"slices"
	"time"
)

// lossEvery is how often the log is told of one cause by which a store gives up what it keeps: in a long outage a full one does so with each
// commit or two.
const lossEvery = time.Minute

// losses are what was given up by one cause since the log was told.
type losses struct {
	what, file  string // of the last, as
	last        uint64 // its last record
	cause       Cause
	level       slog.Level
	first       uint64 // of the first
	times, recs uint64 // segments or parts of them, and the records in them that the destination which misses most had not acknowledged; times 0 = none
	told        time.Time
}

// logLoss tells the log of records given up, once a minute for one cause; when they were only for destinations that are not in use, loudly once
// for each. commitMu is held.
func (b *Buffer) logLoss(what string, l *loss, s *segment, last uint64, cause Cause) {
	b.mu.Lock()
	present, fresh := false, []string(nil)
	for slot, d := range b.slots {
		if d == nil || l.records[slot] == 0 {
			continue
		}
		if present = present || d.known; !d.known && !d.warned {
			d.warned, fresh = true, append(fresh, d.name)
		}
	}
	b.mu.Unlock()
	level := slog.LevelInfo
	if present {
		level = slog.LevelWarn
	}
	b.noteLoss(losses{what: what, file: s.path, cause: cause, level: level, first: s.first, last: last, recs: slices.Max(l.records[:])})
	b.tellLosses(time.Now())
	for _, name := range fresh {
		b.log.Warn("the store gives up records of a destination that is not in the config; each is counted as dropped, and it is told once it comes back",
			"destination", name, "cause", cause.String(), "what_to_do", "put it back, or end this: millrace buffer forget "+name)
	}
}

// noteLoss adds one to those of its cause.
func (b *Buffer) noteLoss(now losses) {
	for i := range b.losses {
		l := &b.losses[i]
		if l.what != now.what || l.cause != now.cause || l.level != now.level {
			continue
		}
		if l.times == 0 {
			l.first = now.first
		}
		l.file, l.last = now.file, now.last
		l.times, l.recs = l.times+1, l.recs+now.recs
		return
	}
	now.times = 1
	b.losses = append(b.losses, now)
}

// tellLosses logs what was given up, of each cause as soon as its minute is over. commitMu is held.
func (b *Buffer) tellLosses(now time.Time) {
	for i := range b.losses {
		l := &b.losses[i]
		if l.times == 0 || !l.told.IsZero() && now.Sub(l.told) < lossEvery {
			continue
		}
		b.log.Log(context.Background(), l.level, l.what, "file", l.file, "cause", l.cause.String(), "first", l.first, "last", l.last, "times", l.times, "records", l.recs)
		l.times, l.recs, l.told = 0, 0, now
	}
}
