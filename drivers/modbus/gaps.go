package modbus

import (
	"cmp"
	"iter"
	"slices"
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
	stride int // more gaps that one trial reads across: as many again after each that was answered
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
		p.unit.gaps.stride = min(2*p.unit.gaps.stride+1, 1<<10)
	}
}

// acrossTrial returns a request across a gap that others were refused for, nil for none.
func (p *poll) acrossTrial() *block {
	if b := cmp.Or(p.rejoin(), p.mended()); b != nil {
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
			if b := s.block(i-1, s.onward(i, p.unit.gaps.stride)); b.count <= s.limit() {
				b.trial, b.across = true, i
				return b
			}
		}
	}
	return nil
}

// onward returns the atom up to which a trial across one gap reads across so many more, as far as one request reaches and all is good.
func (s *span) onward(gap, more int) int {
	first := s.atoms[gap-1].reg
	for hi := gap + 1; ; hi++ {
		if hi == len(s.atoms) || s.cuts[hi] > suspected || s.badAt(hi) || s.atoms[hi].reg+s.atoms[hi].count-first > s.limit() {
			return hi
		}
		if s.cuts[hi] == suspected {
			if more == 0 {
				return hi
			}
			more--
		}
	}
}

// seam is a cut between what is good, made by chance for all that is known: it is tried again soon, and ever more rarely as long as that fails.
type seam struct {
	span       *span
	at         int
	wait, next int // polls
}

// The bounds of trying a seam, in polls. Beyond the last it is left to the trial each hour.
const (
	firstSeam = 2
	lastSeam  = 1 << 10
)

// part cuts before an atom for want of a better explanation.
func (p *poll) part(s *span, at int) {
	s.cuts[at] = parted
	if !slices.ContainsFunc(p.seams, func(m seam) bool { return m.span == s && m.at == at }) {
		p.seams = append(p.seams, seam{s, at, firstSeam, p.polls + firstSeam})
	}
}

// mended returns what lies on both sides of the next seam that is due as one request, nil for none.
func (p *poll) mended() *block {
	p.seams = slices.DeleteFunc(p.seams, func(m seam) bool { return m.span.cuts[m.at] != parted || m.wait > lastSeam })
	for _, m := range p.seams {
		if b := p.seamless(m.span, m.at); b != nil && p.polls >= m.next {
			return b
		}
	}
	return nil
}

// seamless returns what lies on both sides of a cut as one request, where all that is good and one request holds it; else nil.
func (p *poll) seamless(s *span, at int) *block {
	i := slices.IndexFunc(s.blocks, func(b *block) bool { return b.lo == at })
	if i < 1 || s.area.reason != "" || s.blocks[i].reason != "" || s.blocks[i-1].reason != "" {
		return nil
	}
	b := s.block(s.blocks[i-1].lo, s.blocks[i].hi)
	if b.count > s.limit() {
		return nil
	}
	b.trial, b.across = true, at
	return b
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
		for _, right := range s.blocks {
			if s.cuts[right.lo] < parted {
				continue
			}
			if b := p.seamless(s, right.lo); b != nil {
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
	d, m := &p.doubt, &p.unit.gaps
	if *c != suspected { // and stays apart for longer
		for i := range p.seams {
			if s := &p.seams[i]; s.span == b.span && s.at == b.across {
				s.wait *= 2
				s.next = p.polls + s.wait
			}
		}
		return
	}
	if m.stride > 0 { // one of several gaps: no more is known of this one
		m.stride = 0
		return
	}
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
		*d = doubt{}
		p.part(b.span, b.across)
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
