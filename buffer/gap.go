package buffer

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Gap says what is missing: readings of one account that were dropped. It is stored and handed out like
// a record, so that whoever receives the records knows of the hole in them.
type Gap struct {
	From     int64  `json:"from_us"` // times of the first and last record lost, or of those beside them, µs since 1970; From 0 when the beginning is not known, both when nothing is
	To       int64  `json:"to_us"`
	Count    uint64 `json:"count"` // readings lost
	Cause    Cause  `json:"cause"`
	FirstSeq uint64 `json:"first_seq"` // sequence numbers the loss lies between, inclusive
	LastSeq  uint64 `json:"last_seq"`
	Unknown  bool   `json:"unknown"` // Count is a guess: more may be lost, and some of it may have been delivered

	// What is known of a gap that Missed tells.
	Tags   []string `json:"tags,omitempty"`   // only these can be missing; none = any of the account
	Reason string   `json:"reason,omitempty"` // why, in words
}

// Bounds of what Missed keeps of a gap, in bytes.
const (
	maxReason = 128
	maxTags   = 256 // of all names together; with more, any tag can be missing
	maxGap    = 512 // encoded
)

// gapEvery is how often Missed makes a gap record of one account and cause at most.
const gapEvery = 10 * time.Second

// Lost says in words how many readings are missing.
func (g *Gap) Lost() string { return lostText(g.Count, g.Unknown) }

// lostText says how many were lost, when it may be that nobody knows.
func lostText(n uint64, unknown bool) string {
	switch {
	case !unknown:
		return strconv.FormatUint(n, 10)
	case n == 0:
		return "unknown"
	}
	return fmt.Sprintf("about %d", n)
}

// gapKey says which losses merge into one gap record.
type gapKey struct {
	account *account
	to      mask
	cause   Cause
}

func (g *Gap) merge(o *Gap) {
	if g.Count == 0 && !g.Unknown {
		*g = *o
		return
	}
	g.Unknown = g.Unknown || o.Unknown
	if o.From != 0 || o.To != 0 {
		if g.From == 0 && g.To == 0 {
			g.From, g.To = o.From, o.To
		}
		g.From, g.To = min(g.From, o.From), max(g.To, o.To)
	}
	g.Count += o.Count
	g.Tags = union(g.Tags, o.Tags)
	if o.Reason != "" {
		g.Reason = o.Reason
	}
	g.FirstSeq, g.LastSeq = min(g.FirstSeq, o.FirstSeq), max(g.LastSeq, o.LastSeq)
}

// union returns the names that either has, none when one of them has none: then it may be any.
func union(a, b []string) []string {
	if len(a) == 0 || len(b) == 0 {
		return nil
	}
	all, size := slices.Clone(a), 0
	for _, name := range b {
		if !slices.Contains(all, name) {
			all = append(all, name)
		}
	}
	for _, name := range all {
		size += len(name) + 2
	}
	if size > maxTags {
		return nil
	}
	return all
}

const (
	gapVersion = 3
	gapUnknown = 1 << 0
)

// appendGap encodes a gap. One that Missed did not tell is of version 2, which older programs read.
func appendGap(dst []byte, g *Gap) []byte {
	version := byte(2)
	if g.Cause >= CauseOutage {
		version = gapVersion
	}
	dst = append(dst, version, byte(g.Cause))
	dst = binary.AppendVarint(dst, g.From)
	dst = binary.AppendVarint(dst, g.To)
	dst = binary.AppendUvarint(dst, g.Count)
	dst = binary.AppendUvarint(dst, g.FirstSeq)
	dst = binary.AppendUvarint(dst, g.LastSeq)
	flags := byte(0)
	if g.Unknown {
		flags = gapUnknown
	}
	if dst = append(dst, flags); version < gapVersion {
		return dst
	}
	dst = binary.AppendUvarint(dst, uint64(len(g.Tags)))
	for _, name := range g.Tags {
		dst = appendBytes(dst, name)
	}
	return appendBytes(dst, g.Reason)
}

