package buffer

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strings"
	"testing"
	"time"
)

// fullOptions are of a store that a few MiB fill.
func fullOptions(policy Policy) Options {
	o := testOptions()
	o.MaxSize, o.WhenFull = 4<<20, policy
	return o
}

// accountOf returns what became of an account's readings at a destination.
func accountOf(t testing.TB, b *Buffer, name string) DestinationAccount {
	t.Helper()
	for _, d := range b.Ledger()[0].Destinations {
		if d.Name == name {
			return d
		}
	}
	t.Fatalf("no destination %q in the ledger", name)
	return DestinationAccount{}
}

// toldAndGot returns how many readings gap records tell of, and how many records there are besides.
func toldAndGot(recs []Record) (told, got uint64) {
	for _, r := range recs {
		if r.Gap != nil && r.Gap.Cause == CauseAbsent {
			continue
		}
		if r.Gap != nil {
			told += r.Gap.Count
		} else {
			got++
		}
	}
	return told, got
}

// TestAbsentMakesWay: what is kept for a destination that is not in the config costs one that is not a single reading, under
// both policies, however it left: taken out while the store is in use, or before it is opened.
func TestAbsentMakesWay(t *testing.T) {
	for _, policy := range []Policy{DropOldest, DropNewest} {
		for _, left := range []string{"at run time", "before the start"} {
			t.Run(fmt.Sprintf("policy %d, %s", policy, left), func(t *testing.T) {
				var log bytes.Buffer
				dir, o := t.TempDir()+"/store", fullOptions(policy)
				o.Destinations, o.Log = []string{"cloud", "old"}, slog.New(slog.NewTextHandler(&log, nil))
				b := mustOpen(t, dir, o)
				s, rng := mustStream(t, b, "press"), rand.New(rand.NewPCG(1, 2))
				appended := 0
				fill := func(n int, dest string) {
					for i := range n {
						if _, err := b.Append(s, randomBytes(rng, 4000), 1, int64(i+1)); err != nil {
							t.Fatalf("record %d: %v", i, err)
						}
						if appended++; appended%20 == 0 {
							commitNow(t, b)
							if dest != "" {
								readAll(t, b.Destination(dest), true)
							}
						}
						if size := dirSize(t, dir); size > o.MaxSize {
							t.Fatalf("%d bytes in the directory", size)
						}
					}
				}
				fill(600, "cloud") // 2.4 MB, which only old needs
				if left == "at run time" {
					if err := b.RemoveDestination("old"); err != nil {
						t.Fatal(err)
					}
				} else {
					if err := b.Close(); err != nil {
						t.Fatal(err)
					}
					o.Destinations = []string{"cloud"}
					b = mustOpen(t, dir, o)
					s = mustStream(t, b, "press")
				}
				fill(600, "") // cloud is down: its backlog and old's do not fit together
				checkLedger(t, b)
				if a := accountOf(t, b, "cloud"); a.Lost() != 0 {
					t.Errorf("the destination in use lost readings: %+v", a)
				}
				a := accountOf(t, b, "old")
				if a.Dropped[CauseFull] == 0 || a.Before != 600 || a.Buffered+a.Dropped[CauseFull] != 600 {
					t.Errorf("the absent one had 600 readings: %+v", a)
				}
				if n := strings.Count(log.String(), "millrace buffer forget old"); n != 1 {
					t.Errorf("%d warnings that name it and the command, want 1:\n%s", n, log.String())
				}
				crash(b)
				b = mustOpen(t, dir, o)
				checkLedger(t, b)
				if _, err := b.AddDestination("old", StartNow); err != nil {
					t.Fatal(err)
				}
				readAll(t, b.Destination("cloud"), true) // a gap record needs room, too
				turnNow(b)
				turnNow(b)
				all := readAll(t, b.Destination("old"), true)
				told, got := toldAndGot(all)
				if a := accountOf(t, b, "old"); told != a.Dropped[CauseFull] || absentIn(all) != a.Before || got != 600-told || a.Delivered != got {
					t.Errorf("back again it was told of %d readings lost and got %d of 600: %+v", told, got, a)
				}
				checkLedger(t, b)
			})
		}
	}
}

