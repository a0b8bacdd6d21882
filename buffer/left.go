package buffer

import (
	"encoding/binary"
	"os"
	"path/filepath"
	"time"
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
}

// Bits of what state.db keeps of it until it is told.
const (
	leftRestored = 1 << iota
	leftUnclean
	leftUnknown
)

// untoldLeft encodes for state.db what is still to be told of the process before; nil when nothing is. mu is held.
func (b *Buffer) untoldLeft() []byte {
	l := &b.left
	if b.leftTold || l.Before() == "" {
		return nil
	}
	bits := byte(0)
	if l.Restored {
		bits |= leftRestored
	}
	if l.Unclean {
		bits |= leftUnclean
	}
	if l.Unknown {
		bits |= leftUnknown
	}
	return sealValue(append(make([]byte, 8), bits))
}

// inherit takes in what a process before was to tell and has not.
func (l *Left) inherit(untold []byte) {
	if body, err := openValue(untold); err == nil && len(body) == 1 {
		l.Restored, l.Unclean, l.Unknown = l.Restored || body[0]&leftRestored != 0, l.Unclean || body[0]&leftUnclean != 0, l.Unknown || body[0]&leftUnknown != 0
	}
}

// What Stats says of the process before.
const (
	BeforeUnclean  = "unclean"
	BeforeUnknown  = "unknown"
	BeforeRestored = "restored"
)

// Before returns why readings may be missing that nobody can count, BeforeRestored first: a backup says nothing of the process it was
// taken from; "" = none may.
func (l *Left) Before() string {
	switch {
	case l.Restored:
		return BeforeRestored
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
	b.left = Left{Restored: err == nil, New: old.lost && !old.damaged && ckpt == nil && m == nil && len(b.segs) == 0}
	if !old.lost && ckpt != nil { // Close gives back the numbers it did not use, and writes the last checkpoint into state.db
		own, err := parseCheckpoint(old.ckpt, b.decoder)
		b.left.Unclean = old.reserved > ckpt.next || err != nil || own.gen < ckpt.gen
	}
	b.left.Unknown = old.lost && !b.left.New
	b.left.inherit(old.before)
	if body, err := openValue(old.until); err == nil && len(body) == 8 {
		b.until, b.left.Until = old.until, time.UnixMicro(int64(binary.BigEndian.Uint64(body)))
	}
	for _, s := range b.segs {
		if at := time.UnixMicro(s.maxAt); s.records > 0 && at.After(b.left.Newest) {
			b.left.Newest = at
		}
	}
}

// safeUntil encodes until when all records taken are on disk or need no disk, for state.db. Before this process has taken one that is what the process before left. mu is held.
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
	return sealValue(binary.BigEndian.AppendUint64(make([]byte, 8), uint64(at.UnixMicro())))
}

// restoredName is an empty file that WriteBackup leaves for the first process on the store.
const restoredName = "restored"
