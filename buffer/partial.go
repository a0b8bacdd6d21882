package buffer

import (
	"os"
	"slices"
)

// A disk that others have filled needs room, and what gives way is to be as little as possible: of a segment that is
// written to the end the pages of its oldest records are given back to the file system, and the rest is read as of a
// damaged one. Nothing is copied, for which there would be no room.

// dropPart gives up the oldest records of a segment; unless sent, not those of which one has come to be in flight. It reports false when that
// frees nothing. commitMu is held.
func (b *Buffer) dropPart(s *segment, cause Cause, sent bool) bool {
	if s == b.active {
		b.seal()
	}
	f, err := os.OpenFile(s.path, os.O_RDWR, 0)
	if err != nil {
		return false
	}
	defer func() { _ = f.Close() }() // what was freed needs no fsync: no number says that it is there
	// Read anew also when a part has gone before: another file may stand there.
	sv, err := salvageFile(s.path, info{b.store, s.first, s.epoch.n}, nil, b.decoder)
	if err != nil || len(sv.blocks) == 0 {
		return false
	}
	pieces := findPieces(f)
	n, pages := sv.oldest(pieces, max(s.size/8, min(2*(b.growStep()+growSlack), s.size/4)))
	if n == len(sv.blocks) || len(pages) == 0 {
		return false
	}
	last := min(sv.blocks[n-1].last, s.last) // a commit that failed may have left blocks behind it, which the next segment has
	left := *sv
	left.blocks = sv.blocks[n:]
	lost := b.giveUpPart(s, &left, last, cause, sent)
	if lost == nil {
		return false
	}
	for _, r := range pages {
		if punch(f, int64(r.from)*pageSize, int64(r.to-r.from)*pageSize) != nil {
			return false // the system cannot do that: the segment goes as a whole
		}
	}
	b.logLoss("oldest records of a segment dropped: the disk is full", lost, s, last, cause)
	return true
}

// leastPart is how many bytes a part must free to be worth a commit's next try.
const leastPart = 4 * pageSize

// oldest returns how many blocks, from the first on, stand on so many bytes of pages that hold nothing else, and those pages.
func (sv *salvage) oldest(pieces map[pieceKey][]piece, want int64) (n int, free []span) {
	for n < len(sv.blocks)-1 {
		n += max(1, len(sv.blocks)/64)
		n = min(n, len(sv.blocks)-1)
		if free = sv.pagesBelow(pieces, sv.blocks[n].first); bytesOf(free) >= want {
			return n, free
		}
	}
	if n > 0 && bytesOf(free) >= leastPart { // of a small segment all but the last block
		return n, free
	}
	return len(sv.blocks), nil
}

func bytesOf(pages []span) (n int64) {
	for _, r := range pages {
		n += int64(r.to-r.from) * pageSize
	}
	return n
}

// pagesBelow returns the pages that hold blocks and checkpoints below a number, and nothing else.
func (sv *salvage) pagesBelow(pieces map[pieceKey][]piece, seq uint64) []span {
	var leave, stay spans
	for k, copies := range pieces {
		old := k.region == regionRecords && k.seq < seq && (k.typ == typeBlock || k.typ == typeCheckpoint)
		for _, p := range copies {
			from, to := uint64(p.at/pageSize), uint64((p.at+int64(p.size)-1)/pageSize)+1
			if old {
				leave.add(from, to)
			} else {
				stay.add(from-min(from, maxLeaf-1), to) // the leaf's head may be that far before it
			}
		}
	}
	var out spans
	for _, r := range leave.s {
		for at := r.from; at < r.to; at++ {
			if !stay.has(at) {
				out.add(at, at+1)
			}
		}
	}
	return slices.Clip(out.s)
}

// giveUpPart counts the records of a segment up to last as dropped, and has the rest read from what is left. It returns nil where cutOff does not.
func (b *Buffer) giveUpPart(s *segment, left *salvage, last uint64, cause Cause, sent bool) *loss {
	before, ok := b.cutOff(s, last, sent)
	if !ok {
		return nil
	}
	lost, scanErr := b.scanLoss(s, before, last, cause)
	b.closeHandle(s)
	b.mu.Lock()
	b.applyLoss(lost, cause)
	s.rw.Lock()
	s.salvaged = left
	s.rw.Unlock()
	s.damaged, s.partly = true, true
	if scanErr != nil {
		b.retell(s.first, last+1, before)
		b.reconcile(cause, b.next)
	}
	b.tellGaps()
	d := b.takeCheckpoint(nil)
	b.mu.Unlock()
	if err := b.noteCheckpoint(d); err != nil {
		b.tell("records dropped before it was noted; a crash now would count them as damaged", err, "file", s.path)
	}
	return lost
}
