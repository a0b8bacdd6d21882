package buffer

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"
)

// TestFullForOneAlone: under drop-newest a store that is full because one destination is away refuses nothing for another one that takes what comes, at
// once or after commits, also over a kill; the one that is away is told how much it did not get. When the other one goes as well, everything is refused.
func TestFullForOneAlone(t *testing.T) {
	for _, size := range []int{1500, 2300, 3000, 3700}[:4/raceShare] { // the store is full at another place in a segment
		t.Run(fmt.Sprint(size), func(t *testing.T) { fullForOne(t, size) })
	}
}

func fullForOne(t *testing.T, size int) {
	dir, o := t.TempDir()+"/store", fullOptions(DropNewest)
	o.Destinations = []string{"good", "dead"}
	b := mustOpen(t, dir, o)
	rng := rand.New(rand.NewPCG(1, 1))
	taken := uint64(0)
	fill := func(n int, every int) (refused int) {
		s := mustStream(t, b, "press")
		for i := range n {
			if _, err := b.Append(s, randomBytes(rng, size), 1, int64(i)); err == nil {
				taken++
			} else if refused++; !errors.Is(err, ErrFull) {
				t.Fatal(err)
			}
			if every > 0 && i%every == every-1 {
				turnNow(b)
				readAll(t, b.Destination("good"), true)
				turnNow(b)
			}
			if i%50 == 0 && dirSize(t, dir) > o.MaxSize {
				t.Fatalf("%d bytes in the directory", dirSize(t, dir))
			}
		}
		return refused
	}
	for _, every := range []int{1, 7, 40, 7} {
		if n := fill(2400000/size, every); n > 0 {
			t.Fatalf("%d records were refused for all, with one that takes all after each %d", n, every)
		}
		checkLedger(t, b)
	}
	readAll(t, b.Destination("good"), true)
	good, dead := accountOf(t, b, "good"), accountOf(t, b, "dead")
	if good.Lost() != 0 || good.Delivered != taken || dead.Dropped[CauseFull] < taken/2 || dead.Dropped[CauseFull]+dead.Buffered != taken {
		t.Fatalf("of %d: %+v, %+v", taken, good, dead)
	}
	if st := b.Stats(); st.Refusing.IsZero() || !slices.Equal(st.RefusingFor, []string{"dead"}) {
		t.Errorf("it is full since %v, for %q", st.Refusing, st.RefusingFor)
	}
	crash(b)
	b = mustOpen(t, dir, o)
	checkLedger(t, b)
	if n := fill(100, 7); n > 0 {
		t.Errorf("%d records were refused for all after a kill", n)
	}
	if n := fill(4000, 0); n < 1000 { // nobody takes anything
		t.Errorf("%d of 4000 were refused when nobody took any", n)
	}
	if st := b.Stats(); st.RefusingFor != nil {
		t.Errorf("everyone is refused, and it says for %q", st.RefusingFor)
	}
	checkLedger(t, b)
	told := map[string]uint64{}
	for range 3 {
		for _, name := range o.Destinations {
			n, _ := toldAndGot(readAll(t, b.Destination(name), true))
			told[name] += n
		}
		turnNow(b)
	}
	for _, name := range o.Destinations {
		if a := accountOf(t, b, name); a.Buffered+a.InFlight != 0 || a.Delivered+a.Lost()+a.Before != b.Ledger()[0].Accepted || told[name] != a.Lost() {
			t.Errorf("%s in the end was told of %d lost: %+v", name, told[name], a)
		}
	}
}

// TestRefusedForOneInMemory: a checkpoint that is taken while records that were refused for one are only in memory knows nothing of them.
func TestRefusedForOneInMemory(t *testing.T) {
	dir, o := t.TempDir()+"/store", fullOptions(DropNewest)
	o.Destinations = []string{"good", "dead"}
	b := mustOpen(t, dir, o)
	s, rng := mustStream(t, b, "press"), rand.New(rand.NewPCG(1, 1))
	for b.Stats().Refused == 0 {
		if _, err := b.Append(s, randomBytes(rng, 3000), 1, 1); err != nil {
			t.Fatal(err)
		}
		turnNow(b)
		readAll(t, b.Destination("good"), true)
	}
	commitNow(t, b)
	before := b.Ledger()[0]
	for range 3 {
		if _, err := b.Append(s, randomBytes(rng, 3000), 1, 1); err != nil {
			t.Fatal(err)
		}
	}
	b.lockCommit()
	b.mu.Lock()
	d := b.takeCheckpoint(nil)
	b.mu.Unlock()
	if err := b.saveCheckpoint(d); err != nil {
		t.Fatal(err)
	}
	b.unlockCommit()
	crash(b)
	b = mustOpen(t, dir, o)
	if after := b.Ledger()[0]; !reflect.DeepEqual(before, after) {
		t.Errorf("before they came %+v, after they were lost %+v", before, after)
	}
}

// TestRefusedForOneThatWent: a destination that is taken out while room is made for a record is not refused it: it is absent.
func TestRefusedForOneThatWent(t *testing.T) {
	o := fullOptions(DropNewest)
	o.Destinations = []string{"good", "gone"}
	b := mustOpen(t, t.TempDir()+"/store", o)
	s := mustStream(t, b, "press")
	if err := b.RemoveDestination("gone"); err != nil {
		t.Fatal(err)
	}
	b.mu.Lock()
	seq := b.push(entry{payload: []byte("x"), stream: s, at: 1, readings: 2, to: everyone})
	b.refuseFor(bit(b.byName("gone").slot), seq)
	b.mu.Unlock()
	checkLedger(t, b)
	checkParts(t, b)
	if a := accountOf(t, b, "gone"); a.Before != 2 || a.Lost() != 0 {
		t.Errorf("it was taken out before: %+v", a)
	}
	if n := b.Stats().Destinations[1].Backlog; n != 0 {
		t.Errorf("its backlog is %d records", n)
	}
}
