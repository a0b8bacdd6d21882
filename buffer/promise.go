package buffer

import (
	"encoding/binary"
	"fmt"
	"path/filepath"
	"slices"

	bolt "go.etcd.io/bbolt"
)

// promise is what the store has said to be on disk of one segment. state.db has one for each segment, before its first
// record is promised, so that a segment that is gone, or ends too early, is missed.
type promise struct {
	first, last  uint64 // last below first: nothing yet
	records      uint64
	minAt, maxAt int64
	epoch        uint64
	open         bool // it was being written: there may be more in it
	told         bool // it was found damaged, and told of
	partly       bool // its oldest records were given up, and it is to be read as a damaged one
}

const (
	promiseVersion = 1
	promiseOpen    = 1 << 0
	promiseTold    = 1 << 1
	promisePartly  = 1 << 2
)

func (p *promise) empty() bool { return p.last < p.first }

// append encodes a promise.
func (p *promise) append(dst []byte) []byte {
	flags := byte(0)
	if p.open {
		flags |= promiseOpen
	}
	if p.told {
		flags |= promiseTold
	}
	if p.partly {
		flags |= promisePartly
	}
	dst = append(dst, promiseVersion, flags)
	dst = binary.BigEndian.AppendUint64(dst, p.epoch)
	dst = binary.AppendUvarint(dst, p.first)
	dst = binary.AppendUvarint(dst, p.last+1-p.first)
	dst = binary.AppendUvarint(dst, p.records)
	dst = binary.AppendVarint(dst, p.minAt)
	return binary.AppendVarint(dst, p.maxAt)
}

// parsePromise reads what append wrote.
func parsePromise(p *parser) (out promise) {
	if p.byte() != promiseVersion {
		p.fail()
	}
	flags := p.byte()
	out.open, out.told, out.partly = flags&promiseOpen != 0, flags&promiseTold != 0, flags&promisePartly != 0
	out.epoch, out.first = p.uint64(), p.uvarint()
	n := p.uvarint()
	if n > 1<<60 || out.first == 0 || out.first > 1<<62 {
		p.fail()
	}
	out.last = out.first + n - 1
	out.records, out.minAt, out.maxAt = p.uvarint(), p.varint(), p.varint()
	return out
}

// promise is what can be said of a segment now. mu is held.
func (b *Buffer) promise(s *segment) promise {
	return promise{first: s.first, last: s.last, records: s.records, minAt: s.minAt, maxAt: s.maxAt, epoch: s.epoch.n,
		open: s == b.active && !b.closed, told: s.damaged, partly: s.partly}
}

// promises returns what state.db is to say of the segments.
func (b *Buffer) promises() map[uint64]promise {
	b.mu.Lock()
	defer b.mu.Unlock()
	out := make(map[uint64]promise, len(b.segs))
	for _, s := range b.segs {
		out[s.first] = b.promise(s)
	}
	return out
}

// putPromises brings state.db up to date with what is promised.
func (s *stateFile) putPromises(tx *bolt.Tx, now map[uint64]promise) error {
	bkt, err := tx.CreateBucketIfNotExists(segmentsBucket)
	if err != nil {
		return err
	}
	for first := range s.named {
		if _, there := now[first]; !there {
			if err := bkt.Delete(binary.BigEndian.AppendUint64(nil, first)); err != nil {
				return err
			}
		}
	}
	for first, p := range now {
		if was, there := s.named[first]; there && was == p {
			continue
		}
		if err := bkt.Put(binary.BigEndian.AppendUint64(nil, first), sealValue(p.append(make([]byte, 8)))); err != nil {
			return err
		}
	}
	tx.OnCommit(func() { s.named = now })
	return nil
}

// savePromises is putPromises in a transaction of its own. commitMu is held.
func (b *Buffer) savePromises() error {
	now := b.promises()
	return b.saveState(func(tx *bolt.Tx) error { return b.state.putPromises(tx, now) })
}

// readPromises reads what state.db says of the segments; a store of an older version says nothing.
func (p *pageFile) readPromises() (out []promise, err error) {
	root, err := p.bucket(segmentsBucket)
	if err != nil {
		return nil, nil
	}
	c := pageCursor{file: p, root: root}
	for k, v := c.Seek(nil); k != nil; k, v = c.Next() {
		body, err := openValue(v)
		if err != nil {
			return nil, err
		}
		in := parser{src: body}
		one := parsePromise(&in)
		if in.bad || len(in.src) != 0 {
			return nil, fmt.Errorf("promise of a segment: %w", errDamaged)
		}
		out = append(out, one)
	}
	return out, c.Err()
}

