package buffer

import (
	"errors"
	"fmt"
	"math"
	"sort"
)

// Record is one record as a destination gets it.
type Record struct {
	Epoch    string // with Seq its identity, for ever: see Buffer.Epoch
	Seq      uint64
	Stream   *Stream
	Payload  []byte // must not be changed; valid until the next call of Next on this reader
	At       int64  // µs since 1970
	Readings int
	Gap      *Gap // not nil: a gap record, with an empty payload
	Retried  bool // put back from the quarantine: newer ones of its stream may have gone before
}

// Reader looks at the records that a destination has not acknowledged, in order, and changes nothing: Take says that one
// is sent. It is not safe for concurrent use; several readers of one destination are.
type Reader struct {
	d       *Destination
	pos, to uint64
	closed  bool

	epoch    string
	blk      blockInfo // the block in memory, first > last when there is none
	heads    headReader
	pending  head // the next of the block, when ready
	ready    bool
	dict     []*Stream
	blocks   blockReader
	payloads []byte
	offset   int
}

// Reader returns a reader of the unacknowledged records with from <= seq < to; to 0 = no end.
func (d *Destination) Reader(from, to uint64) *Reader {
	if to == 0 {
		to = math.MaxUint64
	}
	r := &Reader{d: d, pos: from, to: to}
	r.blk.first = 1 // none
	return r
}

// Close ends the reader.
func (r *Reader) Close() { r.closed = true }

// Done reports whether the reader's end is reached. When Next has found nothing and Done is false, there may be more before the end once it
// is on disk (CommitInterval 0), or once it is appended.
func (r *Reader) Done() bool { return r.pos >= r.to }

// Next fills in the next record. It does not wait: false means that there is nothing now, or that the reader's end is
// reached, which Done tells apart. Errors: ErrClosed, ErrUnreadable, ErrNoDestination when the destination was removed, or why the disk could not be read; the
// next call tries again then.
func (r *Reader) Next(rec *Record) (bool, error) {
	b := r.d.b
	for at, tries := r.pos, 0; ; tries++ {
		b.mu.Lock()
		if b.closed || r.closed {
			b.mu.Unlock()
			return false, ErrClosed
		}
		if !r.d.known {
			b.mu.Unlock()
			return false, fmt.Errorf("read records of %q: %w", r.d.name, ErrNoDestination)
		}
		found, s := r.step(rec)
		b.mu.Unlock()
		if found || s == nil {
			return found, nil
		}
		if at != r.pos { // that one was acknowledged meanwhile
			at, tries = r.pos, 0
		}
		if tries == maxLoads {
			return false, fmt.Errorf("read record %d of %q: its block was read %d times, without it: %w", r.pos, s.path, tries, errDamaged)
		}
		of := s.salvage()
		if err := r.load(s); err != nil && (tries == maxLoads-1 || r.needs(s) && !b.mend(s, of, err)) {
			return false, fmt.Errorf("read record %d of %q: %w", r.pos, s.path, b.later(s, err))
		}
	}
}

// maxLoads is how often the block of one record is read at most, each time out of another file or what was salvaged of it.
const maxLoads = 4

// needs reports whether the reader still wants what it failed to read: the segment may have been dropped.
func (r *Reader) needs(s *segment) bool {
	r.d.b.mu.Lock()
	defer r.d.b.mu.Unlock()
	return !s.gone && !r.d.acked.has(r.pos)
}

// step finds the next record, or says which segment has it, or neither when there is nothing. mu is held.
func (r *Reader) step(rec *Record) (found bool, load *segment) {
	b := r.d.b
	limit := min(r.to, b.next)
	if b.o.CommitInterval == 0 {
		limit = min(r.to, b.durable+1)
	}
	for {
		r.pos = r.d.acked.next(r.pos)
		if r.pos >= limit {
			return false, nil
		}
		if e := b.tail.at(r.pos); e != nil {
			r.fromTail(e, rec)
			return true, nil
		}
		if r.blk.first <= r.pos && r.pos <= r.blk.last && r.fromBlock(rec) {
			return true, nil
		}
		s := b.segmentAt(r.pos)
		if s != nil && s.first <= r.pos {
			return false, s
		}
		r.pos = b.tail.first // no file has it, so nobody waits for it: see fillHoles
		if s != nil {
			r.pos = s.first
		}
	}
}

