package buffer

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"
)

// TestSegmentIsAnother: while a store runs, the file of a sealed segment comes to be another sound segment, of this store or another one, or something
// that is no file at all. It is set aside, what it held is told as lost, exactly, and the destination gets all the rest.
func TestSegmentIsAnother(t *testing.T) {
	foreign := oneForeign(t)
	first, last := 0, 3
	for what, c := range map[string]struct {
		swap func(paths []string) error
		lost uint64 // segments
		held bool   // a file that is open gives all it had
	}{
		"foreign, same file":   {func(p []string) error { return overwrite(foreign, p[first]) }, 1, false},
		"foreign, moved":       {func(p []string) error { return moveOver(foreign, p[first]) }, 1, true},
		"last over first":      {func(p []string) error { return overwrite(p[last], p[first]) }, 1, false},
		"first over last":      {func(p []string) error { return overwrite(p[first], p[last]) }, 1, false},
		"second over first":    {func(p []string) error { return moveOver(p[1], p[first]) }, 1, true},
		"two swapped":          {func(p []string) error { return swapFiles(p[first], p[last]) }, 2, true},
		"neighbours swapped":   {func(p []string) error { return swapFiles(p[1], p[2]) }, 2, true},
		"a directory":          {func(p []string) error { return asDirectory(p[first]) }, 1, true},
		"zeros, the same size": {func(p []string) error { return zeroFile(p[first]) }, 1, false},
	} {
		for _, open := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, open %v", what, open), func(t *testing.T) {
				dir := t.TempDir() + "/store"
				b := mustOpen(t, dir, testOptions())
				paths := fourSegments(t, b)
				d := b.Destination("cloud")
				if open {
					if err := look(d); err != nil {
						t.Fatal(err)
					}
				}
				if err := c.swap(paths); err != nil {
					t.Fatal(err)
				}
				if open && c.held {
					c.lost = 0
				}
				lost := 60 * c.lost // two readings in each record
				told, got := toldAndGot(append(readAll(t, d, true), readAll(t, d, true)...))
				if told != lost || got != 120-lost/2 {
					t.Errorf("%d records came, %d readings are told as lost, of %d", got, told, lost)
				}
				checkLedger(t, b)
				turnNow(b)
				wantAside(t, b, int(c.lost), lost)
				if n := b.Stats().Segments; n > 1 { // the gap records
					t.Errorf("%d segments are left", n)
				}
				crash(b)
				b = mustOpen(t, dir, testOptions())
				if st := b.Stats(); st.Damages != 0 && !open {
					t.Errorf("the next start tells of %+v", st.Damage)
				}
			})
		}
	}
}

// TestPartOfASegmentIsAnother: likewise when the segment's oldest records were given up to a full disk before; a file that is too short is as bad.
func TestPartOfASegmentIsAnother(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("parts of files are given back to the file system on Linux only")
	}
	for what, swap := range map[string]func(paths []string) error{
		"empty":        func(p []string) error { return os.Truncate(p[0], 0) },
		"cut":          func(p []string) error { return os.Truncate(p[0], 5*pageSize) },
		"another":      func(p []string) error { return moveOver(p[1], p[0]) },
		"another, cut": func(p []string) error { return errors.Join(overwrite(p[1], p[0]), os.Truncate(p[0], 5*pageSize)) },
	} {
		for _, twice := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, twice %v", what, twice), func(t *testing.T) {
				b := mustOpen(t, t.TempDir()+"/store", testOptions())
				paths := fourSegmentsOf(t, b, 15, 4000)
				d := b.Destination("cloud")
				b.lockCommit()
				given := b.dropPart(b.segs[0], CauseFull, true)
				b.unlockCommit()
				if err := swap(paths); err != nil || !given {
					t.Fatal(err, given)
				}
				if twice {
					b.lockCommit()
					if b.dropPart(b.segs[0], CauseFull, true) {
						t.Error("a part of another file was given up")
					}
					b.unlockCommit()
				}
				told, got := toldAndGot(append(readAll(t, d, true), readAll(t, d, true)...))
				if told != 60 || got != 90 {
					t.Errorf("%d records came, %d readings are told as lost, of 120 and 240", got, told)
				}
				checkLedger(t, b)
			})
		}
	}
}

