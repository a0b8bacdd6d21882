package buffer

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	bolt "go.etcd.io/bbolt"
)

const (
	housekeeping = time.Second      // how often Run looks after the segments
	idleEvery    = 60 * time.Second // how often, at most, the checkpoint is written while nothing is committed
	lookEvery    = 2 * time.Second  // how often, at most, the files are looked for while nothing is committed
	stateEvery   = 2 * time.Second  // how often state.db is read, to see that it is still as it was written
	idleRate     = 150              // and at most so many bytes a second of it: 13 MB a day
	retryEvery   = time.Second      // how often a commit that fails is tried again
	fullPatience = 30 * time.Second // how long a disk filled by others is waited for before a segment is dropped
	drainEvery   = 5 * time.Second  // how often while a backlog on disk is being acknowledged
	probeLeast   = 5 * time.Second  // how soon after a commit that failed the disk is tried, when no record needs it,
	probeMost    = time.Minute      // and how often at least
)

// Run commits what is older than CommitInterval and not acknowledged, drops what is too old and unlinks
// what is drained, until the context ends. Its errors are not its end: they stand in Stats, and the next
// turn tries again. A turn that hangs in the disk is left alone five seconds after the context's end.
func (b *Buffer) Run(ctx context.Context) error {
	b.mu.Lock()
	if b.closed || b.running {
		b.mu.Unlock()
		return fmt.Errorf("run buffer %q: %w, or running already", b.dir, ErrClosed)
	}
	b.running = true
	b.mu.Unlock()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		b.turns(ctx)
	}()
	<-ctx.Done()
	timer := time.NewTimer(stuckAfter)
	defer timer.Stop()
	select {
	case <-ended:
	case <-timer.C:
	}
	b.mu.Lock()
	b.running = false
	b.mu.Unlock()
	return nil
}

// turns takes a turn at each tick.
func (b *Buffer) turns(ctx context.Context) {
	ticker := time.NewTicker(b.tick())
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-b.kick:
			b.turn(true)
		case <-ticker.C:
			b.turn(false)
		}
	}
}

// patience is how long a record may wait in memory.
func (b *Buffer) patience() time.Duration {
	if b.o.CommitInterval == 0 {
		return housekeeping // its records do not wait, but gap records may
	}
	return b.o.CommitInterval
}

// tick is how often Run looks: a record is committed between three and four quarters of the interval
// after it came, so one that is acknowledged sooner never costs a write.
func (b *Buffer) tick() time.Duration {
	return max(min(b.patience()/4, housekeeping), 5*time.Millisecond)
}

// turn is one turn of Run.
func (b *Buffer) turn(early bool) {
	b.lockCommit()
	defer b.unlockCommit()
	if b.isClosed() {
		return
	}
	old, idle := b.due()
	switch { // errors are kept in the stats
	case early || old:
		_ = b.commitOr(idle)
	case idle:
		_ = b.settleIdle(true)
	}
	b.probe()
	if err := b.reserve(); err != nil {
		b.tell("sequence numbers not reserved; trying again", err)
	}
	b.mu.Lock()
	now := time.Now()
	rest := now.Sub(b.st.lastTidy) < housekeeping
	if !rest {
		b.st.lastTidy = now
	}
	b.mu.Unlock()
	if rest {
		return
	}
	b.tellLosses(now)
	b.tellRepeats(now)
	if err := b.stillOurs(); err != nil {
		return // Stats tells; what is in the directory is not ours to change
	}
	b.checkState()
	b.keepReserve()
	b.askAgain()
	if err := errors.Join(b.expire(), b.reclaim()); err != nil {
		b.tell("segments not looked after; trying again", err)
	}
}

// due reports whether a record has waited long enough, and whether the checkpoint has.
func (b *Buffer) due() (old, idle bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.advance()
	if e := b.tail.at(b.durable + 1); e != nil {
		old = time.Since(b.start)-e.born >= b.patience()*3/4-time.Millisecond
	}
	old = old || b.gapsDue()
	if b.st.commitErr != nil && time.Since(b.st.lastTry) < retryEvery {
		old = false
	}
	since := time.Since(b.st.lastIdle)
	every := max(idleEvery, time.Duration(b.st.idleBytes)*time.Second/idleRate)
	soon := b.st.ackedOnDisk > 0 || b.st.fresh || b.st.stateErr != nil
	return old, since >= every || (soon && since >= drainEvery)
}