func parseGap(src []byte) (*Gap, error) {
	p := parser{src: src}
	version := p.byte()
	if version < 1 || version > gapVersion {
		return nil, fmt.Errorf("gap record of version %d: %w", version, errDamaged)
	}
	g := &Gap{Cause: Cause(p.byte()), From: p.varint(), To: p.varint(), Count: p.uvarint(), FirstSeq: p.uvarint(), LastSeq: p.uvarint()}
	if version > 1 {
		g.Unknown = p.byte()&gapUnknown != 0
	}
	if version > 2 {
		for n := p.uvarint(); n > 0 && !p.bad && len(g.Tags) <= maxTags; n-- {
			g.Tags = append(g.Tags, string(p.bytes()))
		}
		g.Reason = string(p.bytes())
	}
	if p.bad || len(p.src) != 0 || len(src) > maxGap || !g.Cause.known() {
		return nil, fmt.Errorf("gap record: %w", errDamaged)
	}
	return g, nil
}

// Missed tells the destinations of readings that a device had and that never came, because it was not heard (CauseOutage), or
// though it was (CauseLost). They are in no ledger: nobody polled them. From, To, Count, Cause, Tags and Reason of the gap count;
// what Tags and Reason have beyond their bounds is left out. At once the first is told, and then at most one in ten seconds for
// each account and cause, which has all that came meanwhile; until then they stand in the checkpoints.
func (b *Buffer) Missed(s *Stream, g Gap) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.missed(s.account, g)
}

// MissedBy is Missed for each account whose name is chosen; g.Tags does not count. It tells of what Left says is missing: a destination that is not in use
// is told of it, too, for all accounts, when it is back, as of its absence, since when nobody knows how much came.
func (b *Buffer) MissedBy(chosen func(account string) bool, g Gap) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.leftTold, b.changed = true, true
	g.Tags = nil
	for _, a := range b.accountSeq {
		b.missing(a, b.all&^b.present(), &Gap{From: g.From, To: g.To, Cause: CauseAbsent, FirstSeq: b.next, LastSeq: b.next, Unknown: true})
		if chosen(a.name) {
			b.missed(a, g)
		}
	}
}

// missed is Missed with mu held.
func (b *Buffer) missed(a *account, g Gap) {
	g.Unknown, g.FirstSeq, g.LastSeq = true, b.next, b.next
	g.Tags = union(g.Tags, g.Tags)
	g.Reason = strings.ToValidUTF8(g.Reason[:min(len(g.Reason), maxReason)], "")
	if b.closed || g.Cause != CauseOutage && g.Cause != CauseLost {
		return
	}
	b.missing(a, b.present(), &g)
}

// untimely reports whether a gap has to wait because one like it was told a short while ago. mu is held.
func (b *Buffer) untimely(key gapKey) bool {
	if key.cause < CauseOutage {
		return false
	}
	told := key.account.told[key.cause-CauseOutage]
	return told != 0 && time.Since(b.start)-told < gapEvery
}

// missing notes a loss; the next call of tellGaps makes a record of it. mu is held.
func (b *Buffer) missing(a *account, to mask, g *Gap) {
	if to&b.all == 0 || g.Count == 0 && !g.Unknown {
		return
	}
	key := gapKey{a, to & b.all, g.Cause}
	have := b.gaps[key]
	if have == nil {
		have = new(Gap)
		b.gaps[key] = have
		b.gapOrder = append(b.gapOrder, key)
	}
	have.merge(g)
	b.changed = true
}

// missingAnything notes for every account that readings may be lost from a number on, and that nobody knows how many. mu is held.
func (b *Buffer) missingAnything(from uint64) {
	for _, a := range b.accountSeq {
		b.missing(a, b.all, &Gap{To: b.o.Now().UnixMicro(), Cause: CauseDamaged, FirstSeq: min(from, b.next-1), LastSeq: b.next - 1, Unknown: true})
	}
}

