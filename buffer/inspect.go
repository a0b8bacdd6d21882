package buffer

import (
	"context"
	"errors"
	"fmt"
	"math"
	"path/filepath"
	"slices"
	"sort"
)

// What follows looks into the store from the side: it depends on no cursor, counts nothing as in flight,
// marks nothing and sets nothing aside, so that looking never changes what a destination gets. It holds no
// lock while it reads a file.

// SegmentInfo describes one segment file.
type SegmentInfo struct {
	File     string `json:"file"` // in the store's directory
	Bytes    int64  `json:"bytes"`
	FirstSeq uint64 `json:"first_seq"` // LastSeq below FirstSeq: nothing yet
	LastSeq  uint64 `json:"last_seq"`
	Records  uint64 `json:"records"`
	MinAt    int64  `json:"min_at_us"` // record times, µs since 1970
	MaxAt    int64  `json:"max_at_us"`
	Sealed   bool   `json:"sealed"`  // written to the end
	Damaged  bool   `json:"damaged"` // read from what could be salvaged
	Needed   bool   `json:"needed"`  // some destination has not acknowledged all of it
}

// Segments returns the segments in order of sequence number.
func (b *Buffer) Segments() []SegmentInfo {
	b.mu.Lock()
	defer b.mu.Unlock()
	out := make([]SegmentInfo, 0, len(b.segs))
	for _, s := range b.segs {
		out = append(out, SegmentInfo{File: filepath.Base(s.path), Bytes: s.size, FirstSeq: s.first, LastSeq: s.last, Records: s.records,
			MinAt: s.minAt, MaxAt: s.maxAt, Sealed: s.sealed, Damaged: s.damaged && !s.partly, Needed: !b.covered(s)})
	}
	return out
}

// Scan calls f for every record with from <= seq < to (0 = no end) that is on disk or in memory when its turn
// comes, in order, whoever has acknowledged it. The record is valid until f returns, and its stream is only
// to be read. Scan ends with f's error or the context's. A damaged segment does not end it: its sound records
// are given, and the error at the end names it.
func (b *Buffer) Scan(ctx context.Context, from, to uint64, f func(*Record) error) error {
	if to == 0 {
		to = math.MaxUint64
	}
	w := walk{b: b, to: to, pos: max(from, 1), f: f}
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		b.mu.Lock()
		if b.closed {
			b.mu.Unlock()
			return ErrClosed
		}
		s, done := w.next()
		b.mu.Unlock()
		var err error
		switch {
		case done:
			return w.damage
		case s != nil:
			err = w.block(s)
		default:
			err = w.giveTail()
		}
		if err != nil {
			return err
		}
	}
}

// walk is the state of one call of Scan.
type walk struct {
	b      *Buffer
	f      func(*Record) error
	pos    uint64
	to     uint64
	last   uint64 // of the segment when it was chosen
	limit  uint64 // where the tail began then
	tail   []entry
	damage error

	of       *segment // whose dictionary dict is
	read     *segment // what is read in its place: itself, or what was salvaged of it
	dict     []*Stream
	blocks   blockReader
	payloads []byte
}

const tailStep = 256 // records taken from the tail at once

// next says which segment has the record at pos, or copies records of the tail from there. mu is held.
func (w *walk) next() (s *segment, done bool) {
	b := w.b
	w.tail = w.tail[:0]
	for w.pos < min(b.next, w.to) {
		if w.pos >= b.tail.first {
			for seq := w.pos; seq < min(b.next, w.to) && len(w.tail) < tailStep; seq++ {
				w.tail = append(w.tail, *b.tail.at(seq))
			}
			return nil, false
		}
		w.limit = min(b.tail.first, w.to)
		s := b.holding(w.pos)
		if s == nil || s.first >= w.limit {
			w.pos = w.limit
			continue
		}
		w.pos = max(w.pos, s.first)
		w.last = s.last
		return s, false
	}
	return nil, true
}

// holding returns the first segment that has a record at or above seq, or nil. One whose first commit is under way is
// in the list and empty, with a last below its first; it is passed over, not searched by. mu is held.
func (b *Buffer) holding(seq uint64) *segment {
	for i := sort.Search(len(b.segs), func(i int) bool { return b.segs[i].last >= seq }); i < len(b.segs); i++ {
		if !b.segs[i].empty() {
			return b.segs[i]
		}
	}
	return nil
}