func (b *Buffer) isClosed() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.closed
}

// closeWithin is how long Close waits for a disk that does not answer.
const closeWithin = 15 * time.Second

// Close commits what is in memory, writes the checkpoint and closes the files. It may be called again.
// When the last commit fails, what is lost with it is in the error. A disk that has not answered after 15 seconds is not waited for.
func (b *Buffer) Close() error {
	ended := make(chan error, 1)
	go func() { ended <- b.close() }()
	timer := time.NewTimer(closeWithin)
	defer timer.Stop()
	select {
	case err := <-ended:
		return err
	case <-timer.C:
		return fmt.Errorf("close buffer %q: the disk has not answered for %v; %d records that are in memory only are lost with the process",
			b.dir, closeWithin, b.Stats().DirtyRecords)
	}
}

// lostAtClose says what became of so many records that the last commit could not write; told reports whether their loss is on disk, and here whether that is in
// the directory under the store's name.
func lostAtClose(lost int, told, here bool) error {
	switch {
	case lost == 0:
		return nil
	case told && !here:
		return fmt.Errorf("%d records that were in memory only are lost; that was noted in the directory that was moved away: the next start on that one tells of them in gap records", lost)
	case told:
		return fmt.Errorf("%d records that were in memory only are lost; the next start tells of them in gap records", lost)
	}
	return fmt.Errorf("%d records that were in memory only are lost, and that could not be noted: the next start cannot count them", lost)
}

// beginClosing notes that Close is under way, and returns since when the store fails, as far as the log has no line of its own for the end: that commits work
// again has one.
func (b *Buffer) beginClosing() (failing time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closing = true
	if b.st.commitErr != nil {
		return time.Time{}
	}
	return b.failingSince()
}

func (b *Buffer) close() error {
	b.lockCommit()
	defer b.unlockCommit()
	if b.isClosed() {
		return nil
	}
	failing := b.beginClosing()
	err := b.commit()
	b.tellLosses(time.Now().Add(lossEvery))
	b.tellRepeats(time.Now().Add(lossEvery))
	lost := 0
	b.mu.Lock()
	b.closed = true
	if err != nil {
		for b.tail.n > 0 {
			if b.tail.first <= b.durable {
				b.tail.pop()
				continue
			}
			e := b.tail.at(b.tail.first)
			if !b.settled(e) {
				lost++
			}
			b.lose(e, b.tail.first, CauseShutdown)
			b.durable++
		}
	}
	b.durable = max(b.durable, b.next-1)
	d := b.takeCheckpoint(nil)
	ckpt := d.pack(b.coder.enc)
	next := b.next
	b.mu.Unlock()
	if b.taken() == nil {
		err = errors.Join(err, b.removeUnused())
	}
	now := b.promises()
	stateErr := b.saveState(func(tx *bolt.Tx) error {
		bkt := tx.Bucket(stateBucket)
		return errors.Join(bkt.Put(keyCheckpoint, ckpt), bkt.Put(keyUntil, d.until), bkt.Put(keyBefore, d.before), bkt.Put(keyLost, d.lostAt), bkt.Put(keyHead, b.stateHead(next)), b.state.putPromises(tx, now))
	})
	if stateErr == nil {
		writeLock(b.lock, seen{b.store, d.gen})
	}
	err = errors.Join(err, lostAtClose(lost, stateErr == nil, b.state.db != nil && named(b.state.db.info, filepath.Join(b.dir, stateName))), stateErr)
	if b.active != nil && b.taken() == nil {
		b.seal()
	} else if b.active != nil {
		b.active.closeActive() // its name may be another store's file
	}
	b.mu.Lock()
	segs := b.segs
	b.mu.Unlock()
	for _, s := range segs {
		b.closeHandle(s)
	}
	b.tellClosed(failing, lost)
	err = errors.Join(err, b.state.close(), b.coder.enc.Close(), b.lock.Close())
	b.decoder.Close()
	b.mu.Lock()
	b.notify()
	b.mu.Unlock()
	if err != nil {
		return fmt.Errorf("close buffer %q: %w", b.dir, err)
	}
	return nil
}
