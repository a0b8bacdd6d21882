package buffer

import (
	"context"
	"errors"
	"fmt"
	"time"

	bolt "go.etcd.io/bbolt"
)

const (
	housekeeping = time.Second      // how often Run looks after the segments
	idleEvery    = 60 * time.Second // how often the checkpoint is written while nothing is committed
	drainEvery   = 5 * time.Second  // and while a backlog is being acknowledged
)

// Run commits each CommitInterval, drops what is too old and unlinks what is drained, until the context
// ends. Its errors are not its end: they stand in Stats, and the next turn tries again. It returns nil.
func (b *Buffer) Run(ctx context.Context) error {
	b.mu.Lock()
	if b.closed || b.running {
		b.mu.Unlock()
		return fmt.Errorf("run buffer %q: %w or running already", b.dir, ErrClosed)
	}
	b.running = true
	b.mu.Unlock()
	defer func() {
		b.mu.Lock()
		b.running = false
		b.mu.Unlock()
	}()
	interval := b.o.CommitInterval
	if interval == 0 {
		interval = housekeeping
	}
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-b.kick:
			b.turn(true)
		case <-ticker.C:
			b.turn(false)
		}
	}
}

// turn is one turn of Run.
func (b *Buffer) turn(early bool) {
	b.lockCommit()
	defer b.unlockCommit()
	if b.isClosed() {
		return
	}
	now := time.Now()
	b.mu.Lock()
	since := now.Sub(b.st.lastIdle)
	due := since >= idleEvery || (b.st.ackedOnDisk > 0 && since >= drainEvery)
	b.mu.Unlock()
	_ = b.commitOr(due && !early) // kept in the stats
	if err := b.reserve(); err != nil {
		b.log.Warn("sequence numbers not reserved; trying again", "error", err)
	}
	if early {
		return
	}
	if err := errors.Join(b.expire(), b.reclaim()); err != nil {
		b.log.Warn("segments not looked after; trying again", "error", err)
	}
}

func (b *Buffer) isClosed() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.closed
}

// Close commits what is in memory, writes the checkpoint and closes the files. It may be called again.
// When the last commit fails, what is lost with it is in the error.
func (b *Buffer) Close() error {
	b.lockCommit()
	defer b.unlockCommit()
	if b.isClosed() {
		return nil
	}
	err := b.commit()
	b.mu.Lock()
	b.closed = true
	if err != nil {
		for b.tail.n > 0 {
			if b.tail.first <= b.durable {
				b.tail.pop()
				continue
			}
			e := b.tail.at(b.tail.first)
			b.lose(e, b.tail.first, CauseShutdown)
			b.durable++
		}
	}
	b.durable = max(b.durable, b.next-1)
	ckpt := b.takeCheckpoint()
	next := b.next
	b.mu.Unlock()
	err = errors.Join(err, b.saveState(func(bkt *bolt.Bucket) error {
		return errors.Join(bkt.Delete(keyIntent), bkt.Put(keyCheckpoint, ckpt), bkt.Put(keyHead, stateHead(b.epoch, next)))
	}))
	if b.active != nil {
		b.seal()
	}
	b.mu.Lock()
	segs := b.segs
	b.mu.Unlock()
	for _, s := range segs {
		b.closeHandle(s)
	}
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
