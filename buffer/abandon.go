package buffer

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
)

// abandon gives the active segment up after a failed commit, or when it was found damaged as it was read. What a failed transaction
// left on disk is unknown, so nothing is written to the file again and the batch goes to a new segment under the same numbers.
func (b *Buffer) abandon(cause error) {
	s := b.active
	s.closeActive()
	size := fileSize(s.path, s.size)
	b.mu.Lock()
	b.active, s.sealed = nil, true
	b.setSize(s, size)
	unused, damaged := s.empty(), errors.Is(cause, errDamaged)
	if damaged {
		b.rewind(s)
	}
	empty := s.empty()
	if empty {
		b.forgetSegment(s)
	}
	b.mu.Unlock()
	b.warnOnce(givenUp(cause, empty), s.path, cause)
	switch {
	case unused:
		if err := b.discard(s.path); err != nil {
			b.warnOnce("empty segment not removed", s.path, err)
		}
	case empty:
		b.supersede(s, cause)
	case damaged && unreadable(s.path) && b.wait(s, cause):
	case damaged:
		b.salvageNow(s, cause)
	}
}

// givenUp says what becomes of a segment that is given up, and of its name where it holds nothing.
func givenUp(cause error, empty bool) string {
	switch {
	case IsDiskFull(cause):
		return "segment given up: the disk is full; what it did not take goes to a new file, of the same name where it held nothing"
	case empty:
		return "segment given up: what it was to hold goes to a new file of that name"
	}
	return "segment given up: nothing is written to it again"
}

// warnOnce tells the log of a segment. A full disk is told of once a minute; anything else at once, but not again of the same file until a commit works: on a
// disk that fails each try makes that file, and has to give it up. commitMu is held.
func (b *Buffer) warnOnce(what, path string, cause error) {
	if IsDiskFull(cause) {
		b.tell(what, cause, "file", path)
		return
	}
	b.mu.Lock()
	said := b.warnedOf[what] == path
	b.warnedOf[what] = path
	b.mu.Unlock()
	if !said {
		b.log.Warn(what, "file", path, "error", cause)
	}
}

// supersede keeps a damaged segment, of which memory has everything, until memory has written it again: a process killed
// before that finds it under its spare name.
func (b *Buffer) supersede(s *segment, cause error) {
	spare := s.path + spareSuffix
	if err := b.fs.rename(s.path, spare); err != nil && !errors.Is(err, os.ErrNotExist) {
		b.log.Error("damaged file could not be renamed", "file", s.path, "error", err)
	}
	b.spares = true
	b.noteDamage(Damage{File: filepath.Base(spare), Reason: reasonOf(cause) + rewriting})
	b.measureAside()
}

// What becomes of a damaged segment of which memory has everything, in words.
const (
	rewriting = "; nothing of it is lost: all it held is still in memory and is being written again"
	rewritten = "; nothing of it is lost: all it held was still in memory and has been written again"
)

// setSparesAside is called when what spare segments held is on disk again.
func (b *Buffer) setSparesAside() {
	names, _ := filepath.Glob(filepath.Join(b.dir, "*"+spareSuffix)) // the pattern is sound
	for _, name := range names {
		now := b.renameAside(name, strings.TrimSuffix(name, spareSuffix))
		b.renamed(filepath.Base(name), func(d *Damage) {
			d.File, d.Reason = filepath.Base(now), strings.TrimSuffix(d.Reason, rewriting)+rewritten
		})
	}
	b.spares = false
	b.measureAside()
}

// renamed has the damages of a file told as they are now.
func (b *Buffer) renamed(file string, change func(*Damage)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for i := range b.st.damage {
		if d := &b.st.damage[i]; d.File == file {
			change(d)
		}
	}
}

// rewind puts what a damaged segment was to keep, and memory still has, back among the records to be written. mu is held.
func (b *Buffer) rewind(s *segment) {
	from := max(b.tail.first, s.first)
	if b.tail.n == 0 || from > s.last {
		return
	}
	b.durable = min(b.durable, from-1)
	s.last, s.clipped = from-1, true
}
