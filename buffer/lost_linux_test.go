package buffer

import (
	"math/rand/v2"
	"os"
	"syscall"
	"testing"
	"time"

	bolt "go.etcd.io/bbolt"
)

// TestLostWhen: what an Open gives up for want of space is not among what the process before had counted, and when a loss was counted last is known to the
// process after, though nothing was taken since: also after a kill, and where state.db did not take it as that process's start.
func TestLostWhen(t *testing.T) {
	mnt := smallDisk(t, "12m")
	o := Options{MaxSize: 4 << 20, CommitInterval: time.Hour, Destinations: []string{"cloud"}}
	var b *Buffer
	start := func(when string, counted uint64, from, to time.Time) (lost uint64) {
		t.Helper()
		b = mustOpen(t, mnt+"/store", o)
		left := b.Left()
		if got := left.Dropped["cloud"][CauseFull]; got != counted {
			t.Errorf("%s: %d readings were counted before, want %d", when, got, counted)
		}
		if left.Lost.Before(from) || left.Lost.After(to) {
			t.Errorf("%s: a loss was counted last at %v, want from %v to %v", when, left.Lost, from, to)
		}
		a := accountOf(t, b, "cloud")
		return a.Dropped[CauseFull]
	}
	b = mustOpen(t, mnt+"/store", o)
	rng := rand.New(rand.NewPCG(1, 1))
	for range 600 {
		if _, err := b.Append(mustStream(t, b, "press"), randomBytes(rng, 3000), 1, 1); err != nil {
			t.Fatal(err)
		}
	}
	commitNow(t, b)
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	never := time.Time{}
	if err := os.Remove(mnt + "/store/" + reserveName); err != nil {
		t.Fatal(err)
	}
	fillDisk(t, mnt+"/junk")
	began := time.Now().Truncate(time.Microsecond)
	lost := start("given up by a start", 0, never, never)
	if ended := time.Now(); lost == 0 {
		t.Fatal("nothing was given up")
	} else {
		crash(b)
		if err := os.Remove(mnt + "/junk"); err != nil {
			t.Fatal(err)
		}
		start("after its kill", lost, began, ended)
	}
	if until := b.Left().Until; !until.Before(began) {
		t.Errorf("all is safe until %v, and nothing was taken after %v", until, began)
	}

	b.lockCommit()
	b.state.failed = true
	b.fs.bolt = func(string, *bolt.Options) (*bolt.DB, error) { return nil, syscall.ENOSPC }
	if !b.freeSpace() {
		t.Fatal("nothing to give up")
	}
	b.unlockCommit()
	a := accountOf(t, b, "cloud")
	crash(b)
	again := time.Now()
	start("not noted when", a.Dropped[CauseFull], again, again.Add(time.Hour))
}
