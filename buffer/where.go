package buffer

import (
	"cmp"
	"time"
)

// where is between which records, and in which time, something was lost: as narrow as the records beside it say.
type where struct {
	first, last uint64 // numbers, inclusive; 0 and 0 when nothing is known
	from, to    int64  // µs since 1970; from is 0 when the beginning is not known, both when nothing is
}

func (w *where) add(o where) {
	if w.last == 0 {
		*w = o
		return
	}
	w.first, w.last = min(w.first, o.first), max(w.last, o.last)
	w.from, w.to = min(w.from, o.from), max(w.to, o.to)
}

// lostWhere returns where that lies what is missing now, by the damages met; nothing when one of them does not say. mu is held.
func (b *Buffer) lostWhere() (w where) {
	for i := range b.met {
		d := &b.met[i]
		s := b.segmentOf(d.first)
		switch {
		case b.unsure || d.unsure || d.first == 0 || d.LastSeq == 0:
			return where{}
		case s == nil:
			w.add(where{first: d.FirstSeq, last: d.LastSeq, from: cmp.Or(d.MinAt, b.lastBefore(d.FirstSeq)), to: b.firstAfter(d.LastSeq)})
		default:
			if s.holes.last != 0 {
				w.add(s.holes)
			}
			if s.end < d.LastSeq { // it lacks its end
				w.add(where{first: max(s.end+1, d.FirstSeq), last: d.LastSeq, from: b.lastBefore(d.LastSeq), to: b.firstAfter(d.LastSeq)})
			}
		}
	}
	for _, s := range b.segs {
		s.holes = where{} // it is told
	}
	return w
}

// noteHole adds to what a segment is missing: the numbers from from up to to, between two records of these times, 0 = there is none. mu is held.
func (b *Buffer) noteHole(s *segment, from, to uint64, before, after int64) {
	if from >= to || !b.needed(from, to) {
		return
	}
	if before == 0 {
		before = cmp.Or(b.lastBefore(from), s.minAt)
	}
	if after == 0 {
		after = b.firstAfter(to - 1)
	}
	s.holes.add(where{first: from, last: to - 1, from: min(before, after), to: max(before, after)})
}

// needed reports whether a destination needs one of these numbers. mu is held.
func (b *Buffer) needed(from, to uint64) bool {
	for _, d := range b.slots {
		if d != nil && !d.acked.covers(from, to) {
			return true
		}
	}
	return false
}

// lastBefore returns the time of the last record on disk in the segments that end before a number, 0 when there is none. mu is held.
func (b *Buffer) lastBefore(seq uint64) (at int64) {
	for _, s := range b.segs {
		switch {
		case s.records == 0 || s.first >= seq:
		case s.last < seq:
			at = s.maxAt
		}
	}
	return at
}

// firstAfter returns the time of the first record behind a number, as far as segments and memory tell, now when there is none yet. mu is held.
func (b *Buffer) firstAfter(seq uint64) int64 {
	for _, s := range b.segs {
		if s.first > seq && s.records > 0 {
			return b.firstIn(s)
		}
	}
	for at := max(b.tail.first, seq+1); at < b.next; at++ {
		if e := b.tail.at(at); e != nil && e.gap == nil {
			return e.at
		}
	}
	return time.Now().UnixMicro()
}

// firstIn returns the time of the first record of a segment that was taken from a device then, and not a gap record or out of quarantine; when none
// can be read, that of its last. mu is held.
func (b *Buffer) firstIn(s *segment) (at int64) {
	dict, err := b.dictHeld(s)
	if err == nil {
		err = b.eachHead(s, dict, func(h *head, _ *Stream, gap *Gap) {
			if at == 0 && inTime(h, gap) {
				at = h.at
			}
		})
	}
	if err != nil || at == 0 {
		at = s.maxAt
	}
	return at
}

// inTime reports whether a record's time tells of those beside it: it is no gap record, and does not come out of quarantine.
func inTime(h *head, gap *Gap) bool { return gap == nil && h.flags&headAddressed == 0 }
