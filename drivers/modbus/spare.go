package modbus

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"
)

// spare is another path to the same line. The line stays on the one that works, and moves only when that fails.
type spare struct {
	endpoint        // that is not in use; no address = there is none
	futile   int    // moves in a row that brought no answer
	moved    string // to which path the line has moved and why, until Warning says so
	warned   time.Time
	paths    atomic.Pointer[paths] // for other goroutines
}

// paths is where a line is reached.
type paths struct {
	inUse, other string
	since        time.Time // when the line has left the one that the config calls url; zero = it has not
	why          string
}

// dialPath dials the path in use, and the other one when it fails.
func (l *link) dialPath(ctx context.Context) (*wire, error) {
	if l.spare.address == "" {
		return l.dial(ctx)
	}
	half := ctx
	if end, ok := ctx.Deadline(); ok {
		var cancel func()
		half, cancel = context.WithTimeout(ctx, time.Until(end)/2)
		defer cancel()
	}
	w, err := l.dial(half)
	if err == nil || ctx.Err() != nil {
		return w, err
	}
	before := l.spare.paths.Load()
	l.move(plain(err))
	w, err2 := l.dial(ctx)
	if err2 != nil {
		failed := l.line()
		l.swap("")
		l.spare.paths.Store(before)
		l.spare.moved = ""
		return nil, fmt.Errorf("%w; and the spare path %s: %w", err, failed, err2)
	}
	return w, nil
}

// move goes over to the spare path, and keeps why for the log.
func (l *link) move(why string) {
	if l.spare.address == "" {
		return
	}
	l.swap(why)
	l.mute = 0
	l.spare.moved = fmt.Sprintf("the line is reached over %s now, because %s failed: %s; see to that path", l.line(), l.spare.line(), why)
}

// The bounds of patience with a path.
const (
	wornPath       = 3 // requests in a row that nothing answered, whose unit waited a timeout for each, before the other path is tried
	maxFutileMoves = 4 // doublings of it while neither brings an answer
)

// worn reports whether the path in use is to be left because nothing answers over it.
func (l *link) worn() bool { return l.spare.address != "" && l.mute >= wornPath<<l.spare.futile }

// mostSilent is how many requests of a poll may meet silence before a unit is given up that answers none. With one unit, and another path, as
// many as it takes to try that.
func (l *link) mostSilent() int {
	if l.spare.address != "" && !l.several {
		return wornPath
	}
	return maxSilent
}

// swap makes the spare path the one in use.
func (l *link) swap(why string) {
	l.endpoint, l.spare.endpoint = l.spare.endpoint, l.endpoint
	p := &paths{inUse: l.line(), other: l.spare.line()}
	if l.spare.paths.Load().since.IsZero() {
		p.since, p.why = time.Now(), why
	}
	l.spare.paths.Store(p)
}

// Path returns which path is in use and which is the spare one, "" where there is only one: see drivers.Redundant.
func (d *driver) Path() (inUse, spare string) {
	if p := d.link.spare.paths.Load(); p != nil {
		return p.inUse, p.other
	}
	return "", ""
}

// Failover says when the line is moved: see drivers.Redundant.
func (d *driver) Failover() string {
	if d.link.spare.paths.Load() == nil {
		return ""
	}
	longest := time.Duration(0)
	for _, u := range d.units {
		longest = max(longest, u.timeout)
	}
	return fmt.Sprintf("when the path in use cannot be connected to, or is silent for three requests in a row (%v)", wornPath*longest)
}

// warning says that the line has moved, once a minute at most.
func (s *spare) warning(now time.Time) string {
	if s.moved == "" || now.Sub(s.warned) < warnEvery {
		return ""
	}
	text := s.moved
	s.moved, s.warned = "", now
	return text
}

// setSpare reads spare_url.
func (l *link) setSpare(given map[string]string, r *reporter) {
	text, ok := given["spare_url"]
	if !ok {
		return
	}
	e, m := parseURL(text)
	if !r.check("spare_url", text, m) {
		return
	}
	if e.scheme != l.scheme || e.network == netSerial || e.network == netListen || e.address == l.address {
		r.add("spare_url", fmt.Sprintf("spare_url %q: it is no other path of the same kind as url", text), "use the scheme of url with another host or port; not for serial lines and devices that call")
		return
	}
	l.spare.endpoint = e
	l.spare.paths.Store(&paths{inUse: l.line(), other: e.line()})
}
