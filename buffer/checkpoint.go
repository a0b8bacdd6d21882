package buffer

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"math"
	"time"
)

// A checkpoint is everything that records do not say themselves: the cursors and the ledger, complete, as
// of one sequence number. It is written in the transaction of each commit, and into state.db when idle; at
// Open the highest generation found is the one that counts.

const checkpointVersion = 1

// takeCheckpoint returns the checkpoint of this moment. Every record up to next-1 must be settled, on
// disk, or in the transaction that the checkpoint goes into. mu is held.
func (b *Buffer) takeCheckpoint() []byte {
	b.gen++
	out := make([]byte, 8, 256+64*len(b.accountSeq))
	out = append(out, checkpointVersion)
	out = binary.AppendUvarint(out, b.gen)
	out = binary.AppendUvarint(out, b.next)
	out = binary.AppendUvarint(out, uint64(b.elapsed()))
	out = binary.AppendUvarint(out, uint64(b.destinations()))
	for _, d := range b.slots {
		if d == nil {
			continue
		}
		out = appendBytes(out, d.name)
		out = append(out, byte(d.slot))
		out = binary.AppendUvarint(out, d.start)
		out = binary.AppendUvarint(out, d.origin)
		out = binary.AppendUvarint(out, d.backlog)
		out = binary.AppendUvarint(out, uint64(len(d.acked.s)))
		prev := uint64(0)
		for _, r := range d.acked.s {
			out = binary.AppendUvarint(out, r.from-prev)
			out = binary.AppendUvarint(out, r.to-r.from)
			prev = r.to
		}
	}
	out = binary.AppendUvarint(out, uint64(len(b.accountSeq)))
	for _, a := range b.accountSeq {
		out = b.appendAccount(out, a)
	}
	return sealValue(out)
}

func (b *Buffer) appendAccount(out []byte, a *account) []byte {
	out = appendBytes(out, a.name)
	out = binary.AppendUvarint(out, a.polled)
	out = binary.AppendUvarint(out, a.suppressed)
	out = binary.AppendUvarint(out, a.accepted)
	for slot, d := range b.slots {
		if d == nil {
			continue
		}
		n := &a.dests[slot]
		out = binary.AppendUvarint(out, n.before)
		out = binary.AppendUvarint(out, n.delivered)
		for _, dropped := range n.dropped {
			out = binary.AppendUvarint(out, dropped)
		}
	}
	return out
}

func (b *Buffer) destinations() (n int) {
	for _, d := range b.slots {
		if d != nil {
			n++
		}
	}
	return n
}

// sealValue fills in the length and the checksum in the 8 bytes that a value begins with.
func sealValue(v []byte) []byte {
	binary.BigEndian.PutUint32(v, uint32(len(v)))
	binary.BigEndian.PutUint32(v[4:], crc32.Checksum(v[8:], castagnoli))
	return v
}

// openValue checks what sealValue sealed and returns what is inside.
func openValue(v []byte) ([]byte, error) {
	if len(v) < 8 || uint64(binary.BigEndian.Uint32(v)) != uint64(len(v)) ||
		binary.BigEndian.Uint32(v[4:]) != crc32.Checksum(v[8:], castagnoli) {
		return nil, fmt.Errorf("value of %d bytes: checksum: %w", len(v), errDamaged)
	}
	return v[8:], nil
}

// checkpoint is a parsed checkpoint.
type checkpoint struct {
	gen, next uint64
	elapsed   time.Duration
	dests     []checkpointDest
	accounts  []checkpointAccount
}

type checkpointDest struct {
	name                   string
	slot                   int
	start, origin, backlog uint64
	acked                  []span
}

type checkpointAccount struct {
	name                         string
	polled, suppressed, accepted uint64
	dests                        []destAccount // in the order of checkpoint.dests
}

func parseCheckpoint(v []byte) (*checkpoint, error) {
	body, err := openValue(v)
	if err != nil {
		return nil, err
	}
	p := parser{src: body}
	if version := p.byte(); version != checkpointVersion {
		return nil, fmt.Errorf("checkpoint of version %d: %w", version, errDamaged)
	}
	c := &checkpoint{gen: p.uvarint(), next: p.uvarint(), elapsed: time.Duration(p.uvarint() & math.MaxInt64)}
	for range p.count(5) {
		d := checkpointDest{name: string(p.bytes()), slot: int(p.byte()), start: p.uvarint(), origin: p.uvarint(), backlog: p.uvarint()}
		prev := uint64(0)
		for range p.count(2) {
			from := prev + p.uvarint()
			to := from + p.uvarint()
			if to < from || from < prev {
				p.fail()
			}
			d.acked = append(d.acked, span{from, to})
			prev = to
		}
		if d.slot >= MaxDestinations || len(c.dests) >= MaxDestinations {
			p.fail()
		}
		c.dests = append(c.dests, d)
	}
	for range p.count(4) {
		a := checkpointAccount{name: string(p.bytes()), polled: p.uvarint(), suppressed: p.uvarint(), accepted: p.uvarint()}
		for range c.dests {
			n := destAccount{before: p.uvarint(), delivered: p.uvarint()}
			for i := range n.dropped {
				n.dropped[i] = p.uvarint()
			}
			n.buffered = a.accepted - n.before - n.delivered - n.lost()
			a.dests = append(a.dests, n)
		}
		c.accounts = append(c.accounts, a)
	}
	if p.bad || len(p.src) != 0 {
		return nil, fmt.Errorf("checkpoint: %w", errDamaged)
	}
	return c, nil
}

