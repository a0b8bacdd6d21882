package buffer

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"syscall"
)

// Damage is something that was found damaged.
type Damage struct {
	File     string `json:"file"` // its name now
	Reason   string `json:"reason"`
	FirstSeq uint64 `json:"first_seq"` // what it held, 0 when not known, or when nothing of it is lost
	LastSeq  uint64 `json:"last_seq"`
	MinAt    int64  `json:"min_at_us"` // record times of that, µs since 1970
	MaxAt    int64  `json:"max_at_us"`
	Readings uint64 `json:"readings"` // lost for good, of all accounts and destinations
	Unknown  bool   `json:"unknown"`  // Readings is a guess: more may be lost, and some of it may have been delivered
	Missing  bool   `json:"missing"`  // the file is not there
}

const (
	maxDamage   = 64         // damages remembered
	asideSuffix = ".corrupt" // of a file set aside
	spareSuffix = ".spare"   // of a damaged segment that memory is about to write again
)

// growStep is how much bbolt grows a segment at a time.
func (b *Buffer) growStep() int64 { return min(max(b.o.SegmentSize/64, 16<<10), 256<<10) }

// segmentLimit is what the segments may take: the rest is for state.db, its successor, the lock, the mark and
// what is set aside.
func (b *Buffer) segmentLimit() int64 {
	return b.o.MaxSize - 2*b.o.stateLimit() - 2*markSlot - pageSize - b.aside
}

// room returns how many bytes the segments may still grow by.
func (b *Buffer) room() int64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.segmentLimit() - b.segBytes
}

// commitSize is how much a commit of so many bytes may add to a segment, dictionaries not counted. mu is held.
func (b *Buffer) commitSize(bytes int64) int64 {
	return bytes + bytes/16 + 64*int64(len(b.accountSeq)) + maxGap*int64(len(b.gapOrder)) + b.waitingBytes + growSlack + b.growStep()
}

// fits reports whether so many bytes of records could be committed now, and leave so much room. mu is held.
func (b *Buffer) fits(bytes, spare int64) bool {
	// On top come the dictionaries and a gap record for each account that was refused something.
	need := b.commitSize(bytes+maxGap*int64(len(b.accountSeq))) + emptyFile + growSlack + b.dictBytes + b.dictBytes/16
	need += b.growStep() + 64*int64(len(b.accountSeq))             // the summary of the segment before
	left := b.segmentLimit() + b.aside - b.segBytes - need - spare // what is set aside makes way: see secure
	return left >= 0 || left+b.unneeded() >= 0
}

// neededBy reports for whom a segment is kept: destinations that are in use, and those that are not. mu is held.
func (b *Buffer) neededBy(s *segment) (present, absent bool) {
	for _, d := range b.slots {
		if d != nil && !d.acked.covers(s.first, s.last+1) {
			present, absent = present || d.known, absent || !d.known
		}
	}
	return present, absent
}

// unneeded returns how many bytes the segments take that no destination in use needs. The one being written is not among
// them: it would have to be begun anew. mu is held.
func (b *Buffer) unneeded() (bytes int64) {
	for _, s := range b.segs {
		if present, _ := b.neededBy(s); !present && s != b.active {
			bytes += s.size
		}
	}
	return bytes
}

// victim returns the segment that is the next to give way, nil when none may: one that nobody needs, then the oldest that only
// destinations need that are not in use, then, where the policy allows it, the oldest of which nothing is in flight, then the oldest.
// sent says that it goes even where a record of it is in flight. It takes mu.
func (b *Buffer) victim() (s *segment, sent bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, o := range b.segs {
		switch present, absent := b.neededBy(o); {
		case present || o == b.active:
		case !absent:
			return o, true
		case s == nil:
			s = o
		}
	}
	if s != nil || b.o.WhenFull != DropOldest || len(b.segs) == 0 {
		return s, true
	}
	if i := slices.IndexFunc(b.segs, func(o *segment) bool { return o != b.active && !b.sending(o.first, o.last) }); i >= 0 {
		return b.segs[i], false
	}
	return b.segs[0], true
}

