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
	bolt "go.etcd.io/bbolt"
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
	b := &Buffer{dir: dir, o: o, log: o.Log, fs: fs, lock: lock, start: time.Now(), next: 1,
		done: make(chan struct{}), kick: make(chan struct{}, 1),
		accounts: map[string]*account{}, streams: map[string]*Stream{}, gaps: map[gapKey]*Gap{}}
	if err := b.load(); err != nil {
		_ = b.state.close()
		_ = lock.Close()
		return nil, fmt.Errorf("open buffer %q: %w", dir, err)
	}
	return b, nil
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
	if err := b.restore(old, ckpt); err != nil {
		return err
	}
	b.mu.Lock()
	b.reconcile()
	data := &stateData{epoch: b.epoch, reserved: b.next + reserveStep, ckpt: b.takeCheckpoint(), entries: old.entries}
	b.reserved = data.reserved
	b.mu.Unlock()
	b.state, err = createState(b.fs, b.dir, b.o.stateLimit(), data)
	if err != nil {
		return fmt.Errorf("%w; the store is unchanged: free space or give write permission", err)
	}
	b.mu.Lock()
	b.st.written += emptyFile * 2
	b.st.lastIdle, b.st.lastCommit = time.Now(), time.Now()
	b.mu.Unlock()
	return b.reclaim()
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
	data, err := readState(b.fs, path)
	switch {
	case err == nil && data == nil:
		return &stateData{}, nil
	case err == nil:
		b.epoch = data.epoch
		return data, nil
	case errors.Is(err, ErrNewer) || errors.Is(err, os.ErrPermission):
		return nil, err
	}
	b.setAside(path, Damage{Reason: err.Error()})
	return &stateData{}, nil
}

// loadSegments finds the segments and the newest checkpoint in them or in state.db.
func (b *Buffer) loadSegments(old *stateData) (*checkpoint, error) {
	best, err := parseCheckpoint(old.ckpt)
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
		if errors.Is(err, ErrNewer) || errors.Is(err, os.ErrPermission) {
			return nil, err
		}
		if errors.Is(err, errEmpty) {
			if err := b.fs.remove(path); err != nil {
				return nil, fmt.Errorf("remove empty segment: %w", err)
			}
			continue
		}
		if err != nil {
			b.setAside(path, Damage{Reason: err.Error()})
			continue
		}
		b.segs = append(b.segs, s)
		if ckpt != nil && (best == nil || ckpt.gen > best.gen) {
			best = ckpt
		}
	}
	for i, s := range b.segs[:max(len(b.segs)-1, 0)] {
		s.last = min(s.last, b.segs[i+1].first-1) // what is above was written again in the next one
	}
	return best, nil
}

// loadSegment reads what a segment says of itself: never the records, but for the index of one without a summary.
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
	var ckpt *checkpoint
	err = b.view(s, func(bkt *bolt.Bucket) error {
		epoch, named, err := parseInfo(bkt.Get(makeKey(regionInfo, 0, 0, 0)))
		if err != nil {
			return err
		}
		if b.epoch == 0 {
			b.epoch = epoch
		}
		if epoch != b.epoch || named != first {
			return fmt.Errorf("segment of another store (epoch %016x, first %d): %w", epoch, named, errDamaged)
		}
		ckpt = lastCheckpoint(bkt)
		return b.loadFigures(bkt, s)
	})
	if err != nil {
		b.closeHandle(s)
		return nil, nil, err
	}
	return s, ckpt, nil
}

// lastCheckpoint returns the newest checkpoint of a segment, or nil.
func lastCheckpoint(bkt *bolt.Bucket) *checkpoint {
	c := bkt.Cursor()
	k, _ := c.Seek(makeKey(regionRecords+1, 0, 0, 0))
	if k == nil {
		k, _ = c.Last()
	} else {
		k, _ = c.Prev()
	}
	region, seq, typ, _ := keyOf(k)
	if region != regionRecords || typ != typeCheckpoint {
		return nil
	}
	k, v := c.Seek(makeKey(regionRecords, seq, typ, 0))
	value, _, _, err := getChunks(c, k, v, nil, maxBlock)
	if err != nil {
		return nil
	}
	ckpt, err := parseCheckpoint(value)
	if err != nil {
		return nil
	}
	return ckpt
}

// loadFigures reads the segment's summary, or makes it from the indexes of its blocks.
func (b *Buffer) loadFigures(bkt *bolt.Bucket, s *segment) error {
	c := bkt.Cursor()
	if k, v := c.Seek(makeKey(regionSummary, 0, 0, 0)); k != nil {
		value, _, _, err := getChunks(c, k, v, nil, maxBlock)
		if err == nil {
			if _, err = parseSummary(value, s); err == nil {
				return nil
			}
		}
	}
	var h head
	return b.eachBlock(bkt, s, func(info *blockInfo, _ []byte) error {
		for r := info.heads(); r.next(&h); {
			if s.records == 0 {
				s.minAt, s.maxAt = h.at, h.at
			}
			s.minAt, s.maxAt = min(s.minAt, h.at), max(s.maxAt, h.at)
			s.records++
			s.last = max(s.last, h.seq)
			if h.flags&headAddressed != 0 && h.flags&headGap == 0 {
				s.special++
			}
		}
		return nil
	})
}

