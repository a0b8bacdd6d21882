package buffer

import (
	"fmt"
	"math"
	"sort"

	bolt "go.etcd.io/bbolt"
)

// Record is one record as a destination gets it.
type Record struct {
	Seq        uint64
	Stream     *Stream
	Payload    []byte // must not be changed; valid until the next call of Next on this reader
	At         int64  // µs since 1970
	Readings   int
	Historical bool // for this destination: it waited on disk while the link was down. The same at each sending
	Gap        *Gap // not nil: a gap record, with an empty payload
}

// Reader hands out the records that a destination has not acknowledged, in order. It is not safe for
// concurrent use; several readers of one destination are.
type Reader struct {
	d       *Destination
	pos, to uint64
	closed  bool

	blk      blockInfo // the block in memory, first > last when there is none
	heads    headReader
	pending  head // the next of the block, when ready
	ready    bool
	dict     []*Stream
	stored   []byte
	index    []byte
	payloads []byte
	offset   int
}

// Reader returns a reader of the unacknowledged records with from <= seq < to; to 0 = no end.
func (d *Destination) Reader(from, to uint64) *Reader {
	if to == 0 {
		to = math.MaxUint64
	}
	r := &Reader{d: d, pos: from, to: to}
	r.blk.first = 1
	return r
}

// Close ends the reader. Its records in flight stay so.
func (r *Reader) Close() { r.closed = true }

// Next fills in the next record and counts it as in flight. It does not wait: false means that there is
// nothing now, that the reader's end is reached, or that MaxInFlight records are in flight. An error means
// that the disk could not be read; the next call tries again.
func (r *Reader) Next(rec *Record) (bool, error) {
	b := r.d.b
	for {
		b.mu.Lock()
		if b.closed || r.closed {
			b.mu.Unlock()
			return false, ErrClosed
		}
		limit := b.next
		if b.o.CommitInterval == 0 {
			limit = b.durable + 1
		}
		r.pos = r.d.acked.next(r.pos)
		if r.pos >= min(r.to, limit) || len(r.d.flight) >= MaxInFlight {
			b.mu.Unlock()
			return false, nil
		}
		if e := b.tail.at(r.pos); e != nil {
			r.fromTail(e, rec)
			b.mu.Unlock()
			return true, nil
		}
		if r.inBlock() {
			if r.fromBlock(rec) {
				b.mu.Unlock()
				return true, nil
			}
			b.mu.Unlock()
			continue
		}
		s := b.segmentAt(r.pos)
		if s == nil || s.first > r.pos {
			r.pos = b.tail.first
			if s != nil {
				r.pos = s.first
			}
			b.mu.Unlock()
			continue
		}
		b.mu.Unlock()
		if err := r.load(s); err != nil {
			return false, fmt.Errorf("read record %d of %q: %w", r.pos, s.path, err)
		}
	}
}

// fromTail hands out an entry of the tail. mu is held.
func (r *Reader) fromTail(e *entry, rec *Record) {
	e.sent |= bit(r.d.slot)
	*rec = Record{Seq: r.pos, Stream: e.stream, Payload: e.payload, At: e.at, Readings: int(e.readings),
		Historical: e.late&bit(r.d.slot) != 0, Gap: e.gap}
	if e.gap != nil {
		rec.Payload = nil
	}
	r.d.take(r.pos, e.stream, e.readings)
	r.pos++
}

// take counts a record as in flight. mu is held.
func (d *Destination) take(seq uint64, s *Stream, readings uint32) {
	if _, again := d.flight[seq]; again {
		return
	}
	d.flight[seq] = flight{s, readings}
	a := &s.account.dests[d.slot]
	a.buffered -= uint64(readings)
	a.inflight += uint64(readings)
}

func (r *Reader) inBlock() bool { return r.blk.first <= r.pos && r.pos <= r.blk.last }

// fromBlock hands out the first record of the block in memory at or after pos that is still needed. When
// there is none it moves pos past the block and returns false. mu is held.
func (r *Reader) fromBlock(rec *Record) bool {
	for {
		if !r.ready {
			if r.ready = r.heads.next(&r.pending); !r.ready {
				r.pos = r.blk.last + 1
				return false
			}
		}
		h := &r.pending
		if h.seq > r.pos {
			r.pos = r.d.acked.next(h.seq)
		}
		if h.seq < r.pos {
			r.offset += h.size
			r.ready = false
			continue
		}
		if h.seq >= r.to {
			return false
		}
		r.ready = false
		return r.fill(h, rec)
	}
}