// sending reports whether a record from first to last is in flight: to give it up now would tell it as lost, and it may arrive. mu is held.
func (b *Buffer) sending(first, last uint64) bool {
	for _, d := range b.slots {
		if d == nil {
			continue
		}
		for seq := range d.flight {
			if seq >= first && seq <= last {
				return true
			}
		}
	}
	return false
}

// secure sees to it that need bytes fit, by removing files set aside, then segments that nobody needs, also the one being written, then by dropping
// segments in the order of victim. commitMu is held.
func (b *Buffer) secure(need int64) error {
	need += emptyFile
	for b.room() < need {
		if b.dropAside() || b.letGo() {
			continue
		}
		s, sent := b.victim()
		if s == nil {
			return fmt.Errorf("%d bytes needed, %d free of max size %d: %w", need, max(b.room(), 0), b.o.MaxSize, ErrFull)
		}
		if _, err := b.drop(s, CauseFull, sent); err != nil {
			return err
		}
	}
	return nil
}

// loss is what a dropped segment held for destinations that had not acknowledged it.
type loss struct {
	readings map[*account]*[MaxDestinations]uint64
	records  [MaxDestinations]uint64
	gaps     map[gapKey]*Gap
	order    []gapKey
}

func (l *loss) add(a *account, lost mask, g *Gap) {
	key := gapKey{a, lost, g.Cause}
	have := l.gaps[key]
	if have == nil {
		have = new(Gap)
		l.gaps[key] = have
		l.order = append(l.order, key)
	}
	have.merge(g)
}

// drop gives up a segment that somebody still needs: counted, with gap records. Unless sent, it reports false where a record of it has come
// to be in flight. commitMu is held.
func (b *Buffer) drop(s *segment, cause Cause, sent bool) (bool, error) {
	if s == b.active {
		b.seal()
	}
	before, ok := b.cutOff(s, s.last, sent)
	if !ok {
		return false, nil
	}
	lost, scanErr := b.scanLoss(s, before, s.last, cause)
	b.mu.Lock()
	b.applyLoss(lost, cause)
	b.forgetSegment(s)
	b.st.dropped++
	if scanErr != nil {
		b.retell(s.first, s.last+1, before)
		b.reconcile(cause, b.next)
	}
	b.tellGaps()
	d := b.takeCheckpoint(nil)
	b.mu.Unlock()
	// Before the file goes, so that a crash loses neither the count nor what gap records in it told. A disk that does not take
	// it needs the room all the more.
	if err := b.noteCheckpoint(d); err != nil {
		b.tell("segment dropped before it was noted; a crash now would count it as damaged", err, "file", s.path)
	}
	b.closeHandle(s)
	if err := b.fs.remove(s.path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return true, fmt.Errorf("drop segment: %w", err)
	}
	b.logLoss("segment dropped", lost, s, s.last, cause)
	return true, nil
}

// IsDiskFull reports whether an error says that the disk, or what this user may have of it, is full: others may make room.
func IsDiskFull(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}

// cutOff takes a segment's records up to last away from every destination and returns what each had acknowledged of
// it before. From then on nothing but drop changes the ledger of these records. Unless sent, it reports false where one is in flight.
func (b *Buffer) cutOff(s *segment, last uint64, sent bool) (before [MaxDestinations]spans, ok bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !sent && b.sending(s.first, last) {
		return before, false
	}
	for slot, d := range b.slots {
		if d == nil {
			continue
		}
		before[slot].s = slices.Clone(d.acked.s)
		for seq, f := range d.flight {
			if seq >= s.first && seq <= last {
				d.account(f).inflight -= uint64(f.readings)
				d.account(f).buffered += uint64(f.readings)
				delete(d.flight, seq)
			}
		}
		d.acked.add(s.first, last+1)
	}
	for seq := max(s.first, b.tail.first); seq <= last; seq++ {
		e := b.tail.at(seq)
		if e == nil {
			break
		}
		e.acked = everyone
	}
	b.advance()
	return before, true
}