// checkParts looks for a number below zero, which a sum hides.
func checkParts(t *testing.T, b *Buffer) {
	t.Helper()
	for _, a := range b.Ledger() {
		for _, d := range a.Destinations {
			if max(d.Before, d.Delivered, d.Buffered, d.InFlight, d.Lost()) > a.Accepted {
				t.Fatalf("%s: more than the %d accepted: %+v", a.Name, a.Accepted, d)
			}
		}
	}
}

// TestAbsentGetsNothingNew: through refusals, commits, crashes and restarts, and its account balances at every step.
func TestAbsentGetsNothingNew(t *testing.T) {
	for _, seed := range seeds(t, 3, 200) {
		t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) {
			rng := rand.New(rand.NewPCG(seed, 1))
			dir, o := t.TempDir()+"/store", fullOptions(Policy(seed%2))
			b := mustOpen(t, dir, o)
			if _, err := b.AddDestination("guest", StartNow); err != nil {
				t.Fatal(err)
			}
			present, end := true, uint64(0)
			reopen := func() {
				o.Destinations = []string{"cloud"}
				if present {
					o.Destinations = append(o.Destinations, "guest")
				}
				b = mustOpen(t, dir, o)
			}
			for range 400 {
				switch n := rng.IntN(100); {
				case n < 60:
					s := mustStream(t, b, fmt.Sprintf("device-%d", rng.IntN(3)))
					for range rng.IntN(20) {
						if _, err := b.Append(s, randomBytes(rng, rng.IntN(8000)), 1+rng.IntN(5), 1); err != nil && !errors.Is(err, ErrFull) {
							t.Fatal(err)
						}
					}
				case n < 75:
					turnNow(b)
				case n < 85:
					readAll(t, b.Destination("cloud"), true)
				case n < 92 && present:
					if err := b.RemoveDestination("guest"); err != nil {
						t.Fatal(err)
					}
					present, end = false, b.NextSeq()
				case n < 92:
					d, err := b.AddDestination("guest", StartAt(rng.IntN(2)))
					if err != nil {
						t.Fatal(err)
					}
					present = true
					from := b.NextSeq()
					for _, r := range readAll(t, d, true) {
						if r.Seq >= end && r.Seq < from {
							t.Fatalf("record %d came while it was absent, from %d to %d", r.Seq, end, from)
						}
					}
				case n < 96:
					crash(b)
					reopen()
				default:
					if err := b.Close(); err != nil {
						t.Fatal(err)
					}
					reopen()
				}
				checkLedger(t, b)
				checkParts(t, b)
				if size := dirSize(t, dir); size > o.MaxSize {
					t.Fatalf("%d bytes in the directory", size)
				}
			}
		})
	}
}

// TestAbsentIsToldLater: a loss of two destinations is told to the one that is there at once, and to the other when it is back.
func TestAbsentIsToldLater(t *testing.T) {
	dir := t.TempDir() + "/store"
	b := mustOpen(t, dir, testOptions())
	s := mustStream(t, b, "press")
	if _, err := b.AddDestination("old", StartNow); err != nil {
		t.Fatal(err)
	}
	appendN(t, b, s, 3)
	commitNow(t, b)
	if err := b.RemoveDestination("old"); err != nil {
		t.Fatal(err)
	}
	b.lockCommit()
	_, err := b.drop(b.segs[0], CauseFull, true)
	b.unlockCommit()
	if err != nil {
		t.Fatal(err)
	}
	turnNow(b)
	if told, got := toldAndGot(readAll(t, b.Destination("cloud"), true)); told != 6 || got != 0 {
		t.Errorf("the one that is there was told of %d readings and got %d records", told, got)
	}
	turnNow(b)
	if n := b.Stats().Segments; n != 0 {
		t.Errorf("%d segments are kept for what is to be told later", n)
	}
	crash(b)
	b = mustOpen(t, dir, testOptions())
	d, err := b.AddDestination("old", StartNow)
	if err != nil {
		t.Fatal(err)
	}
	turnNow(b)
	if told, got := toldAndGot(readAll(t, d, true)); told != 6 || got != 0 {
		t.Errorf("the one that came back was told of %d readings and got %d records", told, got)
	}
	if told, _ := toldAndGot(readAll(t, b.Destination("cloud"), true)); told != 0 {
		t.Errorf("the one that stayed was told of %d readings twice", told)
	}
	checkLedger(t, b)
}

