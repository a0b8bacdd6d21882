package buffer

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"math"
	"time"

	"github.com/klauspost/compress/zstd"
)

// A checkpoint is everything that records do not say themselves: the cursors and the ledger as of one
// sequence number. It is written in the transaction of each commit, and into state.db when idle; at Open
// the highest generation found is the one that counts. The first of a segment is complete; those after it
// say the ledger as differences to the first, which compress to almost nothing.

const (
	checkpointVersion = 3 // one without gap records that wait is of version 2, which older programs read
	accountFields     = 3 // polled, suppressed, accepted
	destFields        = 2 + Causes
	maxLedger         = 64 << 20 // bytes of an unpacked ledger
)

// draft is a checkpoint as taken, before it is packed.
type draft struct {
	head    []byte
	ledger  []byte
	values  []uint64 // every account's fields; kept as the base of later ones when this one is complete
	gen     uint64
	next    uint64
	isDelta bool
	until   []byte // of one for state.db: see Left.Until
	before  []byte // likewise: see untoldLeft
	lostAt  []byte // likewise: see Left.Lost
	told    bool   // what Left says is told: it stands in this checkpoint, or was told before
}

// takeCheckpoint returns the checkpoint of this moment, to be written into the segment together with all
// that is in the tail, or into state.db when the segment is nil. Then records that are only in memory are
// left out of it: they would be lost with the memory. mu is held.
func (b *Buffer) takeCheckpoint(s *segment) *draft {
	if s == nil {
		b.countUnsettled(func(n *uint64, by uint64) { *n -= by })
		defer b.countUnsettled(func(n *uint64, by uint64) { *n += by })
	}
	b.gen++
	d := &draft{gen: b.gen, next: b.next, told: b.leftTold}
	known := b.next
	if s == nil {
		known, d.until, d.before, d.lostAt = b.unsettledFrom(), b.safeUntil(), b.untoldLeft(), b.lostAt()
	}
	base := uint64(0)
	if s != nil && s.base != nil {
		base, d.isDelta = s.baseSeq+1, true
	}
	waiting := b.appendWaiting(nil, known)
	version := byte(checkpointVersion)
	if len(waiting) == 0 {
		version = 2
	}
	h := append(make([]byte, 0, 256), version)
	h = binary.AppendUvarint(h, b.gen)
	h = binary.AppendUvarint(h, b.next)
	h = binary.AppendUvarint(h, uint64(b.elapsed()))
	h = binary.AppendUvarint(h, base)
	h = binary.AppendUvarint(h, known)
	h = binary.AppendUvarint(h, b.st.unknown)
	h = binary.AppendUvarint(h, b.st.seen.readings)
	h = binary.AppendUvarint(h, b.st.seen.bytes)
	d.head = b.appendCursors(h)
	if d.isDelta {
		d.ledger = append(b.appendGaps(b.appendLedgerDelta(nil, s.base), nil), waiting...)
		return d
	}
	var told []*entry
	if s == nil {
		told = b.untold()
	}
	d.ledger = append(b.appendGaps(b.appendAccounts(nil, b.accountSeq), told), waiting...)
	d.values = make([]uint64, 0, len(b.accountSeq)*(accountFields+MaxDestinations*2))
	for _, a := range b.accountSeq {
		d.values = b.fields(d.values, a)
	}
	return d
}

// unsettledFrom returns from which number on a record may be in memory only; what a damaged segment was to keep, and memory
// has, was promised. mu is held.
func (b *Buffer) unsettledFrom() uint64 { return max(b.durable, b.promised) + 1 }

// countUnsettled calls f with each number that a record only in memory is counted in, and by how much. mu is held.
func (b *Buffer) countUnsettled(f func(n *uint64, by uint64)) {
	for seq := b.unsettledFrom(); seq < b.next; seq++ {
		e := b.tail.at(seq)
		if e == nil || b.settled(e) {
			continue
		}
		a, n := e.stream.account, uint64(e.readings)
		if e.to == everyone {
			f(&a.accepted, n)
			f(&a.polled, n)
		}
		for slot, d := range b.slots {
			switch on := bit(slot); {
			case d == nil || e.to&on == 0:
			case e.acked&on == 0:
				f(&d.backlog, 1)
			case e.refused&on != 0:
				f(&a.dests[slot].dropped[CauseFull], n)
			case e.passed&on != 0:
				f(&a.dests[slot].before, n)
			case e.rejected&on != 0:
				f(&a.dests[slot].dropped[CauseRejected], n)
			default:
				f(&a.dests[slot].delivered, n)
			}
		}
	}
}