func (w *walk) giveTail() error {
	for i := range w.tail {
		e := &w.tail[i]
		out := Record{Epoch: w.b.epoch.name, Seq: w.pos, Stream: e.stream, Payload: e.payload, At: e.at, Readings: int(e.readings), Gap: e.gap}
		if e.gap != nil {
			out.Payload = nil
		}
		w.pos++
		if err := w.f(&out); err != nil {
			return err
		}
	}
	return nil
}

// block gives the records of the block that has pos, or the next one of the segment.
func (w *walk) block(s *segment) error {
	info, err := w.load(s)
	switch {
	case errors.Is(err, ErrNotFound) && w.read.salvage() != nil:
		w.pos = w.last + 1
		return nil
	case err != nil && w.read == s: // once more from what is sound
		w.salvage(s, err)
		return nil
	case err != nil:
		w.pos = w.last + 1
		return nil
	}
	var h head
	end, offset := min(w.limit, w.last+1), 0
	for r := info.heads(); r.next(&h) && h.seq < end; offset += h.size {
		if h.seq < w.pos {
			continue
		}
		if int(h.stream) >= len(w.dict) || w.dict[h.stream] == nil || offset+h.size > len(w.payloads) {
			continue // a dictionary entry is lost: see salvage
		}
		rec := Record{Epoch: s.epoch.name, Seq: h.seq, Stream: w.dict[h.stream], Payload: w.payloads[offset : offset+h.size], At: h.at, Readings: int(h.readings)}
		if h.flags&headGap != 0 {
			if rec.Gap, err = parseGap(rec.Payload); err != nil {
				continue
			}
			rec.Payload = nil
		}
		if err := w.f(&rec); err != nil {
			return err
		}
	}
	w.pos = min(info.last+1, end)
	return nil
}

// load reads the block and, for a segment that is new to the walk, its dictionary.
func (w *walk) load(s *segment) (info blockInfo, err error) {
	if w.of != s {
		w.of, w.read, w.dict = s, s, nil
	}
	if info, err = w.b.blockAt(w.read, w.pos, &w.blocks); err != nil {
		return info, err
	}
	if w.payloads, err = info.payloads(w.blocks.stored, w.b.decoder, w.payloads); err != nil {
		return info, err
	}
	var h head
	for r := info.heads(); r.next(&h); {
		if int(h.stream) >= len(w.dict) { // the segment being written has got more
			return info, w.loadDict()
		}
	}
	return info, nil
}

// loadDict reads the dictionary into streams of its own, so that looking does not add to the store's.
func (w *walk) loadDict() error {
	values, err := w.b.dictValues(w.read)
	if err != nil {
		return err
	}
	w.dict = make([]*Stream, len(values))
	for i, v := range values {
		if v.account != "" {
			w.dict[i] = &Stream{b: w.b, account: &account{name: v.account}, dict: v.dict}
		}
	}
	return nil
}

// salvage goes on with what is sound of a segment that failed to be read, unless it was dropped meanwhile.
func (w *walk) salvage(s *segment, cause error) {
	w.b.mu.Lock()
	gone := s.gone
	w.b.mu.Unlock()
	if gone {
		w.pos = w.last + 1
		return
	}
	w.damage = errors.Join(w.damage, fmt.Errorf("read segment %q: %w; its sound records were read", filepath.Base(s.path), cause))
	sv, err := salvageFile(s.path, info{w.b.store, s.first, s.epoch.n}, nil, w.b.decoder)
	if err != nil {
		w.pos = w.last + 1
		return
	}
	w.read = &segment{path: s.path, epoch: s.epoch, first: s.first, last: w.last, salvaged: sv}
	w.dict = nil
}

// Waits returns the names of the destinations that have not acknowledged a record.
func (b *Buffer) Waits(seq uint64) []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	var names []string
	for _, d := range b.slots {
		if d != nil && seq < b.next && !d.acked.has(seq) {
			names = append(names, d.name)
		}
	}
	return names
}

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
}