// TestAbsentForgotten: who has the slot next is not told what the one before it lost.
func TestAbsentForgotten(t *testing.T) {
	b := mustOpen(t, t.TempDir()+"/store", testOptions())
	s := mustStream(t, b, "press")
	if _, err := b.AddDestination("old", StartNow); err != nil {
		t.Fatal(err)
	}
	appendN(t, b, s, 3)
	commitNow(t, b)
	readAll(t, b.Destination("cloud"), true)
	if err := b.RemoveDestination("old"); err != nil {
		t.Fatal(err)
	}
	b.lockCommit()
	_, err := b.drop(b.segs[0], CauseFull, true)
	b.unlockCommit()
	if err != nil {
		t.Fatal(err)
	}
	if a := accountOf(t, b, "old"); a.Dropped[CauseFull] != 6 || len(b.gapOrder) != 1 {
		t.Fatalf("%+v, %d losses to be told", a, len(b.gapOrder))
	}
	if _, err := b.Forget("old"); err != nil {
		t.Fatal(err)
	}
	d, err := b.AddDestination("new", StartNow)
	if err != nil {
		t.Fatal(err)
	}
	turnNow(b)
	if got := readAll(t, d, true); len(got) != 0 || len(b.gapOrder) != 0 {
		t.Errorf("it got %+v; %d losses are still to be told", got, len(b.gapOrder))
	}
	checkLedger(t, b)
}

// TestRefusing: Stats says since when new records are refused, until some are taken again.
func TestRefusing(t *testing.T) {
	now := time.Now()
	var r refusal
	if !r.standing(now).IsZero() {
		t.Error("before anything was refused")
	}
	r.refused(now, false, 1)
	r.refused(now.Add(time.Hour), false, 1)
	if got := r.standing(now.Add(24 * time.Hour)); !got.Equal(now) {
		t.Errorf("while nothing is taken it stands since %v, want %v", got, now)
	}
	r.over = true
	if r.standing(now.Add(time.Hour+refusalHolds/2)).IsZero() || !r.standing(now.Add(time.Hour+refusalHolds)).IsZero() {
		t.Error("it ends a while after the last one refused, when one was taken since")
	}

	b := mustOpen(t, t.TempDir()+"/store", fullOptions(DropNewest))
	if _, err := b.AddDestination("old", StartNow); err != nil {
		t.Fatal(err)
	}
	if err := b.RemoveDestination("old"); err != nil {
		t.Fatal(err)
	}
	s, rng := mustStream(t, b, "press"), rand.New(rand.NewPCG(1, 2))
	for i := range 2000 {
		if _, err := b.Append(s, randomBytes(rng, 4000), 1, 1); err != nil {
			break
		} else if i == 1999 {
			t.Fatal("it takes everything")
		}
		if i%20 == 0 {
			commitNow(t, b)
		}
	}
	if st := b.Stats(); st.Refusing.IsZero() || !st.RefusedUntil.IsZero() {
		t.Errorf("it is full: %+v", st)
	}
	if _, err := b.Append(s, nil, 1, 1); err != nil {
		t.Fatalf("one that still fits: %v", err)
	}
	if st := b.Stats(); !st.RefusedUntil.IsZero() {
		t.Errorf("a small one was taken, one as large as the last is not yet: %+v", st)
	}
	readAll(t, b.Destination("cloud"), true)
	turnNow(b)
	if st := b.Stats(); st.Refusing.IsZero() || st.RefusedUntil.Before(st.Refusing) {
		t.Errorf("there is room again at once, and it says refusing since %v until %v", st.Refusing, st.RefusedUntil)
	}
	checkLedger(t, b)
	if a, cloud := accountOf(t, b, "old"), accountOf(t, b, "cloud"); a.Lost() != 0 || cloud.Lost() == 0 {
		t.Errorf("what is refused is no loss of one that is absent: %+v", a)
	}
}

