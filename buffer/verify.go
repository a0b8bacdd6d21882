package buffer

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
)

// Problem is something that Verify found damaged.
type Problem struct {
	File     string `json:"file"` // in the store's directory
	Reason   string `json:"reason"`
	FirstSeq uint64 `json:"first_seq"` // what the file holds, 0 when not known
	LastSeq  uint64 `json:"last_seq"`
}

// Verification is what Verify found.
type Verification struct {
	Segments   int       `json:"segments"`
	Blocks     int       `json:"blocks"`
	Records    uint64    `json:"records"`    // whose checksums are right
	Bytes      int64     `json:"bytes"`      // of the segments
	Quarantine int       `json:"quarantine"` // entries
	Problems   []Problem `json:"problems"`
	Unseen     []string  `json:"unseen,omitempty"` // what damage has cost and nobody has acknowledged, in words; who keeps that adds it
}

// Verify reads everything in the store and checks every checksum, every count and every dictionary entry. It reads the
// segment being written, too, in steps between which commits go on. It changes nothing. progress, when not nil, is called now and then with bytes read and bytes in all; it may take
// its time. The error says why verifying ended early; damage is in the report, together with what was found at Open.
func (b *Buffer) Verify(ctx context.Context, progress func(done, total int64)) (*Verification, error) {
	b.mu.Lock()
	segs := slices.Clone(b.segs)
	list := make([]part, 0, len(segs))
	var total, done int64
	for _, s := range segs {
		p := part{s: s, last: s.last, records: s.countable(), size: s.size, whole: s.sealed && !s.clipped && !s.damaged, partly: s.partly, damaged: s.damaged && !s.partly}
		switch { // what was counted when it was opened lacks what was gone by then
		case s.clipped:
		case p.damaged:
			p.last, p.records = max(s.last, s.was.last), s.was.records
		case !s.damaged && s.was.last == s.last && !s.empty():
			p.records = s.was.records
		}
		list = append(list, p)
		total += s.size
	}
	b.mu.Unlock()
	out := &Verification{}
	out.Problems = b.known()
	for i := range list {
		p := &list[i]
		tell := func(seq uint64) {
			if progress != nil {
				progress(done+int64(float64(p.size)*float64(seq-p.s.first)/float64(p.last-p.s.first+1)), total)
			}
		}
		if err := b.verifyPart(ctx, p, out, tell); err != nil {
			return out, err
		}
		out.Segments++
		out.Bytes += p.size
		done += p.size
	}
	if progress != nil {
		progress(total, total)
	}
	return out, b.verifyState(out)
}

// part is a segment as it was when Verify began.
type part struct {
	s              *segment
	last, records  uint64 // records is 0 when their number is not known
	size           int64
	whole, damaged bool
	partly         bool // its oldest records were given up: see dropPart
}

// DamageSeen notes that a person has seen the damage found until now: from now on Verify tells of it only where the damaged file lies there.
func (b *Buffer) DamageSeen() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.st.damageSeen = len(b.st.damage)
}

// known returns the damage that nobody has seen yet, of files that are still there, and files that are missing, and what is set aside.
func (b *Buffer) known() (out []Problem) {
	b.mu.Lock()
	damage := slices.Clone(b.st.damage[b.st.damageSeen:])
	b.mu.Unlock()
	there, _ := filepath.Glob(filepath.Join(b.dir, "*")) // the pattern is sound
	for _, d := range damage {
		if d.Missing || slices.Contains(there, filepath.Join(b.dir, d.File)) {
			out = append(out, Problem{d.File, d.Reason, d.FirstSeq, d.LastSeq})
		}
	}
	for _, path := range there {
		name := filepath.Base(path)
		if filepath.Ext(name) == asideSuffix && !slices.ContainsFunc(out, func(p Problem) bool { return p.File == name }) {
			out = append(out, Problem{File: name, Reason: "set aside earlier because it was damaged; nothing reads it: delete it once you have looked at it"})
		}
	}
	return out
}

