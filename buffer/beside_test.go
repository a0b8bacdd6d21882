package buffer

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

// TestFullForOthersAloneLargeRecords: in the smallest store, full of what two destinations do not take, a third gets all that comes, however large a part of
// the memory each record is, and whether it acknowledges soon or only after the next poll has begun to come.
func TestFullForOthersAloneLargeRecords(t *testing.T) {
	for _, size := range []int{24200, 32000} { // of 64 KiB
		for _, delay := range []time.Duration{50 * time.Millisecond, 400 * time.Millisecond} {
			t.Run(fmt.Sprint(size, delay), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) { fullForOthers(t, size, delay) })
			})
		}
	}
}

func fullForOthers(t *testing.T, size int, delay time.Duration) {
	o := fullOptions(DropNewest)
	o.CommitInterval, o.TailBytes, o.Destinations = time.Second, 64<<10, []string{"one", "two", "three"}
	b := mustOpen(t, t.TempDir()+"/store", o)
	ctx, cancel := context.WithCancel(t.Context())
	ran, got := make(chan error), make(chan bool)
	go func() { ran <- b.Run(ctx) }()
	go func() {
		defer close(got)
		for {
			select {
			case <-b.Destination("one").Notify():
				time.Sleep(delay)
				readAll(t, b.Destination("one"), true)
			case <-ctx.Done():
				return
			}
		}
	}()
	rng, taken, lost, kept := rand.New(rand.NewPCG(1, 1)), uint64(0), 0, uint64(0)
	add := func(device string, size, i int) {
		switch _, err := b.Append(mustStream(t, b, device), randomBytes(rng, size), 1, int64(i)); {
		case err == nil:
			taken++
		case errors.Is(err, ErrFull):
			lost++
		default:
			t.Fatal(err)
		}
	}
	for i, left := 0, 40; left > 0; i++ { // polls of half a second
		add("small", 210, i)
		time.Sleep(100 * time.Millisecond)
		for n := range 3 {
			add(fmt.Sprint("large", n), size, i)
			time.Sleep(10 * time.Millisecond)
		}
		time.Sleep(370 * time.Millisecond)
		if st := b.Stats(); !st.Refusing.IsZero() {
			if left--; lost == 0 && !slices.Equal(st.RefusingFor, []string{"two", "three"}) {
				t.Errorf("poll %d: refused for %q", i, st.RefusingFor)
			}
			kept = st.Destinations[1].Backlog
		}
	}
	time.Sleep(2 * time.Second)
	cancel()
	<-ran
	<-got
	if lost > 0 {
		t.Errorf("%d records were refused for all", lost)
	}
	if n := b.Stats().Dropped; n > 0 {
		t.Errorf("%d segments that nobody needed are said to have been dropped", n)
	}
	if n := kept * uint64(size); n < 3*uint64(o.MaxSize)/8 {
		t.Errorf("those that are away keep %d records, about %d bytes", kept, n)
	}
	for _, a := range b.Ledger() {
		if one := a.Destinations[0]; one.Delivered != a.Accepted {
			t.Errorf("of %d of %q: %+v", a.Accepted, a.Name, one)
		}
	}
	checkLedger(t, b)
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestRefusedForAllIsNotForSome: when a record was refused for everyone a short while ago, it is not said that some alone do not get what comes.
func TestRefusedForAllIsNotForSome(t *testing.T) {
	o := fullOptions(DropNewest)
	o.Destinations = []string{"good", "dead"}
	b := mustOpen(t, t.TempDir()+"/store", o)
	s, rng := mustStream(t, b, "press"), rand.New(rand.NewPCG(1, 1))
	for { // nobody takes anything
		if _, err := b.Append(s, randomBytes(rng, 3000), 1, 1); errors.Is(err, ErrFull) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		commitNow(t, b)
	}
	readAll(t, b.Destination("good"), true)
	if _, err := b.Append(s, randomBytes(rng, 3000), 1, 1); err != nil {
		t.Fatal(err)
	}
	b.mu.Lock()
	beside := b.beside
	b.mu.Unlock()
	if st := b.Stats(); !beside || st.RefusingFor != nil {
		t.Errorf("one was taken for some: %v, and it is said to be refused for %q alone", beside, st.RefusingFor)
	}
	b.mu.Lock()
	b.st.full.forAll = b.st.full.forAll.Add(-refusalHolds)
	b.mu.Unlock()
	if st := b.Stats(); !slices.Equal(st.RefusingFor, []string{"dead"}) {
		t.Errorf("nothing was refused for all lately, and it is said to be refused for %q", st.RefusingFor)
	}
}

// TestDrainedMakesRoomAtOnce: what was kept for others alone, as much at a time as memory holds, makes room for what comes next to them as soon as they
// have acknowledged it; none of it is said to have been dropped.
func TestDrainedMakesRoomAtOnce(t *testing.T) {
	for _, size := range []int{9000, 14000, 20000, 30000} { // the store is full at another place in a segment
		o := fullOptions(DropNewest)
		o.Destinations = []string{"good", "dead"}
		b := mustOpen(t, t.TempDir()+"/store", o)
		s, rng := mustStream(t, b, "press"), rand.New(rand.NewPCG(1, 1))
		add := func(n int) {
			for i := range n {
				if _, err := b.Append(s, randomBytes(rng, size), 1, 1); err != nil {
					t.Errorf("size %d: the record %d of %d: %v", size, i+1, n, err)
				}
			}
			commitNow(t, b)
		}
		for b.Stats().RefusingFor == nil {
			add(1)
			readAll(t, b.Destination("good"), true)
		}
		for range 5 {
			add(int(b.o.TailBytes / entryCost(make([]byte, size))))
			readAll(t, b.Destination("good"), true)
		}
		if st := b.Stats(); st.Dropped > 0 || st.Bytes > o.MaxSize {
			t.Errorf("size %d: %d segments dropped, %d bytes", size, st.Dropped, st.Bytes)
		}
		checkLedger(t, b)
	}
}

// TestDrainedIsNotDropped: what nobody needs any more and gives way to a commit before it was looked after has not been dropped.
func TestDrainedIsNotDropped(t *testing.T) {
	for _, policy := range []Policy{DropOldest, DropNewest} {
		b := mustOpen(t, t.TempDir()+"/store", fullOptions(policy))
		s, rng := mustStream(t, b, "press"), rand.New(rand.NewPCG(1, 1))
		for range 12 {
			for range 40 {
				if _, err := b.Append(s, randomBytes(rng, 10000), 1, 1); err != nil {
					t.Fatal(err)
				}
			}
			commitNow(t, b)
			readAll(t, b.Destination("cloud"), true)
		}
		if st := b.Stats(); st.Dropped > 0 || st.Refused > 0 {
			t.Errorf("policy %d: %d segments dropped, %d records refused, though each was acknowledged", policy, st.Dropped, st.Refused)
		}
		checkLedger(t, b)
	}
}
