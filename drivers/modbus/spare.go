package modbus

import (
	"context"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"millrace/drivers"
)

// spares are the paths to one line. The line stays on the one that works, and goes on to the next only when that fails.
type spares struct {
	all    []endpoint // in the order of the config, nil = there is one path
	at     int        // the one in use
	futile int        // moves in a row that brought no answer
	moved  string     // to which path the line has moved and why, until Warning says so
	warned time.Time
	paths  atomic.Pointer[paths] // for other goroutines, nil = there is one path
}

// paths is where a line is reached.
type paths struct {
	inUse       string
	others      []string  // in the order in which they are taken
	since       time.Time // when the line has left the first path of the config; zero = it has not
	failed, why string    // which path was left last
}

// dialPath dials the path in use, and when it fails each of the others in turn.
func (l *link) dialPath(ctx context.Context) (*wire, error) {
	s := &l.spares
	before, at, moved := s.paths.Load(), s.at, s.moved
	var failed error
	for left := max(1, len(s.all)); ; left-- {
		w, err := l.dialShare(ctx, left)
		if err == nil {
			return w, nil
		}
		if failed == nil {
			failed = err
		} else {
			failed = fmt.Errorf("%w; and the spare path %s: %w", failed, l.line(), err)
		}
		if left == 1 || ctx.Err() != nil {
			break
		}
		l.move(plain(err))
	}
	if s.at != at {
		s.at, l.endpoint, s.moved = at, s.all[at], moved
		s.paths.Store(before)
	}
	return nil, failed
}

// dialShare dials the path in use, within its share of the time while so many paths are left to try.
func (l *link) dialShare(ctx context.Context, left int) (*wire, error) {
	if end, ok := ctx.Deadline(); ok && left > 1 {
		var cancel func()
		ctx, cancel = context.WithTimeout(ctx, time.Until(end)/time.Duration(left))
		defer cancel()
	}
	return l.dial(ctx)
}

// move goes on to the next path, and keeps why for the log.
func (l *link) move(why string) {
	s := &l.spares
	if s.all == nil {
		return
	}
	failed := l.line()
	s.at = (s.at + 1) % len(s.all)
	l.endpoint = s.all[s.at]
	s.moved = fmt.Sprintf("the line is reached over %s now, because %s failed: %s; see to that path", l.line(), failed, why)
	p := s.now()
	if s.at > 0 {
		p.failed, p.why = failed, why
		if p.since = s.paths.Load().since; p.since.IsZero() {
			p.since = time.Now()
		}
	}
	s.paths.Store(p)
	l.mute = 0
}

// now says which path is in use.
func (s *spares) now() *paths {
	p := &paths{inUse: s.all[s.at].line()}
	for i := range len(s.all) - 1 {
		p.others = append(p.others, s.all[(s.at+1+i)%len(s.all)].line())
	}
	return p
}

// The bounds of patience with a path.
const (
	wornPath       = 3 // requests in a row that nothing answered, whose unit waited a timeout for each, before the next path is tried
	maxFutileTurns = 4 // doublings of it while no path brings an answer, one when all were tried
)

// worn reports whether the path in use is to be left because nothing answers over it.
func (l *link) worn() bool {
	s := &l.spares
	return s.all != nil && l.mute >= wornPath<<(s.futile/(len(s.all)-1))
}

// turned counts a move that was made because nothing answered.
func (s *spares) turned() { s.futile = min(s.futile+1, maxFutileTurns*(len(s.all)-1)) }

// mostSilent is how many requests of a poll may meet silence before a unit is given up that answers none. With one unit, and another path, as
// many as it takes to try that; with several one of a unit that is known to be silent or never answered, because each costs the others a timeout.
func (l *link) mostSilent(u *unit) int {
	switch {
	case l.several && (u.down || !u.heard):
		return 1
	case l.spares.all != nil && !l.several:
		return wornPath
	}
	return maxSilent
}

// Paths returns which path is in use and which are the others: see drivers.Redundant.
func (d *driver) Paths() (inUse string, others []string) {
	if p := d.link.spares.paths.Load(); p != nil {
		return p.inUse, p.others
	}
	return "", nil
}

// Failover says when the line is moved: see drivers.Redundant.
func (d *driver) Failover() string {
	if d.link.spares.paths.Load() == nil {
		return ""
	}
	longest := time.Duration(0)
	for _, u := range d.units {
		longest = max(longest, u.timeout)
	}
	return fmt.Sprintf("when the path in use cannot be connected to, or is silent for three requests in a row (%v)", wornPath*longest)
}

// trouble says that the line has left its first path.
func (s *spares) trouble() (t drivers.Trouble) {
	if p := s.paths.Load(); p != nil && !p.since.IsZero() {
		t = drivers.Trouble{State: drivers.OnSpare, Since: p.since, What: fmt.Sprintf("the line is reached over %s, because %s failed: %s", p.inUse, p.failed, p.why),
			Mend: "see to that path; it is used again in its turn when the one in use fails, or after a restart"}
	}
	return t
}

// warning says that the line has moved, once a minute at most.
func (s *spares) warning(now time.Time) string {
	if s.moved == "" || now.Sub(s.warned) < warnEvery {
		return ""
	}
	text := s.moved
	s.moved, s.warned = "", now
	return text
}

// setSpares reads the further urls of the line. They may stand at any device on it.
func (l *link) setSpares(c *drivers.Connection, r *reporter) {
	var given []string
	first := 0 // the device that has them
	for i := range c.Devices {
		urls := c.Devices[i].Spares
		if urls != nil && given != nil && !slices.Equal(urls, given) {
			r.device = i
			r.add("urls", fmt.Sprintf("urls: another device on the same line has the other paths %q", given), "say the same, or say it once")
		}
		if given == nil {
			given, first = urls, i
		}
	}
	r.device = first
	all := []endpoint{l.endpoint}
	for _, text := range given {
		e, m := parseURL(text)
		if !r.check("urls", text, m) {
			return
		}
		same := func(o endpoint) bool { return o.address == e.address }
		if e.scheme != l.scheme || e.network == netSerial || e.network == netListen || slices.ContainsFunc(all, same) {
			r.add("urls", fmt.Sprintf("urls %q: it is no other path of the same kind as the first", text), "use the same scheme with another host or port; not for serial lines and devices that call")
			return
		}
		all = append(all, e)
	}
	if len(all) > 1 {
		l.spares.all = all
		l.spares.paths.Store(l.spares.now())
	}
}
