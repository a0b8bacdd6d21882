package buffer

import (
	"cmp"
	"errors"
	"fmt"
	"os"
)

// pending is what destinations have not acknowledged, added up from the records themselves.
type pending struct {
	readings map[*account]*[MaxDestinations]uint64
	records  [MaxDestinations]uint64
	known    uint64 // records from here on are not in the ledger yet
	later    map[*account]*later
}

// later is what an account has in records that the ledger does not know of.
type later struct {
	all   uint64                  // readings for everyone
	needs [MaxDestinations]uint64 // of them, those that a destination needs
	own   [MaxDestinations]uint64 // readings for one destination alone: taken out of quarantine
}

func newPending(known uint64) *pending {
	return &pending{readings: map[*account]*[MaxDestinations]uint64{}, known: known, later: map[*account]*later{}}
}

func (p *pending) of(a *account) *[MaxDestinations]uint64 {
	n := p.readings[a]
	if n == nil {
		n = new([MaxDestinations]uint64)
		p.readings[a] = n
	}
	return n
}

func (p *pending) laterOf(a *account) *later {
	n := p.later[a]
	if n == nil {
		n = new(later)
		p.later[a] = n
	}
	return n
}

// merge adds what was counted in one segment.
func (p *pending) merge(o *pending) {
	for a, n := range o.readings {
		have := p.of(a)
		for slot := range n {
			have[slot] += n[slot]
		}
	}
	for slot := range o.records {
		p.records[slot] += o.records[slot]
	}
	for a, n := range o.later {
		have := p.laterOf(a)
		have.all += n.all
		for slot := range n.needs {
			have.needs[slot] += n.needs[slot]
			have.own[slot] += n.own[slot]
		}
	}
}

// reconcile makes the ledger agree with the records that there are, after damage or a crash in the middle
// of a drop. What the ledger has and no file does was lost, for this cause; what a file has from known on was accepted
// after the last checkpoint that could be read. It returns the readings lost. mu is held.
func (b *Buffer) reconcile(cause Cause, known uint64) (lost uint64) {
	p := b.countPending(known)
	for a, n := range p.later {
		b.acceptLater(a, n)
	}
	lies := b.lostWhere()
	for _, a := range b.accountSeq {
		lost += b.settleAccount(a, p.of(a), cause, lies)
	}
	for slot, d := range b.slots {
		if d != nil {
			d.backlog = p.records[slot]
		}
	}
	return lost
}

// acceptLater puts into the ledger what was accepted, and so polled, after the checkpoint. mu is held.
func (b *Buffer) acceptLater(a *account, n *later) {
	accept := func(readings uint64, needs func(slot int) uint64) {
		a.accepted += readings
		a.polled += readings
		for slot, d := range b.slots {
			if d != nil {
				a.dests[slot].buffered += needs(slot)
				a.dests[slot].before += readings - needs(slot)
			}
		}
	}
	accept(n.all, func(slot int) uint64 { return n.needs[slot] })
	for slot, own := range n.own {
		d := &a.dests[slot]
		back := min(own, d.dropped[CauseRejected])
		d.dropped[CauseRejected] -= back
		d.buffered += back
		if rest := own - back; rest > 0 {
			accept(rest, func(other int) uint64 {
				if other == slot {
					return rest
				}
				return 0
			})
		}
	}
	b.changed = true
}

func (b *Buffer) settleAccount(a *account, have *[MaxDestinations]uint64, cause Cause, lies where) (lost uint64) {
	var extra uint64
	for slot, d := range b.slots {
		if d != nil {
			n := &a.dests[slot]
			if want := n.buffered + n.inflight; have[slot] > want {
				extra = max(extra, have[slot]-want)
			}
		}
	}
	a.accepted += extra // a checkpoint of an older version, which does not say from where on it knows nothing
	a.polled += extra
	for slot, d := range b.slots {
		if d == nil {
			continue
		}
		n := &a.dests[slot]
		n.buffered += extra
		missing := n.buffered + n.inflight - have[slot]
		if missing == 0 {
			continue
		}
		n.buffered -= missing
		if extra > 0 {
			n.delivered += missing // the lost checkpoint knew of acknowledgements that this one does not
			continue
		}
		n.dropped[cause] += missing
		b.counted()
		lost += missing
		if lies.last == 0 {
			lies.first, lies.last = min(d.unsure, b.next-1), b.next-1
		}
		b.missing(a, bit(slot), &Gap{From: lies.from, To: cmp.Or(lies.to, b.o.Now().UnixMicro()), Count: missing, Cause: cause, FirstSeq: lies.first, LastSeq: lies.last})
	}
	b.changed = true
	return lost
}