// scanLoss adds up what the segment's records up to last still were to somebody.
func (b *Buffer) scanLoss(s *segment, before [MaxDestinations]spans, last uint64, cause Cause) (*loss, error) {
	l := &loss{readings: map[*account]*[MaxDestinations]uint64{}, gaps: map[gapKey]*Gap{}}
	dict, err := b.dictOf(s)
	if err != nil {
		return l, err
	}
	err = b.eachHead(s, dict, func(h *head, st *Stream, gap *Gap) {
		var lost mask
		if h.seq > last {
			return
		}
		for slot, d := range b.slots {
			if d == nil || !d.wants(h) || before[slot].has(h.seq) {
				continue
			}
			lost |= bit(slot)
			l.records[slot]++
			n := l.readings[st.account]
			if n == nil {
				n = new([MaxDestinations]uint64)
				l.readings[st.account] = n
			}
			n[slot] += uint64(h.readings)
		}
		if lost == 0 {
			return
		}
		if gap == nil {
			gap = &Gap{From: h.at, To: h.at, Count: uint64(h.readings), Cause: cause, FirstSeq: h.seq, LastSeq: h.seq}
		}
		l.add(st.account, lost, gap)
	})
	return l, err
}

// applyLoss counts a loss. mu is held.
func (b *Buffer) applyLoss(l *loss, cause Cause) {
	for a, n := range l.readings {
		for slot := range n {
			a.dests[slot].buffered -= n[slot]
			a.dests[slot].dropped[cause] += n[slot]
		}
	}
	for slot, d := range b.slots {
		if d != nil {
			d.backlog -= l.records[slot]
		}
	}
	for _, key := range l.order {
		b.missing(key.account, key.to, l.gaps[key])
	}
	b.changed = true
}

// reclaim unlinks the segments that every destination has acknowledged, after a checkpoint that says so. commitMu is held.
func (b *Buffer) reclaim() error {
	done := b.takeFinished()
	if len(done) == 0 {
		return nil
	}
	err := b.commitOr(true)
	full := IsDiskFull(err)
	switch {
	case full: // what nobody needs makes room all the same, but not before it is noted that nobody does
		_ = b.noteCheckpoint(b.checkpointNow()) // Stats has the error
	case err != nil:
		return err
	}
	if err := b.unlink(done); err != nil {
		return err
	}
	if full { // there is room for it now
		_ = b.noteCheckpoint(b.checkpointNow())
	}
	return nil
}

// letGo is reclaim for a commit that is under way and needs the room. It reports whether a segment went. commitMu is held.
func (b *Buffer) letGo() bool {
	done := b.takeFinished()
	if len(done) == 0 {
		return false
	}
	if err := b.noteCheckpoint(b.checkpointNow()); err != nil {
		b.tell("drained segment removed before that was noted; a crash now would count it as damaged", err, "file", done[0].path)
	}
	if err := b.unlink(done); err != nil {
		b.tell("no room made of what nobody needs", err)
		return false
	}
	return true
}

// takeFinished returns the segments that nobody needs any more; none of them is being written from then on. commitMu is held.
func (b *Buffer) takeFinished() []*segment {
	b.mu.Lock()
	done, active := b.finished(b.segs), b.active
	drained := active != nil && slices.Contains(done, active)
	if drained { // nothing more may come into it, and state.db is to know that
		b.active, active.sealed, b.changed = nil, true, true
	}
	b.mu.Unlock()
	if drained {
		active.closeActive()
	}
	return done
}

// unlink takes segments off the list and removes their files. commitMu is held.
func (b *Buffer) unlink(done []*segment) error {
	b.mu.Lock()
	for _, s := range done {
		b.forgetSegment(s)
	}
	b.mu.Unlock()
	for _, s := range done {
		b.closeHandle(s)
		if err := b.fs.remove(s.path); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("remove drained segment: %w", err)
		}
	}
	return nil
}

// finished returns those segments that nobody needs any more. mu is held.
func (b *Buffer) finished(list []*segment) (done []*segment) {
	for _, s := range list {
		if !s.empty() && b.covered(s) {
			done = append(done, s)
		}
	}
	return done
}

func (b *Buffer) covered(s *segment) bool {
	for _, d := range b.slots {
		if d != nil && !d.acked.covers(s.first, s.last+1) {
			return false
		}
	}
	return true
}

