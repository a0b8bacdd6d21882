package buffer

import (
	"errors"
	"fmt"
	"os"
	"time"
)

// checkSegments sees whether the segments that are not being written are still there: one that was removed, or went with the directory that
// was moved away, is told as lost now, and not when it is next read or at the next start. What memory still has of it is written again.
// commitMu is held.
func (b *Buffer) checkSegments() {
	if time.Since(b.lookedSegs) < lookEvery {
		return
	}
	b.lookedSegs = time.Now()
	b.mu.Lock()
	var list []*segment
	for _, s := range b.segs {
		if s != b.active && !s.missed {
			list = append(list, s)
		}
	}
	b.mu.Unlock()
	var gone []*segment
	for _, s := range list {
		if _, err := os.Stat(s.path); errors.Is(err, os.ErrNotExist) {
			gone = append(gone, s)
		}
	}
	for i := range gone { // the youngest first, so that memory takes back as much as it has
		b.miss(gone[len(gone)-1-i])
	}
}

// miss gives a segment up whose file is gone.
func (b *Buffer) miss(s *segment) {
	cause := fmt.Errorf("missing: removed while in use: %w", errDamaged)
	b.mu.Lock()
	s.missed = true
	taken := b.active == nil && s.last >= b.durable
	if taken {
		b.rewind(s)
	}
	empty := s.empty()
	if taken && empty {
		b.forgetSegment(s)
	}
	b.mu.Unlock()
	if taken && empty {
		b.closeHandle(s)
		b.log.Warn("segment removed while in use; all it held is still in memory and is written again", "file", s.path)
		return
	}
	b.salvageNow(s, cause)
}