// fromTail fills in an entry of the tail. mu is held.
func (r *Reader) fromTail(e *entry, rec *Record) {
	*rec = Record{Epoch: r.d.b.epoch.name, Seq: r.pos, Stream: e.stream, Payload: e.payload, At: e.at, Readings: int(e.readings), Gap: e.gap, Retried: e.to != everyone && e.gap == nil}
	if e.gap != nil {
		rec.Payload = nil
	}
	r.pos++
}

// fromBlock fills in the record at pos of the block in memory. False means that it is not in there:
// the block is then of no more use. mu is held.
func (r *Reader) fromBlock(rec *Record) bool {
	for {
		if !r.ready {
			if r.ready = r.heads.next(&r.pending); !r.ready {
				break
			}
		}
		h := &r.pending
		if h.seq >= r.pos {
			break
		}
		r.offset += h.size
		r.ready = false
	}
	if !r.ready || r.pending.seq != r.pos || !r.fill(&r.pending, rec) {
		r.blk, r.ready = blockInfo{first: 1}, false
		return false
	}
	r.ready = false
	return true
}

func (r *Reader) fill(h *head, rec *Record) bool {
	end := r.offset + h.size
	if int(h.stream) >= len(r.dict) || r.dict[h.stream] == nil || end > len(r.payloads) {
		return false
	}
	*rec = Record{Epoch: r.epoch, Seq: h.seq, Stream: r.dict[h.stream], Payload: r.payloads[r.offset:end:end], At: h.at, Readings: int(h.readings), Retried: h.flags&(headAddressed|headGap) == headAddressed}
	if h.flags&headGap != 0 {
		gap, err := parseGap(rec.Payload)
		if err != nil {
			return false
		}
		rec.Gap, rec.Payload = gap, nil
	}
	r.offset = end
	r.pos = h.seq + 1
	return true
}

// segmentAt returns the segment that holds seq, or the first one above it, or nil. mu is held.
func (b *Buffer) segmentAt(seq uint64) *segment {
	i := sort.Search(len(b.segs), func(i int) bool { return b.segs[i].last >= seq })
	if i == len(b.segs) {
		return nil
	}
	return b.segs[i]
}

// load brings the block that holds pos into memory. That it must be there is certain: what no file has
// is marked as needed by nobody, so a record that cannot be found is damage.
func (r *Reader) load(s *segment) error {
	b := r.d.b
	r.blk, r.ready = blockInfo{first: 1}, false
	info, err := b.blockAt(s, r.pos, &r.blocks)
	if errors.Is(err, ErrNotFound) || (err == nil && info.first > r.pos) {
		return fmt.Errorf("no block has it: %w", errDamaged)
	}
	if err != nil {
		return err
	}
	if r.payloads, err = info.payloads(r.blocks.stored, b.decoder, r.payloads); err != nil {
		return err
	}
	if r.dict, err = b.dictOf(s); err != nil {
		return err
	}
	r.epoch, r.blk, r.heads, r.offset = s.epoch.name, info, info.heads(), 0
	for r.heads.next(&r.pending) {
		if r.pending.seq < r.pos {
			r.offset += r.pending.size
			continue
		}
		if h := &r.pending; h.seq > r.pos || int(h.stream) >= len(r.dict) || r.dict[h.stream] == nil || r.offset+h.size > len(r.payloads) {
			break
		}
		if r.pending.flags&headGap != 0 {
			if _, err := parseGap(r.payloads[r.offset : r.offset+r.pending.size]); err != nil {
				return err
			}
		}
		r.ready = true
		return nil
	}
	r.blk = blockInfo{first: 1}
	return fmt.Errorf("its block does not have it: %w", errDamaged)
}
