package buffer

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"syscall"
	"testing"
	"unsafe"

	bolt "go.etcd.io/bbolt"
	"golang.org/x/sys/unix"
)

// faulty is a directory whose n-th operation fails: a write (whole, or after half of it), the fsync after
// a write, a file made, renamed or removed, or a directory synced.
type faulty struct {
	mu      sync.Mutex
	count   int
	failAt  int  // 0 = never
	forever bool // every one from failAt on
	kind    string
	hits    int
	last    string
	as      syscall.Errno // 0 = errInjected
}

var errInjected = syscall.EIO

// hit counts one operation and reports whether it is to fail.
func (f *faulty) hit(what string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.count++
	if f.failAt == 0 || f.count < f.failAt || (!f.forever && f.hits > 0) {
		return false
	}
	f.hits++
	f.last = what
	return true
}

func (f *faulty) error() error {
	if f.as != 0 {
		return f.as
	}
	return errInjected
}

func (f *faulty) files() files {
	real := osFiles()
	call := func(what string, g func() error) error {
		if f.hit(what) {
			return &os.PathError{Op: what, Path: "injected", Err: f.error()}
		}
		return g()
	}
	return files{
		bolt: func(path string, o *bolt.Options) (db *bolt.DB, err error) {
			err = call("create", func() error { db, err = real.bolt(path, o); return err })
			if err == nil {
				f.hook(db)
			}
			return db, err
		},
		rename: func(from, to string) error { return call("rename", func() error { return real.rename(from, to) }) },
		mark: func(path string, p []byte, at int64) error {
			return call("mark", func() error { return real.mark(path, p, at) })
		},
		remove:  func(path string) error { return call("remove", func() error { return real.remove(path) }) },
		syncDir: func(dir string) error { return call("sync directory", func() error { return real.syncDir(dir) }) },
	}
}

// hook puts itself between bbolt and its file. bbolt has no seam for that, so its private field is set.
func (f *faulty) hook(db *bolt.DB) {
	field := reflect.ValueOf(db).Elem().FieldByName("ops").FieldByName("writeAt")
	write := *(*func([]byte, int64) (int, error))(unsafe.Pointer(field.UnsafeAddr()))
	file := reflect.ValueOf(db).Elem().FieldByName("file")
	fd := int((*(**os.File)(unsafe.Pointer(file.UnsafeAddr()))).Fd())
	hooked := func(p []byte, at int64) (int, error) {
		if !f.hit("write") {
			return write(p, at)
		}
		switch f.kind {
		case "half":
			n, _ := write(p[:len(p)/2], at)
			return n, f.error()
		case "fsync":
			n, err := write(p, at)
			null, openErr := syscall.Open("/dev/null", syscall.O_RDWR, 0)
			if openErr != nil {
				panic(openErr)
			}
			if dupErr := unix.Dup3(null, fd, unix.O_CLOEXEC); dupErr != nil { // fdatasync of a device fails
				panic(dupErr)
			}
			_ = syscall.Close(null)
			return n, err
		}
		return 0, f.error()
	}
	*(*func([]byte, int64) (int, error))(unsafe.Pointer(field.UnsafeAddr())) = hooked
}

// story is a fixed sequence of appends, commits, rotations, acknowledgements and checkpoints. It returns
// what was appended and not acknowledged.
func story(t *testing.T, b *Buffer) (due map[uint64]string) {
	t.Helper()
	due = map[uint64]string{}
	d := b.Destination("cloud")
	s := mustStream(t, b, "press")
	for round := range 12 {
		for i := range 20 {
			p := fmt.Sprintf("round %d record %d %x", round, i, make([]byte, 400))
			seq, err := b.Append(s, []byte(p), 3, int64(i))
			if err != nil {
				t.Fatal(err)
			}
			due[seq] = p
		}
		b.lockCommit()
		_ = b.commit() // the fault; the next round tries again
		if round == 4 || round == 8 {
			if b.active != nil {
				b.seal()
			}
		}
		b.unlockCommit()
		if round%3 == 2 {
			r := d.Reader(0, 0)
			var rec Record
			for range 40 {
				ok, err := take(r, &rec)
				if err != nil {
					t.Fatal(err)
				}
				if !ok {
					break
				}
				if rec.Gap != nil {
					t.Fatalf("a gap: %+v", rec.Gap)
				}
				d.Ack(rec.Seq)
				delete(due, rec.Seq)
			}
			turnNow(b)
		}
		checkLedger(t, b)
	}
	return due
}

func checkDue(t *testing.T, b *Buffer, due map[uint64]string) {
	t.Helper()
	checkLedger(t, b)
	got := map[uint64]bool{}
	for _, r := range readAll(t, b.Destination("cloud"), true) {
		if r.Gap != nil {
			t.Fatalf("a gap: %+v", r.Gap)
		}
		if want, ok := due[r.Seq]; ok && want != string(r.Payload) {
			t.Fatalf("record %d: %.40q, want %.40q", r.Seq, r.Payload, want)
		}
		got[r.Seq] = true
	}
	for seq := range due {
		if !got[seq] {
			t.Fatalf("record %d is lost", seq)
		}
	}
}

