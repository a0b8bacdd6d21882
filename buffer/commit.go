package buffer

import (
	"fmt"
	"os"
	"path/filepath"
	"time"

	bolt "go.etcd.io/bbolt"
)

// counters is what Stats tells and nothing else needs. mu guards it.
type counters struct {
	commits, commitErrors uint64
	written               uint64 // bytes of pages and files written, as far as we know of them
	refused               uint64
	dropped               uint64 // segments dropped
	ackedOnDisk           uint64 // records acknowledged after they left the tail, since the last checkpoint
	commitErr             error  // why the last commit failed
	stateErr              error  // why the last write of state.db failed
	damage                []Damage
	damages               uint64
	lastCommit            time.Time
	lastIdle              time.Time
}

// batch is what one commit writes.
type batch struct {
	recs  []entry
	seqs  []uint64
	last  uint64 // every record up to here is in it or needs no disk
	bytes int64
	ckpt  []byte
}

// commit writes what is in the tail and not acknowledged, in one transaction together with a checkpoint.
// When nothing is, it writes nothing. commitMu is held.
func (b *Buffer) commit() error { return b.commitOr(false) }

// commitOr is commit, but when there is nothing to commit and something to remember it writes, if
// asked, the checkpoint into state.db.
func (b *Buffer) commitOr(checkpoint bool) error {
	b.mu.Lock()
	if b.st.commitErr == nil {
		b.tellGaps()
	}
	batch := b.collect(checkpoint && b.changed)
	if len(batch.recs) == 0 {
		b.durable = max(b.durable, batch.last)
		b.advance()
	}
	b.mu.Unlock()
	if len(batch.recs) == 0 {
		if batch.ckpt == nil {
			return nil
		}
		return b.saveCheckpoint(batch.ckpt)
	}
	err := b.write(batch)
	b.mu.Lock()
	defer b.mu.Unlock()
	b.st.commits++
	if err != nil {
		b.st.commitErrors++
		if b.st.commitErr == nil {
			b.log.Error("commit failed; records stay in memory and are written again", "dir", b.dir, "error", err)
		}
		b.st.commitErr, b.changed = err, true
		return fmt.Errorf("commit %d records to %q: %w", len(batch.recs), b.dir, err)
	}
	if b.st.commitErr != nil {
		b.log.Info("commit works again", "dir", b.dir)
	}
	b.st.commitErr = nil
	b.st.lastCommit = time.Now()
	b.durable = max(b.durable, batch.last)
	b.advance()
	if b.o.CommitInterval == 0 {
		b.notify()
	}
	return nil
}

// collect takes the records to write and, with them, marks which are historical for whom. mu is held.
func (b *Buffer) collect(checkpoint bool) *batch {
	out := &batch{last: b.next - 1}
	var waiting mask
	for slot, d := range b.slots {
		if d != nil && !d.live {
			waiting |= bit(slot)
		}
	}
	for seq := b.durable + 1; seq < b.next; seq++ {
		e := b.tail.at(seq)
		if b.settled(e) {
			continue
		}
		e.late |= waiting &^ e.sent & e.to
		out.recs, out.seqs = append(out.recs, *e), append(out.seqs, seq)
		out.bytes += entryCost(e.payload)
	}
	if len(out.recs) > 0 || checkpoint {
		out.ckpt = b.takeCheckpoint()
		b.changed, b.st.ackedOnDisk = false, 0
	}
	return out
}

// write stores the batch in the active segment, making room and a new segment as needed.
func (b *Buffer) write(batch *batch) error {
	need := batch.bytes + batch.bytes/16 + int64(len(batch.ckpt)) + dictBytes(b.active, batch) + growSlack + b.growStep()
	if err := b.secure(need); err != nil {
		return err
	}
	if s := b.active; s != nil && !s.empty() && s.size+need > b.o.SegmentSize {
		b.seal()
	}
	if b.active == nil {
		b.mu.Lock()
		first := b.durable + 1
		b.mu.Unlock()
		if err := b.createSegment(first); err != nil {
			return err
		}
	}
	s := b.active
	if err := guard(func() error { return b.writeTx(s, batch) }); err != nil {
		b.abandon(err)
		return err
	}
	b.wrote(s, batch)
	return nil
}

// dictBytes is how much the dictionary entries that the segment lacks will take.
func dictBytes(s *segment, batch *batch) int64 {
	var n int64
	var last *Stream
	seen := map[*Stream]bool{}
	for i := range batch.recs {
		st := batch.recs[i].stream
		if st == last || seen[st] {
			continue
		}
		last, seen[st] = st, true
		if s != nil {
			if _, ok := s.ids[st]; ok {
				continue
			}
		}
		n += int64(len(st.dict)+len(st.account.name)) + 64
	}
	return n
}

func (b *Buffer) createSegment(first uint64) error {
	path := filepath.Join(b.dir, fmt.Sprintf(segPattern, first))
	if _, err := os.Stat(path); err == nil {
		// A segment of the same first number holds nothing that was ever reported durable.
		if err := b.fs.remove(path); err != nil {
			return fmt.Errorf("replace empty segment %q: %w", path, err)
		}
	}
	db, err := b.fs.bolt(path, &bolt.Options{Timeout: time.Second, NoFreelistSync: true, FreelistType: bolt.FreelistMapType,
		InitialMmapSize: int(2 * b.o.SegmentSize), NoStatistics: true, PageSize: pageSize})
	if err != nil {
		_ = b.fs.remove(path)
		return fmt.Errorf("create segment %q: %w", path, err)
	}
	db.AllocSize = int(b.growStep())
	if err := b.fs.syncDir(b.dir); err != nil {
		_ = guard(db.Close)
		_ = b.fs.remove(path)
		return fmt.Errorf("sync directory %q: %w", b.dir, err)
	}
	s := &segment{path: path, first: first, last: first - 1, size: emptyFile, db: db, ids: map[*Stream]uint32{}, totals: map[*account]uint64{}}
	b.mu.Lock()
	s.made = b.elapsed()
	b.active = s
	b.segs = append(b.segs, s)
	b.st.written += emptyFile
	b.mu.Unlock()
	return nil
}

