package buffer

import (
	"context"
	"log/slog"
	"time"
)

// commitHolds is how long commits must have worked before the log is told so: on a disk that others keep nearly full they fail and work in turn.
const commitHolds = 10 * time.Second

const commitFailed = "commit failed; records stay in memory and are written again"

// repeat is a line of the log that a disk in trouble would give again and again.
type repeat struct {
	what  string
	full  bool   // for want of space, which is no other trouble's line
	args  []any  // of the last, as
	cause error  // is
	times uint64 // since the log was told; 0 = none
	told  time.Time
}

// trouble is what the log is told of commits that fail. One that comes and goes is one.
type trouble struct {
	told  bool      // that they fail, and not yet that they work
	times uint64    // they began to fail
	since time.Time // the first time
	works time.Time // since when they work again; zero = they fail, or never did
}

// tell tells the log of something that may repeat: at once, and then once a minute how often. commitMu is held.
func (b *Buffer) tell(what string, cause error, args ...any) {
	now := repeat{what: what, full: IsDiskFull(cause), args: args, cause: cause, times: 1}
	known := false
	for i := range b.repeats {
		r := &b.repeats[i]
		if known = r.what == now.what && r.full == now.full; known {
			now.times, now.told = r.times+1, r.told
			*r = now
			break
		}
	}
	if !known {
		b.repeats = append(b.repeats, now)
	}
	b.tellRepeats(time.Now())
}

// tellRepeats logs each line that repeats as soon as its minute is over, and that commits work again once that holds. commitMu is held.
func (b *Buffer) tellRepeats(now time.Time) {
	t := &b.trouble
	well := !t.works.IsZero() && now.Sub(t.works) >= commitHolds
	for i := range b.repeats {
		r := &b.repeats[i]
		if r.what == commitFailed && t.told && well {
			r.times = 0 // the end has them
		}
		if r.times == 0 || !r.told.IsZero() && now.Sub(r.told) < lossEvery {
			continue
		}
		level := slog.LevelWarn
		if r.what == commitFailed {
			level = slog.LevelError
			t.told = true
		}
		b.log.Log(context.Background(), level, r.what, append(r.args, "error", r.cause, "times", r.times)...)
		r.times, r.told = 0, now
	}
	if t.told && well {
		b.log.Info("commit works again", "dir", b.dir, "after", t.works.Sub(t.since).Round(time.Second), "times", t.times)
		*t = trouble{}
	}
}

// commitFails notes that commits began to fail. commitMu is held.
func (b *Buffer) commitFails(cause error) {
	t := &b.trouble
	if t.times == 0 {
		t.since = time.Now()
	}
	t.times, t.works = t.times+1, time.Time{}
	b.tell(commitFailed, cause, "dir", b.dir)
}

// tellClosed tells the log what it was not told of a store that is closed: what its last writes repeat, and that it fails still, or no longer does, where it was
// seen to since failing (zero = it was not). commitMu is held.
func (b *Buffer) tellClosed(failing time.Time, lost int) {
	b.tellRepeats(time.Now().Add(2 * lossEvery)) // Close told them a minute ahead before
	b.mu.Lock()
	since, health := b.failingSince(), b.health()
	b.mu.Unlock()
	switch {
	case !since.IsZero():
		b.log.Warn("store closed while it fails", "dir", b.dir, "since", since.UTC().Format(time.RFC3339), "state", health, "records_lost", lost)
	case !failing.IsZero():
		b.log.Info("store closed; it no longer fails", "dir", b.dir, "after", time.Since(failing).Round(time.Second))
	}
}