func faultOptions() Options {
	o := testOptions()
	o.SegmentSize = 256 << 10
	return o
}

// TestFailNth lets each operation of the story fail once: nothing is lost, in this process or the next.
func TestFailNth(t *testing.T) {
	for _, kind := range []string{"write", "half", "fsync"} {
		t.Run(kind, func(t *testing.T) {
			step := 3 * min(raceShare, 2)
			if os.Getenv("MILLRACE_LONG") != "" {
				step = 1
			}
			for n := 1 + step/2; failNth(t, t.TempDir()+"/store", kind, n, nil); n += step {
				if t.Failed() {
					t.Fatalf("operation %d", n)
				}
			}
		})
	}
}

// TestFailNthControl shows that the test can see a loss: a batch that went to a disk that then forgot it.
func TestFailNthControl(t *testing.T) {
	dir := t.TempDir() + "/store"
	forget := func() {
		names, err := filepath.Glob(dir + "/seg-*.db")
		if err == nil && len(names) > 0 {
			err = os.Remove(names[len(names)-1])
		}
		if err != nil || len(names) == 0 {
			t.Fatal(names, err)
		}
	}
	mustFail(t, "a segment that is gone", func(t *testing.T) { failNth(t, dir, "write", 40, forget) })
}

// failNth lets the story's n-th operation fail and looks at what came of it, in the next process too; between, when not
// nil, comes before that. It is false when there are fewer operations.
func failNth(t *testing.T, dir, kind string, n int, between func()) bool {
	f := &faulty{kind: kind}
	b, err := open(dir, faultOptions(), f.files())
	if err != nil {
		t.Fatal(err)
	}
	f.count, f.failAt = 0, n
	due := story(t, b)
	if f.hits == 0 {
		_ = b.Close()
		return false
	}
	what := fmt.Sprintf("operation %d, %s", n, f.last)
	b.lockCommit()
	err = b.commit()
	b.unlockCommit()
	if err != nil {
		t.Fatalf("%s: a commit after the fault: %v", what, err)
	}
	if h := b.Stats().Health; h != "ok" {
		turnNow(b)
		if h = b.Stats().Health; h != "ok" {
			t.Fatalf("%s: health %q after it", what, h)
		}
	}
	crash(b)
	if between != nil {
		between()
	}
	b = mustOpen(t, dir, faultOptions())
	if st := b.Stats(); st.Damages != 0 {
		t.Fatalf("%s: %+v", what, st.Damage)
	}
	checkDue(t, b, due)
	_ = b.Close()
	return true
}

