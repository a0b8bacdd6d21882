package buffer

import (
	"encoding/binary"
	"fmt"

	bolt "go.etcd.io/bbolt"
)

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
func (b *Buffer) fetch(s *segment, seq uint64, st *Stream, who mask) (rec *Record, err error) {
	err = b.view(s, func(bkt *bolt.Bucket) error {
		c := bkt.Cursor()
		k, v := seekBlock(c, seq)
		if region, _, typ, _ := keyOf(k); region != regionRecords || typ != typeBlock {
			return ErrNotFound
		}
		stored, _, _, err := getChunks(c, k, v, nil, maxBlock)
		if err != nil {
			return err
		}
		info, err := parseBlock(stored, b.decoder, nil)
		if err != nil {
			return err
		}
		payloads, err := info.payloads(stored, b.decoder, nil)
		if err != nil {
			return err
		}
		var h head
		offset := 0
		for r := info.heads(); r.next(&h); offset += h.size {
			if h.seq == seq && offset+h.size <= len(payloads) {
				rec = &Record{Seq: seq, Stream: st, Payload: payloads[offset : offset+h.size], At: h.at, Readings: int(h.readings), Historical: h.late&who != 0}
				return nil
			}
		}
		return ErrNotFound
	})
	return rec, err
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
	return b.state.update(func(tx *bolt.Tx) error { return tx.Bucket(quarantineBucket).Put(key, v) })
}

// startOldest counts what is on disk into the ledger of a new destination. Open calls it.
func (b *Buffer) startOldest(d *Destination) {
	p := b.pendingOnDisk()
	for _, a := range b.accountSeq {
		if n := p.readings[a]; n != nil {
			a.dests[d.slot].buffered = n[d.slot]
			a.dests[d.slot].before = a.accepted - n[d.slot]
		}
	}
	d.backlog = p.records[d.slot]
}
