package buffer

import (
	"slices"
	"sort"
	"time"
)

// span is the sequence numbers from <= seq < to.
type span struct{ from, to uint64 }

// spans is a set of sequence numbers as sorted spans that neither touch nor overlap.
type spans struct {
	s    []span
	hint int // where the last addition went
}

// find returns the index of the first span whose end is above seq.
func (a *spans) find(seq uint64) int {
	if h := a.hint; h < len(a.s) && a.s[h].to > seq && (h == 0 || a.s[h-1].to <= seq) {
		return h
	}
	return sort.Search(len(a.s), func(i int) bool { return a.s[i].to > seq })
}

// has reports whether seq is in the set.
func (a *spans) has(seq uint64) bool {
	i := a.find(seq)
	return i < len(a.s) && a.s[i].from <= seq
}

// next returns the first number >= seq that is not in the set.
func (a *spans) next(seq uint64) uint64 {
	if i := a.find(seq); i < len(a.s) && a.s[i].from <= seq {
		return a.s[i].to
	}
	return seq
}

// lastBefore returns the last number < seq that is not in the set; 0 when there is none.
func (a *spans) lastBefore(seq uint64) uint64 {
	for i := len(a.s) - 1; i >= 0 && seq > 0; i-- {
		if r := a.s[i]; r.from < seq && r.to >= seq {
			seq = r.from
		}
	}
	return max(seq, 1) - 1
}

// covers reports whether every number from <= seq < to is in the set.
func (a *spans) covers(from, to uint64) bool { return from >= to || a.next(from) >= to }

// touches reports whether any number from <= seq < to is in the set.
func (a *spans) touches(from, to uint64) bool {
	i := a.find(from)
	return i < len(a.s) && a.s[i].from < to
}

// add puts from <= seq < to into the set.
func (a *spans) add(from, to uint64) {
	if from >= to {
		return
	}
	if h := a.hint; h < len(a.s) && a.s[h].to == from && (h+1 == len(a.s) || a.s[h+1].from > to) {
		a.s[h].to = to
		return
	}
	i := sort.Search(len(a.s), func(i int) bool { return a.s[i].to >= from })
	j := i
	for j < len(a.s) && a.s[j].from <= to {
		from, to = min(from, a.s[j].from), max(to, a.s[j].to)
		j++
	}
	a.s = slices.Replace(a.s, i, j, span{from, to})
	a.hint = i
}

// flight is a record that was handed out and is not yet acknowledged.
type flight struct {
	stream   *Stream
	readings uint32
}

// Destination is one reader of the buffer with its own cursor.
type Destination struct {
	b      *Buffer
	name   string
	slot   int
	start  uint64        // it gets records from here on
	unsure uint64        // at Open, the first record that the checkpoint did not know it to have
	origin uint64        // the next record's number when the destination was made
	known  bool          // somebody reads for it: it was given to Open, or added; else it gets no new records
	left   time.Duration // running time of the store when it was taken out of use; 0 = before this process
	warned bool          // since it is not in use the log has told that its records are given up
	notice chan struct{}

	acked   spans // what it needs no more: acknowledged, dropped, never there, addressed to others
	flight  map[uint64]flight
	backlog uint64 // records it has not acknowledged, those in flight included
	skipped uint64 // acknowledgements ignored because nothing was in flight under that number
}

func newDestination(b *Buffer, name string, slot int, start uint64) *Destination {
	d := &Destination{b: b, name: name, slot: slot, start: start, origin: b.next, notice: make(chan struct{}, 1), flight: map[uint64]flight{}}
	d.acked.add(0, start)
	return d
}

// wants reports whether a record on disk is for this destination. One that names those it is for cannot mean a
// destination that was not there yet, but another one that had its slot before it.
func (d *Destination) wants(h *head) bool {
	return h.to&bit(d.slot) != 0 && (h.flags&headAddressed == 0 || h.seq >= d.origin)
}

// Destination returns the destination of that name, or nil when nobody has given or added it.
func (b *Buffer) Destination(name string) *Destination {
	b.mu.Lock()
	defer b.mu.Unlock()
	if d := b.byName(name); d != nil && d.known {
		return d
	}
	return nil
}

// present returns the destinations that are in use. mu is held.
func (b *Buffer) present() (m mask) {
	for slot, d := range b.slots {
		if d != nil && d.known {
			m |= bit(slot)
		}
	}
	return m
}

