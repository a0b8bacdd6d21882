package buffer

import (
	"context"
	"errors"
	"fmt"
	"math"
	"path/filepath"
	"sort"
)

// What follows looks into the store from the side: it depends on no cursor, counts nothing as in flight,
// marks nothing and sets nothing aside, so that looking never changes what a destination gets. It holds no
// lock while it reads a file.

// SegmentInfo describes one segment file.
type SegmentInfo struct {
	File     string `json:"file"` // in the store's directory
	Bytes    int64  `json:"bytes"`
	FirstSeq uint64 `json:"first_seq"` // LastSeq below FirstSeq: nothing yet
	LastSeq  uint64 `json:"last_seq"`
	Records  uint64 `json:"records"`
	MinAt    int64  `json:"min_at_us"` // record times, µs since 1970
	MaxAt    int64  `json:"max_at_us"`
	Sealed   bool   `json:"sealed"`  // written to the end
	Damaged  bool   `json:"damaged"` // read from what could be salvaged
	Needed   bool   `json:"needed"`  // some destination has not acknowledged all of it
}

// Segments returns the segments in order of sequence number.
func (b *Buffer) Segments() []SegmentInfo {
	b.mu.Lock()
	defer b.mu.Unlock()
	out := make([]SegmentInfo, 0, len(b.segs))
	for _, s := range b.segs {
		out = append(out, SegmentInfo{File: filepath.Base(s.path), Bytes: s.size, FirstSeq: s.first, LastSeq: s.last, Records: s.records,
			MinAt: s.minAt, MaxAt: s.maxAt, Sealed: s.sealed, Damaged: s.damaged && !s.partly, Needed: !b.covered(s)})
	}
	return out
}

// Scan calls f for every record with from <= seq < to (0 = no end) that is on disk or in memory when its turn
// comes, in order, whoever has acknowledged it. The record is valid until f returns, and its stream is only
// to be read. Scan ends with f's error or the context's. A damaged segment does not end it, nor one that does not give what it is known
// to hold: its sound records are given, and the error at the end names it.
func (b *Buffer) Scan(ctx context.Context, from, to uint64, f func(*Record) error) error {
	if to == 0 {
		to = math.MaxUint64
	}
	w := walk{b: b, to: to, pos: max(from, 1), f: f}
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		b.mu.Lock()
		if b.closed {
			b.mu.Unlock()
			return ErrClosed
		}
		s, done := w.next()
		b.mu.Unlock()
		var err error
		switch {
		case done:
			return w.damage
		case s != nil:
			err = w.block(s)
		default:
			err = w.giveTail()
		}
		if err != nil {
			return err
		}
	}
}

// walk is the state of one call of Scan.
type walk struct {
	b      *Buffer
	f      func(*Record) error
	pos    uint64
	to     uint64
	last   uint64 // of the segment when it was chosen
	holds  uint64 // records that it had then, 0 when that is not known
	limit  uint64 // where the tail began then
	tail   []entry
	damage error

	of       *segment // whose dictionary dict is
	seen     uint64   // records of it that were met
	whole    bool     // from its first on
	expect   uint64   // the number after the last of them
	read     *segment // what is read in its place: itself, or what was salvaged of it
	dict     []*Stream
	blocks   blockReader
	payloads []byte
}

const tailStep = 256 // records taken from the tail at once

// next says which segment has the record at pos, or copies records of the tail from there. mu is held.
func (w *walk) next() (s *segment, done bool) {
	b := w.b
	w.tail = w.tail[:0]
	for w.pos < min(b.next, w.to) {
		if w.pos >= b.tail.first {
			for seq := w.pos; seq < min(b.next, w.to) && len(w.tail) < tailStep; seq++ {
				w.tail = append(w.tail, *b.tail.at(seq))
			}
			return nil, false
		}
		w.limit = min(b.tail.first, w.to)
		s := b.holding(w.pos)
		if s == nil || s.first >= w.limit {
			w.pos = w.limit
			continue
		}
		w.pos = max(w.pos, s.first)
		w.last, w.holds = s.last, s.countable()
		return s, false
	}
	return nil, true
}

// holding returns the first segment that has a record at or above seq, or nil. One whose first commit is under way is
// in the list and empty, with a last below its first; it is passed over, not searched by. mu is held.
func (b *Buffer) holding(seq uint64) *segment {
	for i := sort.Search(len(b.segs), func(i int) bool { return b.segs[i].last >= seq }); i < len(b.segs); i++ {
		if !b.segs[i].empty() {
			return b.segs[i]
		}
	}
	return nil
}

func (w *walk) giveTail() error {
	for i := range w.tail {
		e := &w.tail[i]
		out := Record{Epoch: w.b.epoch.name, Seq: w.pos, Stream: e.stream, Payload: e.payload, At: e.at, Readings: int(e.readings), Gap: e.gap}
		if e.gap != nil {
			out.Payload = nil
		}
		w.pos++
		if err := w.f(&out); err != nil {
			return err
		}
	}
	return nil
}

