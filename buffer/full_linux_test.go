package buffer

import (
	"os"
	"syscall"
	"testing"

	bolt "go.etcd.io/bbolt"
)

// TestFullDiskIsNoDamage: on a disk that others have filled segments are drained and unlinked, though state.db cannot be written. After kill -9 nothing is
// told as lost: no number that was named is needed. What really is lost is told all the same.
func TestFullDiskIsNoDamage(t *testing.T) {
	for _, c := range []struct {
		name             string
		sealed, appended bool // the drained segment is closed, and a record waits that the disk does not take
		lose             bool // a second segment, which is needed, is removed after the kill
		noState          bool // state.db takes nothing at all, not even in the room that its pages have
	}{{name: "idle"}, {name: "idle, sealed", sealed: true}, {name: "waiting", appended: true}, {name: "waiting, sealed", sealed: true, appended: true},
		{name: "lost", sealed: true, lose: true}, {name: "idle, no state", noState: true}, {name: "waiting, no state", appended: true, noState: true},
		{name: "lost, no state", sealed: true, lose: true, noState: true}} {
		t.Run(c.name, func(t *testing.T) {
			mnt := smallDisk(t, "1m")
			dir := mnt + "/store"
			b := mustOpen(t, dir, testOptions())
			s, d := mustStream(t, b, "press"), b.Destination("cloud")
			for range 3 {
				s.Count(60, 0)
				appendN(t, b, s, 30)
				commitNow(t, b)
			}
			if c.sealed {
				b.lockCommit()
				b.seal()
				b.unlockCommit()
			}
			if c.lose {
				s.Count(60, 0)
				appendN(t, b, s, 30)
				commitNow(t, b)
			}
			fillDisk(t, mnt+"/ballast")
			ackSome(t, d, 90)
			if c.appended {
				s.Count(2, 0)
				appendN(t, b, s, 1)
			}
			b.lockCommit()
			if c.noState {
				b.state.failed = true
				b.fs.bolt = func(string, *bolt.Options) (*bolt.DB, error) { return nil, syscall.ENOSPC }
			}
			_ = b.reclaim()
			b.unlockCommit()
			if n := b.Stats().Segments; (n > 0) != c.lose {
				t.Errorf("%d segments are left", n)
			}
			crash(b)
			if err := os.Remove(mnt + "/ballast"); err != nil {
				t.Fatal(err)
			}
			lost := uint64(0)
			if c.lose {
				lost = 60
				if err := os.Remove(b.segs[len(b.segs)-1].path); err != nil {
					t.Fatal(err)
				}
			}
			b = mustOpen(t, dir, testOptions())
			if st := b.Stats(); readingsLost(&st) != lost || c.lose != (st.Damages > 0) {
				t.Errorf("told as damage: %+v", st.Damage)
			}
			checkLedger(t, b)
		})
	}
}

// readingsLost adds up what is told as lost with damages.
func readingsLost(st *Stats) (n uint64) {
	for _, d := range st.Damage {
		n += d.Readings
	}
	return n
}