// wantAside checks that so many segments were set aside and are told once each, with their names now and these readings lost in all.
func wantAside(t *testing.T, b *Buffer, files int, lost uint64) {
	t.Helper()
	st, sum := b.Stats(), uint64(0)
	for _, d := range st.Damage {
		sum += d.Readings
		if _, err := os.Stat(filepath.Join(b.dir, d.File)); err != nil || !strings.HasSuffix(d.File, asideSuffix) {
			t.Errorf("told as %q: %v", d.File, err)
		}
		if d.Reason == "" || strings.HasPrefix(d.Reason, "damaged") || strings.HasSuffix(d.Reason, ": damaged") {
			t.Errorf("the reason is %q", d.Reason)
		}
	}
	if st.Health != "ok" || len(st.Damage) != files || sum != lost {
		t.Errorf("health %q, %d readings lost, want %d, damage %+v", st.Health, sum, lost, st.Damage)
	}
}

// fourSegments makes four sealed segments of 30 records, of which none is in memory, and returns their paths.
func fourSegments(t *testing.T, b *Buffer) (paths []string) { return fourSegmentsOf(t, b, 1, 400) }

// fourSegmentsOf is fourSegments with so many commits for each, and records of so many bytes.
func fourSegmentsOf(t *testing.T, b *Buffer, commits, size int) (paths []string) {
	t.Helper()
	s, rng := mustStream(t, b, "press"), rand.New(rand.NewPCG(1, 44))
	for range 4 {
		s.Count(60, 0)
		for i := range 30 { // too large to stand in the page that is kept in memory
			if _, err := b.Append(s, randomBytes(rng, size), 2, int64(i+1)); err != nil {
				t.Fatal(err)
			}
			if i%max(1, 30/commits) == 0 {
				commitNow(t, b)
			}
		}
		commitNow(t, b)
		b.lockCommit()
		paths = append(paths, b.active.path)
		b.seal()
		b.unlockCommit()
	}
	emptyTail(b)
	return paths
}

// oneForeign returns the path of a segment of another store.
func oneForeign(t *testing.T) string {
	t.Helper()
	dir := t.TempDir() + "/foreign"
	b := mustOpen(t, dir, testOptions())
	appendN(t, b, mustStream(t, b, "pump"), 30)
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	return b.segs[0].path
}

// overwrite writes one file's content into another, which stays the same file.
func overwrite(from, to string) error {
	raw, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return os.WriteFile(to, raw, 0o640)
}

// moveOver puts a copy of a file in the place of another.
func moveOver(from, to string) error {
	if err := overwrite(from, to+".tmp"); err != nil {
		return err
	}
	return os.Rename(to+".tmp", to)
}

func swapFiles(x, y string) error {
	for _, move := range [][2]string{{x, x + ".tmp"}, {y, x}, {x + ".tmp", y}} {
		if err := os.Rename(move[0], move[1]); err != nil {
			return err
		}
	}
	return nil
}

func asDirectory(path string) error {
	if err := os.Remove(path); err != nil {
		return err
	}
	if err := os.Mkdir(path, 0o750); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(path, "x"), nil, 0o640)
}

func zeroFile(path string) error {
	return os.WriteFile(path, make([]byte, fileSize(path, 0)), 0o640)
}

// TestActiveIsAnother: the same to the segment that is being written. Nothing goes into the other one's pages; what memory has is written again.
func TestActiveIsAnother(t *testing.T) {
	foreign := oneForeign(t)
	dir := t.TempDir() + "/store"
	b := mustOpen(t, dir, testOptions())
	s := mustStream(t, b, "press")
	for round := range 3 {
		s.Count(60, 0)
		appendN(t, b, s, 30)
		commitNow(t, b)
		if round == 0 {
			if err := overwrite(foreign, b.active.path); err != nil {
				t.Fatal(err)
			}
		}
	}
	if st := b.Stats(); st.Damages != 1 || st.Damage[0].Readings != 0 || !strings.Contains(st.Damage[0].Reason, "another store") || st.Health != "ok" {
		t.Errorf("%s, %+v", st.Health, st.Damage)
	}
	crash(b)
	b = mustOpen(t, dir, testOptions())
	if _, got := toldAndGot(readAll(t, b.Destination("cloud"), true)); got != 90 {
		t.Errorf("%d records came, of 90", got)
	}
	checkLedger(t, b)
}

