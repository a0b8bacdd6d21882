package modbus

import (
	"slices"
	"time"

	"millrace/drivers/telemetry"
)

// What a device refuses is learned like this. A block that is answered with an exception is split in two,
// and each half asked, until the registers that are at fault stand alone; the rest is read around them
// from the next poll on. What stands alone is asked again after 1, 2, 4 … 64 polls, at least every five
// minutes; when it answers, the whole span is tried again. A block whose answer does not come is left to
// the end of the next poll, and split only when that happens twice, because each try costs a timeout.

// The bounds of learning.
const (
	maxRefused = 24              // exceptions in one poll: enough to find three bad registers of 125
	maxProbes  = 4               // known bad registers asked again in one poll
	maxWait    = 64              // polls until a bad block is asked again
	maxRest    = 5 * time.Minute // or this long, whichever comes first
)

// health is how a block took its last request. The zero value is good.
type health struct {
	reason  string // why it is bad; "" = good
	lost    bool   // no right answer, as against an exception
	unasked bool   // bad only as a half of a bad one: it was not asked itself yet
	wait    int    // polls from the last failure to the next try
	next    int    // the poll of the next try
	at      time.Time
}

func (h *health) due(poll int, now time.Time) bool {
	return h.reason == "" || poll >= h.next || now.Sub(h.at) >= maxRest
}

// fail makes or keeps the block bad and doubles the wait.
func (h *health) fail(reason string, lost bool, p *poll) {
	wait := min(max(2*h.wait, 1), maxWait)
	*h = health{reason: reason, lost: lost, wait: wait, next: p.polls + wait, at: p.now}
}

// split remembers a split of this poll: the atoms lo to hi were refused together, mid is where they were cut.
type split struct {
	*span
	lo, mid, hi int
}

// begin lays out the poll: the good blocks first, then those bad ones that are due, at least one in all.
// The others get their bad readings.
func (p *poll) begin(g *group, out []telemetry.Reading, now time.Time) {
	*p = poll{group: g, out: out, now: now, queue: p.queue[:0], splits: p.splits[:0]}
	g.polls++
	for _, s := range g.spans {
		for _, b := range s.blocks {
			if b.reason == "" {
				p.queue = append(p.queue, b)
			}
		}
	}
	good := len(p.queue)
	var soonest *block
	probes := 0
	for _, s := range g.spans {
		s.good = slices.ContainsFunc(s.blocks, func(b *block) bool { return b.reason == "" })
		for _, b := range s.blocks {
			if b.reason == "" {
				continue
			}
			p.bad(b, b.reason)
			if soonest == nil || b.next < soonest.next {
				soonest = b
			}
			if single := b.hi-b.lo == 1; b.due(p.polls, now) && (!single || probes < maxProbes) {
				p.queue = append(p.queue, b)
				if single {
					probes++
				}
			}
		}
	}
	if good == 0 && len(p.queue) == 0 && soonest != nil {
		p.queue = append(p.queue, soonest)
	}
}

// worth reports whether a block is still worth a request in this poll. A half for which no exception is
// left in the budget waits for the next one.
func (p *poll) worth(b *block) bool {
	if b.refused != "" && p.refused >= maxRefused {
		b.fail(b.refused, false, p)
		b.next, b.unasked = p.polls+1, true
		return false
	}
	return b.reason == "" || p.refused < maxRefused && !(b.lost && p.lost > 0)
}

// took is called when a block was answered in full.
func (p *poll) took(b *block) {
	p.answered++
	b.refused = ""
	if b.reason == "" {
		return
	}
	p.changed = true
	was := b.health
	b.health = health{}
	if was.lost {
		p.revive()
		return
	}
	if was.unasked {
		return
	}
	b.span.again = true
	if !b.span.good { // all of it was refused: the device was in a bad state, and has left it
		for _, s := range p.spans {
			s.again = true
		}
	}
}

