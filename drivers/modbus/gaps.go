package modbus

import (
	"iter"
	"time"
)

// Registers that nobody asked for may be read across, and a device may refuse that: one gap, or all of them. A refused block is
// therefore cut at every gap first. When the pieces are answered, the device is strict: all gaps of the table of which nothing is known are
// cut, in the same poll, before they cost a reading. Then one gap at a time is tried beside the plan, and ever more rarely as long as
// they are refused; only what the device does by all evidence (evidence.go) is told of. Once an hour what is apart, for whatever reason, is tried as one.

// cut is what is known of one request for the atoms on both sides of a boundary.
type cut uint8

const (
	joined    cut = iota // nothing yet
	crossed              // it was answered
	suspected            // not tried alone, but others were refused
	parted               // it failed, but that may be damage, or something that nobody understands: it is not told of
	refused              // the device refuses it
)

// apart reports whether the atoms go into two requests.
func (c cut) apart() bool { return c >= suspected }

// gapState is how a unit takes requests across gaps.
type gapState struct {
	strict [holding + 1]bool // by table: gaps of which nothing is known are not read across
	wait   int               // polls from the last trial to the next
	tick   int               // polls of the device
	next   int               // the poll of the next trial
	at     time.Time
	apart  int // gaps that the device refuses, since one was answered
}

// sureGaps is how many gaps must be refused, and none as narrow answered, to tell how wide one may be.
const sureGaps = 2

// doubt is the gap whose trials fail.
type doubt struct {
	span  *span
	at    int
	tries int
	words string   // of the last refusal
	alike evidence // of refusals in these words
}

// due reports whether a gap should be tried in this poll: at once after one that was answered, else after 1, 2, 4, … polls or five minutes.
func (m *gapState) due(now time.Time) bool {
	m.tick++
	if m.tick < m.next && now.Sub(m.at) < maxRest {
		return false
	}
	m.at = now
	return true
}

// gaps yields the boundaries within the atoms lo to hi before which there are registers that nobody asked for.
func (s *span) gaps(lo, hi int) iter.Seq[int] {
	return func(yield func(int) bool) {
		end := s.atoms[lo].reg
		for i := lo; i < hi; i++ {
			if s.atoms[i].reg > end && !yield(i) {
				return
			}
			end = max(end, s.atoms[i].reg+s.atoms[i].count)
		}
	}
}

// unknown reports whether a block reads across a gap of which nothing is known.
func (b *block) unknown() bool {
	for i := range b.gaps(b.lo, b.hi) {
		if b.cuts[i] == joined {
			return true
		}
	}
	return false
}

// suspect cuts the atoms lo to hi at each gap of which nothing is known, and returns how many there were.
func (s *span) suspect(lo, hi int) (n int) {
	for i := range s.gaps(lo, hi) {
		if s.cuts[i] == joined {
			s.cuts[i] = suspected
			n++
		}
	}
	return n
}

// piecewise asks for what lies between the gaps of a refused block in its place, and reports whether it has such gaps.
func (p *poll) piecewise(b *block, r refusal) bool {
	if b.suspect(b.lo, b.hi) == 0 {
		return false
	}
	pieces := b.chunks(b.lo, b.hi)
	for _, piece := range pieces {
		piece.half, piece.piece = r, true
	}
	b.replace(b, pieces...)
	p.splits = append(p.splits, split{span: b.span, lo: b.lo, hi: b.hi, count: b.count, pieces: len(pieces)})
	p.insert(p.at+1, pieces...) // first of all: what comes of it holds for the other blocks
	return true
}

// pieceGood notes that a piece was answered. When all were, their gaps are what the device refused.
func (p *poll) pieceGood(b *block) {
	for i := range p.splits {
		s := &p.splits[i]
		if s.span != b.span || s.pieces == 0 || b.lo < s.lo || b.hi > s.hi {
			continue
		}
		if s.good++; s.good == s.pieces {
			p.unit.gaps.strict[b.table] = true
			p.doubts = true
		}
	}
}

// clear takes the blame from the gaps of a refused block of which not all pieces were answered: something else may be at fault.
func (s *split) clear() {
	for i := range s.gaps(s.lo, s.hi) {
		if s.cuts[i] == suspected {
			s.cuts[i] = joined
		}
	}
}