// verifyPart checks one segment. Of one that is damaged the records count that can be read all the same, which are those that are delivered and exported.
func (b *Buffer) verifyPart(ctx context.Context, p *part, out *Verification, tell func(seq uint64)) error {
	if p.last < p.s.first {
		return nil // it holds nothing yet
	}
	if p.damaged {
		return b.verifyDamaged(ctx, p, out, tell)
	}
	var sound Verification
	records, err := b.verifyBlocks(ctx, p, &sound, tell)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err == nil && p.records > 0 && records != p.records {
		err = fmt.Errorf("%d records, of %d that it is known to have: %w", records, p.records, errDamaged)
	}
	if err == nil {
		out.Records, out.Blocks = out.Records+sound.Records, out.Blocks+sound.Blocks
	}
	b.mu.Lock()
	gone, closed, cut := p.s.gone, b.closed, p.s.partly && !p.partly
	b.mu.Unlock()
	switch {
	case err == nil || gone:
		return nil
	case cut: // meanwhile
		left := *p
		left.partly, left.whole, left.records = true, false, 0
		return b.verifyPart(ctx, &left, out, tell)
	case closed:
		return ErrClosed
	case !errors.Is(err, errDamaged) && !errors.Is(err, ErrNotFound):
		return fmt.Errorf("verify segment %q: %w", filepath.Base(p.s.path), err)
	}
	name := filepath.Base(p.s.path)
	if !b.readOnly {
		b.log.Error("damage found by a verification", "file", name, "error", err)
	}
	left := b.countSound(p, out)
	out.Problems = append(out.Problems, Problem{name, reasonOf(err) + left.words(), p.s.first, p.last})
	return nil
}

// countSound adds what can be read of a segment that is damaged, with every checksum right. The file may be gone meanwhile.
func (b *Buffer) countSound(p *part, out *Verification) leftover {
	sv, err := salvageFile(p.s.path, info{b.store, p.s.first, p.s.epoch.n}, nil, b.decoder)
	if err != nil {
		return leftover{} // nothing can be, and the problem is told
	}
	left := b.countLeft(&segment{path: p.s.path, epoch: p.s.epoch, first: p.s.first, last: p.last, salvaged: sv}, p.records)
	out.Records, out.Blocks = out.Records+left.records, out.Blocks+left.blocks
	return left
}

// leftover is how much of a damaged segment can be read all the same.
type leftover struct {
	records, of uint64 // of is 0 when nobody knows how many there were
	blocks      int
	lost        span // all that are missing lie in it
}

// countLeft counts what is sound of a salvaged segment that had so many records, 0 = not known.
func (b *Buffer) countLeft(s *segment, of uint64) leftover {
	out := leftover{of: of}
	pos := s.first
	hole := func(from, to uint64) {
		if from < to && out.lost.to == 0 {
			out.lost.from = from
		}
		if from < to {
			out.lost.to = to
		}
	}
	_ = b.eachBlock(s, func(info *blockInfo, _ []byte) error { // what cannot be read is missing
		var h head
		for r := info.heads(); r.next(&h) && h.seq <= s.last; {
			hole(pos, h.seq)
			pos = h.seq + 1
			out.records++
		}
		out.blocks++
		return nil
	})
	hole(pos, s.last+1)
	return out
}

// words says how many records are missing and where, when that is known, to be put behind the damage.
func (l leftover) words() string {
	switch {
	case l.of == 0 && l.lost.to > 0:
		return fmt.Sprintf("; %d of its records can be read, how many are missing is unknown, and all that are lie from %d to %d", l.records, l.lost.from, l.lost.to-1)
	case l.records >= l.of:
		return ""
	}
	return fmt.Sprintf("; %d of its %d records cannot be read, all of them from %d to %d", l.of-l.records, l.of, l.lost.from, l.lost.to-1)
}

