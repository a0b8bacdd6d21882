package buffer

import (
	"cmp"
	"encoding/binary"
	"slices"
)

// waitingGap is the gap records of one account, addressees and cause that somebody still needs: their numbers, and together what they
// tell. Checkpoints have it, so that what only a gap record tells is told again when it is lost with its file.
type waitingGap struct {
	key  gapKey
	seqs spans // at most maxWaiting: beyond, numbers between two of them are taken for theirs
	gap  Gap
}

// maxWaiting is how many spans of gap records of one account and cause are told apart.
const maxWaiting = 32

// await notes a gap record that was appended under a number. mu is held.
func (b *Buffer) await(key gapKey, seq uint64, g *Gap) {
	var w *waitingGap
	if i := slices.IndexFunc(b.waiting, func(w *waitingGap) bool { return w.key == key }); i >= 0 {
		w = b.waiting[i]
	} else {
		w = &waitingGap{key: key}
		b.waiting = append(b.waiting, w)
	}
	if acked := b.acknowledged(); b.heard(w, &acked) {
		w.gap = Gap{}
	}
	w.gap.merge(g)
	b.waitingBytes += maxGap
	w.seqs.add(seq, seq+1)
	if s := w.seqs.s; len(s) > maxWaiting {
		w.seqs.add(s[0].from, s[1].to)
	}
}

// heard drops the gap records that nobody needs any more, by what each has acknowledged, and reports whether none is left. mu is held.
func (b *Buffer) heard(w *waitingGap, acked *[MaxDestinations]spans) bool {
	w.seqs.s = slices.DeleteFunc(w.seqs.s, func(r span) bool { return b.waitsFor(w.key.to, r, acked) == 0 })
	return len(w.seqs.s) == 0
}

// acknowledged returns what each destination needs no more. mu is held.
func (b *Buffer) acknowledged() (acked [MaxDestinations]spans) {
	for slot, d := range b.slots {
		if d != nil {
			acked[slot] = d.acked
		}
	}
	return acked
}

// waitsFor returns who of the addressees needs a number of a span, by what each has acknowledged. mu is held.
func (b *Buffer) waitsFor(to mask, r span, acked *[MaxDestinations]spans) (who mask) {
	for slot, d := range b.slots {
		if d == nil || to&bit(slot) == 0 || acked[slot].covers(r.from, r.to) || to != everyone && r.to <= d.origin {
			continue // see Destination.wants
		}
		who |= bit(slot)
	}
	return who
}

// retell tells again what the gap records told that are lost with these numbers, to those who had not acknowledged them. mu is held.
func (b *Buffer) retell(from, to uint64, acked [MaxDestinations]spans) {
	for _, w := range b.waiting {
		var who mask
		for _, r := range w.seqs.s {
			if r.from, r.to = max(r.from, from), min(r.to, to); r.from < r.to {
				who |= b.waitsFor(w.key.to, r, &acked)
			}
		}
		if who == 0 {
			continue
		}
		g := w.gap
		g.Unknown = g.Unknown || len(w.seqs.s) > 1 || w.seqs.s[0].to > w.seqs.s[0].from+1 // the others may arrive
		b.missing(w.key.account, who, &g)
	}
}

// appendWaiting encodes the gap records numbered below a bound that somebody still needs, as nothing when there are none. mu is held.
func (b *Buffer) appendWaiting(out []byte, below uint64) []byte {
	acked := b.acknowledged()
	b.waiting = slices.DeleteFunc(b.waiting, func(w *waitingGap) bool { return b.heard(w, &acked) })
	before := len(out)
	for _, w := range b.waiting {
		n, _ := slices.BinarySearchFunc(w.seqs.s, below, func(r span, below uint64) int { return cmp.Compare(r.from, below) })
		if n == 0 {
			continue
		}
		out = binary.AppendUvarint(out, uint64(w.key.account.index))
		out = binary.AppendUvarint(out, uint64(w.key.to))
		out = appendBytes(out, appendGap(nil, &w.gap))
		out = appendSpans(out, w.seqs.s[:n])
	}
	b.waitingBytes = int64(len(out) - before)
	return out
}

// checkpointWaiting is a waitingGap as a checkpoint has it.
type checkpointWaiting struct {
	checkpointGap
	seqs []span
}

func (c *checkpoint) parseWaiting(p *parser) {
	for len(p.src) > 0 {
		w := checkpointWaiting{checkpointGap: c.parseGap(p), seqs: parseSpans(p)}
		if p.bad || len(w.seqs) == 0 || len(w.seqs) > maxWaiting {
			p.fail()
			return
		}
		c.waiting = append(c.waiting, w)
	}
}
