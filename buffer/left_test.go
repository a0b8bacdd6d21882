package buffer

import (
	"testing"
	"time"
)

// reopened opens the store after a kill.
func reopened(t *testing.T, b *Buffer, dir string) (*Buffer, Left) {
	t.Helper()
	crash(b)
	b = mustOpen(t, dir, testOptions())
	return b, b.Left()
}

// TestLeft: the store says itself until when all that was taken is safe: as of the moment at which that was so, not of the write; a start
// without a record says nothing new; a clean stop all.
func TestLeft(t *testing.T) {
	dir := t.TempDir() + "/store"
	b := mustOpen(t, dir, testOptions())
	if l := b.Left(); !l.New || l.Unclean || !l.Until.IsZero() || !l.Newest.IsZero() {
		t.Errorf("a new store: %+v", l)
	}
	took := func(b *Buffer) (d *draft) {
		b.mu.Lock()
		defer b.mu.Unlock()
		return b.takeCheckpoint(nil)
	}
	save := func(b *Buffer, d *draft) {
		b.lockCommit()
		defer b.unlockCommit()
		if err := b.saveCheckpoint(d); err != nil {
			t.Fatal(err)
		}
	}
	s := mustStream(t, b, "press")
	before := time.Now()
	appendN(t, b, s, 3)
	time.Sleep(2 * time.Millisecond)
	unsafeSince := time.Now()
	time.Sleep(2 * time.Millisecond)
	save(b, took(b)) // the records are in memory only
	b, l := reopened(t, b, dir)
	if l.New || !l.Unclean || l.Until.Before(before.Truncate(time.Microsecond)) || l.Until.After(unsafeSince) {
		t.Errorf("with records in memory: %+v, they came between %v and %v", l, before, unsafeSince)
	}
	b, again := reopened(t, b, dir)
	if !again.Until.Equal(l.Until) {
		t.Errorf("a start that took nothing: %v, was %v", again.Until, l.Until)
	}
	appendN(t, b, mustStream(t, b, "press"), 3)
	commitNow(t, b)
	late := took(b)
	taken := time.Now()
	time.Sleep(2 * time.Millisecond) // the disk hangs
	save(b, late)
	b, l = reopened(t, b, dir)
	if l.Until.After(taken) || l.Until.Before(unsafeSince) || l.Newest.IsZero() {
		t.Errorf("a write that came late: %+v, it was taken at %v", l, taken)
	}
	appendN(t, b, mustStream(t, b, "press"), 1)
	stopped := time.Now().Truncate(time.Microsecond)
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	b = mustOpen(t, dir, testOptions())
	if l := b.Left(); l.Unclean || l.Until.Before(stopped) {
		t.Errorf("a clean stop at %v: %+v", stopped, l)
	}
	_ = b.Close()
}