func (b *Buffer) byName(name string) *Destination {
	for _, d := range b.slots {
		if d != nil && d.name == name {
			return d
		}
	}
	return nil
}

// Name returns the destination's name.
func (d *Destination) Name() string { return d.name }

// Notify returns a channel of capacity 1 that is signalled whenever records became readable.
func (d *Destination) Notify() <-chan struct{} { return d.notice }

func (d *Destination) signal() {
	select {
	case d.notice <- struct{}{}:
	default:
	}
}

// Take counts a record that was read as in flight: it is about to be sent. It reports false when the destination does not
// need it any more (acknowledged, dropped), or when MaxInFlight records are in flight. Taking one twice does no harm.
func (d *Destination) Take(rec *Record) bool {
	d.b.mu.Lock()
	defer d.b.mu.Unlock()
	if _, again := d.flight[rec.Seq]; again {
		return true
	}
	if !d.known || len(d.flight) >= MaxInFlight || d.acked.has(rec.Seq) {
		return false
	}
	f := flight{rec.Stream, uint32(rec.Readings)}
	d.flight[rec.Seq] = f
	d.account(f).buffered -= uint64(f.readings)
	d.account(f).inflight += uint64(f.readings)
	return true
}

// Release says that a record in flight was not sent after all, or will get no answer: it is buffered again.
func (d *Destination) Release(seq uint64) {
	d.b.mu.Lock()
	defer d.b.mu.Unlock()
	if f, ok := d.flight[seq]; ok {
		delete(d.flight, seq)
		d.account(f).inflight -= uint64(f.readings)
		d.account(f).buffered += uint64(f.readings)
	}
}

// Len returns how many records the destination has not acknowledged, those in flight included.
func (d *Destination) Len() uint64 {
	d.b.mu.Lock()
	defer d.b.mu.Unlock()
	return d.backlog
}

// Needs reports whether the destination has not acknowledged a record, and it was not given up either.
func (d *Destination) Needs(seq uint64) bool {
	d.b.mu.Lock()
	defer d.b.mu.Unlock()
	return d.known && seq < d.b.next && !d.acked.has(seq)
}

// Oldest returns the number of the first record that the destination has not acknowledged, or the next one's when there is none, and whether a reader
// has it now: all is well with the disk, and what is to be there first is.
func (d *Destination) Oldest() (seq uint64, there bool) {
	b := d.b
	b.mu.Lock()
	defer b.mu.Unlock()
	seq = min(d.acked.next(0), b.next)
	return seq, seq < b.next && (b.o.CommitInterval > 0 || seq <= b.durable) && b.health() == healthOK
}

// Reset says that the connection is gone: nothing is in flight any more.
func (d *Destination) Reset() {
	d.b.mu.Lock()
	defer d.b.mu.Unlock()
	d.land()
	d.signal()
}

// land buffers again what is in flight. mu is held.
func (d *Destination) land() {
	for _, f := range d.flight {
		d.account(f).inflight -= uint64(f.readings)
		d.account(f).buffered += uint64(f.readings)
	}
	clear(d.flight)
}

func (d *Destination) account(f flight) *destAccount { return &f.stream.account.dests[d.slot] }

// Ack says that the destination has the record. Order is free and saying it twice does no harm. Only a
// record in flight can be acknowledged: one that comes after Reset is ignored, and the record is sent again.
func (d *Destination) Ack(seq uint64) {
	b := d.b
	b.mu.Lock()
	defer b.mu.Unlock()
	f, ok := d.flight[seq]
	if !ok {
		d.skipped++
		return
	}
	a := d.account(f)
	a.inflight -= uint64(f.readings)
	a.delivered += uint64(f.readings)
	d.settle(seq)
}

// settle takes a record that was in flight off the destination's backlog. mu is held.
func (d *Destination) settle(seq uint64) {
	b := d.b
	delete(d.flight, seq)
	d.acked.add(seq, seq+1)
	d.backlog--
	b.changed = true
	if e := b.tail.at(seq); e != nil {
		e.acked |= bit(d.slot)
		if seq == b.durable+1 || seq == b.tail.first {
			b.advance()
		}
	} else {
		b.st.ackedOnDisk++
	}
}
