package buffer

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/klauspost/compress/zstd"
)

// Open opens the store in a directory, creating both when they are not there (but not the parents of the
// directory). It starts nothing: the caller runs Run in a goroutine of its own, and Close at the end. Whatever damage it finds
// is set aside and reported in Stats; what is sound is served.
// Errors: ErrInUse, ErrNewer, or what the operating system says of the directory.
func Open(dir string, o Options) (*Buffer, error) { return open(dir, o, osFiles()) }

func open(dir string, o Options, fs files) (*Buffer, error) {
	o, err := o.withDefaults()
	if err != nil {
		return nil, fmt.Errorf("open buffer %q: %w", dir, err)
	}
	if err := os.Mkdir(dir, 0o750); err != nil && !errors.Is(err, os.ErrExist) {
		return nil, fmt.Errorf("open buffer: %w; create its parent directory or give another one", err)
	}
	lock, err := takeLock(dir)
	if err != nil {
		return nil, fmt.Errorf("open buffer %q: %w", dir, err)
	}
	b := newBuffer(dir, o, fs)
	b.lock = lock
	if b.lockInfo, err = lock.Stat(); err != nil {
		_ = lock.Close()
		return nil, fmt.Errorf("open buffer %q: %w", dir, err)
	}
	if err := b.load(); err != nil {
		_ = b.state.close()
		_ = lock.Close()
		return nil, fmt.Errorf("open buffer %q: %w", dir, err)
	}
	return b, nil
}

func newBuffer(dir string, o Options, fs files) *Buffer {
	return &Buffer{dir: dir, o: o, log: o.Log, fs: fs, start: time.Now(), next: 1,
		done: make(chan struct{}), kick: make(chan struct{}, 1),
		accounts: map[string]*account{}, streams: map[string]*Stream{}, gaps: map[gapKey]*Gap{}}
}

// load reads the store and writes the new state.db.
func (b *Buffer) load() (err error) {
	if b.coder, err = newBlockCoder(); err != nil {
		return err
	}
	if b.decoder, err = newDecoder(); err != nil {
		return err
	}
	old, err := b.loadState()
	if err != nil {
		return err
	}
	ckpt, err := b.loadSegments(old)
	if err != nil {
		return err
	}
	b.mu.Lock()
	cause, err := b.restore(old, ckpt)
	if err != nil {
		b.mu.Unlock()
		return err
	}
	b.coder.seed = epochSeed(b.epoch)
	lost := b.reconcile(cause)
	if n := len(b.st.damage); n > 0 {
		b.st.damage[n-1].Readings += lost
	} else if lost > 0 && cause == CauseDamaged {
		b.noteDamageHeld(Damage{File: filepath.Base(b.dir), Reason: "records that the ledger knows of are in no file", Readings: lost})
	}
	d := b.takeCheckpoint(nil)
	data := &stateData{epoch: b.epoch, reserved: b.next + reserveStep, ckpt: d.pack(b.coder.enc), entries: old.entries}
	b.reserved = data.reserved
	if n := data.bound(b.o.quarantineBytes()); n > 0 {
		b.log.Warn("quarantine is larger than max size allows; its oldest entries were removed", "dir", b.dir, "entries", n)
	}
	b.changed = false
	b.mu.Unlock()
	b.measureAside()
	if err := b.openState(data); err != nil {
		return fmt.Errorf("%w; the store is unchanged: free space or give write permission", err)
	}
	b.mu.Lock()
	b.st.lastIdle, b.st.lastCommit = time.Now(), time.Now()
	b.mu.Unlock()
	if err := b.reclaim(); err != nil {
		return err
	}
	b.shrink()
	return nil
}

// shrink enforces a bound that is lower than it was. Under drop-newest what was accepted stays, and more is accepted
// when there is room again.
func (b *Buffer) shrink() {
	if b.room() >= 0 {
		return
	}
	if err := b.secure(-emptyFile); err != nil {
		b.log.Warn("the store is larger than max size; records are refused until it is not", "dir", b.dir, "error", err)
	}
}

