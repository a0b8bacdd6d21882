package buffer

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/klauspost/compress/zstd"
)

// Open opens the store in a directory, creating both when they are not there (but not the parents of the
// directory). It starts nothing: the caller runs Run in a goroutine of its own, and Close at the end. Whatever damage it finds
// is set aside and reported in Stats; what is sound is served.
// Errors: ErrInUse, ErrNewer, or what the operating system says of the directory.
func Open(dir string, o Options) (*Buffer, error) { return open(dir, o, osFiles()) }

func open(dir string, o Options, fs files) (*Buffer, error) {
	o, err := o.complete()
	if err != nil {
		return nil, fmt.Errorf("open buffer %q: %w", dir, err)
	}
	if err := os.Mkdir(dir, 0o750); err != nil && !errors.Is(err, os.ErrExist) {
		return nil, fmt.Errorf("open buffer: %w", mendMkdir(dir, err))
	}
	lock, err := takeLock(dir)
	if err != nil {
		return nil, fmt.Errorf("open buffer %q: %w", dir, mend(dir, err))
	}
	b := newBuffer(dir, o, fs)
	b.lock, b.seen = lock, readSeen(lock)
	if b.lockInfo, err = lock.Stat(); err == nil {
		b.dirInfo, err = os.Stat(dir)
	}
	if err != nil {
		_ = lock.Close()
		return nil, fmt.Errorf("open buffer %q: %w", dir, err)
	}
	if err := b.load(); err != nil {
		_ = b.state.close()
		_ = lock.Close()
		return nil, fmt.Errorf("open buffer %q: %w", dir, mend(dir, err))
	}
	return b, nil
}

// mendMkdir adds to why a directory cannot be made what to do about it.
func mendMkdir(dir string, err error) error {
	switch {
	case errors.Is(err, os.ErrNotExist):
		return fmt.Errorf("%w; create its parent directory or give another one", err)
	case errors.Is(err, os.ErrPermission):
		return fmt.Errorf("%w; make the directory above it one in which this user may write, or give another one", err)
	}
	return mend(filepath.Dir(dir), err)
}

// mend adds to what the operating system says of a directory, or of a file in it, what to do about it, where that is known.
func mend(dir string, err error) error {
	switch {
	case errors.Is(err, syscall.EDQUOT):
		return fmt.Errorf("%w; free space that this user takes, or raise its quota", err)
	case IsDiskFull(err) && NoInodes(dir):
		return fmt.Errorf("%w; no inode is free for a new file (see df -i): remove files on its disk", err)
	case IsDiskFull(err):
		return fmt.Errorf("%w; free space on its disk", err)
	case IsReadOnly(err):
		return fmt.Errorf("%w; it must be mounted writable", err)
	case errors.Is(err, os.ErrPermission):
		return fmt.Errorf("%w; give this user write permission", err)
	}
	return err
}

func newBuffer(dir string, o Options, fs files) *Buffer {
	return &Buffer{dir: dir, o: o, log: o.Log, fs: fs, start: time.Now(), next: 1, readPatience: readPatience, awayPatience: awayPatience, stallWait: stallWait,
		done: make(chan struct{}), kick: make(chan struct{}, 1),
		accounts: map[string]*account{}, streams: map[string]*Stream{}, gaps: map[gapKey]*Gap{}, empties: map[uint64]bool{}, toldOf: map[uint64]bool{}, warnedOf: map[string]string{}, boot: bootID()}
}

// IsReadOnly reports whether an error says that the file system is read-only: mounted so, or made so by the system when its disk failed.
func IsReadOnly(err error) bool { return errors.Is(err, syscall.EROFS) }

// IsStore reports whether there is a store in a directory: a state.db, which of a copy is written last.
func IsStore(dir string) bool {
	_, err := os.Stat(filepath.Join(dir, stateName))
	return err == nil
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
	b.loadSpares()
	b.mu.Lock()
	if err := b.settle(old); err != nil {
		b.mu.Unlock()
		return err
	}
	b.coder.seed = epochSeed(b.epoch.n)
	if n := old.bound(b.o.quarantineBytes()); n > 0 {
		b.log.Warn("quarantine is larger than max size allows; its oldest entries were removed", "dir", b.dir, "entries", n)
	}
	b.mu.Unlock()
	b.measureAside()
	if b.left.Restored {
		defer func() { _ = b.fs.remove(filepath.Join(b.dir, restoredName)) }() // or it is said once more
	}
	data, gen, err := b.firstState(old)
	for IsDiskFull(err) && (b.takeReserve() || b.freeSpace()) {
		data, gen, err = b.firstState(old)
	}
	if err != nil {
		return err
	}
	b.makeReserve() // at once: of what the old state.db was
	writeLock(b.lock, seen{b.store, gen})
	_ = b.writeMark(promise{first: b.next, last: b.next - 1, epoch: b.epoch.n}, gen, nil, data.ckpt)
	if err := b.removeEmpty(); err != nil {
		return err
	}
	b.mu.Lock()
	b.st.lastIdle, b.st.lastCommit = time.Now().Add(-drainEvery), time.Now() // the first accounts are written at once: whom to tell when all else is lost
	b.mu.Unlock()
	if err := b.reclaim(); err != nil {
		return err
	}
	b.shrink()
	return nil
}

