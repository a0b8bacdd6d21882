package buffer

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"strconv"
	"strings"
	"time"

	bolt "go.etcd.io/bbolt"
)

// Quarantined is a record that a destination refused and that is kept aside for people to look at.
type Quarantined struct {
	ID          string    `json:"id"` // of the entry: the record's sequence number, a colon, the destination
	Destination string    `json:"destination"`
	Epoch       string    `json:"epoch"` // with Seq its identity; "" when an earlier build put it aside
	Seq         uint64    `json:"seq"`
	Account     string    `json:"account"`
	Dict        []byte    `json:"dict"`
	Payload     []byte    `json:"payload"`
	Truncated   bool      `json:"truncated"` // the payload was too large to be kept
	At          int64     `json:"at_us"`
	Readings    int       `json:"readings"`
	Gap         *Gap      `json:"gap,omitempty"` // not nil: it was a gap record
	Reason      string    `json:"reason"`
	RejectedAt  time.Time `json:"rejected_at"` // by the wall clock
}

const (
	maxQuarantine     = 1 << 10 // entries; its oldest make way
	quarantineVersion = 2       // 1 has no epoch
)

// quarantineBytes is what all entries may take together; one may take a quarter of it.
func (o *Options) quarantineBytes() int { return int(o.stateLimit() / 4) }

// Reject puts a record in flight into quarantine: it is kept aside durably (the quarantine is bounded; its
// oldest entries make way), counted as dropped{rejected} for this destination, and leaves a gap record for
// it; a refused gap record leaves none. Errors: ErrNotFound when it is not in flight; when the quarantine
// cannot be written the record stays in flight.
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
		return nil // its segment was dropped in the meantime, and it counts as that
	}
	d.lose(seq, f.stream.account, uint64(f.readings), CauseRejected)
	if e := b.tail.at(seq); e != nil {
		e.acked |= bit(d.slot)
		e.rejected |= bit(d.slot)
	}
	b.changed = true
	b.advance()
	b.missing(f.stream.account, bit(d.slot), &Gap{From: rec.At, To: rec.At, Count: uint64(f.readings), Cause: CauseRejected, FirstSeq: seq, LastSeq: seq})
	b.tellGaps()
	return nil
}

// lookup finds a record in flight.
func (b *Buffer) lookup(d *Destination, seq uint64) (*Record, error) {
	b.mu.Lock()
	f, ok := d.flight[seq]
	e := b.tail.at(seq)
	var rec Record
	if ok && e != nil {
		rec = Record{Epoch: b.epoch.name, Seq: seq, Stream: e.stream, Payload: e.payload, At: e.at, Readings: int(e.readings), Gap: e.gap}
	}
	s := b.segmentAt(seq)
	b.mu.Unlock()
	switch {
	case !ok:
		return nil, fmt.Errorf("not in flight: %w", ErrNotFound)
	case e != nil:
		return &rec, nil
	case s == nil:
		return nil, ErrNotFound
	}
	return b.fetch(s, seq, f.stream, d)
}

// fetch reads one record of a segment for a destination.
func (b *Buffer) fetch(s *segment, seq uint64, st *Stream, d *Destination) (*Record, error) {
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
		if h.seq != seq || offset+h.size > len(payloads) {
			continue
		}
		rec := &Record{Epoch: s.epoch.name, Seq: seq, Stream: st, Payload: payloads[offset : offset+h.size], At: h.at, Readings: int(h.readings)}
		if h.flags&headGap != 0 {
			rec.Gap, err = parseGap(rec.Payload)
			rec.Payload = nil
		}
		return rec, err
	}
	return nil, ErrNotFound
}

func quarantineKey(seq uint64, destination string) []byte {
	return append(binary.BigEndian.AppendUint64(nil, seq), destination...)
}

// quarantine writes an entry, and takes the oldest out while there are too many. commitMu is held.
func (b *Buffer) quarantine(d *Destination, rec *Record, reason string) error {
	q := Quarantined{Epoch: rec.Epoch, Account: rec.Stream.account.name, Dict: rec.Stream.Dict(), Payload: rec.Payload, At: rec.At, Readings: rec.Readings,
		Gap: rec.Gap, Reason: reason[:min(len(reason), 1<<10)], RejectedAt: b.o.Now()}
	limit := b.o.quarantineBytes()
	if len(q.Payload)+len(q.Dict) > limit/4 {
		q.Payload, q.Dict, q.Truncated = nil, nil, true
	}
	value := appendQuarantined(nil, &q)
	return b.saveState(func(tx *bolt.Tx) error {
		bkt := tx.Bucket(quarantineBucket)
		count, size := 1, len(value)
		if err := bkt.ForEach(func(_, v []byte) error { count, size = count+1, size+len(v); return nil }); err != nil {
			return err
		}
		c := bkt.Cursor()
		for k, v := c.First(); k != nil && (count > maxQuarantine || size > limit); k, v = c.First() {
			count, size = count-1, size-len(v)
			if err := c.Delete(); err != nil {
				return err
			}
		}
		return bkt.Put(quarantineKey(rec.Seq, d.name), value)
	})
}

const (
	quarantinedTruncated = 1 << iota
	_                    // a mark of older versions
	quarantinedGap
)

