package buffer

import (
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"time"

	bolt "go.etcd.io/bbolt"
)

// counters is what Stats tells and nothing else needs. mu guards it.
type counters struct {
	commits, commitErrors uint64
	refused               uint64
	full                  refusal
	saved                 uint64    // the last checkpoint on disk knows of all records below
	dropped               uint64    // segments dropped
	fresh                 bool      // an account is in no checkpoint yet
	ackedOnDisk           uint64    // records acknowledged after they left the tail, since the last checkpoint
	commitErr             error     // why the last commit failed
	stateErr              error     // why the last write of state.db failed
	takenErr              error     // whose the directory is, when it is not ours any more
	commitBad             time.Time // when the first of the commits that fail began; zero = the last one worked
	stateBad, takenBad    time.Time // likewise since when stateErr and takenErr are there
	remade                time.Time // see Stats.Remade
	damage                []Damage
	damages               uint64
	damageSeen            int // of damage: see DamageSeen
	seen                  cost
	unknown               uint64 // losses that nobody could count, in all processes
	lastCommit            time.Time
	lastIdle, lastTidy    time.Time
	lastTry               time.Time     // of a commit, or of a probe
	probeAfter            time.Duration // how long after it the next probe comes
	fullSince             time.Time     // commits have failed for want of space since
	fullAt                time.Time     // one last did; zero = none has
	idleBytes             int64         // of the last checkpoint in state.db
}

// batch is what one commit writes.
type batch struct {
	recs  []entry
	seqs  []uint64
	last  uint64 // every record up to here is in it or needs no disk
	draft *draft
	ckpt  []byte // the draft as it was written
}

// commit writes what is in the tail and not acknowledged, in one transaction together with a checkpoint.
// When nothing is, it writes nothing. commitMu is held.
func (b *Buffer) commit() error { return b.commitOr(false) }

// commitOr is commit, but when there is nothing to commit and something to remember it writes, if
// asked, the checkpoint into state.db.
func (b *Buffer) commitOr(checkpoint bool) error {
	if bytes, _ := b.survey(); bytes == 0 {
		return b.settleIdle(checkpoint)
	}
	written, err := b.tryCommit()
	if errors.Is(err, errUnsound) { // the file is to blame, and it is given up: the disk may be well
		written, err = b.tryCommit()
	}
	for tries := 0; IsDiskFull(err) && tries < 8 && b.diskStaysFull() && b.freeSpace(); tries++ {
		written, err = b.tryCommit()
	}
	if err == nil && len(written.recs) == 0 { // all was acknowledged or given up while room was made
		return b.settleIdle(checkpoint)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.st.commits++
	b.st.lastTry = time.Now()
	if err != nil {
		b.st.commitErrors++
		b.changed = true
		if b.st.commitErr == nil {
			b.st.commitBad = b.commitSince()
			b.commitFails(err)
		}
		b.st.commitErr, b.st.probeAfter = err, probeLeast
		return fmt.Errorf("commit to %q: %w", b.dir, err)
	}
	b.commitWorks()
	b.st.saved = written.draft.next
	b.st.lastCommit = time.Now()
	b.durable = max(b.durable, written.last)
	b.promised = max(b.promised, b.durable)
	b.advance()
	if b.o.CommitInterval == 0 {
		b.notify()
	}
	return nil
}

// commitWorks notes that the disk takes records. commitMu and mu are held.
func (b *Buffer) commitWorks() {
	if b.st.commitErr != nil {
		b.trouble.works = time.Now()
	}
	b.st.commitErr, b.st.commitBad, b.st.fullSince = nil, time.Time{}, time.Time{}
	clear(b.warnedOf)
}

// tryCommit makes room, collects and writes.
func (b *Buffer) tryCommit() (written *batch, err error) {
	if err := b.checkNames(); err != nil {
		return nil, err
	}
	// Producers go on appending while room is made: what comes on top must fit as well, else once more.
	bytes, streams := b.survey()
	margin := b.o.TailBytes / 8
	if b.o.WhenFull == DropNewest {
		margin = 0 // Append saw to it
	}
	for ; written == nil; margin = b.o.TailBytes {
		err := b.prepare(bytes+margin, streams)
		if margin > 0 && b.o.WhenFull == DropNewest && errors.Is(err, ErrFull) { // what Append let in fits
			margin = 0
			err = b.prepare(bytes, streams)
		}
		if err != nil {
			return nil, err
		}
		if written = b.collect(bytes + margin); written == nil {
			bytes, streams = b.survey()
		}
	}
	return written, b.write(b.active, written)
}

// diskStaysFull reports whether a full disk has lasted long enough to give up a segment for it: others
// fill disks for moments, and until the tail is half full the new records can wait.
func (b *Buffer) diskStaysFull() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.st.fullAt = time.Now()
	if b.st.fullSince.IsZero() {
		b.st.fullSince = time.Now()
	}
	return b.closing || b.dirty() > b.o.TailBytes/2 || time.Since(b.st.fullSince) > fullPatience
}