func newDecoder() (*zstd.Decoder, error) {
	dec, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(2), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxMemory(maxBlock))
	if err != nil {
		return nil, fmt.Errorf("make decoder: %w", err)
	}
	return dec, nil
}

// loadState reads state.db. One that is damaged is set aside, and the store goes on from its segments.
func (b *Buffer) loadState() (*stateData, error) {
	path := filepath.Join(b.dir, stateName)
	data, err := readState(path)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return &stateData{lost: true}, nil
	case err == nil:
		b.epoch = data.epoch
		return data, nil
	case !errors.Is(err, errDamaged) && !errors.Is(err, errEmpty):
		return nil, err
	}
	b.setAside(path, Damage{Reason: err.Error()})
	return &stateData{lost: true}, nil
}

// loadSegments finds the segments and the newest checkpoint in them or in state.db.
func (b *Buffer) loadSegments(old *stateData) (*checkpoint, error) {
	best, err := parseCheckpoint(old.ckpt, b.decoder)
	if err != nil {
		best = nil
	}
	names, err := filepath.Glob(filepath.Join(b.dir, "seg-*.db"))
	if err != nil {
		return nil, err
	}
	slices.Sort(names)
	for _, path := range names {
		s, ckpt, err := b.loadSegment(path)
		if errors.Is(err, errEmpty) {
			if b.readOnly {
				continue
			}
			if err := b.fs.remove(path); err != nil {
				return nil, fmt.Errorf("remove empty segment: %w", err)
			}
			continue
		}
		if errors.Is(err, errDamaged) {
			b.setAside(path, Damage{Reason: err.Error()})
			continue
		}
		if err != nil {
			return nil, err
		}
		b.segs = append(b.segs, s)
		b.segBytes += s.size
		if ckpt != nil && (best == nil || ckpt.gen > best.gen) {
			best = ckpt
		}
	}
	for i, s := range b.segs[:max(len(b.segs)-1, 0)] {
		if next := b.segs[i+1].first; s.last >= next { // that is written again in the next one
			s.last, s.clipped = next-1, true
		}
	}
	return best, nil
}

// loadSegment reads what a segment says of itself: never the records, but for the index of one without a
// summary. A damaged one is salvaged; errDamaged means that nothing in it can be read.
func (b *Buffer) loadSegment(path string) (*segment, *checkpoint, error) {
	hex, _ := strings.CutSuffix(strings.TrimPrefix(filepath.Base(path), "seg-"), ".db")
	var first uint64
	if n, err := fmt.Sscanf(hex, "%16x", &first); n != 1 || err != nil || fmt.Sprintf(segPattern, first) != filepath.Base(path) {
		return nil, nil, fmt.Errorf("%q is not the name of a segment: %w", filepath.Base(path), errDamaged)
	}
	info, err := os.Stat(path)
	if err != nil {
		return nil, nil, err
	}
	s := &segment{path: path, first: first, last: first - 1, size: info.Size(), sealed: true}
	ckpt, err := b.loadSound(s)
	if errors.Is(err, errDamaged) || errors.Is(err, ErrNotFound) {
		ckpt, err = b.loadDamaged(s, err)
	}
	if err != nil {
		b.closeHandle(s)
		return nil, nil, err
	}
	if s.wrote == 0 && ckpt != nil { // a crash left it without a summary
		s.made, s.wrote = ckpt.elapsed, ckpt.elapsed
	}
	return s, ckpt, nil
}