// countPending adds up the records that destinations have not acknowledged: those in the tail from
// memory, all others from their segments. mu is held.
func (b *Buffer) countPending(known uint64) *pending {
	p := newPending(known)
	for seq := b.tail.first; seq < b.next; seq++ {
		e := b.tail.at(seq)
		if e == nil {
			break
		}
		for slot, d := range b.slots {
			if d != nil && (e.to&^e.acked)&bit(slot) != 0 {
				p.of(e.stream.account)[slot] += uint64(e.readings)
				p.records[slot]++
			}
		}
	}
	for _, s := range b.segs {
		if s.first < b.tail.first && !s.empty() && !b.covered(s) && !b.countWhole(s, p) {
			b.countRecords(s, p)
		}
	}
	return p
}

// countWhole adds a segment by its summary, when each destination has acknowledged all of it or nothing. mu is held.
func (b *Buffer) countWhole(s *segment, p *pending) bool {
	if !s.sealed || s.clipped || s.damaged || s.special > 0 || s.last >= b.tail.first || s.first < p.known && s.last >= p.known {
		return false
	}
	var needs mask
	for slot, d := range b.slots {
		if d == nil || d.acked.covers(s.first, s.last+1) {
			continue
		}
		if d.acked.touches(s.first, s.last+1) {
			return false
		}
		needs |= bit(slot)
	}
	var sum *summary
	err := b.view(s, nil, func(c cursor) error {
		v, err := valueAt(c, regionSummary, 0, 0)
		if err != nil {
			return err
		}
		sum, err = parseSummary(v)
		return err
	})
	if err != nil || sum.last != s.last || sum.records != s.last-s.first+1 { // numbers without a record: see countRecords
		return false
	}
	for name, n := range sum.totals {
		a, err := b.account(name)
		if err != nil {
			return false
		}
		after := s.first >= p.known
		if after {
			p.laterOf(a).all += n
		}
		for slot, d := range b.slots {
			if d == nil || needs&bit(slot) == 0 {
				continue
			}
			p.of(a)[slot] += n
			if after {
				p.laterOf(a).needs[slot] += n
			}
		}
	}
	for slot, d := range b.slots {
		if d != nil && needs&bit(slot) != 0 {
			p.records[slot] += sum.records
		}
	}
	return true
}

// countRecords adds a segment record by record, and marks what is not for a destination, and numbers that no record has, as
// needless to it. mu is held.
func (b *Buffer) countRecords(s *segment, p *pending) {
	count := func() error {
		dict, err := b.dictHeld(s)
		if err != nil {
			return err
		}
		part := newPending(p.known)
		expected := s.first
		err = b.eachHead(s, dict, func(h *head, st *Stream, _ *Gap) {
			if h.seq >= b.tail.first {
				return
			}
			b.pass(expected, h.seq)
			expected = h.seq + 1
			b.countRecord(part, h, st.account)
		})
		if end := min(s.last+1, b.tail.first); err == nil && !s.clipped && !s.damaged && expected < end && b.needed(expected, end) {
			err = absent(expected, end)
		}
		if err != nil {
			return err
		}
		p.merge(part)
		return nil
	}
	err := count()
	if err != nil && b.salvageSegment(s, err) == nil {
		b.found(foundDamage{first: s.first, Damage: s.damage()})
		err = count()
	}
	if err != nil {
		b.log.Error("segment not counted", "file", s.path, "error", err)
	}
}

// countRecord adds one record. mu is held.
func (b *Buffer) countRecord(p *pending, h *head, a *account) {
	n, forAll := uint64(h.readings), h.flags&headAddressed == 0
	if forAll && h.seq >= p.known {
		p.laterOf(a).all += n
	}
	for slot, d := range b.slots {
		switch {
		case d == nil || d.acked.has(h.seq):
		case !d.wants(h):
			d.acked.add(h.seq, h.seq+1)
		default:
			p.of(a)[slot] += n
			p.records[slot]++
			if h.seq < p.known {
				continue
			}
			if forAll {
				p.laterOf(a).needs[slot] += n
			} else {
				p.laterOf(a).own[slot] += n
			}
		}
	}
}

// pass marks numbers as needed by nobody: no record has them. mu is held.
func (b *Buffer) pass(from, to uint64) {
	if from >= to {
		return
	}
	b.retell(from, to, b.acknowledged())
	for _, d := range b.slots {
		if d != nil {
			d.acked.add(from, to)
		}
	}
}

// salvageSegment switches a segment that failed to be read to what can be salvaged of it, and marks what
// cannot as needed by nobody; a file of which nothing can be is set aside. s.cause says why. The caller reconciles. An error means that the system is
// short of something, and that nothing was changed. mu is held.
func (b *Buffer) salvageSegment(s *segment, cause error) error {
	sv, err := salvageFile(s.path, info{b.store, s.first, s.epoch.n}, nil, b.decoder)
	if shortage(err) {
		return err
	}
	if n := s.countable(); n > 0 {
		s.was = had{s.last, n}
	}
	s.cause, s.damaged = cause, true
	if err == nil && len(sv.blocks) > 0 {
		b.log.Error("segment damaged; reading what is sound", "file", s.path, "error", cause)
		s.readFrom(sv)
		if err = b.giveUpHoles(s); err == nil || shortage(err) {
			return err
		}
	}
	b.giveUpFile(s, err)
	s.readFrom(&salvage{})
	return b.giveUpHoles(s)
}

