package buffer

import (
	"crypto/rand"
	"path/filepath"
	"time"
)

// The file reserve keeps room on the disk for the state.db that the next Open writes, and makes way for it when others have filled the disk: without
// state.db nobody may use new sequence numbers, so there is no start. What stands in it is of no meaning.
const reserveName = "reserve"

// reserveAgain is how long a reserve that could not be made is not tried again.
const reserveAgain = time.Minute

// keepReserve makes the reserve again where it is gone, or too small, while the disk is not full. commitMu is held.
func (b *Buffer) keepReserve() {
	b.mu.Lock()
	wait := b.diskFull() || time.Since(b.reserveTried) < reserveAgain
	b.mu.Unlock()
	if !wait {
		b.makeReserve()
	}
}

// makeReserve sees to it that there is one for a state.db that is a little larger than the present one. With that it is not larger than stateLimit, of
// which two are kept free of segments. Where that fails, what it has keeps that room, and the disk may have more later. commitMu is held.
func (b *Buffer) makeReserve() {
	b.mu.Lock()
	want := min(b.stateSize+stateStep, b.o.stateLimit()-b.stateSize)
	b.mu.Unlock()
	path := filepath.Join(b.dir, reserveName)
	if fileSize(path, 0) >= want {
		return
	}
	b.reserveTried = time.Now()
	if b.fs.mark(path, reserveContent(want), 0) == nil {
		b.written.Add(want)
	}
}

// reserveContent is what stands in a reserve of so many bytes: file systems that compress would keep little room for zeros.
func reserveContent(size int64) []byte {
	content := make([]byte, size)
	_, _ = rand.Read(content) // it never fails
	return content
}

// reserveCopy makes the reserve of a copy of a store, as far as its disk has room. What max size the copy will have is not known: with its state.db the
// reserve is not larger than the least stateLimit, and the first process on it makes it larger where it may.
func reserveCopy(dir string) {
	size := fileSize(filepath.Join(dir, stateName), 0)
	if want := min(size+stateStep, leastState-size); want > 0 {
		_ = writeAt(filepath.Join(dir, reserveName), reserveContent(want), 0) // the copy is complete without it
	}
}

// takeReserve gives the reserve up, and reports whether there was one.
func (b *Buffer) takeReserve() bool {
	return b.fs.remove(filepath.Join(b.dir, reserveName)) == nil && b.fs.syncDir(b.dir) == nil
}
