package buffer

import (
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

// TestReserveGrows: the reserve is made as large as the next state.db may be, once a minute at most; what there is of it stays where the disk has no more.
func TestReserveGrows(t *testing.T) {
	b := mustOpen(t, t.TempDir()+"/store", testOptions())
	size := func() int64 { return fileSize(filepath.Join(b.dir, reserveName), 0) }
	first := size()
	if first < b.stateSize {
		t.Fatalf("%d bytes for a state.db of %d", first, b.stateSize)
	}
	b.stateSize *= 2
	b.keepReserve()
	if size() != first {
		t.Error("it was made again at once")
	}
	real, tried := b.fs.mark, 0
	b.fs.mark = func(string, []byte, int64) error { tried++; return syscall.ENOSPC }
	b.reserveTried = time.Now().Add(-reserveAgain)
	b.keepReserve()
	if size() != first || tried != 1 {
		t.Errorf("%d bytes are left of %d after %d tries", size(), first, tried)
	}
	b.fs.mark = real
	b.reserveTried = time.Now().Add(-reserveAgain)
	b.keepReserve()
	if size() < b.stateSize {
		t.Errorf("%d bytes for a state.db of %d", size(), b.stateSize)
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
}
