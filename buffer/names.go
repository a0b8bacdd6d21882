package buffer

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// named reports whether a path still leads to an open file.
func named(f *os.File, path string) bool {
	open, err := f.Stat()
	if err != nil {
		return false
	}
	now, err := os.Stat(path)
	return err == nil && os.SameFile(open, now)
}

// checkNames makes sure that what is written can be found again: a file that was unlinked or replaced under us takes
// writes without a complaint. Its content goes to a new file, as far as memory has it; an error means that the directory
// is somebody else's now, and that nothing may be written. commitMu is held.
func (b *Buffer) checkNames() error {
	err := b.checkLock()
	b.mu.Lock()
	b.st.takenErr = err
	b.mu.Unlock()
	if err != nil {
		return err
	}
	if path := filepath.Join(b.dir, stateName); !b.state.failed && !named(b.state.db.file, path) {
		b.state.failed = true // to be written anew
		b.noteDamage(Damage{File: stateName, Reason: "removed or replaced while in use; it is written anew from memory"})
		if err := b.renewState(); err != nil {
			return err
		}
	}
	if s := b.active; s != nil && !named(s.db.file, s.path) {
		b.abandon(fmt.Errorf("removed or replaced while in use: %w", errDamaged))
	}
	return nil
}

// taken returns why the directory is not ours any more, or nil.
func (b *Buffer) taken() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.st.takenErr
}

// checkLock takes the lock again when its file is gone, unless the directory holds a store that is not this one.
func (b *Buffer) checkLock() error {
	if named(b.lock, filepath.Join(b.dir, "lock")) {
		return nil
	}
	if err := os.Mkdir(b.dir, 0o750); err != nil && !errors.Is(err, os.ErrExist) {
		return fmt.Errorf("directory %q was taken away: %w; records stay in memory until it is back", b.dir, err)
	}
	lock, err := takeLock(b.dir)
	if err != nil {
		return fmt.Errorf("directory %q was taken over: %w; records stay in memory: stop one of the two", b.dir, err)
	}
	path := filepath.Join(b.dir, stateName)
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) && (b.state.failed || !named(b.state.db.file, path)) {
		_ = lock.Close()
		return fmt.Errorf("directory %q holds another store now; records stay in memory: give this gateway its own directory back, or stop it", b.dir)
	}
	b.log.Error("lock file was removed while in use; taken again", "dir", b.dir)
	_ = b.lock.Close()
	b.lock = lock
	return nil
}
