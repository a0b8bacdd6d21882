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
	content := make([]byte, want)
	_, _ = rand.Read(content) // it never fails; file systems that compress would keep little room for zeros
	if b.fs.mark(path, content, 0) == nil {
		b.written.Add(want)
	}
}

// takeReserve gives the reserve up, and reports whether there was one.
func (b *Buffer) takeReserve() bool {
	return b.fs.remove(filepath.Join(b.dir, reserveName)) == nil && b.fs.syncDir(b.dir) == nil
}