// TestToldOnce: the file of the segment that is being written goes when memory has nothing of it any more: that is told once, in words.
func TestToldOnce(t *testing.T) {
	b := mustOpen(t, t.TempDir()+"/store", testOptions())
	s := mustStream(t, b, "press")
	s.Count(60, 0)
	appendN(t, b, s, 30)
	commitNow(t, b)
	emptyTail(b)
	if err := os.Remove(b.active.path); err != nil {
		t.Fatal(err)
	}
	appendN(t, b, s, 1)
	for range 3 {
		b.lookedSegs = b.lookedSegs.Add(-lookEvery)
		commitNow(t, b)
	}
	if st := b.Stats(); st.Damages != 1 || st.Damage[0].Readings != 60 || st.Damage[0].Reason != "removed or replaced while in use" {
		t.Errorf("%+v", st.Damage)
	}
	checkLedger(t, b)
}

// TestNothingNewIsNoNews: a segment whose damage was told, and that is looked at again without another reading being lost, is not told again.
func TestNothingNewIsNoNews(t *testing.T) {
	b := mustOpen(t, t.TempDir()+"/store", testOptions())
	paths := fourSegments(t, b)
	if err := zeroFile(paths[0]); err != nil {
		t.Fatal(err)
	}
	told, got := toldAndGot(readAll(t, b.Destination("cloud"), false))
	for range 2 {
		b.lockCommit()
		b.salvageNow(b.segs[0], errDamaged)
		b.unlockCommit()
	}
	if st := b.Stats(); st.Damages != 1 || st.Damage[0].Readings != 60 || got != 90 {
		t.Errorf("%d damages, %+v; %d records, %d readings told as lost", st.Damages, st.Damage, got, told)
	}
	checkLedger(t, b)
}

// TestOldest: the first record that is not acknowledged, and whether a reader has it: with commit_interval 0 it does not before it is on disk, nor while the disk
// does not give it.
func TestOldest(t *testing.T) {
	for _, every := range []time.Duration{0, time.Hour} {
		o := testOptions()
		o.CommitInterval = time.Hour
		b := mustOpen(t, t.TempDir()+"/store", o)
		d, s := b.Destination("cloud"), mustStream(t, b, "press")
		want := func(seq uint64, there bool) {
			t.Helper()
			if got, is := d.Oldest(); got != seq || is != there {
				t.Errorf("commit_interval %v: record %d, there %v, want %d, %v", every, got, is, seq, there)
			}
		}
		want(1, false)
		s.Count(2, 0)
		appendN(t, b, s, 1)
		b.o.CommitInterval = every // not before: Append waits for the commit then
		want(1, every > 0)
		commitNow(t, b)
		want(1, true)
		b.segs[0].unread.since = time.Now()
		want(1, false)
		b.segs[0].unread.since = time.Time{}
		ackSome(t, d, 1)
		want(2, false)
	}
}

// TestDamagedStateIsSaidOnce: a stopped store's damaged state.db is one problem.
func TestDamagedStateIsSaidOnce(t *testing.T) {
	dir := ownStore(t, 1, false)
	if err := zeroFile(filepath.Join(dir, stateName)); err != nil {
		t.Fatal(err)
	}
	r, err := OpenReadOnly(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if v, err := r.Verify(t.Context(), nil); err != nil || len(v.Problems) != 1 || strings.Contains(v.Problems[0].Reason, errDamaged.Error()) {
		t.Errorf("%v, %+v", err, v)
	}
}

// look reads what a destination has not acknowledged, as far as that goes, and returns why it goes no further.
func look(d *Destination) (err error) {
	r, ok := d.Reader(0, 0), true
	for rec := (Record{}); ok && err == nil; {
		ok, err = r.Next(&rec)
	}
	return err
}