// TestFailForever lets every operation fail from the n-th on: the process goes on in bounded memory, says
// so, counts what it drops, and recovers when the disk does.
func TestFailForever(t *testing.T) {
	for _, kind := range []string{"write", "half", "fsync"} {
		t.Run(kind, func(t *testing.T) {
			f := &faulty{kind: kind}
			dir := t.TempDir() + "/store"
			b, err := open(dir, faultOptions(), f.files())
			if err != nil {
				t.Fatal(err)
			}
			s := mustStream(t, b, "press")
			appendN(t, b, s, 100)
			commitNow(t, b)
			f.mu.Lock()
			f.count, f.failAt, f.forever, f.hits = 0, 1, true, 0
			f.mu.Unlock()
			p := make([]byte, 1000)
			for i := range 300 {
				if _, err := b.Append(s, p, 2, int64(i)); err != nil {
					t.Fatal(err)
				}
				if i%50 == 0 {
					turnNow(b)
					b.lockCommit()
					if err := b.commit(); err == nil {
						t.Fatal("a commit works on a disk that fails")
					}
					b.unlockCommit()
				}
				if st := b.Stats(); st.TailBytes > b.o.TailBytes {
					t.Fatalf("%d bytes in memory", st.TailBytes)
				}
				checkLedger(t, b)
			}
			if h := b.Stats().Health; h == "ok" {
				t.Error("health is ok on a disk that fails")
			}
			if b.Ledger()[0].Destinations[0].Dropped[CauseFull] == 0 {
				t.Error("nothing was dropped: the tail is not full")
			}
			f.mu.Lock()
			f.failAt = 0
			f.mu.Unlock()
			commitNow(t, b)
			commitNow(t, b)
			if h := b.Stats().Health; h != "ok" {
				turnNow(b)
				if h = b.Stats().Health; h != "ok" {
					t.Errorf("health %q on a disk that works again", h)
				}
			}
			var told uint64
			for _, r := range readAll(t, b.Destination("cloud"), true) {
				if r.Gap != nil {
					told += r.Gap.Count
				}
			}
			if l := b.Ledger()[0].Destinations[0]; told != l.Lost() || l.Buffered != 0 {
				t.Errorf("gap records tell of %d, the ledger of %+v", told, l)
			}
			if err := b.Close(); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// fillDisk writes more and more into a file until the disk is full.
func fillDisk(t *testing.T, path string) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o640)
	if err != nil {
		t.Fatal(err)
	}
	for err == nil {
		_, err = f.Write(make([]byte, 64<<10))
	}
	if !errors.Is(err, syscall.ENOSPC) {
		t.Fatal(err)
	}
	_ = f.Close()
}

// TestReadOnlyDisk makes the file system read-only under a store, as ext4 does with itself after an error, and writable
// again: the process goes on, says so, and recovers without a restart.
func TestReadOnlyDisk(t *testing.T) {
	mnt := smallDisk(t, "16m")
	dir := mnt + "/store"
	b := mustOpen(t, dir, testOptions())
	s := mustStream(t, b, "press")
	appendN(t, b, s, 10)
	commitNow(t, b)
	b.lockCommit()
	b.seal()
	b.unlockCommit()
	crash(b)
	readOnly := func(flags uintptr) {
		t.Helper()
		if err := unix.Mount("", mnt, "", unix.MS_REMOUNT|flags, ""); err != nil {
			t.Skipf("needs to mount a file system anew: %v", err)
		}
	}
	readOnly(unix.MS_RDONLY)
	if _, err := Open(dir, testOptions()); !errors.Is(err, syscall.EROFS) || !strings.Contains(err.Error(), "; it must be mounted writable") {
		t.Errorf("opened on a read-only disk: %v", err)
	} else {
		t.Log(err)
	}
	ro, err := OpenReadOnly(dir)
	if err != nil || ro.Stats().Destinations[0].Backlog != 10 {
		t.Fatalf("to be looked at: %v", err)
	}
	ro.Close()
	readOnly(0)
	fs, broken := osFiles(), false // no remount while files are open for writing, so new ones fail here
	create, rename := fs.bolt, fs.rename
	fs.bolt = func(path string, o *bolt.Options) (*bolt.DB, error) {
		if broken {
			return nil, &os.PathError{Op: "open", Path: path, Err: syscall.EROFS}
		}
		return create(path, o)
	}
	fs.rename = func(from, to string) error {
		if broken {
			return syscall.EROFS
		}
		return rename(from, to)
	}
	if b, err = open(dir, testOptions(), fs); err != nil {
		t.Fatal(err)
	}
	broken = true
	appendN(t, b, mustStream(t, b, "press"), 10)
	b.lockCommit()
	if err := b.commit(); !errors.Is(err, syscall.EROFS) {
		t.Errorf("commit on a read-only disk: %v", err)
	}
	b.unlockCommit()
	if h := b.Stats().Health; !strings.Contains(h, "read-only") {
		t.Errorf("health %q", h)
	}
	broken = false
	commitNow(t, b)
	if h := b.Stats().Health; h != "ok" || b.Destination("cloud").Len() != 20 {
		t.Errorf("health %q after it", h)
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestDiskFullAndFreed fills a small file system beside the store and empties it again.
func TestDiskFullAndFreed(t *testing.T) {
	mnt := smallDisk(t, "16m")
	o := testOptions()
	o.SegmentSize = 1 << 20
	b := mustOpen(t, mnt+"/store", o)
	s := mustStream(t, b, "press")
	rng := rand.New(rand.NewPCG(1, 2))
	fill := func(n int) {
		for i := range n {
			if _, err := b.Append(s, randomBytes(rng, 4000), 1, int64(i)); err != nil {
				t.Fatal(err)
			}
			if i%50 == 49 {
				b.lockCommit()
				_ = b.commit()
				b.unlockCommit()
			}
		}
	}
	fill(600)
	ballast := mnt + "/ballast"
	fillDisk(t, ballast)
	fill(3000)
	checkLedger(t, b)
	turnNow(b)
	st := b.Stats()
	if st.Dropped == 0 {
		t.Errorf("no segment was dropped on a full disk: %+v", st)
	}
	if st.Health != "ok" {
		t.Logf("while full: %s", st.Health)
	}
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	fill(100)
	commitNow(t, b)
	turnNow(b)
	if h := b.Stats().Health; h != "ok" {
		t.Errorf("health %q after the disk is free", h)
	}
	checkLedger(t, b)
	crash(b)
	b = mustOpen(t, mnt+"/store", o)
	checkLedger(t, b)
	if st := b.Stats(); st.Damages != 0 {
		t.Errorf("damage: %+v", st.Damage)
	}
	readAll(t, b.Destination("cloud"), true)
	checkLedger(t, b)
	if l := b.Ledger()[0].Destinations[0]; l.Buffered != 0 {
		t.Errorf("drained: %+v", l)
	}
}
