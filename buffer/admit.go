package buffer

import (
	"math/bits"
	"time"
)

// Under drop-newest a store that is full refuses what comes. When it is full because a destination is behind, that is refused for this one
// alone: the others get it from memory, and what they do not acknowledge in time goes to disk in segments that hold nothing for who
// is behind, so they are unlinked when the others have it. A part of the store is kept for that.

// spare is the part: how much room there is to be after a commit for all. mu is held.
func (b *Buffer) spare() int64 {
	if b.o.WhenFull != DropNewest || bits.OnesCount16(uint16(b.present())) < 2 {
		return 0
	}
	return b.o.SegmentSize / 2
}

// fitsAll reports whether so many bytes of records, one of them for everyone, may be committed. Where a part is kept for the others a whole tail must leave
// it: what is taken for them alone until the commit stands in one segment with that record. mu is held.
func (b *Buffer) fitsAll(bytes int64) bool {
	spare := b.spare()
	if spare > 0 {
		bytes = max(bytes, b.o.TailBytes)
	}
	return b.fits(bytes, spare)
}

// admit says for whom a record that takes so much memory is refused under drop-newest; ErrFull when that is everyone. mu is held.
func (b *Buffer) admit(cost int64) (refused mask, err error) {
	bytes := b.dirty() + cost
	if b.o.WhenFull != DropNewest {
		return 0, nil
	}
	if b.st.commitErr != nil && bytes > b.o.TailBytes {
		if !b.frontYields() {
			return 0, ErrFull
		}
		bytes = b.o.TailBytes
	}
	if b.fitsAll(bytes) {
		b.beside = false
		return 0, nil
	}
	refused = b.behind()
	if b.beside = refused != 0 && refused != b.present() && b.fits(bytes, 0); !b.beside {
		return 0, ErrFull
	}
	return refused, nil
}

// frontYields reports whether the oldest record that is only in memory may give way to what comes while the disk takes nothing, under drop-newest too:
// a destination in use has taken it, and is not to miss the newer ones because others are away. mu is held.
func (b *Buffer) frontYields() bool {
	e := b.tail.at(max(b.tail.first, b.durable+1))
	return e != nil && b.present()&^(e.to&^e.acked|e.refused|e.passed) != 0
}

// behind returns the destinations in use that need something of the segments before the last two. mu is held.
func (b *Buffer) behind() (who mask) {
	if len(b.segs) < 3 {
		return 0
	}
	first := b.segs[len(b.segs)-2].first
	for slot, d := range b.slots {
		if d != nil && d.known && d.acked.next(0) < first {
			who |= bit(slot)
		}
	}
	return who
}

// apart reports whether what is committed now is to begin a segment: what others take while one is behind is not to stand with what it needs, and goes
// in small segments, so that what they have acknowledged soon makes room. mu is held.
func (b *Buffer) apart() bool {
	s := b.active
	return b.beside && s != nil && (s.size > b.o.SegmentSize/8 || b.neededByAny(s, b.behind()))
}

// neededByAny reports whether one of these destinations needs something of a segment. mu is held.
func (b *Buffer) neededByAny(s *segment, who mask) bool {
	for slot, d := range b.slots {
		if d != nil && who&bit(slot) != 0 && !d.acked.covers(s.first, s.last+1) {
			return true
		}
	}
	return false
}

// refuseFor counts a record that was just appended as dropped for those of these destinations that it is for: one may have gone while room was made. mu is held.
func (b *Buffer) refuseFor(who mask, seq uint64) {
	e := b.tail.at(seq)
	who &^= e.acked
	n := uint64(e.readings)
	for slot, d := range b.slots {
		if d != nil && who&bit(slot) != 0 {
			d.lose(seq, e.stream.account, n, CauseFull)
		}
	}
	e.acked, e.refused = e.acked|who, who
	b.missing(e.stream.account, who, &Gap{From: e.at, To: e.at, Count: n, Cause: CauseFull, FirstSeq: seq, LastSeq: seq})
	b.st.refused++
	b.st.full.refused(time.Now(), false, entryCost(e.payload))
}

// tellable returns the destinations that a gap record can be made for now. mu is held.
func (b *Buffer) tellable() mask {
	present, bytes := b.present(), b.dirty()
	if b.o.WhenFull != DropNewest || b.fitsAll(bytes) {
		return present
	}
	if behind := b.behind(); behind != 0 && b.fits(bytes, 0) {
		return present &^ behind
	}
	return 0
}

// refusingFor names those who alone do not get what comes: nobody, when a record that nobody got is a short while ago. mu is held.
func (b *Buffer) refusingFor() (names []string) {
	all := !b.st.full.forAll.IsZero() && time.Since(b.st.full.forAll) < refusalHolds
	if all || !b.beside || b.st.full.standing(time.Now()).IsZero() {
		return nil
	}
	behind := b.behind()
	for slot, d := range b.slots {
		if d != nil && behind&bit(slot) != 0 {
			names = append(names, d.name)
		}
	}
	return names
}
