package buffer

import (
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	bolt "go.etcd.io/bbolt"
)

// TestDropNewestKeepsInMemory: while the disk takes nothing new records are refused when the memory is full of what is not on disk,
// not because of what it still has of what is.
func TestDropNewestKeepsInMemory(t *testing.T) {
	o := testOptions()
	o.TailBytes, o.WhenFull = 64<<10, DropNewest
	b, disk := openOnDisk(t, o)
	s := mustStream(t, b, "press")
	taken := 0
	take := func(n int) (all bool) {
		for range n {
			s.Count(1, 0)
			if _, err := b.Append(s, make([]byte, 1000), 1, 1); errors.Is(err, ErrFull) {
				return false
			} else if err != nil {
				t.Fatal(err)
			}
			taken++
		}
		return true
	}
	for range 60 { // the memory is full of what is on disk
		take(1)
		commitNow(t, b)
	}
	b.lockCommit()
	b.seal()
	disk.full = true
	take(1)
	if err := b.commit(); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("commit on a full disk: %v", err)
	}
	b.unlockCommit()
	if !take(40) {
		t.Errorf("refused after %d records in 64 KiB of memory", taken-60)
	}
	if st := b.Stats(); !st.Refusing.IsZero() || !st.DiskFull {
		t.Errorf("refusing since %v, disk full %v", st.Refusing, st.DiskFull)
	}
	if take(40) {
		t.Error("nothing is refused though the memory is full")
	}
	if st := b.Stats(); st.Refusing.IsZero() || !st.RefusingDisk {
		t.Errorf("refusing since %v, for the disk %v", st.Refusing, st.RefusingDisk)
	}
	disk.full = false
	commitNow(t, b)
	n := 0
	for _, r := range readAll(t, b.Destination("cloud"), true) {
		if r.Gap == nil {
			n++
		}
	}
	if n != taken {
		t.Errorf("%d records are there, want %d", n, taken)
	}
	checkLedger(t, b)
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestDropNewestCommitsWhatItTook: producers go on while a commit makes room in a store that is nearly full. What they were let in with fits, though
// a whole tail more would not.
func TestDropNewestCommitsWhatItTook(t *testing.T) {
	o, fs := fullOptions(DropNewest), osFiles()
	o.Destinations = []string{"cloud"}
	meanwhile := func() {}
	create := fs.bolt
	fs.bolt = func(path string, o *bolt.Options) (*bolt.DB, error) {
		meanwhile()
		return create(path, o)
	}
	b, err := open(t.TempDir()+"/store", o, fs)
	if err != nil {
		t.Fatal(err)
	}
	s, rng := mustStream(t, b, "press"), rand.New(rand.NewPCG(1, 2))
	for taken := 0; err == nil; taken++ {
		if taken == 5000 {
			t.Fatal("it takes everything")
		}
		if _, err = b.Append(s, randomBytes(rng, 1000), 1, 1); taken%20 == 0 {
			commitNow(t, b)
		}
	}
	commitNow(t, b)
	appendN(t, b, s, 1) // a small one still fits
	more := 0
	meanwhile = func() {
		appendN(t, b, s, 1)
		more++
	}
	b.lockCommit()
	b.seal()
	err = b.commit()
	b.unlockCommit()
	if err != nil || more != 1 || b.Stats().DirtyRecords != 0 {
		t.Errorf("%v, %d records meanwhile; %+v", err, more, b.Stats())
	}
	checkLedger(t, b)
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestFullDiskAtOpen: on a disk without room for the new state.db the oldest records give way, counted and told; under drop-newest the start fails.
func TestFullDiskAtOpen(t *testing.T) {
	for _, policy := range []Policy{DropOldest, DropNewest} {
		dir, o := t.TempDir()+"/store", fullOptions(policy)
		o.Destinations = []string{"cloud"}
		b := mustOpen(t, dir, o)
		rng := rand.New(rand.NewPCG(1, 1))
		for range 300 {
			if _, err := b.Append(mustStream(t, b, "press"), randomBytes(rng, 3000), 1, 1); err != nil {
				t.Fatal(err)
			}
		}
		commitNow(t, b)
		crash(b)
		segments := func() int {
			names, _ := filepath.Glob(dir + "/seg-*.db")
			return len(names)
		}
		before, fs := segments(), osFiles()
		real := fs.bolt
		fs.bolt = func(path string, o *bolt.Options) (*bolt.DB, error) {
			if filepath.Base(path) == stateNew && segments() == before {
				return nil, &os.PathError{Op: "open", Path: path, Err: syscall.ENOSPC}
			}
			return real(path, o)
		}
		b, err := open(dir, o, fs)
		if policy == DropNewest {
			if !errors.Is(err, syscall.ENOSPC) || segments() != before {
				t.Errorf("drop-newest: %v, %d segments of %d", err, segments(), before)
			}
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		commitNow(t, b)
		told, got := toldAndGot(readAll(t, b.Destination("cloud"), true))
		if a := accountOf(t, b, "cloud"); told == 0 || told+got != 300 || a.Dropped[CauseFull] != told || a.Dropped[CauseDamaged] > 0 {
			t.Errorf("told of %d, got %d of 300: %+v", told, got, a)
		}
		checkLedger(t, b)
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	}
}