// loadSound reads the figures of a segment that is not damaged, as far as can be seen from them.
func (b *Buffer) loadSound(s *segment) (ckpt *checkpoint, err error) {
	if info, err := os.Stat(s.path); err == nil && info.Size() == 0 {
		return nil, errEmpty
	}
	err = b.view(s, nil, func(c cursor) error {
		v, err := valueAt(c, regionInfo, 0, 0)
		if err != nil {
			return err
		}
		epoch, named, err := parseInfo(v)
		if err != nil {
			return err
		}
		if b.epoch == 0 {
			b.epoch = epoch
		}
		if epoch != b.epoch || named != s.first {
			return fmt.Errorf("segment of another store (epoch %016x, first %d): %w", epoch, named, errDamaged)
		}
		if s.pages != nil && s.pages.torn {
			return fmt.Errorf("a meta page is not valid: %w", errDamaged)
		}
		if ckpt, err = b.lastCheckpoint(c); err != nil {
			return err
		}
		if v, err = valueAt(c, regionSummary, 0, 0); errors.Is(err, ErrNotFound) {
			return nil
		} else if err != nil {
			return err
		}
		sum, err := parseSummary(v)
		if err == nil {
			s.take(sum)
		}
		return err
	})
	if err != nil || !s.empty() {
		return ckpt, err
	}
	return ckpt, b.scanFigures(s)
}

func (s *segment) take(sum *summary) {
	s.last, s.records, s.special = sum.last, sum.records, sum.special
	s.minAt, s.maxAt, s.made, s.wrote = sum.minAt, sum.maxAt, sum.made, sum.wrote
}

// loadDamaged reads what can be salvaged of a segment.
func (b *Buffer) loadDamaged(s *segment, cause error) (*checkpoint, error) {
	sv, err := salvageFile(s.path, s.first, b.epoch, b.decoder)
	if err != nil {
		return nil, err
	}
	if len(sv.blocks) == 0 {
		return nil, fmt.Errorf("%w: nothing in it can be read: %w", cause, errDamaged)
	}
	if b.epoch == 0 {
		b.epoch = sv.epoch
	}
	s.rw.Lock()
	s.salvaged = sv
	s.rw.Unlock()
	s.damaged = true
	if err := b.scanFigures(s); err != nil {
		return nil, err
	}
	if sv.sum != nil && sv.sum.last >= s.last {
		s.last, s.made, s.wrote, s.minAt, s.maxAt = sv.sum.last, sv.sum.made, sv.sum.wrote, sv.sum.minAt, sv.sum.maxAt
	}
	b.noteDamage(s.damage(cause, 0))
	return sv.ckpt, nil
}

// lastCheckpoint returns the newest checkpoint of a segment.
func (b *Buffer) lastCheckpoint(c cursor) (*checkpoint, error) {
	k, _ := c.Seek(makeKey(regionRecords+1, 0, 0, 0))
	if k == nil {
		k, _ = c.Last()
	} else {
		k, _ = c.Prev()
	}
	region, seq, typ, _ := keyOf(k)
	if region != regionRecords || typ != typeCheckpoint {
		return nil, errors.Join(c.Err(), fmt.Errorf("no checkpoint at the end: %w", errDamaged))
	}
	v, err := valueAt(c, regionRecords, seq, typeCheckpoint)
	if err != nil {
		return nil, err
	}
	ckpt, err := parseCheckpoint(v, b.decoder)
	if err != nil || ckpt.base == 0 {
		return ckpt, err
	}
	if v, err = valueAt(c, regionRecords, ckpt.base-1, typeCheckpoint); err != nil {
		return nil, err
	}
	base, err := parseCheckpoint(v, b.decoder)
	if err != nil {
		return nil, err
	}
	return ckpt, ckpt.apply(base)
}

// scanFigures finds out from the indexes what a segment without a summary holds.
func (b *Buffer) scanFigures(s *segment) error {
	var h head
	return b.eachBlock(s, func(info *blockInfo, _ []byte) error {
		for r := info.heads(); r.next(&h); {
			if s.records == 0 {
				s.minAt, s.maxAt = h.at, h.at
			}
			s.minAt, s.maxAt = min(s.minAt, h.at), max(s.maxAt, h.at)
			s.records++
			s.last = max(s.last, h.seq)
			if h.flags&headAddressed != 0 {
				s.special++
			}
		}
		return nil
	})
}

