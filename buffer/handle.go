package buffer

import (
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"runtime/debug"
	"sync"

	bolt "go.etcd.io/bbolt"
)

// handle is the only way to a bbolt file that is being written. One call is in it at a time. bbolt trusts its file: a
// page that was overwritten or cannot be read makes it panic, perhaps with a lock held that nobody will free, and its
// roll back then walks the damaged tree in a goroutine where no one can recover. So a call that panicked, or a
// transaction that did not reach its commit, is the last: nothing of bbolt is called on that file again, not even Close.
//
// bbolt has its file mapped. A thread that waits for a page under a map stops the whole process from the next garbage collection on, one that
// waits in a system call only itself. So what is read is read by pread, and what a transaction is going to touch is asked for so before it begins.
type handle struct {
	mu    sync.Mutex
	db    *bolt.DB                // nil when closed
	file  *os.File                // bbolt's own; closed without it when bbolt may not be called
	info  os.FileInfo             // of the file, to be compared with its name
	dead  error                   // why the handle was given up
	touch func(p *pageFile) error // reads the pages that a write transaction will need; nil for a file too young to be out of memory
}

var errHandleClosed = errors.New("file is closed")

// openHandle opens a bbolt file, with a panic of bbolt as an error.
func openHandle(fs files, path string, o *bolt.Options) (*handle, error) {
	h := &handle{}
	mine := *o
	mine.OpenFile = func(name string, flag int, mode os.FileMode) (f *os.File, err error) {
		h.file, err = os.OpenFile(name, flag, mode)
		return h.file, err
	}
	err := guard(func() (err error) { h.db, err = fs.bolt(path, &mine); return err })
	if err == nil {
		h.info, err = h.file.Stat()
	}
	if err != nil && h.file != nil {
		_ = h.file.Close() // bbolt has done so, unless it panicked
	}
	return h, err
}

// update runs f in a write transaction. After an error of f or a panic the handle is dead; after a failed commit,
// which bbolt has rolled back, it may still be closed in the ordinary way.
func (h *handle) update(f func(*bolt.Tx) error) error {
	return h.call(func() error {
		if h.touch != nil {
			p, err := h.pages()
			if err == nil {
				err = h.touch(p)
			}
			if err != nil {
				return fmt.Errorf("%w: %w", errUnsound, err)
			}
		}
		tx, err := h.db.Begin(true)
		if err != nil {
			return err
		}
		if err := f(tx); err != nil {
			h.giveUp(err)
			return err
		}
		return tx.Commit()
	})
}

// view runs f with the file as of its last transaction.
func (h *handle) view(f func(*pageFile) error) error {
	return h.call(func() error {
		p, err := h.pages()
		if err != nil {
			return err
		}
		return f(p)
	})
}

// pages returns the file as of its last transaction, to be read until the next one. mu is held.
func (h *handle) pages() (*pageFile, error) {
	p := &pageFile{f: h.file}
	return p, p.readMeta()
}

// sumAll reads all pages in use, and returns their CRC-32C.
func sumAll(p *pageFile) (sum uint32, err error) {
	buf, size := make([]byte, 16*pageSize), int64(p.hwm)*pageSize
	for at := int64(0); at < size; at += int64(len(buf)) {
		part := buf[:min(size-at, int64(len(buf)))]
		if _, err := p.f.ReadAt(part, at); err != nil {
			return 0, fmt.Errorf("read page %d: %w: %w", at/pageSize, err, errDamaged)
		}
		sum = crc32.Update(sum, castagnoli, part)
	}
	return sum, nil
}

// touchEnds reads what a commit needs of a segment: the way to the end of the dictionary, and to that of the records. It reports as damage that another
// segment's content stands in the file.
func touchEnds(p *pageFile, want info) error {
	root, err := p.bucket(bucketName)
	if errors.Is(err, errEmpty) {
		return nil
	}
	if err != nil {
		return err
	}
	c := pageCursor{file: p, root: root}
	own, err := infoAt(&c)
	if err == nil {
		err = own.misfit(want)
	}
	if err != nil && !errors.Is(err, ErrNotFound) {
		return err
	}
	if c.err == nil {
		c.Last()
	}
	return c.err
}

// call runs f, alone on the handle, unless the handle is closed or dead.
func (h *handle) call(f func() error) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case h.db == nil:
		return errHandleClosed
	case h.dead != nil:
		return fmt.Errorf("file was given up: %w", h.dead)
	}
	err := guard(f)
	if errors.Is(err, errUnsound) {
		h.giveUp(err)
	}
	return err
}

// giveUp frees the descriptor, and with it the lock on the file. The pages stay mapped: bbolt alone can unmap them. mu is held.
func (h *handle) giveUp(cause error) {
	if h.dead == nil {
		h.dead = cause
		_ = h.file.Close()
	}
}

// close closes the file; never bbolt's way when it is dead.
func (h *handle) close() error {
	if h == nil {
		return nil
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	db := h.db
	h.db = nil
	if db == nil || h.dead != nil {
		return nil
	}
	err := guard(db.Close)
	if errors.Is(err, errUnsound) {
		h.giveUp(err)
	}
	return err
}

// errUnsound marks what guard made of a panic, after which bbolt is in no known state, and of a page that cannot be read.
var errUnsound = fmt.Errorf("the file being written is unsound: %w", errDamaged)

// guard runs f and turns a panic, also that of a page that cannot be read, into an error: bbolt trusts
// its files, and we do not.
func guard(f func() error) (err error) {
	old := debug.SetPanicOnFault(true)
	defer debug.SetPanicOnFault(old)
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("%w: bbolt panicked: %v", errUnsound, r)
		}
	}()
	return f()
}
