package buffer

import "errors"

// pending is what the segments hold that destinations have not acknowledged.
type pending struct {
	readings map[*account]*[MaxDestinations]uint64
	records  [MaxDestinations]uint64
}

// reconcile makes the ledger agree with what is on disk after damage or a crash in the middle of a drop.
// mu is held.
func (b *Buffer) reconcile() { b.reconcileCause(CauseDamaged) }

func (b *Buffer) reconcileCause(cause Cause) {
	p := b.pendingOnDisk()
	for _, a := range b.accountSeq {
		for slot, d := range b.slots {
			if d == nil {
				continue
			}
			b.settleAccount(a, slot, d, p, cause)
		}
	}
	for slot, d := range b.slots {
		if d != nil {
			d.backlog = p.records[slot]
		}
	}
}

func (b *Buffer) settleAccount(a *account, slot int, d *Destination, p *pending, cause Cause) {
	var have uint64
	if n := p.readings[a]; n != nil {
		have = n[slot]
	}
	n := &a.dests[slot]
	want := n.buffered + n.inflight
	if have < want && n.buffered >= want-have {
		n.buffered -= want - have
		n.dropped[cause] += want - have
		b.missing(a, bit(slot), &Gap{Count: want - have, Cause: cause, FirstSeq: d.acked.next(0), LastSeq: b.next - 1})
	}
	if have > want {
		n.buffered += have - want
		n.before -= have - want
	}
}

// pendingOnDisk adds up what is in the segments and in the tail. mu is held.
func (b *Buffer) pendingOnDisk() *pending {
	p := &pending{readings: map[*account]*[MaxDestinations]uint64{}}
	for _, s := range b.segs {
		dict, err := b.readDict(s, func(f func()) { f() })
		if err != nil {
			b.log.Error("segment not read", "file", s.path, "error", err)
			continue
		}
		err = b.eachHead(s, dict, func(h *head, st *Stream, gap *Gap) {
			for slot, d := range b.slots {
				if d == nil || h.to&bit(slot) == 0 || d.acked.has(h.seq) {
					continue
				}
				n := p.readings[st.account]
				if n == nil {
					n = new([MaxDestinations]uint64)
					p.readings[st.account] = n
				}
				n[slot] += uint64(h.readings)
				p.records[slot]++
			}
		})
		if err != nil && !errors.Is(err, errDamaged) {
			b.log.Error("segment not read", "file", s.path, "error", err)
		}
	}
	return p
}
