package buffer

import (
	"encoding/binary"
	"os"
	"path/filepath"
	"time"

	bolt "go.etcd.io/bbolt"
)

// Left is what the process before has left, as it is written inside the store. The times of its files say nothing: a copy has others, and a disk
// that hung takes what was written to it when the process has long gone.
type Left struct {
	New      bool      // there was no store
	Until    time.Time // by the clock of that process: all that it had taken until then was on disk or needed no disk; zero = it is not known, or a store of an earlier build
	Newest   time.Time // of the records on disk, likewise; zero = there is none
	Restored bool      // it was written by WriteBackup, and no process has told of it since
	Unclean  bool      // it did not close the store: what it had not committed is lost, and nobody can count it
	Unknown  bool      // state.db was lost, or is damaged: nobody knows whether it closed the store
	Older    bool      // state.db is older than that which was here last, or another store's: somebody has put it, or all, in its place
	Gone     bool      // and so was all that it says something of: that there was a store only what lies beside it tells

	Dropped   map[string][Causes]uint64 // what it had counted, by destination, in readings; the ledger's rest was found, or given up, by this Open
	Uncounted uint64                    // likewise of Stats.LostUnknown
	Lost      time.Time                 // when it, or one before it, counted a loss last, by its clock; this Open where it could not note when; zero = never, or a store of an earlier build
}

// kept is what of it state.db keeps until it is told, a bit each, from the lowest on.
func (l *Left) kept() []*bool {
	return []*bool{&l.Restored, &l.Unclean, &l.Unknown, &l.Gone, &l.Older}
}

// untoldLeft encodes for state.db what is still to be told of the process before; nil when nothing is. mu is held.
func (b *Buffer) untoldLeft() []byte {
	if b.leftTold || b.left.Before() == "" {
		return nil
	}
	bits := byte(0)
	for i, is := range b.left.kept() {
		if *is {
			bits |= 1 << i
		}
	}
	return sealValue(append(make([]byte, 8), bits))
}

// inherit takes in what a process before was to tell and has not.
func (l *Left) inherit(untold []byte) {
	body, err := openValue(untold)
	if err != nil || len(body) != 1 {
		return
	}
	for i, is := range l.kept() {
		*is = *is || body[0]&(1<<i) != 0
	}
}

// What Stats says of the process before.
const (
	BeforeUnclean  = "unclean"
	BeforeUnknown  = "unknown"
	BeforeRestored = "restored"
	BeforeGone     = "gone"
	BeforeOlder    = "older"
)

// Before returns why readings may be missing that nobody can count, BeforeRestored first: a backup says nothing of the process it was
// taken from; "" = none may.
func (l *Left) Before() string {
	switch {
	case l.Restored:
		return BeforeRestored
	case l.Gone:
		return BeforeGone
	case l.Older:
		return BeforeOlder
	case l.Unknown:
		return BeforeUnknown
	case l.Unclean:
		return BeforeUnclean
	}
	return ""
}

// Left returns what the process before has left. It does not change.
func (b *Buffer) Left() Left { return b.left }

// findLeft notes what there is before anything is changed. mu is held.
func (b *Buffer) findLeft(old *stateData, m *mark, ckpt *checkpoint) {
	_, err := os.Stat(filepath.Join(b.dir, restoredName))
	nothing, traces := old.lost && !old.damaged && ckpt == nil && m == nil && len(b.segs) == 0, b.traces()
	b.left = Left{Restored: err == nil, New: nothing && !traces, Gone: nothing && traces}
	own, err := parseCheckpoint(old.ckpt, b.decoder)
	if !old.lost && ckpt != nil { // Close gives back the numbers it did not use, and writes the last checkpoint into state.db
		b.left.Unclean = old.reserved > ckpt.next || err != nil || own.gen < ckpt.gen
	}
	if !old.lost && err == nil && b.seen.store != 0 {
		b.left.Older = old.store != b.seen.store || own.gen < b.seen.gen
	}
	b.left.Unknown = old.lost && !b.left.New
	b.left.inherit(old.before)
	if at, ok := parseTime(old.until); ok {
		b.until, b.left.Until = old.until, at
	}
	if at, ok := parseTime(old.lostAt); ok {
		b.left.Lost = at
	}
	if m != nil && m.ckpt != nil && m.ckpt == ckpt && !m.inSegment { // state.db did not take the last checkpoint, and no record says of when it is
		b.left.Lost = time.Now()
	}
	b.lost = b.left.Lost
	for _, s := range b.segs {
		if at := time.UnixMicro(s.maxAt); s.records > 0 && at.After(b.left.Newest) {
			b.left.Newest = at
		}
	}
	if now := time.Now(); b.left.New {
		b.until = appendTime(now)
	} else if at := latest(b.left.Until, b.left.Newest, now); !at.Equal(b.left.Until) {
		b.until = appendTime(at) // the segment that says so may be drained, and removed, before this process has taken a record
	}
}

// latest returns the later of two times that are not zero, and one that is to come only where both are.
func latest(a, b, now time.Time) time.Time {
	switch {
	case a.IsZero() || !b.IsZero() && a.After(now) && !b.After(now):
		return b
	case b.IsZero() || b.After(now) && !a.After(now) || a.After(b):
		return a
	}
	return b
}

// traces reports whether something lies in the directory that only a store which was in use leaves. A start that failed leaves a lock
// that names no store, and perhaps the beginning of state.db under another name.
func (b *Buffer) traces() bool {
	if b.seen.store != 0 {
		return true
	}
	for _, pattern := range append([]string{markName, "*" + asideSuffix}, b.o.Traces...) {
		if found, _ := filepath.Glob(filepath.Join(b.dir, pattern)); len(found) > 0 { // the patterns are sound
			return true
		}
	}
	return false
}

// leftIsTold takes out of state.db what is to be told of the process before, now that a commit has put it on disk that it was: a kill after
// that is a kill. commitMu is held.
func (b *Buffer) leftIsTold(d *draft) {
	if d.told && len(b.state.held.before) > 0 {
		_ = b.saveState(func(tx *bolt.Tx) error { return tx.Bucket(stateBucket).Put(keyBefore, nil) }) // else with the next commit; Stats has the error
	}
}

// safeUntil encodes until when all records taken are on disk or need no disk, for state.db. Before this process has taken one that is
// what the process before left, and in a new store when that was made. mu is held.
func (b *Buffer) safeUntil() []byte {
	if !b.took {
		return b.until
	}
	at := time.Now()
	for seq := b.durable + 1; seq < b.next; seq++ {
		if e := b.tail.at(seq); e != nil && !b.settled(e) {
			at = at.Add(e.born - time.Since(b.start))
			break
		}
	}
	return appendTime(at)
}

// lostAt encodes for state.db when a loss was counted last. mu is held.
func (b *Buffer) lostAt() []byte {
	if b.lost.IsZero() {
		return nil
	}
	return appendTime(b.lost)
}

// appendTime encodes a time for state.db.
func appendTime(at time.Time) []byte {
	return sealValue(binary.BigEndian.AppendUint64(make([]byte, 8), uint64(at.UnixMicro())))
}

// parseTime reads what appendTime wrote.
func parseTime(value []byte) (at time.Time, ok bool) {
	body, err := openValue(value)
	if err != nil || len(body) != 8 {
		return time.Time{}, false
	}
	return time.UnixMicro(int64(binary.BigEndian.Uint64(body))), true
}

// restoredName is an empty file that WriteBackup leaves for the first process on the store.
const restoredName = "restored"