// writeTx is the transaction of one commit.
func (b *Buffer) writeTx(s *segment, batch *batch) error {
	s.db.MaxSize = int(s.size + b.room())
	return s.db.Update(func(tx *bolt.Tx) error {
		bkt, err := tx.CreateBucketIfNotExists(bucketName)
		if err != nil {
			return err
		}
		bkt.FillPercent = 1
		if s.empty() {
			if err := putChunks(bkt, regionInfo, 0, 0, appendInfo(nil, b.epoch, s.first)); err != nil {
				return err
			}
		}
		if err := b.putRecords(bkt, s, batch); err != nil {
			return err
		}
		return putChunks(bkt, regionRecords, batch.last, typeCheckpoint, batch.ckpt)
	})
}

func (b *Buffer) putRecords(bkt *bolt.Bucket, s *segment, batch *batch) error {
	c := &b.coder
	flush := func() error {
		first := c.first
		return putChunks(bkt, regionRecords, first, typeBlock, append([]byte(nil), c.finish()...))
	}
	c.reset()
	for i := range batch.recs {
		e := &batch.recs[i]
		id, known := s.ids[e.stream]
		if !known {
			id = uint32(len(s.ids))
			entry := appendDict(nil, e.stream)
			if err := putChunks(bkt, regionDict, uint64(id), 0, entry); err != nil {
				return err
			}
			s.ids[e.stream] = id
			s.rw.Lock()
			s.dict = append(s.dict, e.stream)
			s.rw.Unlock()
		}
		h := head{seq: batch.seqs[i], stream: id, readings: e.readings, at: e.at, to: e.to, late: e.late}
		h.flags = headFlagsOf(e)
		c.add(&h, e.payload)
		if c.isFull() {
			if err := flush(); err != nil {
				return err
			}
		}
	}
	if c.count > 0 {
		return flush()
	}
	return nil
}

func headFlagsOf(e *entry) (f uint8) {
	if e.gap != nil {
		f |= headGap
	}
	if e.to != everyone {
		f |= headAddressed
	}
	if e.late != 0 {
		f |= headLate
	}
	return f
}

// wrote brings the segment's figures up to date after a commit.
func (b *Buffer) wrote(s *segment, batch *batch) {
	size := s.size
	if info, err := os.Stat(s.path); err == nil {
		size = info.Size()
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.st.written += uint64(batch.bytes)
	s.size = size
	s.wrote = b.elapsed()
	for i := range batch.recs {
		e := &batch.recs[i]
		if s.records == 0 {
			s.minAt, s.maxAt = e.at, e.at
		}
		s.minAt, s.maxAt = min(s.minAt, e.at), max(s.maxAt, e.at)
		s.records++
		if e.to == everyone {
			s.totals[e.stream.account] += uint64(e.readings)
		} else if e.gap == nil {
			s.special++
		}
	}
	s.last = batch.seqs[len(batch.seqs)-1]
}

// abandon gives the active segment up after a failed commit. What the transaction left on disk is
// unknown, so nothing is written to the file again and the batch goes to a new segment under the same numbers.
func (b *Buffer) abandon(cause error) {
	s := b.active
	s.rw.Lock()
	_ = guard(s.db.Close)
	s.db = nil
	s.rw.Unlock()
	b.mu.Lock()
	b.active, s.sealed = nil, true
	empty := s.empty()
	if empty {
		b.forgetSegment(s)
	}
	b.mu.Unlock()
	if empty {
		_ = b.fs.remove(s.path)
	}
	b.log.Warn("segment given up after a failed write", "file", s.path, "error", cause)
}

// forgetSegment takes a segment off the list. mu is held.
func (b *Buffer) forgetSegment(s *segment) {
	s.gone = true
	for i, o := range b.segs {
		if o == s {
			b.segs = append(b.segs[:i:i], b.segs[i+1:]...)
			return
		}
	}
}

// seal writes the active segment's summary and closes it. A summary that cannot be written is no loss:
// the segment is then scanned when the store is next opened.
func (b *Buffer) seal() {
	s := b.active
	b.mu.Lock()
	summary := appendSummary(nil, s)
	b.mu.Unlock()
	err := guard(func() error {
		return s.db.Update(func(tx *bolt.Tx) error {
			bkt := tx.Bucket(bucketName)
			bkt.FillPercent = 1
			return putChunks(bkt, regionSummary, 0, 0, summary)
		})
	})
	if err != nil {
		b.log.Warn("segment summary not written", "file", s.path, "error", err)
	}
	s.rw.Lock()
	_ = guard(s.db.Close)
	s.db = nil
	s.rw.Unlock()
	size := s.size
	if info, err := os.Stat(s.path); err == nil {
		size = info.Size()
	}
	b.mu.Lock()
	s.sealed, s.size = true, size
	b.active = nil
	b.mu.Unlock()
}
