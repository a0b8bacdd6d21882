package modbus

import "time"

// limit is the most registers (or bits) of one request that a device answers, as far as it was learned. A request is longer
// than that when both of its halves are answered and it is not, and no longer one ever was. Now and then a length between is
// tried, beside the plain requests, until the limit is known exactly.
type limit struct {
	best uint32 // the longest request that was answered
	bad  uint32 // the shortest that was refused for its length, 0 = none
	mute bool   // it met silence, for whatever reason: half of it may do
	met  evidence
	sure bool // that longer ones are refused
	wait int  // polls from the last trial to the next
	tick int  // polls of the device
	next int  // the poll of the next trial
	at   time.Time
}

// known returns the limit once it is sure.
func (l *limit) known() (most uint32, ok bool) {
	return l.best, l.bad > 0 && !l.mute && l.sure
}

// most is how many registers may be asked for.
func (l *limit) most() uint32 {
	switch {
	case l.bad == 0:
		return 1 << 16
	case l.mute:
		return max(l.best, l.bad/2)
	}
	return l.best
}

// silent notes that a request longer than any that was answered met silence. Until the reason is known none is longer than half of it:
// a timeout for each block would find the same.
func (l *limit) silent(count uint32) {
	if count > l.best && (l.bad == 0 || count < l.bad) {
		l.bad, l.mute, l.wait, l.next = count, true, 0, 0
	}
}

// excuse is called when a register was found that is refused alone: it may have been that, not the length.
func (l *limit) excuse() {
	if l.mute {
		l.bad, l.mute = 0, false
	}
}

// over reports whether a request of this length is refused for it.
func (l *limit) over(count uint32) bool { return l.bad > 0 && count >= l.bad }

// exact reports whether the limit is known exactly.
func (l *limit) exact() bool { return l.bad > 0 && l.bad == l.best+1 }

// answered notes the length of a request that was answered.
func (l *limit) answered(count uint32) {
	if count <= l.best {
		return
	}
	l.best = count
	if l.bad > 0 {
		l.wait = 0
		if l.best >= l.bad {
			l.bad, l.mute, l.met, l.sure = 0, false, evidence{}, false // the device answers more than it did
		}
	}
}

// refused notes the length of a request that was refused for it.
func (l *limit) refused(count uint32, w weather) {
	if count <= l.best {
		return // as long a one was answered: it was something else
	}
	l.sure = l.met.add(l.tick, w) || l.sure
	l.mute = false
	if l.bad == 0 || count < l.bad {
		l.bad, l.wait = count, 0
	}
	l.wait = min(max(2*l.wait, 1), maxWait)
	l.next = l.tick + l.wait
}

// due reports whether a longer request should be tried in this poll.
func (l *limit) due(now time.Time) bool {
	l.tick++
	if l.bad == 0 || l.tick < l.next && now.Sub(l.at) < maxRest {
		return false
	}
	if l.exact() && l.sure && now.Sub(l.at) < maxRest {
		return false
	}
	l.at = now
	return true
}

// target is the length to try.
func (l *limit) target() uint32 {
	if l.exact() {
		return l.bad
	}
	return (l.best + l.bad) / 2
}

// trial returns a request beside the plan, nil for none.
func (p *poll) trial() *block {
	if b := p.lengthTrial(); b != nil {
		return b
	}
	return p.acrossTrial()
}

// lengthTrial returns a request of a length between what the device answers and what it refuses, nil for none.
func (p *poll) lengthTrial() *block {
	var due [2]bool
	due[0], due[1] = p.unit.limits[0].due(p.now), p.unit.limits[1].due(p.now)
	if !due[0] && !due[1] {
		return nil
	}
	for _, s := range p.spans {
		l := p.unit.limitOf(s.table)
		if s.area.reason != "" || !due[l.index(p.unit)] {
			continue
		}
		if b := s.longest(l.best, l.target()); b != nil {
			b.trial = true
			return b
		}
	}
	return nil
}

func (l *limit) index(u *unit) int {
	if l == &u.limits[1] {
		return 1
	}
	return 0
}

// longest returns the longest block of good atoms of more than so many registers and no more than so many.
func (s *span) longest(more, most uint32) *block {
	var best *block
	lo := 0
	for i := range s.atoms {
		if i > lo && s.cuts[i].apart() || s.badAt(i) {
			lo = i
			if s.badAt(i) {
				lo = i + 1
			}
		}
		for lo < i {
			if first, end := s.extent(lo, i+1); end-first <= most {
				break
			}
			lo++
		}
		if lo > i {
			continue
		}
		first, end := s.extent(lo, i+1)
		if n := end - first; n > more && n <= most && (best == nil || n > best.count) {
			best = s.block(lo, i+1)
		}
	}
	return best
}

// badAt reports whether an atom belongs to a block that is bad.
func (s *span) badAt(atom int) bool {
	for _, b := range s.blocks {
		if atom < b.hi {
			return b.reason != ""
		}
	}
	return false
}