func appendQuarantined(dst []byte, q *Quarantined) []byte {
	flags := byte(0)
	if q.Truncated {
		flags |= quarantinedTruncated
	}
	payload := q.Payload
	if q.Gap != nil {
		flags, payload = flags|quarantinedGap, appendGap(nil, q.Gap)
	}
	v := append(dst, make([]byte, 8)...)
	v = append(v, quarantineVersion, flags)
	v = binary.AppendVarint(v, q.RejectedAt.UnixMicro())
	v = binary.AppendVarint(v, q.At)
	v = binary.AppendUvarint(v, uint64(q.Readings))
	v = appendBytes(v, q.Epoch)
	v = appendBytes(v, q.Account)
	v = appendBytes(v, q.Dict)
	v = appendBytes(v, q.Reason)
	return sealValue(appendBytes(v, payload))
}

func parseQuarantined(k, v []byte) (*Quarantined, error) {
	body, err := openValue(v)
	if err != nil || len(k) < 8 {
		return nil, fmt.Errorf("quarantine entry: %w", errDamaged)
	}
	q := &Quarantined{Seq: binary.BigEndian.Uint64(k), Destination: string(k[8:])}
	q.ID = fmt.Sprintf("%d:%s", q.Seq, q.Destination)
	p := parser{src: body}
	version := p.byte()
	if version == 0 || version > quarantineVersion {
		return nil, fmt.Errorf("quarantine entry of version %d: %w", version, errDamaged)
	}
	flags := p.byte()
	q.Truncated = flags&quarantinedTruncated != 0
	q.RejectedAt, q.At, q.Readings = time.UnixMicro(p.varint()), p.varint(), int(p.uvarint())
	if version > 1 {
		q.Epoch = string(p.bytes())
	}
	q.Account, q.Dict, q.Reason, q.Payload = string(p.bytes()), bytes.Clone(p.bytes()), string(p.bytes()), bytes.Clone(p.bytes())
	if p.bad || len(p.src) != 0 || q.Readings < 0 || q.Account == "" {
		return nil, fmt.Errorf("quarantine entry: %w", errDamaged)
	}
	if flags&quarantinedGap != 0 {
		if q.Gap, err = parseGap(q.Payload); err != nil {
			return nil, err
		}
		q.Payload = nil
	}
	return q, nil
}

// Quarantine returns the entries in order of sequence number; there are at most 1,024. It does not wait for the disk.
func (b *Buffer) Quarantine() ([]*Quarantined, error) {
	if b.isClosed() {
		return nil, ErrClosed
	}
	return b.held.Load().quarantine(), nil
}

// quarantined returns how many entries each destination has. It does not wait for the disk.
func (b *Buffer) quarantined() map[string]int {
	if b.readOnly {
		return b.old.quarantined()
	}
	return b.held.Load().quarantined()
}

// find returns the entry of an ID and its key. commitMu is held.
func (b *Buffer) find(id string) (key []byte, q *Quarantined, err error) {
	if b.isClosed() {
		return nil, nil, ErrClosed
	}
	number, name, _ := strings.Cut(id, ":")
	seq, err := strconv.ParseUint(number, 10, 64)
	if err != nil {
		return nil, nil, fmt.Errorf("quarantine entry %q: %w; an ID is a sequence number, a colon and a destination, such as 120560:cloud", id, ErrNotFound)
	}
	key = quarantineKey(seq, name)
	for _, q := range b.state.held.quarantine() {
		if q.Seq == seq && q.Destination == name {
			return key, q, nil
		}
	}
	return nil, nil, fmt.Errorf("quarantine entry %q: %w", id, ErrNotFound)
}

// DeleteQuarantined removes an entry for good.
func (b *Buffer) DeleteQuarantined(id string) error {
	b.lockCommit()
	defer b.unlockCommit()
	key, _, err := b.find(id)
	if err != nil {
		return err
	}
	return b.saveState(func(tx *bolt.Tx) error { return tx.Bucket(quarantineBucket).Delete(key) })
}

// Retry puts a quarantined record back into the queue, as a new record for its destination alone and
// marked historical; its readings move from dropped{rejected} back to buffered. It returns the new number.
func (b *Buffer) Retry(id string) (seq uint64, err error) {
	b.lockCommit()
	defer b.unlockCommit()
	key, q, err := b.find(id)
	if err != nil {
		return 0, err
	}
	if q.Truncated {
		return 0, fmt.Errorf("retry %q: its payload was too large to be kept: %w", id, ErrNotFound)
	}
	if err := b.reserve(); err != nil {
		return 0, fmt.Errorf("retry %q: %w", id, err)
	}
	if seq, err = b.requeue(q); err != nil {
		return 0, fmt.Errorf("retry %q: %w", id, err)
	}
	// On disk before the entry is gone: a crash between the two sends the record twice, which is better than never.
	if err := b.commit(); err != nil {
		return seq, fmt.Errorf("retry %q: %w; the record waits in memory and the entry stays", id, err)
	}
	return seq, b.saveState(func(tx *bolt.Tx) error { return tx.Bucket(quarantineBucket).Delete(key) })
}

func (b *Buffer) requeue(q *Quarantined) (uint64, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	d := b.byName(q.Destination)
	if d == nil {
		return 0, fmt.Errorf("destination %q: %w", q.Destination, ErrNoDestination)
	}
	st, err := b.stream(q.Account, string(q.Dict))
	if err != nil {
		return 0, err
	}
	n := &st.account.dests[d.slot]
	back := min(uint64(q.Readings), n.dropped[CauseRejected])
	n.dropped[CauseRejected] -= back
	e := entry{payload: b.tail.copy(q.Payload), stream: st, at: q.At, readings: uint32(back), to: bit(d.slot), gap: q.Gap}
	if q.Gap != nil {
		e.payload = b.tail.copy(appendGap(nil, q.Gap))
	}
	seq := b.push(e)
	b.notify()
	return seq, nil
}