// countable returns how many records a segment has up to its last, 0 when that is not known. mu is held.
func (s *segment) countable() uint64 {
	if s.clipped || s.damaged {
		return 0
	}
	return s.records
}

// lacks reports whether a destination needs one of the numbers from from up to to, which a file was expected to have and has not.
func (b *Buffer) lacks(from, to uint64) bool {
	if from >= to {
		return false
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.needed(from, to)
}

// absent is the error for numbers that are needed and of which a segment has no record.
func absent(from, to uint64) error {
	return fmt.Errorf("records %d to %d are missing: %w", from, to-1, errDamaged)
}

// verifyDamaged finds out what is wrong with a segment that is being read from what could be salvaged of it: when the
// ledger met the damage, nobody has told yet.
func (b *Buffer) verifyDamaged(ctx context.Context, p *part, out *Verification, tell func(seq uint64)) error {
	name := filepath.Base(p.s.path)
	if i := slices.IndexFunc(out.Problems, func(p Problem) bool { return p.File == name }); i >= 0 {
		out.Problems[i].Reason += b.countSound(p, out).words()
		return nil
	}
	asIs := *p
	asIs.records = 0
	asIs.s = &segment{path: p.s.path, epoch: p.s.epoch, first: p.s.first, last: p.last}
	defer b.closeHandle(asIs.s)
	_, err := b.verifyBlocks(ctx, &asIs, new(Verification), tell)
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case err == nil:
		err = p.s.cause
	}
	out.Problems = append(out.Problems, Problem{name, reasonOf(err) + b.countSound(p, out).words(), p.s.first, p.last})
	return nil
}

// verifyBlocks checks all values of a segment, and that it has the records that it should. It returns how many there are.
func (b *Buffer) verifyBlocks(ctx context.Context, p *part, out *Verification, tell func(seq uint64)) (records uint64, err error) {
	if err := b.verifyFrame(p); err != nil {
		return 0, err
	}
	dict, err := b.dictValues(p.s)
	if err != nil {
		return 0, err
	}
	w := verifier{b: b, p: p, dict: len(dict), pos: p.s.first, key: makeKey(regionInfo, 0, 0, 0)}
	for w.key != nil {
		switch {
		case ctx.Err() != nil:
			return w.records, ctx.Err()
		case p.partly:
			err = w.salvaged()
		default:
			err = b.view(p.s, &w.r.cursor, w.step)
		}
		if err != nil {
			return w.records, fmt.Errorf("record %d: %w", w.pos, err)
		}
		tell(min(w.pos, p.last+1))
	}
	out.Records, out.Blocks = out.Records+w.records, out.Blocks+w.blocks
	if w.pos <= p.last && (p.records > 0 || b.lacks(w.pos, p.last+1)) {
		return w.records, absent(w.pos, p.last+1)
	}
	return w.records, nil
}

// verifier is the state of the verification of one segment.
type verifier struct {
	b        *Buffer
	p        *part
	dict     int    // entries
	key      []byte // the next value, nil at the end
	pos      uint64 // the record after the last block
	records  uint64
	blocks   int
	r        blockReader
	payloads []byte
}

const verifyStep = 256 << 10 // bytes of values without a block after which a commit may go on

// step checks the values from key on up to the next block, in the order of the tree, so that each of its pages is read. Of a segment
// that is being written what came after the verification began is left out.
func (w *verifier) step(c cursor) error {
	k, v := c.Seek(w.key)
	blocks := w.blocks
	for n := 0; k != nil && n < verifyStep && w.blocks == blocks; n += len(w.r.stored) {
		region, seq, typ, _ := keyOf(k)
		block := region == regionRecords && typ == typeBlock
		if block && seq > w.p.last {
			w.r.stored = w.r.stored[:0]
			k, v = c.Seek(makeKey(regionAgain, 0, 0, 0))
			continue
		}
		var err error
		if w.r.stored, k, v, err = getChunks(c, k, v, w.r.stored, nil, maxBlock); err != nil {
			return err
		}
		if block {
			err = w.block(seq)
		} else if _, err = openValue(w.r.stored); err != nil {
			err = fmt.Errorf("value %q %d: %w", region, seq, err)
		}
		if err != nil {
			return err
		}
	}
	w.key = bytes.Clone(k)
	return c.Err()
}

