package buffer

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"millrace/drivers/drivertest"
)

func randomBytes(rng *rand.Rand, n int) []byte {
	p := make([]byte, n)
	for i := range p {
		p[i] = byte(rng.Uint32())
	}
	return p
}

// TestAsideMakesWay: a file set aside is kept for people to look at, never at the cost of a record.
func TestAsideMakesWay(t *testing.T) {
	for _, policy := range []Policy{DropOldest, DropNewest} {
		dir := t.TempDir() + "/store"
		o := testOptions()
		o.MaxSize, o.WhenFull = 4<<20, policy
		if err := errors.Join(os.Mkdir(dir, 0o750), os.WriteFile(filepath.Join(dir, "seg-old.db.corrupt"), make([]byte, 3<<20), 0o640)); err != nil {
			t.Fatal(err)
		}
		b := mustOpen(t, dir, o)
		s := mustStream(t, b, "press")
		rng := rand.New(rand.NewPCG(1, 2))
		for i := range 400 { // 1.6 MB
			if _, err := b.Append(s, randomBytes(rng, 4000), 1, int64(i)); err != nil {
				t.Fatalf("policy %d, record %d: %v", policy, i, err)
			}
			if size := dirSize(t, dir); size > o.MaxSize {
				t.Fatalf("%d bytes in the directory", size)
			}
		}
		commitNow(t, b)
		if l := b.Ledger()[0].Destinations[0]; l.Lost() != 0 {
			t.Errorf("policy %d: readings were dropped beside a file set aside: %+v", policy, l)
		}
	}
}

