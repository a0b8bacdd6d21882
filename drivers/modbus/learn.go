package modbus

import (
	"slices"
	"time"
)

// What a device refuses is learned like this; DESIGN.md says why. A block that is refused, by an exception, by silence or by
// closing the connection, is split in two and each half asked, until what is at fault stands alone; the rest is read around
// it. What stands alone is asked again after 1, 2, 4 … 64 polls, at least every five minutes; when it answers, the whole span
// is tried again. Refusals that may be about the whole device or function (silence, exceptions 1, 5, 6, 10, 11) are believed
// to be so until something else answers; meanwhile one single register a poll is asked, another each time.

// The bounds of learning.
const (
	maxRefused = 24              // exceptions in one poll: enough to find three bad registers of 125
	maxLost    = 4               // requests of one poll without an answer in a row, or in a search, of a device that answers others
	maxSilent  = 2               // of one that answers none
	maxAlone   = 2               // single registers of a table tried alone in one poll to learn whether it answers at all
	maxProbes  = 4               // known bad registers asked again in one poll
	maxWait    = 64              // polls until a bad block is asked again
	maxRest    = 5 * time.Minute // or this long, whichever comes first
)

// health is how a block took its last request. The zero value is good.
type health struct {
	reason  string // why it is bad; "" = good
	lost    bool   // no right answer, as against an exception
	unasked bool   // bad only as a half of a bad one: it was not asked itself yet
	chance  bool   // it was answered before, and may be again: asked at the next poll like a good one
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

// refusal is why a block was not answered.
type refusal struct {
	words    string
	lost     bool // no right answer, as against an exception
	sweeping bool // it may be about the whole device, or about the whole function
	function bool // the latter
	damaged  bool // something came that was not the answer: it says nothing about what the device has
	chance   bool // a bad line does the same: no right answer, or a gateway's word for that
}

// split remembers a split of this poll: the atoms lo to hi were refused together, mid is where they were cut.
type split struct {
	*span
	lo, mid, hi int
	count       uint32
	pieces      int // how many lie between its gaps, 0 = it was halved
	good        int // halves, or pieces, that answered
}

// setback decides what to do about a block that was refused: divide it, wait for what others say, or leave it for a while.
func (p *poll) setback(b *block, r refusal) {
	p.changed = true
	switch {
	case b.across > 0:
		p.notAcross(b, r)
		return
	case b.trial:
		p.unit.limitOf(b.table).refused(b.count, p.unit.weather)
		return
	case b.probe:
		if b.area.reason != "" {
			b.area.shut(r, p)
		}
		return
	case r.sweeping && !p.known(b, r) && b.half.words == "":
		b.waiting = r
		p.pending = append(p.pending, b)
	case b.run < p.unit.enough(b, r.chance):
		b.fail(r.words, r.lost, p)
		b.wait, b.next, b.chance = 0, p.polls+1, true
	case b.hi-b.lo == 1:
		p.isolated(b, r)
	default:
		p.divide(b, r)
	}
}

// isolated is called when what is at fault stands alone.
func (p *poll) isolated(b *block, r refusal) {
	b.half = refusal{}
	b.fail(r.words, r.lost, p)
	p.unit.limitOf(b.table).excuse()
}

// known reports whether the device is known to answer something else, so that a refusal is about the registers asked for.
func (p *poll) known(b *block, r refusal) bool {
	if r.function {
		return b.area.answered
	}
	return p.answered > 0
}

// divide asks for the pieces between the gaps of a refused block in its place, or for its halves.
func (p *poll) divide(b *block, r refusal) {
	s := b.span
	if b.hi-b.lo == 1 || p.spent() {
		b.half = refusal{}
		b.fail(r.words, r.lost, p)
		b.next = p.polls + 1 // not yet isolated
		return
	}
	if p.piecewise(b, r) {
		return
	}
	if r.lost {
		p.unit.limitOf(b.table).silent(b.count)
	}
	mid := (b.lo + b.hi) / 2
	left, right := s.block(b.lo, mid), s.block(mid, b.hi)
	left.half, right.half = r, r
	s.replace(b, left, right)
	p.splits = append(p.splits, split{span: s, lo: b.lo, mid: mid, hi: b.hi, count: b.count})
	if r.lost { // a timeout each, of which a poll bears few: see first to what is asked already
		p.queue = append(p.queue, left, right)
	} else {
		p.insert(p.search(), left, right)
	}
}

// search is where the parts of a refused block are queued: behind the requests of the plan, before other parts, because a length that the
// device refuses is found in one block as well as in all.
func (p *poll) search() int {
	for i := p.at + 1; i < len(p.queue); i++ {
		if p.queue[i].half.words != "" {
			return i
		}
	}
	return len(p.queue)
}

func (p *poll) insert(at int, blocks ...*block) {
	p.queue = slices.Insert(p.queue, min(at, len(p.queue)), blocks...)
}

// spent reports whether the poll has no more requests to give for searching.
func (p *poll) spent() bool {
	return p.refused >= maxRefused || p.sought >= maxLost || p.failed >= p.bearable()
}

// postpone leaves a half of a refused block to the next poll.
func (p *poll) postpone(b *block) {
	r := b.half
	b.half = refusal{}
	p.bad(b, r.words)
	b.fail(r.words, r.lost, p)
	b.next, b.unasked = p.polls+1, true
}

// resolve sees to the blocks whose refusal may have been about the whole device or function, when there is nothing else to
// ask. It reports whether there is something to ask now.
func (p *poll) resolve() bool {
	if p.over != "" {
		return false
	}
	before := len(p.queue)
	for len(p.pending) > 0 {
		b := p.pending[0]
		a := b.area
		switch {
		case b.stale(), p.recut(b):
		case p.known(b, b.waiting):
			p.settle(b)
		case a.alone < maxAlone && !p.spent():
			a.alone++
			p.queue = append(p.queue, a.single())
			return true // and look again at what waits, after it
		default:
			a.shut(b.waiting, p)
		}
		p.pending = p.pending[1:]
	}
	return len(p.queue) > before
}

// settle sees to a block that was refused while the device answers other requests.
func (p *poll) settle(b *block) {
	r := b.waiting
	switch {
	case r.chance && b.reason == "": // asked once more, while the unit is known to answer
		b.reason, b.lost, b.next, b.twice = r.words, r.lost, p.polls, true
		p.queue = append(p.queue, b)
	default:
		p.setback(b, r)
	}
}

// took is called when a block was answered in full.
func (p *poll) took(b *block) {
	p.answered++
	p.spoke++
	p.vain, b.run = 0, 0
	p.last = b
	b.area.answered = true
	p.unit.right++
	p.unit.limitOf(b.table).answered(b.count)
	if !b.proved {
		p.cross(b)
		b.proved = true
	}
	switch {
	case b.trial:
		p.changed = true
		return
	case b.probe:
		p.reopen(b.area)
		return
	case b.half.words != "":
		b.half = refusal{}
		p.halfGood(b)
		if b.piece {
			p.pieceGood(b)
		}
	}
	if b.reason != "" {
		p.recovered(b)
	}
}

// recovered is called when a bad block was answered.
func (p *poll) recovered(b *block) {
	p.changed = true
	was := b.health
	b.health = health{}
	if !was.unasked {
		p.unit.noise++ // so that it was none of the register's doing
	}
	switch {
	case was.chance:
	case was.lost:
		p.revive()
	case was.unasked:
		p.halfGood(b)
	default:
		b.span.again = true
		if !b.span.good { // all of it was refused: the device was in a bad state, and has left it
			for _, s := range p.spans {
				s.again = true
			}
		}
	}
}

// halfGood notes that a half of a refused block is good. When both are, and nothing new lies between them, the device refused
// the number of registers: from then on it is asked for no more than it answered.
func (p *poll) halfGood(b *block) {
	for i := range p.splits {
		s := &p.splits[i]
		if s.span != b.span || s.pieces > 0 || !(s.lo == b.lo && s.mid == b.hi || s.mid == b.lo && s.hi == b.hi) {
			continue
		}
		if s.good++; s.good == 2 && s.whole() {
			p.unit.limitOf(b.table).refused(s.count, p.unit.weather)
		}
	}
}

// reopen is called when a single register answered of a table that had been given up.
func (p *poll) reopen(a *area) {
	if a.reason == "" {
		return
	}
	p.changed = true
	p.unit.noise++
	was := a.health
	a.health = health{}
	for _, s := range a.spans {
		if !was.lost { // else what was learned of it before it fell silent is as good as ever
			s.reset()
		}
		p.enter(s)
	}
	for _, other := range p.areas {
		switch {
		case other.reason == "":
		case other.lost && was.lost:
			p.reopen(other)
		case !other.lost && other.alone == 0: // what was wrong with this table may have been wrong with that one
			other.alone++
			p.queue = append(p.queue, other.single())
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

// silence gives the unit up for this poll, and for the next ones until a single register answers.
func (p *poll) silence(r refusal) {
	p.over, p.dead, p.changed, p.unit.down = r.words, r.words, true, true
	for _, a := range p.areas {
		if a.reason == "" || !a.lost {
			r.lost = true
			a.shut(r, p)
		}
	}
}

// shut gives a table up as a whole. An exception is asked about at every poll, because that is cheap.
func (a *area) shut(r refusal, p *poll) {
	a.fail(r.words, r.lost, p)
	if !r.lost {
		a.next = p.polls + 1
	}
}

// learn ends the poll: it makes the plan of the next one from what this one found.
func (p *poll) learn() {
	if !p.changed {
		return
	}
	for _, split := range slices.Backward(p.splits) { // the deepest first: they explain those above them
		switch {
		case split.pieces > 0 && split.good < split.pieces:
			split.clear()
		case split.pieces == 0 && !split.explained(p.unit.limitOf(split.table)):
			p.part(split.span, split.mid)
		}
	}
	for _, a := range p.areas {
		if a.reason == "" && !a.answered && p.over == "" {
			p.giveUp(a)
		}
	}
	for _, s := range p.spans {
		if s.again {
			s.again = false
			s.reset()
		}
		s.join()
	}
	p.unit.cuts++
}

// giveUp shuts a table of which every part was refused.
func (p *poll) giveUp(a *area) {
	r := refusal{}
	for _, s := range a.spans {
		for _, b := range s.blocks {
			if b.reason == "" || b.chance {
				return
			}
			if !b.unasked {
				r = refusal{words: b.reason, lost: b.lost}
			}
		}
	}
	if r.words != "" {
		a.shut(r, p)
	}
}

// explained reports whether something within a refused block is known to be at fault, or its length is. If nothing is, the
// device refuses a register between the two halves.
func (s *split) explained(l *limit) bool {
	if l.over(s.count) && s.whole() {
		return true
	}
	for i := s.lo + 1; i < s.hi; i++ {
		if s.cuts[i].apart() {
			return true
		}
	}
	return slices.ContainsFunc(s.blocks, func(b *block) bool { return b.reason != "" && b.lo < s.hi && b.hi > s.lo })
}

// whole reports whether one request for both halves reads nothing that was never read across.
func (s *split) whole() bool { return s.span.touch(s.mid) || s.cuts[s.mid] == crossed }
