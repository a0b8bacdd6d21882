package buffer

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

const (
	backupRounds = 64 // over the segments, before the store is said to change faster than it can be copied
	backupRest   = 8  // segments that are held open at once at the end
)

// Backup gives a copy of the store as of one moment, file by file, while it is in use; state.db comes last, so that a copy
// cut short has none. file may take its time: nothing waits for it. Whatever a destination has not acknowledged by then is in
// the copy. A process started on it takes an epoch of its own. Errors: file's, ErrClosed, or why the store cannot be written or read.
func (b *Buffer) Backup(ctx context.Context, file func(name string, size int64, r io.Reader) error) error {
	copied := map[string]bool{}
	for round := 0; ; round++ {
		list := b.notCopied(copied)
		if len(list) <= backupRest {
			break
		}
		if round == backupRounds {
			return fmt.Errorf("back up %q: the store changes faster than it is copied; write to a faster disk", b.dir)
		}
		for _, s := range list {
			copied[s.path] = true
			f, err := os.Open(s.path)
			if errors.Is(err, os.ErrNotExist) {
				continue // drained meanwhile, or missing: then verify tells
			}
			if err == nil {
				err = giveFile(ctx, f, file)
			}
			if err != nil {
				return fmt.Errorf("back up %q: %w", b.dir, err)
			}
		}
	}
	rest, state, err := b.freeze(copied)
	for _, f := range rest {
		if err == nil {
			err = giveFile(ctx, f, file)
		} else {
			_ = f.Close() // nothing was written
		}
	}
	if err == nil {
		err = file(stateName, int64(len(state)), bytes.NewReader(state))
	}
	if err != nil {
		return fmt.Errorf("back up %q: %w", b.dir, err)
	}
	return nil
}

// notCopied returns the segments that are written to the end and not copied yet.
func (b *Buffer) notCopied(copied map[string]bool) (list []*segment) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, s := range b.segs {
		if s.sealed && !copied[s.path] {
			list = append(list, s)
		}
	}
	return list
}

// freeze commits, ends the segment being written, and returns the files not copied yet, opened, and what state.db says now.
func (b *Buffer) freeze(copied map[string]bool) (rest []*os.File, state []byte, err error) {
	b.lockCommit()
	defer b.unlockCommit()
	if b.isClosed() {
		return nil, nil, ErrClosed
	}
	if err := b.commit(); err != nil {
		return nil, nil, err
	}
	if err := b.removeUnused(); err != nil {
		return nil, nil, err
	}
	if b.active != nil {
		b.seal()
	}
	b.mu.Lock()
	b.changed = true
	b.mu.Unlock()
	if err := b.settleIdle(true); err != nil {
		return nil, nil, err
	}
	for _, s := range b.notCopied(copied) {
		f, err := os.Open(s.path)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return rest, nil, err
		}
		rest = append(rest, f)
	}
	state, err = os.ReadFile(filepath.Join(b.dir, stateName))
	return rest, state, err
}

// giveFile gives one file and closes it.
func giveFile(ctx context.Context, f *os.File, file func(name string, size int64, r io.Reader) error) error {
	defer func() { _ = f.Close() }() // nothing was written
	if err := ctx.Err(); err != nil {
		return err
	}
	info, err := f.Stat()
	if err != nil {
		return err
	}
	return file(filepath.Base(f.Name()), info.Size(), io.LimitReader(f, info.Size()))
}

// BackupDir is Backup of a store that no process has open: its files as they are.
func BackupDir(ctx context.Context, dir string, file func(name string, size int64, r io.Reader) error) error {
	if _, err := os.Stat(dir); err != nil {
		return err
	}
	if _, err := os.Stat(filepath.Join(dir, stateName)); errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("%q is neither a backup nor a store: it has no %s", dir, stateName)
	} else if err != nil {
		return err
	}
	lock, err := takeLock(dir)
	if err != nil {
		return fmt.Errorf("back up %q: %w", dir, err)
	}
	defer func() { _ = lock.Close() }() // nothing was written
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("back up: %w", err)
	}
	names := make([]string, 0, len(entries))
	for _, e := range entries {
		if e.Type().IsRegular() && IsBackupFile(e.Name()) && e.Name() != stateName {
			names = append(names, e.Name())
		}
	}
	for _, name := range append(names, stateName) {
		f, err := os.Open(filepath.Join(dir, name))
		if err == nil {
			err = giveFile(ctx, f, file)
		}
		if err != nil {
			return fmt.Errorf("back up %q: %w", dir, err)
		}
	}
	return nil
}

