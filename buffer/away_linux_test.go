package buffer

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// away is a store with sealed segments, of which memory has nothing, and younger records in memory; it was moved away while in use.
type away struct {
	b      *Buffer
	s      *Stream
	dir, x string
}

// moveAway makes a store with 120 records on disk, counted as 240 readings, and moves its directory to x.
func moveAway(t *testing.T) *away {
	t.Helper()
	a := &away{dir: t.TempDir() + "/store"}
	a.x = a.dir + "-x"
	a.b = mustOpen(t, a.dir, testOptions())
	fourSegments(t, a.b)
	a.s = mustStream(t, a.b, "press")
	a.move(t, a.dir, a.x)
	return a
}

func (a *away) move(t *testing.T, from, to string) {
	t.Helper()
	if err := os.Rename(from, to); err != nil {
		t.Fatal(err)
	}
}

// more appends 10 records and has a turn taken, as Run does.
func (a *away) more(t *testing.T) {
	t.Helper()
	a.s.Count(20, 0)
	appendN(t, a.b, a.s, 10)
	a.turn()
}

func (a *away) turn() {
	a.b.lockCommit()
	_ = a.b.commit()
	a.b.unlockCommit()
	a.b.lockCommit()
	a.b.looked, a.b.lookedSegs = time.Time{}, time.Time{}
	a.b.unlockCommit()
	turnNow(a.b)
}

// dropped is how many readings are told as lost.
func (a *away) dropped() (n uint64) {
	for _, x := range a.b.Ledger() {
		for _, d := range x.Destinations {
			n += d.Lost()
		}
	}
	return n
}

// TestMovedAndBack: a directory that was moved away for a while and put back has lost nothing: meanwhile health says what to do, what is in memory is given out, and what
// only its files have waits.
func TestMovedAndBack(t *testing.T) {
	a := moveAway(t)
	d := a.b.Destination("cloud")
	if err := look(d); !errors.Is(err, ErrUnreadable) {
		t.Errorf("before anybody has noticed a reader gets %v", err)
	}
	a.more(t)
	if st := a.b.Stats(); !strings.Contains(st.Health, "failing: ") || !strings.Contains(st.Health, "was moved away: put it back") || a.b.Holds() {
		t.Errorf("health %q, it is held: %v", st.Health, a.b.Holds())
	}
	if err := look(d); !errors.Is(err, ErrUnreadable) {
		t.Errorf("a reader gets %v", err)
	}
	var rec Record
	if ok, err := d.Reader(a.b.next-10, 0).Next(&rec); !ok || err != nil {
		t.Errorf("what is in memory is not given out: %v", err)
	}
	if _, err := os.Stat(a.dir); err == nil {
		t.Error("the directory was made anew")
	}
	a.move(t, a.x, a.dir)
	a.more(t)
	if st := a.b.Stats(); st.Health != healthOK || st.Damages != 0 || !st.Remade.IsZero() || a.dropped() != 0 || !a.b.Holds() {
		t.Errorf("%s, %+v, remade %v, %d readings lost", st.Health, st.Damage, st.Remade, a.dropped())
	}
	crash(a.b)
	b := mustOpen(t, a.dir, testOptions())
	if told, got := toldAndGot(readAll(t, b.Destination("cloud"), true)); told != 0 || got != 140 {
		t.Errorf("%d records come, of 140, and %d readings are told as lost", got, told)
	}
	checkLedger(t, b)
}

// TestMovedForLong: a directory that stays away is made anew, and what only its files had is told as lost. Put back then, also over the one that was made
// meanwhile, it is taken again: what memory has is written there, the rest of the newer one is told as lost, and the next start has forgotten nothing.
func TestMovedForLong(t *testing.T) {
	for _, c := range []struct {
		what string
		kept bool // memory has what was written meanwhile
		lost uint64
		end  func(t *testing.T, b *Buffer)
	}{
		{"kept in memory, killed", true, 240, func(_ *testing.T, b *Buffer) { crash(b) }},
		{"not in memory, killed", false, 260, func(_ *testing.T, b *Buffer) { crash(b) }},
		{"not in memory, stopped", false, 260, func(t *testing.T, b *Buffer) {
			if err := b.Close(); err != nil {
				t.Error(err)
			}
		}},
	} {
		t.Run(c.what, func(t *testing.T) {
			a := moveAway(t)
			a.b.awayPatience = 0
			a.more(t)
			if st := a.b.Stats(); st.Health != healthOK || st.Remade.IsZero() || a.dropped() != 240 || !a.b.Holds() {
				t.Fatalf("%s, remade %v, %d readings lost", st.Health, st.Remade, a.dropped())
			}
			if !c.kept {
				emptyTail(a.b)
			}
			a.move(t, a.dir, a.dir+"-y")
			a.move(t, a.x, a.dir)
			a.turn()
			a.more(t)
			if st := a.b.Stats(); st.Health != healthOK || a.dropped() != c.lost || !a.b.Holds() {
				t.Errorf("%s, %d readings lost, want %d", st.Health, a.dropped(), c.lost)
			}
			if aside, _ := filepath.Glob(a.dir + "/*" + asideSuffix); len(aside) != 4 {
				t.Errorf("set aside: %v", aside)
			}
			checkLedger(t, a.b)
			c.end(t, a.b)
			a.b = mustOpen(t, a.dir, testOptions())
			if st := a.b.Stats(); st.Damages != 0 || a.dropped() != c.lost || st.Before != "" && st.Before != BeforeUnclean {
				t.Errorf("the next start tells of %+v, %d readings lost, before %q", st.Damage, a.dropped(), st.Before)
			}
			if told, got := toldAndGot(readAll(t, a.b.Destination("cloud"), true)); told != c.lost || got != 20-(c.lost-240)/2 {
				t.Errorf("%d records come, and %d readings are told as lost", got, told)
			}
			checkLedger(t, a.b)
		})
	}
}