// firstState makes the state.db of this process, with the checkpoint of that generation.
func (b *Buffer) firstState(old *stateData) (data *stateData, gen uint64, err error) {
	b.mu.Lock()
	d := b.takeCheckpoint(nil)
	data = &stateData{store: b.store, epoch: b.epoch.n, reserved: b.next + reserveStep, ckpt: d.pack(b.coder.enc), until: d.until, before: d.before, lostAt: d.lostAt, entries: old.entries, note: old.note}
	b.reserved = data.reserved
	b.changed, b.st.fresh = false, false
	b.mu.Unlock()
	data.named = b.promises()
	return data, d.gen, b.openState(data)
}

// settle finds out what there is and what was lost. mu is held.
func (b *Buffer) settle(old *stateData) error {
	m := b.loadMark(old)
	ckpt, err := b.loadSegments(old, m)
	if err != nil {
		return err
	}
	if b.readOnly && old.lost && ckpt == nil && b.traces() {
		return fmt.Errorf("there was a store here, and its files are gone; if they were moved away, move them back: %w", ErrNotFound)
	}
	if b.readOnly && old.lost && ckpt == nil {
		return fmt.Errorf("there is no store: %w", ErrNotFound)
	}
	b.findLeft(old, m, ckpt)
	b.keep(old, m, ckpt)
	if err := b.restore(old, m, ckpt); err != nil {
		return err
	}
	known := uint64(0)
	if ckpt != nil {
		known = ckpt.known
	}
	lost := b.reconcile(CauseDamaged, known)
	b.blind = ckpt == nil && len(b.segs) > 0
	if err := b.addDestinations(old.quarantined()); err != nil {
		return err
	}
	if old.lost && lost > 0 {
		b.unsure = true // what was acknowledged last stood in state.db
	}
	if b.unsure {
		b.missingAnything(known)
	}
	b.tellFound(lost)
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

// lostState is how far the numbers jump when state.db is lost: nobody knows how many more were used than
// the segments have, and a number must never be used twice.
const lostState = 1 << 40

// restore puts the checkpoint into effect and sets the number that the next record gets. mu is held.
func (b *Buffer) restore(old *stateData, m *mark, ckpt *checkpoint) error {
	b.next = max(b.next, old.reserved)
	if n := len(b.segs); n > 0 {
		b.next = max(b.next, b.segs[n-1].last+1, b.segs[n-1].first)
	}
	if m != nil {
		b.next = max(b.next, m.last+1)
	}
	for i := range old.segments {
		b.next = max(b.next, old.segments[i].last+1)
	}
	if ckpt != nil {
		b.next = max(b.next, ckpt.next)
		b.gen, b.ageBase = ckpt.gen, ckpt.elapsed
		b.st.unknown, b.left.Uncounted, b.st.seen = ckpt.unknown, ckpt.unknown, ckpt.seen
	}
	if m != nil {
		b.gen = max(b.gen, m.gen)
	}
	for _, s := range b.segs {
		if s.wrote == 0 { // it is damaged and does not say: it ages from now on
			s.made, s.wrote = b.ageBase, b.ageBase
		}
	}
	if old.lost && (len(b.segs) > 0 || ckpt != nil) {
		b.next += lostState
	}
	if err := b.newIdentity(); err != nil {
		return err
	}
	b.durable = b.next - 1
	b.tail = tail{first: b.next, chunk: int(min(256<<10, b.o.TailBytes/8))}
	if ckpt != nil {
		if err := b.restoreLedger(ckpt); err != nil {
			return err
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
				return err
			}
		}
	}
	return nil
}

// newIdentity gives what this process takes an epoch of its own: who else was started on a copy of this store, before or
// after, can then not have used the same numbers for other records. One that only looks has that of the last.
func (b *Buffer) newIdentity() (err error) {
	if b.store == 0 {
		if b.store, err = random(); err != nil {
			return err
		}
	}
	if b.readOnly {
		return nil
	}
	n, err := random()
	b.epoch = newEpoch(n)
	return err
}

func (b *Buffer) restoreLedger(ckpt *checkpoint) error {
	b.left.Dropped = map[string][Causes]uint64{}
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
			before := b.left.Dropped[ckpt.dests[j].name]
			for k := range n.dropped {
				n.dropped[k] = f[2+k]
				n.buffered -= f[2+k]
				before[k] += f[2+k]
			}
			b.left.Dropped[ckpt.dests[j].name] = before
		}
	}
	for _, g := range ckpt.gaps {
		b.missing(b.accounts[ckpt.accounts[g.account].name], g.to, g.gap)
	}
	for _, w := range ckpt.waiting {
		a := b.accounts[ckpt.accounts[w.account].name]
		b.waiting = append(b.waiting, &waitingGap{key: gapKey{a, w.to, w.gap.Cause}, seqs: spans{s: w.seqs}, gap: *w.gap})
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
	from := uint64(0)
	for _, s := range b.segs {
		b.pass(from, min(s.first, end))
		from = s.last + 1
	}
	b.pass(from, end)
}
