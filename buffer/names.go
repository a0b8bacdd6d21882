package buffer

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// named reports whether a path still leads to the file that was there when it was opened.
func named(opened os.FileInfo, path string) bool {
	now, err := os.Stat(path)
	return err == nil && os.SameFile(opened, now)
}

// checkNames makes sure that what is written can be found again: a file that was unlinked or replaced under us takes
// writes without a complaint. Its content goes to a new file, as far as memory has it; an error means that the directory
// is somebody else's now, and that nothing may be written. commitMu is held.
func (b *Buffer) checkNames() error {
	if err := b.checkLock(); err != nil {
		return err
	}
	if path := filepath.Join(b.dir, stateName); !b.state.failed && !named(b.state.db.info, path) {
		b.state.failed = true // to be written anew
		b.noteDamage(Damage{File: stateName, Reason: "removed or replaced while in use; it is written anew from memory"})
		if err := b.renewState(); err != nil {
			return err
		}
	}
	if s := b.active; s != nil && !named(s.db.info, s.path) {
		b.abandon(fmt.Errorf("removed or replaced while in use: %w", errDamaged))
	}
	b.checkSegments()
	b.settleIn()
	return nil
}

// taken returns why the directory is not ours any more, or nil.
func (b *Buffer) taken() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.st.takenErr
}

// stillOurs is checkNames for when nothing is written, but not at each turn. commitMu is held.
func (b *Buffer) stillOurs() error {
	if b.taken() == nil && time.Since(b.looked) < lookEvery {
		return nil
	}
	b.looked = time.Now()
	return b.checkNames()
}

// checkLock makes sure that the directory is ours, and notes when it is not.
func (b *Buffer) checkLock() error {
	var err error
	if named(b.lockInfo, filepath.Join(b.dir, lockName)) {
		b.isBack()
	} else {
		err = b.takeAgain()
	}
	b.mu.Lock()
	b.st.takenErr, b.st.takenBad = err, badSince(b.st.takenBad, b.commitSince(), err)
	b.mu.Unlock()
	return err
}

// takeAgain takes the lock again when its file is gone, unless the directory was only moved away a moment ago, or holds a store that is not this one.
func (b *Buffer) takeAgain() error {
	path := filepath.Join(b.dir, stateName)
	there := !b.state.failed && named(b.state.db.info, path)
	if _, err := os.Stat(path); errors.Is(err, os.ErrNotExist) {
		if err := b.awaited(); err != nil {
			return err
		}
	}
	if err := os.Mkdir(b.dir, 0o750); err != nil && !errors.Is(err, os.ErrExist) {
		return fmt.Errorf("directory %q was taken away: %w; records stay in memory until it is back", b.dir, err)
	}
	lock, err := takeLock(b.dir)
	if errors.Is(err, ErrInUse) {
		return fmt.Errorf("directory %q was taken over: %w; records stay in memory: stop one of the two", b.dir, err)
	}
	if err != nil {
		return fmt.Errorf("directory %q was replaced by what is none, or cannot be written: %w; records stay in memory until it is back", b.dir, err)
	}
	back := false
	if !there {
		back, err = b.whoseIsIt(lock)
	}
	var info, dir os.FileInfo
	if err == nil {
		info, err = lock.Stat()
	}
	if err == nil {
		dir, err = os.Stat(b.dir)
	}
	if err != nil {
		_ = lock.Close()
		return err
	}
	if back {
		b.moveBackIn()
	} else {
		b.log.Error("lock file was removed while in use; taken again", "dir", b.dir)
	}
	b.wentOn(b.lock, 0)
	_ = b.lock.Close()
	b.dirInfo, b.movedIn, b.awaySince, b.lookedSegs = dir, true, time.Time{}, time.Time{}
	b.mu.Lock()
	b.lock, b.lockInfo, b.st.remade = lock, info, time.Now()
	b.mu.Unlock()
	return nil
}