// cross notes that a request across gaps was answered.
func (p *poll) cross(b *block) {
	for i := range b.span.gaps(b.lo, b.hi) {
		if b.cuts[i] != crossed {
			b.cuts[i] = crossed
			p.unit.cuts++
		}
	}
	if b.across > 0 {
		b.cuts[b.across] = crossed
		p.unit.gaps.strict[b.table] = false
		p.unit.gaps.wait, p.unit.gaps.next, p.unit.gaps.apart = 0, 0, 0
	}
}

// acrossTrial returns a request across a gap that others were refused for, nil for none.
func (p *poll) acrossTrial() *block {
	if b := p.rejoin(); b != nil {
		return b
	}
	if !p.doubts || !p.unit.gaps.due(p.now) {
		return nil
	}
	p.doubts = false
	for _, s := range p.spans {
		for i, c := range s.cuts {
			if c != suspected {
				continue
			}
			p.doubts = true
			if s.area.reason != "" || s.badAt(i-1) || s.badAt(i) {
				continue
			}
			if b := s.block(i-1, i+1); b.count <= s.limit() {
				b.trial, b.across = true, i
				return b
			}
		}
	}
	return nil
}

// rejoin returns, once an hour, what lies on both sides of a cut as one request, of another cut each time; nil for none.
func (p *poll) rejoin() *block {
	if p.retried.IsZero() {
		p.retried = p.now
	}
	if p.now.Sub(p.retried) < trialEvery {
		return nil
	}
	p.retried = p.now
	var all []*block
	for _, s := range p.spans {
		for i, right := range s.blocks {
			if i == 0 || s.area.reason != "" || right.reason != "" || s.blocks[i-1].reason != "" || s.cuts[right.lo] < parted {
				continue
			}
			if b := s.block(s.blocks[i-1].lo, right.hi); b.count <= s.limit() {
				b.trial, b.across = true, right.lo
				all = append(all, b)
			}
		}
	}
	if len(all) == 0 {
		return nil
	}
	p.turn++
	return all[p.turn%len(all)]
}

// notAcross is called when the trial of a gap failed. Only what is refused alike each time, and nothing else beside it, is the device's doing.
func (p *poll) notAcross(b *block, r refusal) {
	c := &b.cuts[b.across]
	if *c != suspected {
		return // and stays apart for an hour more
	}
	d, m := &p.doubt, &p.unit.gaps
	if d.span != b.span || d.at != b.across {
		*d = doubt{span: b.span, at: b.across}
	}
	if r.damaged || r.words != d.words {
		d.alike = evidence{}
	}
	d.tries, d.words = d.tries+1, r.words
	switch believed := !r.damaged && d.alike.add(p.polls, p.unit.weather); {
	case believed:
		*c, *d = refused, doubt{}
		m.apart++
	case d.tries >= mostTrials:
		*c, *d = parted, doubt{}
	}
	m.wait = min(max(2*m.wait, 1), 1<<20)
	m.next = m.tick + m.wait
}

// learnedGap returns the widest gap that a unit lets read across, when it is narrower than all that are apart and the device refuses
// several. One refused gap alone may be about the registers in it.
func (d *driver) learnedGap(u *unit) (most int, ok bool) {
	widest, least := uint32(0), uint32(1<<16)
	for _, groups := range d.groups {
		for _, g := range groups {
			if g.unit != u {
				continue
			}
			for _, s := range g.spans {
				for i := range s.gaps(0, len(s.atoms)) {
					gap := s.gap(i)
					switch c := s.cuts[i]; {
					case c == suspected, c == refused:
						least = min(least, gap)
					case c == crossed:
						widest = max(widest, gap)
					}
				}
			}
		}
	}
	return int(widest), u.gaps.apart >= sureGaps && widest < least
}

// gap is how many registers before an atom nobody asked for; of bits the sixteenth part, as max_gap counts.
func (s *span) gap(atom int) uint32 {
	_, end := s.extent(0, atom)
	gap := s.atoms[atom].reg - min(end, s.atoms[atom].reg)
	if s.table.bits() {
		return (gap + 15) / 16
	}
	return gap
}