// readFrom has a segment read from what was salvaged of it.
func (s *segment) readFrom(sv *salvage) {
	s.rw.Lock()
	defer s.rw.Unlock()
	s.salvaged, s.dict = sv, nil
}

// giveUpFile sets the file of a segment aside of which nothing can be read, err says why if not for damage; what memory still has of it is written
// again where that is possible. mu is held.
func (b *Buffer) giveUpFile(s *segment, err error) {
	switch {
	case errors.Is(err, os.ErrNotExist):
		s.missed = true
	case err != nil:
		s.cause = err
	}
	if b.readOnly {
		return
	}
	if b.active == nil && s.first < b.tail.first && s.last >= b.durable {
		b.rewind(s)
	}
	if s.missed {
		return
	}
	b.log.Error("segment damaged, and nothing in it can be read; it is set aside", "file", s.path, "error", s.cause)
	s.missed, s.aside = true, b.renameAside(s.path, s.path)
	b.aside += s.size
	b.setSize(s, 0)
}

// giveUpHoles marks the records that a damaged segment does not have as needed by nobody. mu is held.
func (b *Buffer) giveUpHoles(s *segment) error {
	dict, err := b.dictHeld(s)
	if err != nil {
		return err
	}
	var sound spans
	next, before := s.first, int64(0)
	if err := b.eachHead(s, dict, func(h *head, _ *Stream, gap *Gap) {
		sound.add(h.seq, h.seq+1)
		after := int64(0)
		if inTime(h, gap) {
			after = h.at
		}
		b.noteHole(s, next, min(h.seq, b.tail.first), before, after)
		if next = h.seq + 1; after != 0 {
			before = after
		}
	}); err != nil {
		return err
	}
	b.noteHole(s, next, min(s.last+1, b.tail.first), before, 0)
	from := s.first
	for _, r := range append(sound.s, span{s.last + 1, s.last + 1}) {
		b.giveUp(from, min(r.from, b.tail.first))
		from = r.to
	}
	return nil
}

// giveUp marks records as needed by nobody. mu is held.
func (b *Buffer) giveUp(from, to uint64) {
	if from >= to {
		return
	}
	b.retell(from, to, b.acknowledged())
	for _, d := range b.slots {
		if d == nil {
			continue
		}
		for seq, f := range d.flight {
			if seq >= from && seq < to {
				d.account(f).inflight -= uint64(f.readings)
				d.account(f).buffered += uint64(f.readings)
				delete(d.flight, seq)
			}
		}
		d.acked.add(from, to)
	}
}

// mend deals with a segment that could not be read, though this was salvaged of it. It reports whether reading on makes sense.
func (b *Buffer) mend(s *segment, of *salvage, cause error) bool {
	if !errors.Is(cause, errDamaged) && !errors.Is(cause, ErrNotFound) && !errors.Is(cause, ErrNewer) && !mayPass(cause) {
		return false // the system is short of something; the file is not to blame
	}
	b.lockCommit()
	defer b.unlockCommit()
	if errors.Is(cause, os.ErrNotExist) { // the whole directory may be gone, for a while
		_ = b.checkNames() // Stats has the error
	}
	if b.taken() != nil {
		return false // the file of that name may be another store's
	}
	if s.salvage() != of {
		return true // another reader was here before
	}
	if s == b.active {
		if !errors.Is(cause, errDamaged) {
			cause = fmt.Errorf("%w: %w", cause, errDamaged)
		}
		b.abandon(cause)
		return true
	}
	if (mayPass(cause) || unreadable(s.path)) && b.wait(s, cause) {
		return false
	}
	return b.salvageNow(s, cause)
}

// salvageNow switches a segment that is not being written to what is sound of it, and tells of the rest. It reports
// whether there is something to go on with. commitMu is held.
func (b *Buffer) salvageNow(s *segment, cause error) bool {
	b.closeHandle(s)
	b.mu.Lock()
	if s.gone {
		b.mu.Unlock()
		return true
	}
	if s.damaged && !s.partly && b.toldOf == nil { // nothing new is no news
		b.toldOf = map[uint64]bool{s.first: true}
	}
	if err := b.salvageSegment(s, cause); err != nil {
		b.mu.Unlock()
		b.log.Error("segment not salvaged", "file", s.path, "error", err)
		return false
	}
	b.found(foundDamage{first: s.first, Damage: s.damage()})
	b.tellFound(b.reconcile(CauseDamaged, b.next))
	b.tellGaps()
	told := b.takeCheckpoint(nil)
	b.mu.Unlock()
	_ = b.noteCheckpoint(told) // or it is told once more after a crash; Stats has the error
	return true
}