// tellGaps appends a gap record for each loss noted. While the disk does not take them they go on merging
// in memory, and in the checkpoints; so do those of a destination that is not in use, until it comes back: a record that waits
// for it would hold a whole segment. mu is held.
func (b *Buffer) tellGaps() {
	if !b.gapsDue() || b.st.commitErr != nil {
		return
	}
	gaps, order, now := b.gaps, b.gapOrder, b.tellable()
	b.gaps, b.gapOrder = map[gapKey]*Gap{}, nil
	for _, key := range order {
		g, to := gaps[key], key.to&now
		if b.untimely(key) {
			to = 0
		}
		if to != 0 {
			if key.cause >= CauseOutage {
				key.account.told[key.cause-CauseOutage] = time.Since(b.start)
			}
			if to == b.present() {
				to = everyone
			}
			seq := b.push(entry{payload: appendGap(nil, g), stream: b.gapStream(key.account), gap: g, at: cmp.Or(g.To, b.o.Now().UnixMicro()), to: to})
			b.await(gapKey{key.account, to, key.cause}, seq, g)
		}
		rest := key.to &^ now
		if to == 0 {
			rest = key.to
		}
		if later := *g; rest != 0 {
			b.missing(key.account, rest, &later)
		}
	}
	b.advance() // they may be what the tail has no room for
	b.notify()
}

// gapsDue reports whether a destination that can be told is to be told of a loss. mu is held.
func (b *Buffer) gapsDue() bool {
	if len(b.gapOrder) == 0 {
		return false
	}
	now := b.tellable()
	for _, key := range b.gapOrder {
		if key.to&now != 0 && !b.untimely(key) {
			return true
		}
	}
	return false
}

// untoldTo returns how many losses a slot's destination is still to be told of; what it was not there for is none. mu is held.
func (b *Buffer) untoldTo(slot int) (n int) {
	for key := range b.gaps {
		if key.to&bit(slot) != 0 && key.cause != CauseAbsent {
			n++
		}
	}
	return n
}

// untell forgets the losses that a slot's destination was still to be told. mu is held.
func (b *Buffer) untell(slot int) {
	gaps, order := b.gaps, b.gapOrder
	b.gaps, b.gapOrder = map[gapKey]*Gap{}, nil
	for _, key := range order {
		b.missing(key.account, key.to&^bit(slot), gaps[key])
	}
}

// gapStream returns the stream without dictionary that an account's gap records belong to. mu is held.
func (b *Buffer) gapStream(a *account) *Stream {
	key := a.name + "\x00"
	s := b.streams[key]
	if s == nil {
		s = &Stream{b: b, account: a, id: uint32(len(b.streams))}
		b.streams[key] = s
		b.dictBytes += int64(len(a.name)) + 128
	}
	return s
}

// lose counts an entry of the tail as dropped for every destination that still needs it. mu is held.
func (b *Buffer) lose(e *entry, seq uint64, cause Cause) {
	lost := e.to &^ e.acked & b.all
	for slot, d := range b.slots {
		if lost&bit(slot) == 0 {
			continue
		}
		d.lose(seq, e.stream.account, uint64(e.readings), cause)
		e.acked |= bit(slot)
	}
	if e.gap != nil {
		b.missing(e.stream.account, lost, e.gap)
		return
	}
	b.missing(e.stream.account, lost, &Gap{From: e.at, To: e.at, Count: uint64(e.readings), Cause: cause, FirstSeq: seq, LastSeq: seq})
}

// lose counts one record as dropped for this destination. A record in flight may still arrive; it counts
// as dropped because it cannot be sent again. mu is held.
func (d *Destination) lose(seq uint64, a *account, readings uint64, cause Cause) {
	n := &a.dests[d.slot]
	if _, ok := d.flight[seq]; ok {
		n.inflight -= readings
		delete(d.flight, seq)
	} else {
		n.buffered -= readings
	}
	n.dropped[cause] += readings
	d.b.counted()
	d.acked.add(seq, seq+1)
	d.backlog--
}

// refuse counts a record that was not taken. mu is held.
func (b *Buffer) refuse(a *account, readings int, at int64) {
	readings = max(readings, 0)
	a.accepted += uint64(readings)
	b.counted()
	for slot, d := range b.slots {
		switch {
		case d == nil:
		case d.known:
			a.dests[slot].dropped[CauseFull] += uint64(readings)
		default:
			a.dests[slot].before += uint64(readings)
		}
	}
	g := Gap{From: at, To: at, Count: uint64(readings), Cause: CauseFull, FirstSeq: b.next, LastSeq: b.next}
	b.missing(a, b.present(), &g)
	g.Cause = CauseAbsent
	b.missing(a, b.all&^b.present(), &g)
	b.st.refused++
}
