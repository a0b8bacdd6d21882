package buffer

import (
	"math/rand/v2"
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
// which two are kept free of segments. Where that fails, the disk may have room later. commitMu is held.
func (b *Buffer) makeReserve() {
	b.mu.Lock()
	want := min(b.stateSize+stateStep, b.o.stateLimit()-b.stateSize)
	b.mu.Unlock()
	path := filepath.Join(b.dir, reserveName)
	if fileSize(path, 0) >= want {
		return
	}
	b.reserveTried = time.Now()
	content := make([]byte, want) // file systems that compress would keep little room for zeros
	for i := range content {
		content[i] = byte(rand.Uint32())
	}
	if err := b.fs.mark(path, content, 0); err != nil {
		_ = b.fs.remove(path)
		return
	}
	b.written.Add(want)
}

// takeReserve gives the reserve up, and reports whether there was one.
func (b *Buffer) takeReserve() bool {
	return b.fs.remove(filepath.Join(b.dir, reserveName)) == nil && b.fs.syncDir(b.dir) == nil
}
