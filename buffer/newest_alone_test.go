package buffer

import (
	"errors"
	"os"
	"syscall"
	"testing"
	"time"

	bolt "go.etcd.io/bbolt"
)

// disk is one that others may have filled. When it refuses a file, it does what refused says.
type disk struct {
	full    bool
	refused func()
}

// files are those on it: none can be made while it is full.
func (d *disk) files() files {
	fs := osFiles()
	create := fs.bolt
	fs.bolt = func(path string, o *bolt.Options) (*bolt.DB, error) {
		if d.full {
			if d.refused != nil {
				d.refused()
			}
			return nil, &os.PathError{Op: "open", Path: path, Err: syscall.ENOSPC}
		}
		return create(path, o)
	}
	return fs
}

// openOnDisk opens a new store on a disk that others fill when the test says so.
func openOnDisk(t *testing.T, o Options) (*Buffer, *disk) {
	t.Helper()
	d := &disk{}
	b, err := open(t.TempDir()+"/store", o, d.files())
	if err != nil {
		t.Fatal(err)
	}
	return b, d
}

// TestDropNewestFullDiskForOneAlone: when the disk takes nothing and the memory is full of what one destination does not take, the others get all the
// same what comes, also under drop-newest; when nobody takes it, it is refused.
func TestDropNewestFullDiskForOneAlone(t *testing.T) {
	o := testOptions()
	o.TailBytes, o.WhenFull, o.Destinations = 64<<10, DropNewest, []string{"good", "dead"}
	b, disk := openOnDisk(t, o)
	s, taken := mustStream(t, b, "press"), uint64(0)
	take := func(n int, good bool) (refused int) {
		for i := range n {
			switch _, err := b.Append(s, make([]byte, 1000), 1, 1); {
			case err == nil:
				taken++
			case errors.Is(err, ErrFull):
				refused++
			default:
				t.Fatal(err)
			}
			if good && i%7 == 6 {
				readAll(t, b.Destination("good"), true)
			}
		}
		return refused
	}
	take(20, false)
	commitNow(t, b)
	b.lockCommit()
	b.seal()
	disk.full = true
	take(1, false)
	if err := b.commit(); !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("the commit says %v", err)
	}
	b.unlockCommit()
	if n := take(300, true); n > 0 {
		t.Errorf("%d of 300 records were refused for all while one destination takes them", n)
	}
	if st := b.Stats(); !st.Refusing.IsZero() || st.TailBytes > o.TailBytes {
		t.Errorf("refusing since %v, %d bytes in memory", st.Refusing, st.TailBytes)
	}
	readAll(t, b.Destination("good"), true)
	good, dead := accountOf(t, b, "good"), accountOf(t, b, "dead")
	if good.Delivered != taken || good.Lost() != 0 || dead.Dropped[CauseFull] < 200 || dead.Dropped[CauseFull]+dead.Buffered != taken {
		t.Errorf("of %d taken: %+v, %+v", taken, good, dead)
	}
	refused := uint64(take(300, false))
	if refused < 200 {
		t.Errorf("%d of 300 records were refused when nobody takes any", refused)
	}
	if a := accountOf(t, b, "good"); a.Lost() != refused {
		t.Errorf("%d were refused; of the good one's: %+v", refused, a)
	}
	readAll(t, b.Destination("good"), true)
	if st := b.Stats(); st.Refusing.IsZero() || !st.RefusedUntil.IsZero() {
		t.Errorf("on a full disk, with nothing taken since: refusing since %v, until %v", st.Refusing, st.RefusedUntil)
	}
	if n := take(1, false); n > 0 {
		t.Error("one takes again, and what comes is refused")
	}
	if st := b.Stats(); st.Refusing.IsZero() || st.RefusedUntil.IsZero() || st.Health == healthOK {
		t.Errorf("one takes again, and it is said that more is refused: since %v, until %v", st.Refusing, st.RefusedUntil)
	}
	disk.full = false
	commitNow(t, b)
	turnNow(b)
	allTold(t, b)
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
}

// allTold reads all that is left, and checks that each destination was told just now of all that it has lost.
func allTold(t *testing.T, b *Buffer) {
	t.Helper()
	for _, name := range b.o.Destinations {
		told, _ := toldAndGot(readAll(t, b.Destination(name), true))
		if a := accountOf(t, b, name); a.Buffered != 0 || told != a.Lost() {
			t.Errorf("%s was told of %d lost: %+v", name, told, a)
		}
	}
	checkLedger(t, b)
}

// TestDiskFullAndAllAcknowledged: the disk is full, room is made, and meanwhile all that was to be written is acknowledged: there is nothing to commit.
func TestDiskFullAndAllAcknowledged(t *testing.T) {
	o := testOptions()
	o.TailBytes, o.Destinations = 64<<10, []string{"good"}
	b, disk := openOnDisk(t, o)
	s := mustStream(t, b, "press")
	appendN(t, b, s, 20)
	commitNow(t, b)
	b.lockCommit()
	b.seal()
	disk.full = true
	disk.refused = func() {
		disk.full = false
		readAll(t, b.Destination("good"), true)
	}
	appendN(t, b, s, 40)
	b.st.fullSince = time.Now().Add(-2 * fullPatience)
	if err := b.commit(); err != nil {
		t.Errorf("the commit says %v", err)
	}
	b.unlockCommit()
	if a := accountOf(t, b, "good"); a.Delivered != 120 || a.Lost() != 0 {
		t.Errorf("%+v", a)
	}
	checkLedger(t, b)
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
}