func (b *Buffer) appendCursors(out []byte) []byte {
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
		out = appendSpans(out, d.acked.s)
	}
	return out
}

func appendSpans(out []byte, list []span) []byte {
	out = binary.AppendUvarint(out, uint64(len(list)))
	prev := uint64(0)
	for _, r := range list {
		out = binary.AppendUvarint(out, r.from-prev)
		out = binary.AppendUvarint(out, r.to-r.from)
		prev = r.to
	}
	return out
}

func parseSpans(p *parser) (list []span) {
	prev := uint64(0)
	for range p.count(2) {
		from := prev + p.uvarint()
		to := from + p.uvarint()
		if to < from || from < prev {
			p.fail()
		}
		list = append(list, span{from, to})
		prev = to
	}
	return list
}

// fields appends an account's numbers in the order in which checkpoints have them.
func (b *Buffer) fields(out []uint64, a *account) []uint64 {
	polled := a.polled
	if polled > math.MaxInt64 { // countUnsettled took from what nobody counted
		polled = 0
	}
	out = append(out, polled, a.suppressed, a.accepted)
	for slot, d := range b.slots {
		if d != nil {
			n := &a.dests[slot]
			out = append(out, n.before, n.delivered)
			out = append(out, n.dropped[:]...)
		}
	}
	return out
}

func (b *Buffer) appendAccounts(out []byte, list []*account) []byte {
	var scratch []uint64
	out = binary.AppendUvarint(out, uint64(len(list)))
	for _, a := range list {
		out = appendBytes(out, a.name)
		scratch = b.fields(scratch[:0], a)
		for _, n := range scratch {
			out = binary.AppendUvarint(out, n)
		}
	}
	return out
}

// appendLedgerDelta encodes what changed since the base, and the accounts that it does not have.
func (b *Buffer) appendLedgerDelta(out []byte, base []uint64) []byte {
	var scratch []uint64
	stride := accountFields + destFields*b.destinations()
	known := len(base) / stride
	for i, a := range b.accountSeq[:known] {
		scratch = b.fields(scratch[:0], a)
		for j, n := range scratch {
			out = binary.AppendVarint(out, int64(n-base[i*stride+j]))
		}
	}
	return b.appendAccounts(out, b.accountSeq[known:])
}

// untold returns the gap records that are only in memory: a crash would lose them, and their losses are to be told
// again. mu is held.
func (b *Buffer) untold() (list []*entry) {
	for seq := b.durable + 1; seq < b.next; seq++ {
		if e := b.tail.at(seq); e != nil && e.gap != nil && !b.settled(e) {
			list = append(list, e)
		}
	}
	return list
}