// keep holds what was promised against what was found, and notes what is missing. It runs at Open, after the segments
// are loaded; best is the newest checkpoint there is.
func (b *Buffer) keep(old *stateData, m *mark, best *checkpoint) {
	list := old.segments
	if m != nil {
		list = m.merge(list)
	}
	promised := map[uint64]bool{}
	for i := range list {
		p := &list[i]
		promised[p.first] = true
		b.toldOf[p.first] = p.told
		b.keepOne(p, m, best)
	}
	for i, s := range b.segs {
		if s.damaged && !promised[s.first] { // of an older version, or state.db is lost
			b.keepOne(&promise{first: s.first, last: s.last, open: i == len(b.segs)-1}, m, best)
		}
	}
	if !old.lost || len(b.segs) == 0 && best == nil {
		return
	}
	if !old.damaged {
		b.found(foundDamage{Damage: Damage{File: stateName, Missing: true, Reason: "missing: what was in quarantine is lost with it"}})
	}
	b.unsure = b.unsure || !m.exact() // which segments there were
}

func (b *Buffer) keepOne(p *promise, m *mark, best *checkpoint) {
	s := b.segmentOf(p.first)
	file := fmt.Sprintf(segPattern, p.first)
	d := Damage{File: file, FirstSeq: p.first, LastSeq: p.last, MinAt: p.minAt, MaxAt: p.maxAt}
	if s != nil && p.records > 0 && p.last >= s.last && (!p.open || m.exact() && m.first == p.first) {
		s.was = had{p.last, p.records}
	}
	switch {
	case s == nil && p.empty() && (b.empties[p.first] || m.exact() && m.first < p.first):
		return // its first commit never came
	case s == nil && !p.open && best != nil && best.covers(p.first, p.last+1):
		return // drained
	case s == nil && p.open && m.exact() && m.first > p.first && best != nil && best.gen >= m.gen && best.covers(p.first, m.first):
		return // likewise, and state.db could not be written any more
	case s == nil:
		d.Missing, d.Reason = true, "missing"
		if !p.empty() {
			d.Reason = fmt.Sprintf("missing: records %d to %d were in it", p.first, p.last)
		}
	case s.damaged:
		s.partly = p.partly
		if !p.empty() {
			s.minAt = min(s.minAt, p.minAt)
			if s.records == 0 {
				s.minAt, s.maxAt = p.minAt, p.maxAt
			}
		}
		d = s.damage()
		d.LastSeq = max(d.LastSeq, p.last)
	case s.end < p.last:
		d.Reason = fmt.Sprintf("it ends with record %d, but up to %d were in it", s.end, p.last)
	default:
		return
	}
	ended := s != nil && s.ended && s.end >= p.last
	if p.told && s != nil && s.damaged && s.end >= p.last {
		p.open, ended = false, true // what was lost was told then
	}
	counted := best != nil && best.known > p.last && (!p.open || ended || m.exact() && m.first == p.first && m.ckpt != nil)
	b.unsure = b.unsure || !counted
	b.found(foundDamage{first: p.first, unsure: !counted, Damage: d})
}

// segmentOf returns the segment of a first number, or nil.
func (b *Buffer) segmentOf(first uint64) *segment {
	for _, s := range b.segs {
		if s.first == first {
			return s
		}
	}
	return nil
}

// foundDamage is a damage met while the store is opened, before it is known what was lost with it.
type foundDamage struct {
	Damage
	first  uint64 // of the segment, 0 for another file
	unsure bool   // it is not known how much that is
}

// found notes a damage to be told when it is known what was lost.
func (b *Buffer) found(d foundDamage) {
	for i := range b.met {
		if o := &b.met[i]; d.first != 0 && o.first == d.first {
			if o.LastSeq < d.LastSeq {
				o.FirstSeq, o.LastSeq, o.MinAt, o.MaxAt = d.FirstSeq, d.LastSeq, d.MinAt, d.MaxAt
			}
			o.unsure = o.unsure || d.unsure
			return
		}
	}
	b.met = append(b.met, d)
}

// tellFound tells of the damages met, now that it is known how many readings were lost. mu is held.
func (b *Buffer) tellFound(lost uint64) {
	if len(b.met) == 0 && (lost > 0 || b.unsure) {
		b.met = append(b.met, foundDamage{Damage: Damage{File: filepath.Base(b.dir), Reason: "records that the ledger knows of are in no file"}})
	}
	told := func(d foundDamage) bool { return d.first != 0 && b.toldOf[d.first] }
	if lost == 0 && !b.unsure || slices.ContainsFunc(b.met, func(d foundDamage) bool { return !told(d) }) { // what is lost now is lost with the others
		b.met = slices.DeleteFunc(b.met, told)
	}
	for i := range b.met {
		d := &b.met[i]
		d.Unknown = d.unsure || lost > 0 && len(b.met) > 1 // together they cost that, each of them nobody knows
		if i == len(b.met)-1 {
			d.Readings, d.Unknown = lost, b.unsure
			if i > 0 && lost > 0 {
				d.Reason += fmt.Sprintf("; so many readings are lost in all %d places that were found together", len(b.met))
			}
		}
		b.noteDamageHeld(d.Damage)
	}
	b.met, b.unsure, b.toldOf = nil, false, nil
}
