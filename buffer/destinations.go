package buffer

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// addDestinations gives each configured destination its slot. mu is held.
func (b *Buffer) addDestinations(quarantined map[string]int) error {
	for _, name := range b.o.Destinations {
		if d := b.byName(name); d != nil {
			d.known = true // before a new one looks for a place
		}
	}
	var fresh mask
	for _, name := range b.o.Destinations {
		d, err := b.place(name, b.o.Starts[name], quarantined)
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
func (b *Buffer) place(name string, at StartAt, quarantined map[string]int) (fresh mask, err error) {
	if d := b.byName(name); d != nil {
		d.known, d.warned = true, false
		return 0, nil
	}
	slot := slices.Index(b.slots[:], nil)
	if slot < 0 {
		gone := b.leastUsed(quarantined)
		if gone == nil {
			return 0, b.noPlace(name)
		}
		slot = gone.slot
		b.vacate(gone)
		b.log.Info("a destination that is no longer in use and keeps nothing gave its place in the store to a new one", "destination", gone.name, "new", name)
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

// leastUsed returns the destination used longest ago of those that are not in use and keep nothing, or nil. The order in
// which they came tells of those that left before this process. mu is held.
func (b *Buffer) leastUsed(quarantined map[string]int) (least *Destination) {
	for _, d := range b.slots {
		if d == nil || d.known || d.backlog > 0 || quarantined[d.name] > 0 || b.untoldTo(d.slot) > 0 {
			continue
		}
		if least == nil || cmp.Or(cmp.Compare(d.left, least.left), cmp.Compare(d.origin, least.origin)) < 0 {
			least = d
		}
	}
	return least
}

// noPlace says why there is no place for a destination. mu is held.
func (b *Buffer) noPlace(name string) error {
	var absent []string
	for _, d := range b.slots {
		if d != nil && !d.known {
			absent = append(absent, d.name)
		}
	}
	return noPlaceFor(name, absent)
}

// Places returns why a store that has these destinations would not be opened for those of these names, nil when it would.
func Places(names []string, have []DestinationStats) error {
	var fresh, kept []string
	for _, name := range names {
		if !slices.ContainsFunc(have, func(d DestinationStats) bool { return d.Name == name }) {
			fresh = append(fresh, name)
		}
	}
	for i := range have {
		if have[i].Keeps() && !slices.Contains(names, have[i].Name) {
			kept = append(kept, have[i].Name)
		}
	}
	if len(fresh) == 0 || len(names)+len(kept) <= MaxDestinations {
		return nil
	}
	return noPlaceFor(fresh[max(MaxDestinations-len(kept)-len(names)+len(fresh), 0)], kept)
}

// noPlaceFor is the error of a destination that finds every place of a store taken; absent are those not in use, which keep something.
func noPlaceFor(name string, absent []string) error {
	if len(absent) == 0 {
		return fmt.Errorf("add destination %q: all %d places of the store are taken by destinations in use; take one out first, and add this one after that", name, MaxDestinations)
	}
	return fmt.Errorf("add destination %q: all %d places of the store are taken; it keeps records for destinations that are not configured any more: %s; give one of these up: millrace buffer forget NAME",
		name, MaxDestinations, strings.Join(absent, ", "))
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
		e.acked, e.rejected, e.passed, e.refused = e.acked&^bit(d.slot), e.rejected&^bit(d.slot), e.passed&^bit(d.slot), e.refused&^bit(d.slot) // of whoever had the slot before
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
	fresh, err := b.place(name, at, b.quarantined())
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
	d.known, d.left = false, b.elapsed()
	d.land()
	d.signal()
	return nil
}

// Forgotten is what was given up with a destination.
type Forgotten struct {
	Records  uint64 `json:"records"` // that it had not acknowledged
	Readings uint64 `json:"readings"`
	From     int64  `json:"from_us"` // times of the first and the last of the records, µs since 1970, interpolated within their segments; 0 when there is none
	To       int64  `json:"to_us"`
	Untold   int    `json:"untold"` // losses that it was still to be told of
}

// String says in words what was given up.
func (f *Forgotten) String() string {
	if f.Records == 0 && f.Untold == 0 {
		return "nothing was waiting for it"
	}
	at := func(us int64) string { return time.UnixMicro(us).UTC().Format(time.RFC3339) }
	text := ""
	if f.Records > 0 {
		text = fmt.Sprintf("records that were waiting for it and are given up: %d, with %d readings, from about %s to %s", f.Records, f.Readings, at(f.From), at(f.To))
	}
	if f.Untold > 0 {
		text = strings.TrimPrefix(text+fmt.Sprintf("; losses that it was to be told of: %d", f.Untold), "; ")
	}
	return text
}

// givenUp adds up what Forget of a destination gives up. mu is held.
func (b *Buffer) givenUp(d *Destination) (f Forgotten) {
	for _, a := range b.accountSeq {
		n := &a.dests[d.slot]
		f.Readings += n.buffered + n.inflight
	}
	f.Records, f.Untold = d.backlog, b.untoldTo(d.slot)
	if f.Records > 0 {
		f.From, f.To = b.oldestAt(d), b.timeOf(d.acked.lastBefore(b.next))
	}
	return f
}

// Forget takes a destination that is not in use out of the store, with its cursor and its account, and returns what it gave up with it.
// Segments that only it held back are freed by Run.
func (b *Buffer) Forget(name string) (gone Forgotten, err error) {
	b.lockCommit()
	defer b.unlockCommit()
	b.mu.Lock()
	d := b.byName(name)
	switch {
	case b.closed:
		b.mu.Unlock()
		return gone, ErrClosed
	case d == nil:
		b.mu.Unlock()
		return gone, fmt.Errorf("forget %q: %w", name, ErrNoDestination)
	case d.known:
		b.mu.Unlock()
		return gone, fmt.Errorf("forget %q: it is in use; take it out of the config first", name)
	}
	gone = b.givenUp(d)
	b.vacate(d)
	b.mu.Unlock()
	b.log.Warn("a destination is forgotten: "+gone.String(), "destination", name, "records", gone.Records, "readings", gone.Readings)
	if err := b.commitOr(true); err != nil {
		return gone, fmt.Errorf("forget %q: %w; it is forgotten until the next start", name, err)
	}
	return gone, b.reclaim()
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
