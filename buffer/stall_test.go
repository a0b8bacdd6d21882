package buffer

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

// TestDropNewestOnAStalledDisk: the policy says which records give way, whatever the reason.
func TestDropNewestOnAStalledDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := testOptions()
		o.TailBytes, o.WhenFull = 64<<10, DropNewest
		b := mustOpen(t, t.TempDir()+"/store", o)
		s := mustStream(t, b, "press")
		b.lockCommit() // the disk does not answer
		accepted, refused := 0, 0
		for i := range 30 {
			start := time.Now()
			_, err := b.Append(s, make([]byte, 4000), 1, int64(i))
			switch {
			case errors.Is(err, ErrFull):
				refused++
			case err != nil:
				t.Fatal(err)
			default:
				accepted++
			}
			if waited := time.Since(start); waited > stallWait {
				t.Errorf("waited %v", waited)
			}
		}
		b.unlockCommit()
		if accepted == 0 || refused == 0 {
			t.Fatalf("%d accepted, %d refused", accepted, refused)
		}
		recs := readAll(t, b.Destination("cloud"), true)
		if len(recs) != accepted || recs[0].At != 0 {
			t.Errorf("%d of %d accepted records are there, from %d on", len(recs), accepted, recs[0].At)
		}
		checkLedger(t, b)
		if l := b.Ledger()[0]; l.Destinations[0].Dropped[CauseFull] != uint64(refused) || l.Accepted != 30 {
			t.Errorf("%d refused: %+v", refused, l)
		}
		if err := b.Close(); err != nil {
			t.Fatal(err)
		}
	})
}

// TestCommitAtTheLastMoment: a commit that ends as an Append stops waiting for it has made room: nothing gives way, nothing that is
// on disk above all, and there may be nothing left that could.
func TestCommitAtTheLastMoment(t *testing.T) {
	for _, policy := range []Policy{DropOldest, DropNewest} {
		for _, gone := range []bool{false, true} { // whether the tail has let go of all that is on disk
			synctest.Test(t, func(t *testing.T) {
				o := testOptions()
				o.TailBytes, o.WhenFull = 64<<10, policy
				b := mustOpen(t, t.TempDir()+"/store", o)
				s := mustStream(t, b, "press")
				for b.dirty()+entryCost(make([]byte, 4000)) <= o.TailBytes {
					if _, err := b.Append(s, make([]byte, 4000), 1, 1); err != nil {
						t.Fatal(err)
					}
				}
				n := int(b.NextSeq() - 1)
				before := b.durable
				b.lockCommit()
				if err := b.commit(); err != nil {
					t.Fatal(err)
				}
				durable := b.durable
				b.durable = before // the commit goes on until the last moment
				appended := make(chan error)
				go func() {
					_, err := b.Append(s, make([]byte, 4000), 1, 1)
					appended <- err
				}()
				synctest.Wait()
				b.mu.Lock()
				time.Sleep(stallWait)
				b.durable = durable
				for gone && b.tail.n > 0 {
					b.tail.pop()
				}
				b.mu.Unlock()
				if err := <-appended; err != nil {
					t.Error(err)
				}
				b.unlockCommit()
				if l := b.Ledger()[0].Destinations[0]; l.Lost() != 0 || b.durable < durable {
					t.Errorf("policy %d: %+v", policy, l)
				}
				if recs := readAll(t, b.Destination("cloud"), true); len(recs) != n+1 {
					t.Errorf("policy %d: %d records, want %d", policy, len(recs), n+1)
				}
				checkLedger(t, b)
				if err := b.Close(); err != nil {
					t.Fatal(err)
				}
			})
		}
	}
}
