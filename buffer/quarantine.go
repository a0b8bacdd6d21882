package buffer

import (
	"encoding/binary"
	"fmt"

	bolt "go.etcd.io/bbolt"
)

const maxQuarantine = 1 << 10 // entries

// Reject puts a record in flight into quarantine: it is kept aside durably for people to look at (the
// quarantine is bounded; its oldest entry makes way), counted as dropped{rejected} for this destination,
// and leaves a gap record for it. When the quarantine cannot be written the record stays in flight.
func (d *Destination) Reject(seq uint64, reason string) error {
	b := d.b
	b.lockCommit()
	defer b.unlockCommit()
	if b.isClosed() {
		return ErrClosed
	}
	rec, err := b.lookup(d, seq)
	if err != nil {
		return fmt.Errorf("reject record %d: %w", seq, err)
	}
	if err := b.quarantine(d, rec, reason); err != nil {
		return fmt.Errorf("reject record %d: %w; it stays in flight", seq, err)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	f, ok := d.flight[seq]
	if !ok {
		return nil
	}
	d.lose(seq, f.stream.account, uint64(f.readings), CauseRejected)
	if e := b.tail.at(seq); e != nil {
		e.acked |= bit(d.slot)
		b.advance()
	}
	b.missing(f.stream.account, bit(d.slot), &Gap{From: rec.At, To: rec.At, Count: uint64(f.readings), Cause: CauseRejected, FirstSeq: seq, LastSeq: seq})
	b.tellGaps()
	return nil
}

// lookup finds a record in flight.
func (b *Buffer) lookup(d *Destination, seq uint64) (*Record, error) {
	b.mu.Lock()
	f, ok := d.flight[seq]
	var rec Record
	e := b.tail.at(seq)
	if ok && e != nil {
		rec = Record{Seq: seq, Stream: e.stream, Payload: e.payload, At: e.at, Readings: int(e.readings), Historical: e.late&bit(d.slot) != 0, Gap: e.gap}
	}
	s := b.segmentAt(seq)
	b.mu.Unlock()
	if !ok {
		return nil, fmt.Errorf("not in flight: %w", ErrNotFound)
	}
	if e != nil {
		return &rec, nil
	}
	if s == nil {
		return nil, ErrNotFound
	}
	return b.fetch(s, seq, f.stream, bit(d.slot))
}

// fetch reads one record of a segment.
func (b *Buffer) fetch(s *segment, seq uint64, st *Stream, who mask) (*Record, error) {
	var r blockReader
	info, err := b.blockAt(s, seq, &r)
	if err != nil {
		return nil, err
	}
	payloads, err := info.payloads(r.stored, b.decoder, nil)
	if err != nil {
		return nil, err
	}
	var h head
	offset := 0
	for it := info.heads(); it.next(&h); offset += h.size {
		if h.seq == seq && offset+h.size <= len(payloads) {
			return &Record{Seq: seq, Stream: st, Payload: payloads[offset : offset+h.size], At: h.at, Readings: int(h.readings), Historical: h.late&who != 0}, nil
		}
	}
	return nil, ErrNotFound
}

func (b *Buffer) quarantine(d *Destination, rec *Record, reason string) error {
	key := append(binary.BigEndian.AppendUint64(nil, rec.Seq), d.name...)
	v := append(make([]byte, 8), 1)
	v = binary.AppendVarint(v, b.o.Now().UnixMicro())
	v = binary.AppendVarint(v, rec.At)
	v = binary.AppendUvarint(v, uint64(rec.Readings))
	v = appendBytes(v, rec.Stream.account.name)
	v = appendBytes(v, rec.Stream.dict)
	v = appendBytes(v, reason[:min(len(reason), 1<<10)])
	v = sealValue(appendBytes(v, rec.Payload))
	return b.saveState(func(tx *bolt.Tx) error { return tx.Bucket(quarantineBucket).Put(key, v) })
}