// block checks the block in r.stored, which stands at a number.
func (w *verifier) block(at uint64) error {
	info, err := parseBlock(w.r.stored, w.p.s.epoch.n, w.b.decoder, w.r.index)
	if err != nil {
		return err
	}
	if w.r.index = info.index; info.first != at {
		return fmt.Errorf("block %d stands at %d: %w", info.first, at, errDamaged)
	}
	return w.check(&info)
}

// check checks a block whose index is sound, and that no record is missing before it.
func (w *verifier) check(info *blockInfo) (err error) {
	if w.payloads, err = info.payloads(w.r.stored, w.b.decoder, w.payloads); err != nil {
		return fmt.Errorf("records %d to %d: %w", info.first, info.last, err)
	}
	n, err := checkHeads(info, len(w.payloads), w.dict, !w.p.whole)
	if err != nil {
		return err
	}
	if w.b.lacks(w.pos, min(info.first, w.p.last+1)) {
		return absent(w.pos, min(info.first, w.p.last+1))
	}
	w.records, w.blocks, w.pos = w.records+n, w.blocks+1, info.last+1
	return nil
}

// salvaged checks what is read of a segment of which the oldest records were given up: see dropPart.
func (w *verifier) salvaged() error {
	w.key = nil
	for w.pos <= w.p.last {
		info, err := w.b.blockAt(w.p.s, w.pos, &w.r)
		if err == nil {
			err = w.check(&info)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// verifyFrame checks what stands around a segment's records.
func (b *Buffer) verifyFrame(p *part) error {
	if p.partly {
		return nil // the tree is not read
	}
	return b.view(p.s, nil, func(c cursor) error {
		if _, err := b.lastCheckpoint(c); err != nil {
			return err
		}
		v, err := valueAt(c, regionInfo, 0, 0)
		if err != nil {
			return err
		}
		if _, err = parseInfo(v); err != nil {
			return err
		}
		if v, err = valueAt(c, regionSummary, 0, 0); errors.Is(err, ErrNotFound) {
			return nil // its process ended before it could be written
		} else if err != nil {
			return err
		}
		_, err = parseSummary(v)
		return err
	})
}

// checkHeads checks the index of a block against its header, its payloads and the dictionary.
func checkHeads(info *blockInfo, payloads, dict int, growing bool) (records uint64, err error) {
	var h head
	last, bytes := info.first, 0
	for r := info.heads(); r.next(&h); records++ {
		if int(h.stream) >= dict && !growing {
			return records, fmt.Errorf("record %d names entry %d of a dictionary of %d: %w", h.seq, h.stream, dict, errDamaged)
		}
		last = h.seq
		bytes += h.size
	}
	if records != uint64(info.count) || last != info.last || bytes != payloads {
		return records, fmt.Errorf("records %d to %d: index and payloads do not agree: %w", info.first, info.last, errDamaged)
	}
	return records, nil
}

// verifyState checks state.db as it is on disk now.
func (b *Buffer) verifyState(out *Verification) error {
	b.lockCommit()
	defer b.unlockCommit()
	if b.isClosed() {
		return ErrClosed
	}
	data, err := readState(filepath.Join(b.dir, stateName))
	if err == nil {
		out.Quarantine = len(data.entries)
		_, err = parseCheckpoint(data.ckpt, b.decoder)
	}
	p := Problem{File: stateName}
	if err != nil {
		p.Reason = reasonOf(err)
	}
	if err != nil && !slices.Contains(out.Problems, p) {
		out.Problems = append(out.Problems, p)
	}
	return nil
}
