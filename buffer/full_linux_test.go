package buffer

import (
	"bytes"
	"log/slog"
	"os"
	"strings"
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

// TestFullDiskIsSaidOnce: while a full disk takes nothing each try makes a file and has to give it up; the log says so once, and once more when it was well between.
func TestFullDiskIsSaidOnce(t *testing.T) {
	mnt := smallDisk(t, "2m")
	var said bytes.Buffer
	o := testOptions()
	o.Log = slog.New(slog.NewTextHandler(&said, nil))
	b := mustOpen(t, mnt+"/store", o)
	s := mustStream(t, b, "press")
	records := map[uint64]string{}
	for outage := range 2 {
		fillDisk(t, mnt+"/ballast")
		if err := os.Truncate(mnt+"/ballast", fileSize(mnt+"/ballast", 0)-40<<10); err != nil { // enough for a file, and not for what is to stand in it
			t.Fatal(err)
		}
		feedNoted(t, b, s, records, 200)
		for range 20 {
			b.lockCommit()
			_ = b.commit()
			b.unlockCommit()
		}
		if n := strings.Count(said.String(), "segment given up"); n != outage+1 {
			t.Errorf("said %d times in %d outages:\n%s", n, outage+1, said.String())
		}
		if err := os.Remove(mnt + "/ballast"); err != nil {
			t.Fatal(err)
		}
		commitNow(t, b)
		b.lockCommit()
		b.seal()
		b.unlockCommit()
	}
}