// TestLoweredMaxSize: the bound holds from Open on, not from the next commit, and the quarantine is no obstacle.
func TestLoweredMaxSize(t *testing.T) {
	dir := t.TempDir() + "/store"
	o := testOptions()
	b := mustOpen(t, dir, o)
	s := mustStream(t, b, "press")
	rng := rand.New(rand.NewPCG(1, 2))
	for i := range 4000 {
		if _, err := b.Append(s, randomBytes(rng, 4000), 1, int64(i)); err != nil {
			t.Fatal(err)
		}
	}
	commitNow(t, b)
	d := b.Destination("cloud")
	r := d.Reader(0, 0)
	for range 200 {
		var rec Record
		if ok, err := take(r, &rec); !ok || err != nil {
			t.Fatal(ok, err)
		}
		if err := d.Reject(rec.Seq, "no"); err != nil {
			t.Fatal(err)
		}
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	o.MaxSize = 4 << 20
	b = mustOpen(t, dir, o)
	if size := dirSize(t, dir); size > o.MaxSize {
		t.Errorf("%d bytes in the directory after opening", size)
	}
	checkLedger(t, b)
	l := b.Ledger()[0].Destinations[0]
	if l.Dropped[CauseFull] == 0 || l.Lost() == 0 || b.Stats().Damages != 0 {
		t.Errorf("%+v, %+v", l, b.Stats().Damage)
	}
	var told uint64
	for _, r := range readAll(t, b.Destination("cloud"), true) {
		if r.Gap != nil && r.Gap.Cause == CauseFull {
			told += r.Gap.Count
		}
	}
	if told != l.Dropped[CauseFull] {
		t.Errorf("gap records tell of %d of %d readings", told, l.Dropped[CauseFull])
	}
	list, err := b.Quarantine()
	if err != nil || len(list) == 0 || len(list) == 200 {
		t.Errorf("%d entries in quarantine, %v", len(list), err)
	}
}

// TestLoweredMaxSizeDropNewest: what was accepted stays; nothing more is taken until there is room.
func TestLoweredMaxSizeDropNewest(t *testing.T) {
	dir := t.TempDir() + "/store"
	o := testOptions()
	o.WhenFull = DropNewest
	b := mustOpen(t, dir, o)
	s := mustStream(t, b, "press")
	rng := rand.New(rand.NewPCG(1, 2))
	for i := range 2000 {
		if _, err := b.Append(s, randomBytes(rng, 4000), 1, int64(i)); err != nil {
			t.Fatal(err)
		}
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	o.MaxSize = 4 << 20
	b = mustOpen(t, dir, o)
	size := dirSize(t, dir)
	if _, err := b.Append(mustStream(t, b, "press"), randomBytes(rng, 4000), 1, 1); !errors.Is(err, ErrFull) {
		t.Errorf("append to a store over its bound: %v", err)
	}
	if n := b.Destination("cloud").Len(); n != 2000 {
		t.Errorf("%d of 2000 records", n)
	}
	if after := dirSize(t, dir); after > size {
		t.Errorf("%d bytes became %d", size, after)
	}
	readAll(t, b.Destination("cloud"), true)
	turnNow(b)
	if size := dirSize(t, dir); size > o.MaxSize {
		t.Errorf("%d bytes in the directory after the drain", size)
	}
	if _, err := b.Append(mustStream(t, b, "press"), randomBytes(rng, 4000), 1, 1); err != nil {
		t.Errorf("append after the drain: %v", err)
	}
}

// TestDamageMetWhileOpening: a segment that is half acknowledged is read at Open, record by record.
func TestDamageMetWhileOpening(t *testing.T) {
	dir := t.TempDir() + "/store"
	b := mustOpen(t, dir, testOptions())
	s, d := mustStream(t, b, "press"), b.Destination("cloud")
	for range 3 {
		appendN(t, b, s, 100)
		commitNow(t, b)
	}
	r := d.Reader(0, 0)
	for range 50 {
		var rec Record
		if ok, err := take(r, &rec); !ok || err != nil {
			t.Fatal(ok, err)
		}
		d.Ack(rec.Seq)
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, fmt.Sprintf(segPattern, 1))
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	block := []byte{blockMagic >> 8, blockMagic & 0xff, blockFormat}
	for at := bytes.Index(raw, block); at >= 0; at = bytes.Index(raw, block) {
		raw[at] ^= 1
	}
	if err := os.WriteFile(path, raw, 0o640); err != nil {
		t.Fatal(err)
	}
	b = mustOpen(t, dir, testOptions())
	st := b.Stats()
	if st.Damages != 1 || st.Damage[0].File != filepath.Base(path)+asideSuffix || st.Damage[0].FirstSeq != 1 || st.Damage[0].LastSeq != 300 || st.Damage[0].Readings != 500 ||
		st.Damage[0].MinAt != 1 || st.Damage[0].MaxAt != 100 {
		t.Errorf("the damage is not told: %+v", st.Damage)
	}
	checkLedger(t, b)
}

// TestSlotIsUsedAgain: records addressed to a destination that was forgotten are not for the one that gets its place,
// nor for any other that begins with the oldest record.
func TestSlotIsUsedAgain(t *testing.T) {
	dir := t.TempDir() + "/store"
	o := testOptions()
	o.Destinations = []string{"keep", "old"}
	b := mustOpen(t, dir, o)
	s := mustStream(t, b, "press")
	appendN(t, b, s, 5)
	commitNow(t, b)
	old := b.Destination("old")
	recs := readAll(t, old, false)
	for _, i := range []int{1, 3} {
		if err := old.Reject(recs[i].Seq, "no"); err != nil {
			t.Fatal(err)
		}
	}
	q, err := b.Quarantine()
	if err != nil || len(q) != 2 {
		t.Fatal(q, err)
	}
	if _, err := b.Retry(q[0].ID); err != nil {
		t.Fatal(err)
	}
	appendN(t, b, s, 2)
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	o.Destinations = []string{"keep"}
	b = mustOpen(t, dir, o)
	if _, err := b.Forget("old"); err != nil {
		t.Fatal(err)
	}
	appendN(t, b, mustStream(t, b, "press"), 1)
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	o.Destinations = []string{"keep", "new", "other"}
	o.Starts = map[string]StartAt{"new": StartOldest, "other": StartOldest}
	for _, life := range []string{"added", "reopened"} {
		b = mustOpen(t, dir, o)
		if b.Destination("new").slot != old.slot {
			t.Fatalf("slot %d, not %d", b.Destination("new").slot, old.slot)
		}
		for _, name := range []string{"new", "other", "keep"} {
			d := b.Destination(name)
			checkLedger(t, b)
			n := d.Len()
			recs := readAll(t, d, false)
			if len(recs) != 8 || n != 8 {
				t.Errorf("%s, %s: %d records, %d counted, want the 8 that are for all", life, name, len(recs), n)
			}
			for _, r := range recs {
				if r.Gap != nil {
					t.Errorf("%s, %s: %+v", life, name, r)
				}
			}
			checkLedger(t, b)
			if i := slices.IndexFunc(b.Ledger()[0].Destinations, func(a DestinationAccount) bool { return a.Name == name }); b.Ledger()[0].Destinations[i].InFlight != 16 {
				t.Errorf("%s, %s: %+v", life, name, b.Ledger()[0].Destinations[i])
			}
			d.Reset()
		}
		crash(b)
	}
}

// TestStarts adds two destinations at once, each with its own start.
func TestStarts(t *testing.T) {
	dir := t.TempDir() + "/store"
	o := testOptions()
	b := mustOpen(t, dir, o)
	appendN(t, b, mustStream(t, b, "press"), 10)
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	o.Destinations, o.Starts = []string{"cloud", "oldest", "now"}, map[string]StartAt{"oldest": StartOldest, "now": StartNow}
	b = mustOpen(t, dir, o)
	appendN(t, b, mustStream(t, b, "press"), 3)
	checkLedger(t, b)
	for name, want := range map[string]uint64{"cloud": 13, "oldest": 13, "now": 3} {
		if n := b.Destination(name).Len(); n != want {
			t.Errorf("%s begins with %d records, want %d", name, n, want)
		}
		if got := readAll(t, b.Destination(name), true); uint64(len(got)) != want {
			t.Errorf("%s got %d records, want %d", name, len(got), want)
		}
	}
	checkLedger(t, b)
	o.Starts = map[string]StartAt{"nobody": StartOldest}
	if _, err := Open(t.TempDir()+"/store", o); err == nil || !strings.Contains(err.Error(), "nobody") {
		t.Errorf("a start for a destination that is not there: %v", err)
	}
}

// TestStateIsClosedWhenRenamed: Windows does not rename a file that is open, nor over one that is.
func TestStateIsClosedWhenRenamed(t *testing.T) {
	fs := osFiles()
	renames, fail := 0, 0
	fs.rename = func(from, to string) error {
		renames++
		fds, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			drivertest.Lacks(t, "needs /proc: %v", err)
		}
		for _, fd := range fds {
			if path, err := os.Readlink("/proc/self/fd/" + fd.Name()); err == nil && (path == from || path == to) {
				t.Errorf("%q is open when %q is renamed", path, from)
			}
		}
		if fail > 0 {
			fail--
			return errors.New("injected")
		}
		return os.Rename(from, to)
	}
	dir := t.TempDir() + "/store"
	b, err := open(dir, testOptions(), fs)
	if err != nil {
		t.Fatal(err)
	}
	d := b.Destination("cloud")
	appendN(t, b, mustStream(t, b, "press"), 3)
	for _, r := range readAll(t, d, false)[:2] {
		if err := d.Reject(r.Seq, "no"); err != nil {
			t.Fatal(err)
		}
	}
	b.lockCommit()
	b.state.failed, fail = true, 2 // two times it cannot be renewed: nothing of it may be lost
	for range 2 {
		if err := b.saveCheckpoint(&draft{}); err == nil {
			t.Error("a rename failed and nobody noticed")
		}
	}
	b.changed = true
	err = b.settleIdle(true)
	b.unlockCommit()
	if err != nil || renames != 4 || b.Stats().Health != "ok" {
		t.Errorf("%d renames, %v, health %q", renames, err, b.Stats().Health)
	}
	if list, err := b.Quarantine(); err != nil || len(list) != 2 {
		t.Errorf("quarantine %v, %v", list, err)
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestTooLargeSaysWhatToDo: in the words of the config, with figures that suffice and hardly more.
func TestTooLargeSaysWhatToDo(t *testing.T) {
	for _, c := range []struct {
		bytes, readings int
		want            string
	}{
		{70 << 10, 1, "1 reading of 71680 bytes: larger than the store takes, which is 65536 bytes; raise buffer.max_size to 5MiB at least, and buffer.memory to 140KiB"},
		{70<<10 + 1, 40, "40 readings of together 71681 bytes: larger than the store takes, which is 65536 bytes; raise buffer.max_size to 5MiB at least, and buffer.memory to 142KiB, or split the poll group"},
		{4<<20 + 1, 9, "; split the poll group"},
		{4<<20 + 1, 1, "; no setting makes room for it: have the device's text or array in parts"},
	} {
		b := mustOpen(t, t.TempDir()+"/store", Options{MaxSize: 4 << 20, Destinations: []string{"cloud"}})
		_, err := b.Append(mustStream(t, b, "press"), make([]byte, c.bytes), c.readings, 5)
		if !errors.Is(err, ErrTooLarge) || !strings.HasSuffix(err.Error(), c.want) {
			t.Errorf("%v, want %s", err, c.want)
		}
		if err := b.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if o, err := (Options{MaxSize: 5 << 20, TailBytes: 140 << 10}).complete(); err != nil || (&Buffer{o: o}).MaxRecord() < 70<<10 {
		t.Errorf("what it says does not suffice: %+v, %v", o, err)
	}
	if o, err := (Options{MaxSize: 1 << 40, TailBytes: 1 << 30}).complete(); err != nil || (&Buffer{o: o}).MaxRecord() != maxDefaultRecord {
		t.Errorf("the largest is %d, %v", (&Buffer{o: o}).MaxRecord(), err)
	}
}

// TestTooLargeIsCounted: a record that the buffer can never hold is refused like one that it has no room for.
func TestTooLargeIsCounted(t *testing.T) {
	b := mustOpen(t, t.TempDir()+"/store", testOptions())
	s := mustStream(t, b, "press")
	if _, err := b.Append(s, make([]byte, b.MaxRecord()+1), 7, 5); !errors.Is(err, ErrTooLarge) {
		t.Fatal(err)
	}
	commitNow(t, b)
	checkLedger(t, b)
	if a := b.Ledger()[0]; a.Accepted != 7 || a.Destinations[0].Dropped[CauseFull] != 7 || b.Stats().Refused != 1 {
		t.Errorf("%+v", a)
	}
	turnNow(b)
	if r := readAll(t, b.Destination("cloud"), true); len(r) != 1 || r[0].Gap == nil || r[0].Gap.Count != 7 || r[0].Gap.From != 5 {
		t.Errorf("gap records %+v", r)
	}
}

// TestReadBesideTheFirstCommit: while a segment's first commit is under way it stands in the list and holds nothing.
// Readers must find what is before it on disk and what is behind it in memory, whatever is acknowledged.
func TestReadBesideTheFirstCommit(t *testing.T) {
	for hole := range 3 {
		b := mustOpen(t, t.TempDir()+"/store", testOptions())
		s, d := mustStream(t, b, "press"), b.Destination("cloud")
		appendN(t, b, s, 10)
		commitNow(t, b)
		b.lockCommit()
		b.seal()
		b.unlockCommit()
		b.mu.Lock()
		for b.tail.n > 0 { // from disk
			b.tail.pop()
		}
		b.mu.Unlock()
		appendN(t, b, s, 10)
		r := d.Reader(11, 0)
		for range hole { // the segment begins behind records that need no disk
			var rec Record
			if ok, err := take(r, &rec); !ok || err != nil {
				t.Fatal(ok, err)
			}
			d.Ack(rec.Seq)
		}
		b.lockCommit()
		b.mu.Lock()
		b.advance()
		first := b.durable + 1
		b.mu.Unlock()
		if err := b.createSegment(first); err != nil {
			t.Fatal(err)
		}
		if s := b.segs[len(b.segs)-1]; !s.empty() || s.first != uint64(11+hole) {
			t.Fatalf("segment %+v", s)
		}
		for _, from := range []uint64{0, 1, 5, 10, 11, uint64(10 + hole), 13, 20} {
			want := 0
			for seq := max(from, 1); seq <= 20; seq++ {
				if seq <= 10 || seq > uint64(10+hole) {
					want++
				}
			}
			r, n, last := d.Reader(from, 0), 0, uint64(0)
			for {
				var rec Record
				ok, err := take(r, &rec)
				if err != nil {
					t.Fatalf("from %d: %v", from, err)
				}
				if !ok {
					break
				}
				if rec.Seq <= last {
					t.Fatalf("record %d after %d", rec.Seq, last)
				}
				last = rec.Seq
				n++
			}
			if n != want {
				t.Errorf("hole of %d, from %d: %d records, want %d", hole, from, n, want)
			}
			d.Reset()
		}
		b.unlockCommit()
		commitNow(t, b)
	}
}