// freeSpace drops the oldest records, and where that is not possible the oldest segment, when others have filled the disk. It reports whether there was one.
func (b *Buffer) freeSpace() bool {
	if b.dropAside() {
		return true
	}
	s, sent := b.victim()
	if s == nil {
		return false
	}
	if b.dropPart(s, CauseFull, sent) {
		return true
	}
	if _, err := b.drop(s, CauseFull, sent); err != nil {
		b.tell("no space made on a full disk", err)
		return false
	}
	return true
}

// settleIdle does what a commit does when no record needs the disk.
func (b *Buffer) settleIdle(checkpoint bool) error {
	b.mu.Lock()
	b.advance()
	if !checkpoint || (!b.changed && b.st.stateErr == nil) {
		b.mu.Unlock()
		return nil
	}
	d := b.takeCheckpoint(nil)
	b.changed, b.st.ackedOnDisk, b.st.fresh = b.durable+1 != b.next, 0, false
	b.mu.Unlock()
	return b.saveCheckpoint(d)
}

// survey looks at what a commit would write now: how many bytes, of which streams. Losses that were not
// told yet become records first.
func (b *Buffer) survey() (bytes int64, streams map[*Stream]bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.tellGaps()
	b.advance()
	streams = map[*Stream]bool{}
	var last *Stream
	for seq := b.durable + 1; seq < b.next; seq++ {
		e := b.tail.at(seq)
		if b.settled(e) {
			continue
		}
		bytes += entryCost(e.payload)
		if e.stream != last {
			last = e.stream
			streams[last] = true
		}
	}
	return bytes, streams
}

// prepare sees to it that there is a segment with room for a commit of so many bytes.
func (b *Buffer) prepare(bytes int64, streams map[*Stream]bool) error {
	b.mu.Lock()
	first := b.durable + 1
	need := b.commitSize(bytes)
	apart := b.apart()
	b.mu.Unlock()
	if s := b.active; s != nil && !s.empty() && (apart || s.size+need+dictBytes(s, streams) > b.o.SegmentSize) {
		if apart {
			b.letGo()
		}
		if b.active != nil {
			b.seal()
		}
	}
	for {
		s := b.active
		if err := b.secure(need + dictBytes(s, streams)); err != nil {
			return err
		}
		if b.active == s {
			break
		} // else its dictionary has to be written again
	}
	if b.active != nil {
		return nil
	}
	return b.createSegment(first)
}

// collect takes the records to write. It returns nil when they are more than limit bytes.
func (b *Buffer) collect(limit int64) *batch {
	b.mu.Lock()
	defer b.mu.Unlock()
	out := &batch{last: b.next - 1}
	for seq := b.durable + 1; seq < b.next; seq++ {
		e := b.tail.at(seq)
		if e == nil || b.settled(e) {
			continue
		}
		out.recs, out.seqs = append(out.recs, *e), append(out.seqs, seq)
		if limit -= entryCost(e.payload); limit < 0 {
			return nil
		}
	}
	if len(out.recs) == 0 {
		return out // nothing is written, so nothing is remembered either
	}
	out.draft = b.takeCheckpoint(b.active)
	b.changed, b.st.ackedOnDisk, b.st.fresh = false, 0, false
	return out
}

// write stores the batch in the active segment.
func (b *Buffer) write(s *segment, batch *batch) error {
	if len(batch.recs) == 0 {
		return nil
	}
	if err := b.writeTx(s, batch); err != nil {
		b.abandon(err)
		return err
	}
	b.wrote(s, batch)
	b.markCommit(s, batch)
	if b.spares {
		b.setSparesAside()
	}
	return nil
}

// dictBytes is how much the dictionary entries that the segment lacks will take.
func dictBytes(s *segment, streams map[*Stream]bool) (n int64) {
	if s != nil {
		for _, e := range s.again {
			n += int64(len(e.dict)+len(e.account)) + 128
		}
	}
	for st := range streams {
		if s != nil {
			if _, ok := s.ids[st]; ok {
				continue
			}
		}
		n += int64(len(st.dict)+len(st.account.name)) + 128
	}
	return n + n/16
}

func (b *Buffer) createSegment(first uint64) error {
	path := filepath.Join(b.dir, fmt.Sprintf(segPattern, first))
	if err := b.discard(path); err != nil { // one of the same first number holds nothing that was ever reported durable
		return fmt.Errorf("replace empty segment: %w", err)
	}
	db, err := openHandle(b.fs, path, &bolt.Options{Timeout: time.Second, NoFreelistSync: true, FreelistType: bolt.FreelistMapType,
		InitialMmapSize: int(2 * b.o.SegmentSize), NoStatistics: true, PageSize: pageSize})
	if err != nil {
		_ = b.fs.remove(path)
		return fmt.Errorf("create segment %q: %w", path, err)
	}
	own := info{b.store, first, b.epoch.n}
	db.touch, db.db.AllocSize = func(p *pageFile) error { return touchEnds(p, own) }, int(b.growStep())
	if err := b.fs.syncDir(b.dir); err != nil {
		_ = db.close()
		_ = b.fs.remove(path)
		return fmt.Errorf("sync directory %q: %w", b.dir, err)
	}
	s := &segment{path: path, epoch: b.epoch, first: first, last: first - 1, end: math.MaxUint64, size: emptyFile, db: db, ids: map[*Stream]uint32{}, totals: map[*account]uint64{}}
	b.mu.Lock()
	s.made = b.elapsed()
	b.active = s
	b.segs = append(b.segs, s)
	b.segBytes += s.size
	b.mu.Unlock()
	b.written.Add(emptyFile)
	if err := b.savePromises(); err != nil { // before anything is promised of it
		b.abandon(err)
		return err
	}
	return nil
}