func (r *Reader) fill(h *head, rec *Record) bool {
	from := r.offset
	r.offset += h.size
	r.pos = h.seq + 1
	if int(h.stream) >= len(r.dict) || r.offset > len(r.payloads) {
		return false
	}
	late := h.late&bit(r.d.slot) != 0 || h.seq < r.d.origin
	*rec = Record{Seq: h.seq, Stream: r.dict[h.stream], Payload: r.payloads[from:r.offset:r.offset], At: h.at, Readings: int(h.readings), Historical: late}
	if h.flags&headGap != 0 {
		gap, err := parseGap(rec.Payload)
		if err != nil {
			return false
		}
		rec.Gap, rec.Payload = gap, nil
	}
	r.d.take(h.seq, rec.Stream, h.readings)
	return true
}

// segmentAt returns the segment that holds seq, or the first one above it, or nil. mu is held.
func (b *Buffer) segmentAt(seq uint64) *segment {
	i := sort.Search(len(b.segs), func(i int) bool { return b.segs[i].last >= seq && !b.segs[i].empty() })
	if i == len(b.segs) {
		return nil
	}
	return b.segs[i]
}

// load brings the block that holds pos, or the first one after it, into memory.
func (r *Reader) load(s *segment) error {
	b := r.d.b
	r.blk.first, r.blk.last, r.ready = 1, 0, false
	err := b.view(s, func(bkt *bolt.Bucket) error {
		c := bkt.Cursor()
		k, v := seekBlock(c, r.pos)
		for {
			if k == nil || k[0] != regionRecords {
				return nil
			}
			_, seq, typ, _ := keyOf(k)
			if typ != typeBlock {
				k, v = c.Next()
				continue
			}
			stored, nextKey, nextValue, err := getChunks(c, k, v, r.stored, maxBlock)
			if err != nil {
				return err
			}
			r.stored = stored
			s.read.Add(int64(len(stored)))
			info, err := parseBlock(stored, b.decoder, r.index)
			if err != nil {
				return err
			}
			r.index = info.index
			if info.first != seq {
				return fmt.Errorf("block %d stands at %d: %w", info.first, seq, errDamaged)
			}
			if info.last < r.pos {
				k, v = nextKey, nextValue
				continue
			}
			return r.unpack(&info)
		}
	})
	if err != nil {
		return err
	}
	if r.blk.first > r.blk.last {
		r.pos = s.last + 1
		return nil
	}
	r.pos = max(r.pos, r.blk.first)
	r.dict, err = b.dictOf(s)
	return err
}

func (r *Reader) unpack(info *blockInfo) (err error) {
	if r.payloads, err = info.payloads(r.stored, r.d.b.decoder, r.payloads); err != nil {
		return err
	}
	r.blk, r.heads, r.offset = *info, info.heads(), 0
	return nil
}

// seekBlock moves the cursor to the first piece of the last block that begins at or before seq, or to the first one after it.
func seekBlock(c *bolt.Cursor, seq uint64) (k, v []byte) {
	k, v = c.Seek(makeKey(regionRecords, seq, typeBlock, 0))
	if region, at, typ, _ := keyOf(k); region == regionRecords && at == seq && typ == typeBlock {
		return k, v
	}
	for k, _ = prevOrLast(c, k); k != nil && k[0] == regionRecords; k, _ = c.Prev() {
		if _, at, typ, chunk := keyOf(k); typ == typeBlock && chunk == 0 {
			return c.Seek(makeKey(regionRecords, at, typeBlock, 0))
		}
	}
	return c.Seek(makeKey(regionRecords, seq, typeBlock, 0))
}

func prevOrLast(c *bolt.Cursor, k []byte) (key, value []byte) {
	if k == nil {
		return c.Last()
	}
	return c.Prev()
}

// dictOf returns the segment's dictionary, reading it when it is not in memory.
func (b *Buffer) dictOf(s *segment) ([]*Stream, error) {
	return b.readDict(s, func(f func()) {
		b.mu.Lock()
		defer b.mu.Unlock()
		f()
	})
}

// readDict is dictOf, with a function that calls another with mu held.
func (b *Buffer) readDict(s *segment, withLock func(func())) ([]*Stream, error) {
	s.rw.RLock()
	dict, active := s.dict, s.ids != nil
	s.rw.RUnlock()
	if dict != nil || active {
		return dict, nil
	}
	var found [][2]string
	err := b.view(s, func(bkt *bolt.Bucket) error {
		c := bkt.Cursor()
		var raw []byte
		var err error
		k, v := c.Seek(makeKey(regionDict, 0, 0, 0))
		for k != nil && k[0] == regionDict {
			if raw, k, v, err = getChunks(c, k, v, raw, maxDict+maxAccountName+64); err != nil {
				return err
			}
			name, entry, err := parseDict(raw)
			if err != nil {
				return err
			}
			found = append(found, [2]string{name, entry})
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	withLock(func() {
		for _, f := range found {
			var st *Stream
			if st, err = b.stream(f[0], f[1]); err != nil {
				return
			}
			dict = append(dict, st)
		}
	})
	if err != nil {
		return nil, err
	}
	s.rw.Lock()
	s.dict = dict
	s.rw.Unlock()
	return dict, nil
}