var backupFile = regexp.MustCompile(`^(state\.db|promised|seg-[0-9a-f]{16}\.db(\.spare)?)$`)

// IsBackupFile reports whether a store has a file of that name which a copy of it needs.
func IsBackupFile(name string) bool { return backupFile.MatchString(name) }

// WriteBackup makes a copy of a store in a directory, which must be empty or not there, from the files that give gives it,
// and makes it durable. state.db gets its name last: what was cut short is no store. Errors leave what was written for people, and no directory where nothing was.
func WriteBackup(dir string, give func(file func(name string, size int64, r io.Reader) error) error) error {
	made := os.Mkdir(dir, 0o750)
	if made != nil && !errors.Is(made, os.ErrExist) {
		return fmt.Errorf("make directory: %w", made)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	if len(entries) > 0 {
		return fmt.Errorf("directory %q is not empty; move away what is in it, or give another one", dir)
	}
	var done []string
	err = give(func(name string, size int64, r io.Reader) error {
		if !IsBackupFile(name) || slices.Contains(done, name) {
			return fmt.Errorf("file %q is not one of a store", name)
		}
		done = append(done, name)
		return writeFile(filepath.Join(dir, name+".part"), size, r)
	})
	if err != nil && len(done) == 0 {
		if made == nil {
			_ = os.Remove(dir) // it is empty
		}
		return err
	}
	if err == nil && !slices.Contains(done, stateName) {
		err = io.ErrUnexpectedEOF
	}
	if err == nil {
		err = writeFile(filepath.Join(dir, restoredName), 0, strings.NewReader(""))
	}
	for _, name := range done {
		if err == nil {
			err = os.Rename(filepath.Join(dir, name+".part"), filepath.Join(dir, name))
		}
	}
	if err == nil {
		err = syncDir(dir)
	}
	if err != nil {
		return fmt.Errorf("write %q: %w; it is not complete: delete it", dir, err)
	}
	reserveCopy(dir)
	return nil
}

// Inside reports whether a path is a directory or lies in it, whatever links lead there. The path need not be there.
func Inside(path, dir string) bool {
	of, err := os.Stat(dir)
	if err != nil {
		return false
	}
	if path, err = filepath.Abs(path); err != nil {
		return false
	}
	for real, err := filepath.EvalSymlinks(path); path != filepath.Dir(path); real, err = filepath.EvalSymlinks(path) {
		if err == nil {
			path = real
			break
		}
		path = filepath.Dir(path)
	}
	for {
		if at, err := os.Stat(path); err == nil && os.SameFile(at, of) {
			return true
		}
		if path == filepath.Dir(path) {
			return false
		}
		path = filepath.Dir(path)
	}
}

func writeFile(path string, size int64, r io.Reader) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o640)
	if err != nil {
		return err
	}
	n, err := io.Copy(f, r)
	if err == nil && n != size {
		err = io.ErrUnexpectedEOF
	}
	return errors.Join(err, f.Sync(), f.Close())
}

// removeUnused gives the active segment up when nothing was written to it, because all was acknowledged while it was made:
// state.db would name a segment that holds nothing. commitMu is held.
func (b *Buffer) removeUnused() error {
	s := b.active
	if s == nil || !s.empty() {
		return nil
	}
	s.closeActive()
	b.mu.Lock()
	b.active, s.sealed = nil, true
	b.forgetSegment(s)
	b.mu.Unlock()
	return b.discard(s.path)
}