// revive asks at once what was left out for silence: the device answers again.
func (p *poll) revive() {
	for _, s := range p.spans {
		for _, b := range s.blocks {
			if b.reason != "" && b.lost && !slices.Contains(p.queue, b) {
				p.queue = append(p.queue, b)
			}
		}
	}
}

// refuse is called when a block was answered with an exception.
func (p *poll) refuse(b *block, code int, words string) {
	p.answered++
	p.bad(b, words)
	if code == illegalFunction || code == acknowledge || code == busy {
		return // not about registers: asked again at the next poll
	}
	p.refused++
	p.changed = true
	b.refused = ""
	s := b.span
	resting := !s.dead.IsZero() && p.now.Sub(s.dead) < maxRest
	if b.hi-b.lo == 1 || p.refused >= maxRefused || resting {
		b.fail(words, false, p)
		if b.hi-b.lo > 1 {
			b.next = p.polls + 1 // not yet isolated
		}
		return
	}
	left, right := s.divide(b)
	left.refused, right.refused = words, words
	p.splits = append(p.splits, split{s, left.lo, left.hi, right.hi})
	p.queue = append(p.queue, left, right)
}

// suspect is called when a block got no right answer. With the device silent altogether it is divided
// into no more than four, so that one silent register among good ones is found in the end.
func (p *poll) suspect(b *block, reason string) {
	p.changed = true
	again := b.reason != "" && b.lost
	b.fail(reason, true, p)
	if !again || b.hi-b.lo == 1 || p.answered == 0 && len(b.span.blocks) >= 4 {
		return
	}
	left, right := b.span.divide(b)
	left.health, right.health = b.health, b.health
}

// divide replaces a block by its halves.
func (s *span) divide(b *block) (left, right *block) {
	mid := (b.lo + b.hi) / 2
	left, right = s.block(b.lo, mid), s.block(mid, b.hi)
	i := slices.Index(s.blocks, b)
	s.blocks = slices.Replace(s.blocks, i, i+1, left, right)
	return left, right
}

// learn ends the poll: it makes the plan of the next one from what this one found.
func (p *poll) learn() {
	if !p.changed {
		return
	}
	for _, split := range slices.Backward(p.splits) { // the deepest first: they explain those above them
		if !split.explained() {
			split.cuts[split.mid] = true
		}
	}
	for _, s := range p.spans {
		switch {
		case s.again:
			s.again = false
			s.reset()
		case s.hopeless():
			// Ask for all of it at each poll, in one request, until the device is in another mood.
			whole := s.block(0, len(s.atoms))
			whole.health = s.blocks[0].health
			whole.next = p.polls + 1
			s.blocks, s.dead = []*block{whole}, p.now
		default:
			s.merge()
		}
	}
}

// explained reports whether something within a refused block is known to be at fault. If nothing is, the
// device refuses a register between the two halves, or so many at once.
func (s *split) explained() bool {
	for i := s.lo + 1; i < s.hi; i++ {
		if s.cuts[i] {
			return true
		}
	}
	return slices.ContainsFunc(s.blocks, func(b *block) bool { return b.reason != "" && b.lo < s.hi && b.hi > s.lo })
}

// hopeless reports whether every register of a span was refused by itself.
func (s *span) hopeless() bool {
	if len(s.blocks) == 1 {
		return false
	}
	return !slices.ContainsFunc(s.blocks, func(b *block) bool { return b.reason == "" || b.lost || b.unasked || b.hi-b.lo > 1 })
}

// merge joins neighbours that are good and that the device did not refuse together.
func (s *span) merge() {
	merged := s.blocks[:1]
	for _, b := range s.blocks[1:] {
		last := merged[len(merged)-1]
		if last.reason == "" && b.reason == "" && !s.cuts[b.lo] {
			merged[len(merged)-1] = s.block(last.lo, b.hi)
		} else {
			merged = append(merged, b)
		}
	}
	s.blocks = merged
}
