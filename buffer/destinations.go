package buffer

import (
	"errors"
	"fmt"
	"slices"
)

// addDestinations gives each configured destination its slot. mu is held.
func (b *Buffer) addDestinations() error {
	var fresh mask
	for _, name := range b.o.Destinations {
		d, err := b.place(name, b.o.Starts[name])
		if err != nil {
			return err
		}
		fresh |= d
	}
	if b.all == 0 {
		return errors.New("no destinations: none configured and none in the store; give at least one")
	}
	b.countFresh(fresh)
	if len(b.o.Destinations) == 0 {
		for _, d := range b.slots {
			if d != nil {
				d.known = true
			}
		}
	}
	return nil
}

// place gives a destination that the store does not have a slot, and returns that. mu is held.
func (b *Buffer) place(name string, at StartAt) (fresh mask, err error) {
	if d := b.byName(name); d != nil {
		d.known, d.warned = true, false
		return 0, nil
	}
	slot := slices.Index(b.slots[:], nil)
	if slot < 0 {
		return 0, fmt.Errorf("add destination %q: %d destinations hold the store, the most it can have; forget one that is no longer configured", name, MaxDestinations)
	}
	start := b.next
	if at == StartOldest || b.blind {
		if b.tail.n > 0 {
			start = b.tail.first
		}
		if len(b.segs) > 0 {
			start = min(start, b.segs[0].first)
		}
	}
	d := newDestination(b, name, slot, start)
	d.known = true
	b.passTail(d)
	b.slots[slot] = d
	b.all |= bit(slot)
	for _, a := range b.accountSeq {
		a.dests[slot] = destAccount{before: a.accepted}
	}
	return bit(slot), nil
}

// passTail marks what of the tail a new destination does not get: what is before its start, addressed to others, or was
// acknowledged by all before it came, and so may be on no disk. mu is held.
func (b *Buffer) passTail(d *Destination) {
	for seq := b.tail.first; seq < b.next; seq++ {
		e := b.tail.at(seq)
		if e == nil {
			return
		}
		passed := seq < d.start || e.to&bit(d.slot) == 0 || seq <= b.durable && b.settled(e)
		e.acked, e.rejected, e.passed = e.acked&^bit(d.slot), e.rejected&^bit(d.slot), e.passed&^bit(d.slot) // of whoever had the slot before
		if passed {
			e.acked |= bit(d.slot)
			d.acked.add(seq, seq+1)
		}
	}
}

// countFresh gives new destinations what is there for them. mu is held.
func (b *Buffer) countFresh(fresh mask) {
	if fresh == 0 {
		return
	}
	b.fillHoles()
	for _, s := range b.segs {
		if s.damaged {
			if err := b.giveUpHoles(s); err != nil {
				b.log.Error("damaged segment not read", "file", s.path, "error", err)
			}
		}
	}
	p := b.countPending(b.next)
	for slot, d := range b.slots {
		if d == nil || fresh&bit(slot) == 0 {
			continue
		}
		for _, a := range b.accountSeq {
			if n := p.readings[a]; n != nil {
				a.dests[slot].buffered = n[slot]
				a.dests[slot].before = a.accepted - n[slot]
			}
		}
		d.backlog = p.records[slot]
	}
}

// AddDestination adds a destination while the buffer is in use. One that the store has had before goes on with what is kept
// for it and then with the next record, a new one begins at its start; it is on disk when AddDestination returns. Errors: ErrClosed, too many destinations, or
// why it cannot be written down: then it is not added.
func (b *Buffer) AddDestination(name string, at StartAt) (*Destination, error) {
	if name == "" || len(name) > 255 {
		return nil, fmt.Errorf("destination name %q is empty or too long", name)
	}
	b.lockCommit()
	defer b.unlockCommit()
	b.mu.Lock()
	if b.closed {
		b.mu.Unlock()
		return nil, ErrClosed
	}
	fresh, err := b.place(name, at)
	if err != nil {
		b.mu.Unlock()
		return nil, err
	}
	d := b.byName(name)
	if fresh == 0 {
		d.signal()
		b.mu.Unlock()
		return d, nil
	}
	b.countFresh(fresh)
	if len(b.met) > 0 { // damage, met while counting
		b.tellFound(b.reconcile(CauseDamaged, b.next))
	}
	b.slotsChanged()
	b.mu.Unlock()
	if err := b.commitOr(true); err != nil {
		b.mu.Lock()
		b.vacate(d)
		b.mu.Unlock()
		return nil, fmt.Errorf("add destination %q: %w", name, err)
	}
	return d, nil
}

// slotsChanged makes the next checkpoint a complete one: differences count with the same destinations. mu is held.
func (b *Buffer) slotsChanged() {
	if b.active != nil {
		b.active.base = nil
	}
	b.changed = true
	b.advance()
}

// RemoveDestination takes a destination out of use. What it has not acknowledged stays until it is added again or
// forgotten, and is the first to be given up for want of room; records appended from now on are not for it. Its readers end.
// Errors: ErrClosed, ErrNoDestination.
func (b *Buffer) RemoveDestination(name string) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	d := b.byName(name)
	switch {
	case b.closed:
		return ErrClosed
	case d == nil || !d.known:
		return fmt.Errorf("remove destination %q: %w", name, ErrNoDestination)
	}
	d.known = false
	d.land()
	d.signal()
	return nil
}

// Forget takes a destination that is not in use out of the store, with its cursor and its account. Segments that only it
// held back are freed by Run.
func (b *Buffer) Forget(name string) error {
	b.lockCommit()
	defer b.unlockCommit()
	b.mu.Lock()
	d := b.byName(name)
	switch {
	case b.closed:
		b.mu.Unlock()
		return ErrClosed
	case d == nil:
		b.mu.Unlock()
		return fmt.Errorf("forget %q: %w", name, ErrNoDestination)
	case d.known:
		b.mu.Unlock()
		return fmt.Errorf("forget %q: it is in use; take it out of the config first", name)
	}
	b.vacate(d)
	b.mu.Unlock()
	if err := b.commitOr(true); err != nil {
		return fmt.Errorf("forget %q: %w; it is forgotten until the next start", name, err)
	}
	return b.reclaim()
}

// vacate frees a destination's slot. mu is held.
func (b *Buffer) vacate(d *Destination) {
	d.known = false
	b.slots[d.slot] = nil
	b.all &^= bit(d.slot)
	b.untell(d.slot)
	for _, a := range b.accountSeq {
		a.dests[d.slot] = destAccount{}
	}
	b.slotsChanged()
}