// absentIn returns how many readings a destination is told of that came while it was absent.
func absentIn(all []Record) (n uint64) {
	for _, r := range all {
		if r.Gap != nil && r.Gap.Cause == CauseAbsent {
			n += r.Gap.Count
		}
	}
	return n
}

// TestAbsentIsToldOfItsAbsence: a destination that comes back is told how many readings it was not there for, from when to when, also over
// starts, and only once; the others are not.
func TestAbsentIsToldOfItsAbsence(t *testing.T) {
	dir := t.TempDir() + "/store"
	o := testOptions()
	o.Destinations = []string{"cloud", "old"}
	b := mustOpen(t, dir, o)
	appendN(t, b, mustStream(t, b, "press"), 2)
	readAll(t, b.Destination("cloud"), true)
	readAll(t, b.Destination("old"), true)
	if err := b.RemoveDestination("old"); err != nil {
		t.Fatal(err)
	}
	for i := range 3 {
		if _, err := b.Append(mustStream(t, b, "press"), []byte("x"), 5, int64(100+i)); err != nil {
			t.Fatal(err)
		}
	}
	if n := b.Stats().Destinations[1].Untold; n != 0 {
		t.Errorf("%d losses are to be told, and nothing is lost", n)
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	b = mustOpen(t, dir, testOptions())
	if _, err := b.Append(mustStream(t, b, "press"), []byte("x"), 5, 200); err != nil {
		t.Fatal(err)
	}
	d, err := b.AddDestination("old", StartNow)
	if err != nil {
		t.Fatal(err)
	}
	turnNow(b)
	all := readAll(t, d, true)
	if len(all) != 1 || all[0].Gap == nil {
		t.Fatalf("back again it gets %+v", all)
	}
	if g := all[0].Gap; g.Cause != CauseAbsent || g.Count != 20 || g.From != 100 || g.To != 200 || g.Unknown {
		t.Errorf("of its absence it is told %+v", g)
	}
	if n := absentIn(readAll(t, b.Destination("cloud"), true)); n != 0 {
		t.Errorf("the one that stayed was told of %d", n)
	}
	turnNow(b)
	if again := readAll(t, d, true); len(again) != 0 {
		t.Errorf("and again of %+v", again)
	}
	checkLedger(t, b)
}

// TestAbsentIsToldOfAKill: a destination that is not there at the start after a kill is told when it is back what that may have cost it, and that the count
// of its absence is a guess.
func TestAbsentIsToldOfAKill(t *testing.T) {
	dir := t.TempDir() + "/store"
	o := testOptions()
	o.Destinations = []string{"cloud", "old"}
	b := mustOpen(t, dir, o)
	appendN(t, b, mustStream(t, b, "press"), 2)
	turnNow(b)
	crash(b)
	b = mustOpen(t, dir, testOptions())
	b.MissedBy(func(string) bool { return true }, Gap{From: 50, To: 60, Cause: CauseOutage})
	if _, err := b.Append(mustStream(t, b, "press"), []byte("x"), 5, 100); err != nil {
		t.Fatal(err)
	}
	if n := b.Stats().Destinations[1].Untold; n != 0 {
		t.Errorf("%d losses are to be told to who is not there, which keep its place", n)
	}
	d, err := b.AddDestination("old", StartNow)
	if err != nil {
		t.Fatal(err)
	}
	turnNow(b)
	told := 0
	for _, r := range readAll(t, d, true) {
		if g := r.Gap; g != nil {
			if told++; g.Cause != CauseAbsent || g.Count != 5 || !g.Unknown || g.From != 50 || g.To != 100 {
				t.Errorf("it is told %+v", g)
			}
		}
	}
	if told != 1 {
		t.Errorf("it is told %d times", told)
	}
}
