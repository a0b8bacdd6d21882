package buffer

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// feedRandom appends records that do not compress.
func feedRandom(t *testing.T, b *Buffer, s *Stream, n int) {
	rng := rand.New(rand.NewPCG(1, uint64(n)))
	for range n {
		p := make([]byte, 500)
		for i := range p {
			p[i] = byte(rng.Uint32())
		}
		s.Count(2, 0)
		if _, err := b.Append(s, p, 2, 1); err != nil {
			t.Error(err)
		}
	}
}

// TestBackup copies a store while it is written, read, acknowledged and drained: what was durable before and is not
// acknowledged after is in the copy, and the copy is sound.
func TestBackup(t *testing.T) {
	o := testOptions()
	o.CommitInterval, o.SegmentSize, o.TailBytes = 5*time.Millisecond, 256<<10, 64<<10
	b := mustOpen(t, t.TempDir()+"/store", o)
	b.stallWait = time.Minute
	s, d := mustStream(t, b, "press"), b.Destination("cloud")
	ctx, cancel := context.WithCancel(t.Context())
	var all sync.WaitGroup
	all.Go(func() { _ = b.Run(ctx) })
	feedRandom(t, b, s, 6000) // twelve segments
	commitNow(t, b)
	durable := b.NextSeq() - 1
	all.Go(func() { // somebody goes on meanwhile, and drains the oldest of it
		for ctx.Err() == nil {
			feedRandom(t, b, s, 50)
			time.Sleep(2 * time.Millisecond)
			r := d.Reader(0, 0)
			var rec Record
			for range 55 {
				if ok, err := take(r, &rec); ok && err == nil && rec.Seq < durable*2/3 {
					d.Ack(rec.Seq)
				}
			}
			d.Reset()
		}
	})
	to := t.TempDir() + "/backup"
	err := WriteBackup(to, func(file func(string, int64, io.Reader) error) error {
		return b.Backup(ctx, func(name string, size int64, r io.Reader) error {
			time.Sleep(3 * time.Millisecond)
			return file(name, size, r)
		})
	})
	acked := d.Reader(0, 0)
	var first Record
	if ok, err2 := acked.Next(&first); !ok || err != nil || err2 != nil {
		t.Fatal(ok, err, err2)
	}
	cancel()
	all.Wait()
	if first.Seq > durable {
		t.Fatal("all was drained meanwhile: the test shows nothing")
	}
	if n := verified(t, to); n != 0 {
		t.Fatalf("%d problems in the copy", n)
	}
	copied := mustOpen(t, to, o)
	checkLedger(t, copied)
	balanced(t, copied)
	got := map[uint64]bool{}
	for _, r := range readAll(t, copied.Destination("cloud"), true) {
		if r.Gap != nil || r.Epoch != b.Epoch() {
			t.Fatalf("%+v", r)
		}
		got[r.Seq] = true
	}
	for seq := first.Seq; seq <= durable; seq++ {
		if !got[seq] {
			t.Fatalf("record %d is not in the backup", seq)
		}
	}
	if copied.Epoch() == b.Epoch() || copied.Stats().Damages > 0 {
		t.Errorf("%+v", copied.Stats())
	}
}

// TestBackupCutShort: what is not complete is no store, and what is there is not written over.
func TestBackupCutShort(t *testing.T) {
	b := mustOpen(t, t.TempDir()+"/store", testOptions())
	appendN(t, b, mustStream(t, b, "press"), 10)
	to := t.TempDir() + "/backup"
	gone := errors.New("the network is gone")
	err := WriteBackup(to, func(file func(string, int64, io.Reader) error) error {
		return b.Backup(t.Context(), func(name string, size int64, r io.Reader) error {
			if name == stateName {
				return gone
			}
			return file(name, size, r)
		})
	})
	if !errors.Is(err, gone) {
		t.Error(err)
	}
	if _, err := OpenReadOnly(to); err == nil {
		t.Error("half a copy is taken for a store")
	}
	err = WriteBackup(to, func(func(string, int64, io.Reader) error) error { return nil })
	if err == nil || !strings.Contains(err.Error(), "not empty") {
		t.Error(err)
	}
	for _, name := range []string{"../seg-0000000000000001.db", "control.sock", "lock"} {
		err = WriteBackup(t.TempDir(), func(file func(string, int64, io.Reader) error) error { return file(name, 1, strings.NewReader("x")) })
		if err == nil {
			t.Errorf("%s was written", name)
		}
	}
	if err := BackupDir(t.Context(), b.dir, nil); !errors.Is(err, ErrInUse) {
		t.Errorf("a copy of files in use: %v", err)
	}
	if err := os.Remove(filepath.Join(b.dir, stateName)); err != nil {
		t.Fatal(err)
	}
	if err := BackupDir(t.Context(), b.dir, nil); err == nil || !strings.Contains(err.Error(), "is neither a backup nor a store: it has no state.db") {
		t.Errorf("a copy of nothing: %v", err)
	}
}