// lostState is how far the numbers jump when state.db is lost: nobody knows how many more were used than
// the segments have, and a number must never be used twice.
const lostState = 1 << 40

// restore puts the checkpoint into effect and sets the number that the next record gets. It returns what
// a record that the ledger has and no file does was lost to. mu is held.
func (b *Buffer) restore(old *stateData, ckpt *checkpoint) (cause Cause, err error) {
	cause = CauseDamaged
	b.next = max(b.next, old.reserved)
	if n := len(b.segs); n > 0 {
		b.next = max(b.next, b.segs[n-1].last+1, b.segs[n-1].first)
	}
	if ckpt != nil {
		b.next = max(b.next, ckpt.next)
		b.gen, b.ageBase = ckpt.gen, ckpt.elapsed
		if why, gen, ok := parseIntent(old.intent); ok && ckpt.gen <= gen {
			cause = why
		}
	}
	for _, s := range b.segs {
		if s.wrote == 0 { // it is damaged and does not say: it ages from now on
			s.made, s.wrote = b.ageBase, b.ageBase
		}
	}
	if old.lost && (len(b.segs) > 0 || ckpt != nil) {
		b.next += lostState
	}
	if b.epoch == 0 {
		var raw [8]byte
		if _, err := rand.Read(raw[:]); err != nil {
			return cause, fmt.Errorf("make epoch: %w", err)
		}
		b.epoch = max(binary.BigEndian.Uint64(raw[:]), 1)
	}
	b.durable = b.next - 1
	b.tail = tail{first: b.next, chunk: int(min(256<<10, b.o.TailBytes/8))}
	if ckpt != nil {
		if err := b.restoreLedger(ckpt); err != nil {
			return cause, err
		}
	}
	for _, d := range b.slots {
		if d != nil {
			d.unsure = d.acked.next(d.start)
		}
	}
	b.fillHoles()
	for _, s := range b.segs {
		if s.damaged {
			if err := b.giveUpHoles(s); err != nil {
				return cause, err
			}
		}
	}
	return cause, b.addDestinations()
}

func (b *Buffer) restoreLedger(ckpt *checkpoint) error {
	for i := range ckpt.dests {
		c := &ckpt.dests[i]
		if b.slots[c.slot] != nil || b.byName(c.name) != nil {
			return fmt.Errorf("checkpoint names a destination twice: %w", errDamaged)
		}
		d := newDestination(b, c.name, c.slot, c.start)
		d.acked.s, d.backlog, d.origin = c.acked, c.backlog, c.origin
		b.slots[c.slot] = d
		b.all |= bit(c.slot)
	}
	for i := range ckpt.accounts {
		c := &ckpt.accounts[i]
		a, err := b.account(c.name)
		if err != nil {
			return err
		}
		f := c.fields
		a.polled, a.suppressed, a.accepted = f[0], f[1], f[2]
		for j := range ckpt.dests {
			f := f[accountFields+j*destFields:]
			n := &a.dests[ckpt.dests[j].slot]
			n.before, n.delivered = f[0], f[1]
			n.buffered = a.accepted - n.before - n.delivered
			for k := range n.dropped {
				n.dropped[k] = f[2+k]
				n.buffered -= f[2+k]
			}
		}
	}
	for _, g := range ckpt.gaps {
		b.missing(b.accounts[ckpt.accounts[g.account].name], g.to, g.gap)
	}
	return nil
}

// fillHoles marks the numbers that no record has as needing nothing, so that cursors stay one span each. What is in memory
// is no hole. mu is held.
func (b *Buffer) fillHoles() {
	end := b.next
	if b.tail.n > 0 {
		end = b.tail.first
	}
	for _, d := range b.slots {
		if d == nil {
			continue
		}
		from := uint64(0)
		for _, s := range b.segs {
			d.acked.add(from, min(s.first, end))
			from = s.last + 1
		}
		d.acked.add(from, end)
	}
}