// discard removes a segment file of which nothing was promised: first state.db stops naming it.
func (b *Buffer) discard(path string) error {
	if _, err := os.Lstat(path); errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err := b.savePromises(); err != nil {
		return err
	}
	if err := b.fs.remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

// update is bbolt's Update that adds up what it writes.
func (b *Buffer) update(db *handle, f func(*bolt.Tx) error) error {
	return db.update(func(tx *bolt.Tx) error {
		tx.OnCommit(func() {
			stats := tx.Stats()
			b.written.Add(stats.GetPageAlloc() + pageSize)
		})
		return f(tx)
	})
}

// writeTx is the transaction of one commit.
func (b *Buffer) writeTx(s *segment, batch *batch) error {
	s.db.db.MaxSize = int(min(s.size+b.room(), math.MaxInt))
	batch.ckpt = batch.draft.pack(b.coder.enc)
	return b.update(s.db, func(tx *bolt.Tx) error {
		bkt, err := tx.CreateBucketIfNotExists(bucketName)
		if err != nil {
			return err
		}
		bkt.FillPercent = 1
		if s.empty() {
			if err := putValue(bkt, regionInfo, 0, appendInfo(nil, info{b.store, s.first, s.epoch.n})); err != nil {
				return err
			}
		}
		if err := b.putRecords(bkt, s, batch); err != nil {
			return err
		}
		return s.leaf.put(bkt, regionRecords, batch.last, typeCheckpoint, batch.ckpt)
	})
}

func (b *Buffer) putRecords(bkt *bolt.Bucket, s *segment, batch *batch) error {
	c := &b.coder
	var fresh []dictEntry
	flush := func() error {
		first := c.first
		return s.leaf.put(bkt, regionRecords, first, typeBlock, append([]byte(nil), c.finish()...))
	}
	c.reset()
	for i := range batch.recs {
		e := &batch.recs[i]
		id, known := s.ids[e.stream]
		if !known {
			id = uint32(len(s.ids))
			entry := dictEntry{id, e.stream.account.name, e.stream.dict}
			if err := putValue(bkt, regionDict, uint64(id), appendDict(b.coder.enc, entry)); err != nil {
				return err
			}
			fresh = append(fresh, entry)
			s.ids[e.stream] = id
			s.rw.Lock()
			s.dict = append(s.dict, e.stream)
			s.rw.Unlock()
		}
		h := head{seq: batch.seqs[i], stream: id, readings: e.readings, at: e.at, to: e.to}
		h.flags = headFlagsOf(e)
		c.add(&h, e.payload)
		if c.isFull() {
			if err := flush(); err != nil {
				return err
			}
		}
	}
	if c.count > 0 {
		if err := flush(); err != nil {
			return err
		}
	}
	err := b.putAgain(bkt, s, regionRecords, batch.last)
	s.again = fresh
	return err
}

// putAgain writes a copy of the dictionary entries of the commit before.
func (b *Buffer) putAgain(bkt *bolt.Bucket, s *segment, region byte, seq uint64) error {
	if len(s.again) == 0 {
		return nil
	}
	return s.leaf.put(bkt, region, seq, typeDict, appendDict(b.coder.enc, s.again...))
}

func headFlagsOf(e *entry) (f uint8) {
	if e.gap != nil {
		f |= headGap
	}
	if e.to != everyone {
		f |= headAddressed
	}
	return f
}

// wrote brings the segment's figures up to date after a commit.
func (b *Buffer) wrote(s *segment, batch *batch) {
	size := fileSize(s.path, s.size)
	b.mu.Lock()
	defer b.mu.Unlock()
	grown := size - s.size
	b.setSize(s, size)
	if s.base == nil {
		s.base, s.baseSeq, s.baseCkpt = batch.draft.values, batch.last, batch.ckpt
	}
	s.wrote = b.elapsed()
	readings := uint64(0)
	for i := range batch.recs {
		e := &batch.recs[i]
		readings += uint64(e.readings)
		if s.records == 0 {
			s.minAt, s.maxAt = e.at, e.at
		}
		s.minAt, s.maxAt = min(s.minAt, e.at), max(s.maxAt, e.at)
		s.records++
		if e.to == everyone {
			s.totals[e.stream.account] += uint64(e.readings)
		} else {
			s.special++
		}
	}
	s.last = batch.seqs[len(batch.seqs)-1]
	b.st.seen.add(readings, grown)
}