// block gives the records of the block that has pos, or the next one of the segment.
func (w *walk) block(s *segment) error {
	info, err := w.load(s)
	switch {
	case errors.Is(err, ErrNotFound) && w.read.salvage() != nil:
		w.pos = w.last + 1
		return nil
	case err != nil && w.read == s: // once more from what is sound
		w.salvage(s, err)
		return nil
	case err != nil:
		w.pos = w.last + 1
		return nil
	}
	var h head
	end, offset := min(w.limit, w.last+1), 0
	if w.read == s && w.b.lacks(w.pos, min(info.first, end)) {
		w.salvage(s, absent(w.pos, min(info.first, end)))
		return nil
	}
	w.count(s, &info)
	for r := info.heads(); r.next(&h) && h.seq < end; offset += h.size {
		if h.seq < w.pos {
			continue
		}
		if int(h.stream) >= len(w.dict) || w.dict[h.stream] == nil || offset+h.size > len(w.payloads) {
			continue // a dictionary entry is lost: see salvage
		}
		rec := Record{Epoch: s.epoch.name, Seq: h.seq, Stream: w.dict[h.stream], Payload: w.payloads[offset : offset+h.size], At: h.at, Readings: int(h.readings)}
		if h.flags&headGap != 0 {
			if rec.Gap, err = parseGap(rec.Payload); err != nil {
				continue
			}
			rec.Payload = nil
		}
		if err := w.f(&rec); err != nil {
			return err
		}
	}
	w.pos = min(info.last+1, end)
	return nil
}

// count notes as damage that a segment which was read from its first record on gave fewer than it holds.
func (w *walk) count(s *segment, info *blockInfo) {
	w.seen += uint64(info.count)
	w.whole = w.whole && w.read == s && w.pos == w.expect // else memory gave some
	w.expect = info.last + 1
	if w.whole && info.last >= w.last && w.seen < w.holds {
		w.whole = false // it is told
		w.damage = errors.Join(w.damage, fmt.Errorf("read segment %q (records %d to %d): %d of its %d records were not found: %w", filepath.Base(s.path), s.first, w.last, w.holds-w.seen, w.holds, errDamaged))
	}
}

// load reads the block and, for a segment that is new to the walk, its dictionary.
func (w *walk) load(s *segment) (info blockInfo, err error) {
	if w.of != s {
		w.of, w.read, w.dict = s, s, nil
		w.seen, w.whole, w.expect = 0, w.pos == s.first, s.first
	}
	if info, err = w.b.blockAt(w.read, w.pos, &w.blocks); err != nil {
		return info, err
	}
	if w.payloads, err = info.payloads(w.blocks.stored, w.b.decoder, w.payloads); err != nil {
		return info, err
	}
	var h head
	for r := info.heads(); r.next(&h); {
		if int(h.stream) >= len(w.dict) { // the segment being written has got more
			return info, w.loadDict()
		}
	}
	return info, nil
}

// loadDict reads the dictionary into streams of its own, so that looking does not add to the store's.
func (w *walk) loadDict() error {
	values, err := w.b.dictValues(w.read)
	if err != nil {
		return err
	}
	w.dict = make([]*Stream, len(values))
	for i, v := range values {
		if v.account != "" {
			w.dict[i] = &Stream{b: w.b, account: &account{name: v.account}, dict: v.dict}
		}
	}
	return nil
}

// salvage goes on with what is sound of a segment that failed to be read, unless it was dropped meanwhile.
func (w *walk) salvage(s *segment, cause error) {
	w.b.mu.Lock()
	gone := s.gone
	w.b.mu.Unlock()
	if gone {
		w.pos = w.last + 1
		return
	}
	name := fmt.Sprintf("read segment %q (records %d to %d): %%w%%s; its sound records were read", filepath.Base(s.path), s.first, w.last)
	sv, err := salvageFile(s.path, info{w.b.store, s.first, s.epoch.n}, nil, w.b.decoder)
	if err != nil {
		w.damage = errors.Join(w.damage, fmt.Errorf(name, cause, ""))
		w.pos = w.last + 1
		return
	}
	w.read = &segment{path: s.path, epoch: s.epoch, first: s.first, last: w.last, salvaged: sv}
	w.dict = nil
	w.damage = errors.Join(w.damage, fmt.Errorf(name, cause, w.b.countLeft(w.read, w.holds).words()))
}

// Waits returns the names of the destinations that have not acknowledged a record.
func (b *Buffer) Waits(seq uint64) []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	var names []string
	for _, d := range b.slots {
		if d != nil && seq < b.next && !d.acked.has(seq) {
			names = append(names, d.name)
		}
	}
	return names
}