// appendGaps encodes the losses that no gap record on disk tells of yet.
func (b *Buffer) appendGaps(out []byte, told []*entry) []byte {
	out = binary.AppendUvarint(out, uint64(len(b.gapOrder)+len(told)))
	for _, e := range told {
		out = binary.AppendUvarint(out, uint64(e.stream.account.index))
		out = binary.AppendUvarint(out, uint64(e.to&^e.acked))
		out = appendBytes(out, appendGap(nil, e.gap))
	}
	for _, key := range b.gapOrder {
		out = binary.AppendUvarint(out, uint64(key.account.index))
		out = binary.AppendUvarint(out, uint64(key.to))
		out = appendBytes(out, appendGap(nil, b.gaps[key]))
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

// pack returns the checkpoint as it is stored.
func (d *draft) pack(enc *zstd.Encoder) []byte {
	v := append(make([]byte, 8, 8+len(d.head)+len(d.ledger)/2+64), d.head...)
	v = binary.AppendUvarint(v, uint64(len(d.ledger)))
	return sealValue(enc.EncodeAll(d.ledger, v))
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
	version   byte
	gen, next uint64
	elapsed   time.Duration
	base      uint64 // 0 = complete, else the base's sequence number + 1
	known     uint64 // records in files from here on are not in its ledger
	unknown   uint64 // losses that nobody could count
	seen      cost
	dests     []checkpointDest
	accounts  []checkpointAccount
	gaps      []checkpointGap
	waiting   []checkpointWaiting
	ledger    []byte // still packed in differences, when base is not 0
}

type checkpointDest struct {
	name                   string
	slot                   int
	start, origin, backlog uint64
	acked                  []span
}

type checkpointGap struct {
	account int
	to      mask
	gap     *Gap
}

type checkpointAccount struct {
	name   string
	fields []uint64
}

// parseCheckpoint reads a stored checkpoint. One with a base is complete after apply.
func parseCheckpoint(v []byte, dec *zstd.Decoder) (*checkpoint, error) {
	body, err := openValue(v)
	if err != nil {
		return nil, err
	}
	p := parser{src: body}
	version := p.byte()
	if version < 1 || version > checkpointVersion {
		return nil, fmt.Errorf("checkpoint of version %d: %w", version, errDamaged)
	}
	c := &checkpoint{version: version, gen: p.uvarint(), next: p.uvarint(), elapsed: time.Duration(p.uvarint() & math.MaxInt64), base: p.uvarint()}
	if c.known = c.next; version > 1 {
		c.known, c.unknown, c.seen = p.uvarint(), p.uvarint(), cost{p.uvarint(), p.uvarint()}
	}
	c.parseCursors(&p)
	raw := p.uvarint()
	if p.bad || raw > maxLedger {
		return nil, fmt.Errorf("checkpoint: %w", errDamaged)
	}
	if c.ledger, err = unpack(p.src, true, int(raw), dec, nil); err != nil {
		return nil, err
	}
	if c.base != 0 {
		return c, nil
	}
	lp := parser{src: c.ledger}
	return c, c.parseAccounts(&lp)
}

func (c *checkpoint) parseCursors(p *parser) {
	for range p.count(6) {
		d := checkpointDest{name: string(p.bytes()), slot: int(p.byte()), start: p.uvarint(), origin: p.uvarint(), backlog: p.uvarint()}
		d.acked = parseSpans(p)
		if d.slot >= MaxDestinations || len(c.dests) >= MaxDestinations {
			p.fail()
		}
		c.dests = append(c.dests, d)
	}
}

func (c *checkpoint) parseAccounts(p *parser) error {
	for range p.count(accountFields + 1) {
		a := checkpointAccount{name: string(p.bytes()), fields: make([]uint64, accountFields+destFields*len(c.dests))}
		for i := range a.fields {
			a.fields[i] = p.uvarint()
		}
		c.accounts = append(c.accounts, a)
	}
	for range p.count(3) {
		c.gaps = append(c.gaps, c.parseGap(p))
	}
	if c.version > 2 {
		c.parseWaiting(p)
	}
	if p.bad || len(p.src) != 0 {
		return fmt.Errorf("checkpoint: %w", errDamaged)
	}
	return nil
}

func (c *checkpoint) parseGap(p *parser) checkpointGap {
	g := checkpointGap{account: int(p.uvarint()), to: mask(p.uvarint())}
	gap, err := parseGap(p.bytes())
	if err != nil || g.account >= len(c.accounts) || g.account < 0 {
		p.fail()
	}
	g.gap = gap
	return g
}

// covers reports whether no destination needs any of these records.
func (c *checkpoint) covers(from, to uint64) bool {
	for i := range c.dests {
		if acked := (spans{s: c.dests[i].acked}); !acked.covers(from, to) {
			return false
		}
	}
	return true
}

// apply completes a checkpoint with its base.
func (c *checkpoint) apply(base *checkpoint) error {
	if base.base != 0 || len(base.dests) != len(c.dests) || base.gen >= c.gen {
		return fmt.Errorf("base of a checkpoint does not fit: %w", errDamaged)
	}
	p := parser{src: c.ledger}
	for _, a := range base.accounts {
		out := checkpointAccount{name: a.name, fields: make([]uint64, len(a.fields))}
		for i, n := range a.fields {
			out.fields[i] = n + uint64(p.varint())
		}
		c.accounts = append(c.accounts, out)
	}
	c.base = 0
	return c.parseAccounts(&p)
}