// eachBlock calls f with the index of each block of a segment.
func (b *Buffer) eachBlock(bkt *bolt.Bucket, s *segment, f func(*blockInfo, []byte) error) error {
	c := bkt.Cursor()
	var stored, index []byte
	var err error
	k, v := c.Seek(makeKey(regionRecords, 0, 0, 0))
	for k != nil && k[0] == regionRecords {
		_, _, typ, _ := keyOf(k)
		if typ != typeBlock {
			k, v = c.Next()
			continue
		}
		if stored, k, v, err = getChunks(c, k, v, stored, maxBlock); err != nil {
			return err
		}
		s.read.Add(int64(len(stored)))
		info, err := parseBlock(stored, b.decoder, index)
		if err != nil {
			return err
		}
		index = info.index
		if err := f(&info, stored); err != nil {
			return err
		}
	}
	return nil
}

// restore puts the checkpoint into effect and sets the numbers that the next record gets.
func (b *Buffer) restore(old *stateData, ckpt *checkpoint) error {
	b.next = max(b.next, old.reserved)
	if n := len(b.segs); n > 0 {
		b.next = max(b.next, b.segs[n-1].last+1, b.segs[n-1].first)
		if old.reserved == 0 {
			b.next += 2 * reserveStep // state.db is lost: more may have been used than is on disk
		}
	}
	if ckpt != nil {
		b.next, b.gen, b.ageBase = max(b.next, ckpt.next), ckpt.gen, ckpt.elapsed
		if err := b.restoreLedger(ckpt); err != nil {
			return err
		}
	}
	if b.epoch == 0 {
		var raw [8]byte
		if _, err := rand.Read(raw[:]); err != nil {
			return fmt.Errorf("make epoch: %w", err)
		}
		b.epoch = binary.BigEndian.Uint64(raw[:])
	}
	b.durable = b.next - 1
	b.tail = tail{first: b.next, chunk: int(min(256<<10, b.o.TailBytes/8))}
	if err := b.addDestinations(); err != nil {
		return err
	}
	b.fillHoles()
	return nil
}

func (b *Buffer) restoreLedger(ckpt *checkpoint) error {
	for i := range ckpt.dests {
		c := &ckpt.dests[i]
		if b.slots[c.slot] != nil || b.byName(c.name) != nil {
			return fmt.Errorf("checkpoint names a destination twice: %w", errDamaged)
		}
		d := newDestination(b, c.name, c.slot, c.start)
		d.acked.s = c.acked
		d.backlog, d.origin = c.backlog, c.origin
		b.slots[c.slot] = d
		b.all |= bit(c.slot)
	}
	for i := range ckpt.accounts {
		c := &ckpt.accounts[i]
		a, err := b.account(c.name)
		if err != nil {
			return err
		}
		a.polled, a.suppressed, a.accepted = c.polled, c.suppressed, c.accepted
		for j := range ckpt.dests {
			a.dests[ckpt.dests[j].slot] = c.dests[j]
		}
	}
	return nil
}

// addDestinations gives each configured destination its slot.
func (b *Buffer) addDestinations() error {
	for _, name := range b.o.Destinations {
		if d := b.byName(name); d != nil {
			d.known = true
			continue
		}
		slot := slices.Index(b.slots[:], nil)
		if slot < 0 {
			return fmt.Errorf("add destination %q: %d destinations hold the store, the most it can have; forget one that is no longer configured", name, MaxDestinations)
		}
		start := b.next
		if b.o.NewDestination == StartOldest && len(b.segs) > 0 {
			start = b.segs[0].first
		}
		d := newDestination(b, name, slot, start)
		d.known = true
		b.slots[slot] = d
		b.all |= bit(slot)
		for _, a := range b.accountSeq {
			a.dests[slot] = destAccount{before: a.accepted}
		}
		if start < b.next {
			b.startOldest(d)
		}
	}
	if b.all == 0 {
		return errors.New("no destinations: none configured and none in the store; give at least one")
	}
	if len(b.o.Destinations) == 0 {
		for _, d := range b.slots {
			if d != nil {
				d.known = true
			}
		}
	}
	return nil
}

// fillHoles marks the numbers that no record has as needing nothing, so that cursors stay one span each.
func (b *Buffer) fillHoles() {
	for _, d := range b.slots {
		if d == nil {
			continue
		}
		from := uint64(0)
		for _, s := range b.segs {
			d.acked.add(from, s.first)
			from = s.last + 1
		}
		d.acked.add(from, b.next)
	}
}

func (s *stateFile) close() error {
	if s == nil || s.db == nil {
		return nil
	}
	return guard(s.db.Close)
}