// Verify reads everything in the store and checks every checksum, every count and every dictionary entry. It changes
// nothing. progress, when not nil, is called now and then with bytes read and bytes in all; it may take
// its time. The error says why verifying ended early; damage is in the report, together with what was found at Open.
func (b *Buffer) Verify(ctx context.Context, progress func(done, total int64)) (*Verification, error) {
	b.mu.Lock()
	segs := slices.Clone(b.segs)
	list := make([]part, 0, len(segs))
	var total, done int64
	for _, s := range segs {
		list = append(list, part{s: s, last: s.last, records: s.records, size: s.size, whole: s.sealed && !s.clipped && !s.damaged, damaged: s.damaged && !s.partly})
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
	last, records  uint64
	size           int64
	whole, damaged bool
}

// known returns the damage that is known already, of files that are still there, and files that are missing.
func (b *Buffer) known() (out []Problem) {
	b.mu.Lock()
	damage := slices.Clone(b.st.damage)
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
	if err == nil && p.whole && records != p.records {
		err = fmt.Errorf("%d records, its summary says %d: %w", records, p.records, errDamaged)
	}
	if err == nil {
		out.Records, out.Blocks = out.Records+sound.Records, out.Blocks+sound.Blocks
	}
	b.mu.Lock()
	gone, closed := p.s.gone, b.closed
	b.mu.Unlock()
	switch {
	case err == nil || gone:
		return nil
	case closed:
		return ErrClosed
	case !errors.Is(err, errDamaged) && !errors.Is(err, ErrNotFound):
		return fmt.Errorf("verify segment %q: %w", filepath.Base(p.s.path), err)
	}
	out.Problems = append(out.Problems, Problem{filepath.Base(p.s.path), err.Error(), p.s.first, p.last})
	return b.countSound(p, out)
}

// countSound adds what can be read of a segment that is damaged, with every checksum right. The file may be gone meanwhile.
func (b *Buffer) countSound(p *part, out *Verification) error {
	sv, err := salvageFile(p.s.path, info{b.store, p.s.first, p.s.epoch.n}, nil, b.decoder)
	if err != nil {
		return nil // nothing can be, and the problem is told
	}
	return b.eachBlock(&segment{path: p.s.path, epoch: p.s.epoch, first: p.s.first, last: p.last, salvaged: sv}, func(info *blockInfo, _ []byte) error {
		var h head
		for r := info.heads(); r.next(&h) && h.seq <= p.last; {
			out.Records++
		}
		out.Blocks++
		return nil
	})
}

// verifyDamaged finds out what is wrong with a segment that is being read from what could be salvaged of it: when the
// ledger met the damage, nobody has told yet.
func (b *Buffer) verifyDamaged(ctx context.Context, p *part, out *Verification, tell func(seq uint64)) error {
	name := filepath.Base(p.s.path)
	if slices.ContainsFunc(out.Problems, func(p Problem) bool { return p.File == name }) {
		return b.countSound(p, out)
	}
	asIs := *p
	asIs.s = &segment{path: p.s.path, epoch: p.s.epoch, first: p.s.first, last: p.last}
	defer b.closeHandle(asIs.s)
	_, err := b.verifyBlocks(ctx, &asIs, new(Verification), tell)
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case err == nil:
		err = errDamaged
	}
	out.Problems = append(out.Problems, Problem{name, err.Error(), p.s.first, p.last})
	return b.countSound(p, out)
}

func (b *Buffer) verifyBlocks(ctx context.Context, p *part, out *Verification, tell func(seq uint64)) (records uint64, err error) {
	var r blockReader
	var payloads []byte
	if err := b.verifyFrame(p); err != nil {
		return 0, err
	}
	dict, err := b.dictValues(p.s)
	if err != nil {
		return 0, err
	}
	for pos := p.s.first; pos <= p.last; {
		if ctx.Err() != nil {
			return records, ctx.Err()
		}
		info, err := b.blockAt(p.s, pos, &r)
		if err != nil {
			return records, fmt.Errorf("record %d: %w", pos, err)
		}
		if payloads, err = info.payloads(r.stored, b.decoder, payloads); err != nil {
			return records, fmt.Errorf("records %d to %d: %w", info.first, info.last, err)
		}
		n, err := checkHeads(&info, len(payloads), len(dict), !p.whole)
		if err != nil {
			return records, err
		}
		records += n
		out.Records += n
		out.Blocks++
		pos = info.last + 1
		tell(min(pos, p.last+1))
	}
	return records, nil
}

// verifyFrame checks what stands around a sealed segment's records.
func (b *Buffer) verifyFrame(p *part) error {
	if !p.whole {
		return nil // it is checked when it is next opened
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
	if err != nil {
		out.Problems = append(out.Problems, Problem{File: stateName, Reason: err.Error()})
	}
	return nil
}