// TestWentOnElsewhere: whoever starts on a directory whose store went on in another one says that what came since may be missing.
func TestWentOnElsewhere(t *testing.T) {
	a := moveAway(t)
	a.b.awayPatience = 0
	a.more(t)
	crash(a.b)
	if st := mustOpen(t, a.x, testOptions()).Stats(); st.Before != BeforeOlder {
		t.Errorf("before %q", st.Before)
	}
	if st := mustOpen(t, a.dir, testOptions()).Stats(); st.Before != BeforeUnclean {
		t.Errorf("in the newer one: before %q", st.Before)
	}
}

// TestMovedBackWithNothingToWrite: nothing waits when the directory is put back, so no commit comes; the next start finds all the same what was counted.
func TestMovedBackWithNothingToWrite(t *testing.T) {
	a := moveAway(t)
	a.b.awayPatience = 0
	a.more(t)
	readAll(t, a.b.Destination("cloud"), true)
	a.turn()
	if s := seenIn(a.dir); s.store != a.b.store || s.gen == 0 {
		t.Errorf("the lock of the newer directory says %+v", s)
	}
	a.move(t, a.dir, a.dir+"-y")
	a.move(t, a.x, a.dir)
	a.b.lockCommit()
	a.b.looked = time.Time{}
	if err := a.b.stillOurs(); err != nil {
		t.Error(err)
	}
	a.b.unlockCommit()
	crash(a.b)
	a.b = mustOpen(t, a.dir, testOptions())
	if st := a.b.Stats(); st.Before != BeforeUnclean || a.dropped() != 240 {
		t.Errorf("before %q, %d readings lost", st.Before, a.dropped())
	}
}

// TestOtherInItsPlace: another store in the directory's place is not touched; nor is this one as another process had it open, which a start goes on in, and which then
// says that something may be missing. The own one is taken again in the end.
func TestOtherInItsPlace(t *testing.T) {
	for _, own := range []bool{false, true} {
		a := moveAway(t)
		other, says := t.TempDir()+"/other", "holds another store now"
		b := mustOpen(t, other, testOptions())
		if own {
			says = "restart the gateway"
			a.b.awayPatience = 0
			a.more(t)
			_ = b.Close()
			a.move(t, a.dir, a.dir+"-y")
			other = a.x
			b = mustOpen(t, other, testOptions())
			a.b.awayPatience = awayPatience
		}
		appendN(t, b, mustStream(t, b, "press"), 3)
		if err := b.Close(); err != nil {
			t.Fatal(err)
		}
		before := listed(t, other)
		a.move(t, other, a.dir)
		a.more(t)
		a.more(t)
		if st := a.b.Stats(); !strings.Contains(st.Health, says) || a.b.Holds() {
			t.Errorf("own %v: %q", own, st.Health)
		}
		if now := listed(t, a.dir); now != before {
			t.Errorf("own %v: it had %q, and has %q", own, before, now)
		}
		if !own {
			a.move(t, a.dir, other)
			a.move(t, a.x, a.dir)
			a.more(t)
			if st := a.b.Stats(); st.Health != healthOK || a.dropped() != 0 {
				t.Errorf("%s, %d readings lost", st.Health, a.dropped())
			}
			a.dir = other
		}
		crash(a.b)
		want := ""
		if own {
			want = BeforeOlder
		}
		if st := mustOpen(t, a.dir, testOptions()).Stats(); st.Before != want {
			t.Errorf("own %v: before %q", own, st.Before)
		}
	}
}

// listed returns the names in a directory.
func listed(t *testing.T, dir string) (names string) {
	t.Helper()
	list, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range list {
		names += e.Name() + " "
	}
	return names
}

// TestLockAndStateRemoved: a directory of which the lock and state.db were removed is still the same one: no segment of it is set aside.
func TestLockAndStateRemoved(t *testing.T) {
	b := mustOpen(t, t.TempDir()+"/store", testOptions())
	fourSegments(t, b)
	a := &away{b: b, s: mustStream(t, b, "press"), dir: b.dir}
	for _, name := range []string{lockName, stateName} {
		if err := os.Remove(filepath.Join(b.dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	a.more(t)
	if st := b.Stats(); st.Health != healthOK || a.dropped() != 0 || st.Remade.IsZero() {
		t.Errorf("%s, %d readings lost", st.Health, a.dropped())
	}
	if _, got := toldAndGot(readAll(t, b.Destination("cloud"), true)); got != 130 {
		t.Errorf("%d records come, of 130", got)
	}
}

// TestStopWhileAway: what a stop loses while the directory is away is noted in it, and told by the start after it was put back.
func TestStopWhileAway(t *testing.T) {
	a := moveAway(t)
	a.more(t)
	if err := a.b.Close(); err == nil || !strings.Contains(err.Error(), "10 records") || !strings.Contains(err.Error(), "that was moved away") {
		t.Errorf("the stop says %v", err)
	}
	a.move(t, a.x, a.dir)
	a.b = mustOpen(t, a.dir, testOptions())
	commitNow(t, a.b)
	if told, got := toldAndGot(readAll(t, a.b.Destination("cloud"), true)); told != 20 || got != 120 || a.dropped() != 20 {
		t.Errorf("%d records come, %d readings are told as lost, %d counted", got, told, a.dropped())
	}
}
