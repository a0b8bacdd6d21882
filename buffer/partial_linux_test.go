package buffer

import (
	"math/rand/v2"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"millrace/drivers/drivertest"
)

// TestDiskFullGivesLittle: others fill the disk while the backlog is one segment, the one being written. Its oldest records
// go, as few as do, and the rest is there, also after a crash.
func TestDiskFullGivesLittle(t *testing.T) {
	mnt := smallDisk(t, "16m")
	o := testOptions()
	o.SegmentSize = 8 << 20
	b := mustOpen(t, mnt+"/store", o)
	s := mustStream(t, b, "press")
	records := map[uint64]string{}
	feed := func(n int) { feedNoted(t, b, s, records, n) }
	for range 80 {
		feed(50)
		commitNow(t, b)
	}
	if n := b.Stats().Segments; n != 1 {
		t.Fatalf("%d segments", n)
	}
	fillDisk(t, mnt+"/ballast")
	feed(1200) // more than half the tail: it is not waited for room
	commitNow(t, b)
	checkLedger(t, b)
	lost := b.Ledger()[0].Destinations[0].Dropped[CauseFull]
	t.Logf("%d of %d records given up", lost, len(records))
	if lost == 0 || lost > uint64(len(records))/2 {
		t.Errorf("%d of %d records given up", lost, len(records))
	}
	if v, err := b.Verify(t.Context(), nil); err != nil || len(v.Problems) > 0 {
		t.Errorf("verify: %v %+v", err, v)
	}
	crash(b)
	if n := verified(t, b.dir); n != 0 {
		t.Errorf("%d problems", n)
	}
	if err := os.Remove(mnt + "/ballast"); err != nil {
		t.Fatal(err)
	}
	b = mustOpen(t, mnt+"/store", o)
	if st := b.Stats(); st.Damages != 0 {
		t.Errorf("damage: %+v", st.Damage)
	}
	checkLedger(t, b)
	balanced(t, b)
	told, next := takeFrom(t, b, records)
	if told != lost || uint64(len(records)) != lost {
		t.Errorf("%d records did not come, gap records tell of %d, %d were given up", len(records), told, lost)
	}
	for seq := range records {
		if seq >= next {
			t.Fatalf("record %d was given up, and is not among the oldest", seq)
		}
	}
	checkLedger(t, b)
}

// TestTinyDiskGivesLittle: on a disk of 3 MiB that others fill, a lone segment that is smaller than what is usually given up at once is
// given up in parts, too.
func TestTinyDiskGivesLittle(t *testing.T) {
	for _, backlog := range []int{700, 1500} {
		mnt := smallDisk(t, "3m")
		o := testOptions()
		o.SegmentSize, o.TailBytes = 32<<20, 256<<10
		b := mustOpen(t, mnt+"/store", o)
		s := mustStream(t, b, "press")
		records := map[uint64]string{}
		feed := func(n int) { feedNoted(t, b, s, records, n) }
		for range backlog / 50 {
			feed(50)
			commitNow(t, b)
		}
		fillDisk(t, mnt+"/ballast")
		feed(150) // more than half the tail
		commitNow(t, b)
		checkLedger(t, b)
		lost := b.Ledger()[0].Destinations[0].Dropped[CauseFull]
		t.Logf("%d of %d records given up", lost, backlog)
		if lost == 0 || lost >= uint64(backlog)*4/5 {
			t.Errorf("%d of %d records given up for 150 new ones", lost, backlog)
		}
		total := uint64(len(records))
		if told, _ := takeFrom(t, b, records); told != lost || uint64(len(records)) != lost {
			t.Errorf("%d of %d records did not come, gap records tell of %d, %d were given up", len(records), total, told, lost)
		}
	}
}

// smallDisk mounts a file system in memory of so many bytes. It needs root.
func smallDisk(t *testing.T, size string) (mnt string) {
	t.Helper()
	mnt = t.TempDir()
	if err := unix.Mount("tmpfs", mnt, "tmpfs", 0, "size="+size); err != nil {
		drivertest.Lacks(t, "needs to mount a small tmpfs: %v", err)
	}
	t.Cleanup(func() { _ = unix.Unmount(mnt, unix.MNT_DETACH) })
	return mnt
}

// feedNoted appends records of 1,000 bytes that do not compress, and notes them.
func feedNoted(t *testing.T, b *Buffer, s *Stream, records map[uint64]string, n int) {
	t.Helper()
	rng := rand.New(rand.NewPCG(1, uint64(len(records))))
	for range n {
		p := randomBytes(rng, 1000)
		s.Count(1, 0)
		seq, err := b.Append(s, p, 1, int64(len(records)+1))
		if err != nil {
			t.Fatal(err)
		}
		records[seq] = string(p)
	}
}

// takeFrom takes from records what the store gives, and returns how many gap records tell of and the number behind their last.
func takeFrom(t *testing.T, b *Buffer, records map[uint64]string) (told, next uint64) {
	t.Helper()
	for _, r := range readAll(t, b.Destination("cloud"), true) {
		switch {
		case r.Gap != nil:
			told += r.Gap.Count
			next = max(next, r.Gap.LastSeq+1)
		case records[r.Seq] != string(r.Payload):
			t.Fatalf("record %d is wrong", r.Seq)
		}
		delete(records, r.Seq)
	}
	return told, next
}