func (n *destAccount) lost() (sum uint64) {
	for _, c := range n.dropped {
		sum += c
	}
	return sum
}

// appendInfo encodes what a segment says of itself.
func appendInfo(dst []byte, epoch, first uint64) []byte {
	v := append(dst, make([]byte, 8)...)
	v = append(v, formatMajor)
	v = binary.BigEndian.AppendUint64(v, epoch)
	v = binary.BigEndian.AppendUint64(v, first)
	return sealValue(v)
}

// parseInfo reads what appendInfo wrote. A newer format is ErrNewer.
func parseInfo(v []byte) (epoch, first uint64, err error) {
	body, err := openValue(v)
	if err != nil {
		return 0, 0, err
	}
	if len(body) > 0 && body[0] > formatMajor {
		return 0, 0, fmt.Errorf("segment of format %d, this binary reads %d: %w", body[0], formatMajor, ErrNewer)
	}
	if len(body) != 17 {
		return 0, 0, fmt.Errorf("segment info: %w", errDamaged)
	}
	return binary.BigEndian.Uint64(body[1:]), binary.BigEndian.Uint64(body[9:]), nil
}

// appendDict encodes a segment's dictionary entry.
func appendDict(dst []byte, s *Stream) []byte {
	v := append(dst, make([]byte, 8)...)
	v = appendBytes(v, s.account.name)
	return sealValue(append(v, s.dict...))
}

func parseDict(v []byte) (account, dict string, err error) {
	body, err := openValue(v)
	if err != nil {
		return "", "", err
	}
	p := parser{src: body}
	name := p.bytes()
	if p.bad || len(name) == 0 || len(name) > maxAccountName {
		return "", "", fmt.Errorf("dictionary entry: %w", errDamaged)
	}
	return string(name), string(p.src), nil
}

const summaryVersion = 1

// appendSummary encodes what a sealed segment holds. mu is held.
func appendSummary(dst []byte, s *segment) []byte {
	v := append(dst, make([]byte, 8)...)
	v = append(v, summaryVersion)
	v = binary.AppendUvarint(v, s.last-s.first+1)
	v = binary.AppendUvarint(v, s.records)
	v = binary.AppendUvarint(v, s.special)
	v = binary.AppendVarint(v, s.minAt)
	v = binary.AppendVarint(v, s.maxAt)
	v = binary.AppendUvarint(v, uint64(s.made))
	v = binary.AppendUvarint(v, uint64(s.wrote))
	v = binary.AppendUvarint(v, uint64(len(s.totals)))
	for a, n := range s.totals {
		v = appendBytes(v, a.name)
		v = binary.AppendUvarint(v, n)
	}
	return sealValue(v)
}

// parseSummary fills in the segment's figures and returns the readings of each account.
func parseSummary(v []byte, s *segment) (map[string]uint64, error) {
	body, err := openValue(v)
	if err != nil {
		return nil, err
	}
	p := parser{src: body}
	if version := p.byte(); version != summaryVersion {
		return nil, fmt.Errorf("segment summary of version %d: %w", version, errDamaged)
	}
	last := s.first + p.uvarint() - 1
	records, special, minAt, maxAt := p.uvarint(), p.uvarint(), p.varint(), p.varint()
	made, wrote := time.Duration(p.uvarint()&math.MaxInt64), time.Duration(p.uvarint()&math.MaxInt64)
	totals := map[string]uint64{}
	for range p.count(2) {
		name := string(p.bytes())
		totals[name] = p.uvarint()
	}
	if p.bad || len(p.src) != 0 {
		return nil, fmt.Errorf("segment summary: %w", errDamaged)
	}
	s.last, s.records, s.special, s.minAt, s.maxAt, s.made, s.wrote = last, records, special, minAt, maxAt, made, wrote
	return totals, nil
}