// expire drops the segments whose youngest record is older than MaxAge by the store's running time. One of which records are in flight is
// waited for, an eighth of MaxAge at most.
func (b *Buffer) expire() error {
	if b.o.MaxAge == 0 {
		return nil
	}
	b.mu.Lock()
	now := b.elapsed()
	b.mu.Unlock()
	if s := b.active; s != nil && !s.empty() && now-s.made > b.o.MaxAge/8 {
		b.seal()
	}
	for {
		b.mu.Lock()
		var old *segment
		sent := false
		for _, s := range b.segs {
			over := now - s.wrote - b.o.MaxAge
			sent = over > b.o.MaxAge/8
			if s.sealed && over > 0 && (sent || !b.sending(s.first, s.last)) {
				old = s
				break
			}
		}
		b.mu.Unlock()
		if old == nil {
			return nil
		}
		if _, err := b.drop(old, CauseExpired, sent); err != nil {
			return err
		}
	}
}

// setAside renames a damaged file at Open, so that nothing reads it again and people can look at it, and
// remembers the damage; first is the segment's first number, 0 for another file.
func (b *Buffer) setAside(path string, first uint64, d Damage) {
	if !b.readOnly {
		path = b.renameAside(path, path)
	}
	d.File = filepath.Base(path)
	b.found(foundDamage{first: first, Damage: d})
}

// renameAside gives a damaged file a name that nothing reads, and returns it.
func (b *Buffer) renameAside(path, name string) string {
	to := name + asideSuffix
	for i := 1; i < 1000; i++ {
		if _, err := os.Lstat(to); errors.Is(err, os.ErrNotExist) {
			break
		}
		to = fmt.Sprintf("%s.%d%s", name, i, asideSuffix)
	}
	if err := b.fs.rename(path, to); err != nil && !errors.Is(err, os.ErrNotExist) {
		b.log.Error("damaged file could not be set aside", "file", path, "error", err)
		return path
	}
	return to
}

// damage says what a segment held that was found damaged.
func (s *segment) damage() Damage {
	file := s.path
	if s.aside != "" {
		file = s.aside
	}
	return Damage{File: filepath.Base(file), Reason: reasonOf(s.cause), FirstSeq: s.first, LastSeq: s.last, MinAt: s.minAt, MaxAt: s.maxAt, Missing: s.missed && s.aside == ""}
}

// Lost says in words how many readings were lost.
func (d *Damage) Lost() string { return lostText(d.Readings, d.Unknown) }

// noteDamage remembers a damage for Stats.
func (b *Buffer) noteDamage(d Damage) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.noteDamageHeld(d)
}

// noteDamageHeld is noteDamage with mu held.
func (b *Buffer) noteDamageHeld(d Damage) {
	what := []any{"file", d.File, "reason", d.Reason}
	if d.LastSeq >= d.FirstSeq && d.LastSeq > 0 {
		what = append(what, "first", d.FirstSeq, "last", d.LastSeq)
	}
	b.log.Error("damage found", append(what, "readings_lost", d.Lost())...)
	if d.Unknown {
		b.st.unknown++
	}
	if len(b.st.damage) < maxDamage {
		b.st.damage = append(b.st.damage, d)
	}
	b.st.damages++
}

// dropAside removes the oldest file set aside, which is only kept for people to look at.
func (b *Buffer) dropAside() bool {
	names, err := filepath.Glob(filepath.Join(b.dir, "*"+asideSuffix))
	if err != nil || len(names) == 0 {
		return false
	}
	if err := b.fs.remove(names[0]); err != nil {
		return false
	}
	b.renamed(filepath.Base(names[0]), func(d *Damage) { d.Reason += "; the file made way for records and is gone" })
	b.measureAside()
	return true
}

// measureAside adds up the files set aside.
func (b *Buffer) measureAside() {
	var sum int64
	names, _ := filepath.Glob(filepath.Join(b.dir, "*"+asideSuffix)) // the pattern is sound
	spares, _ := filepath.Glob(filepath.Join(b.dir, "*"+spareSuffix))
	names = append(names, spares...)
	for _, name := range names {
		if info, err := os.Stat(name); err == nil {
			sum += info.Size()
		}
	}
	b.mu.Lock()
	b.aside = sum
	b.mu.Unlock()
}
