package buffer

import (
	"context"
	"testing"
	"testing/synctest"
	"time"
)

// TestGapWithoutTimesIsOfNow: a loss of which no time is known was until the time at which it is told.
func TestGapWithoutTimesIsOfNow(t *testing.T) {
	b := mustOpen(t, t.TempDir()+"/store", testOptions())
	first, _ := appendN(t, b, mustStream(t, b, "press"), 1)
	before := time.Now().UnixMicro()
	b.mu.Lock()
	b.missingAnything(first)
	b.tellGaps()
	b.mu.Unlock()
	all := readAll(t, b.Destination("cloud"), true)
	if g := all[len(all)-1]; g.Gap == nil || g.Gap.From != 0 || g.Gap.To < before || g.At < before {
		t.Errorf("%+v, %+v", g, g.Gap)
	}
}

// TestMaxAgeAfterCrash: a segment that a crash left without its summary does not know its age. It must not
// count from the store's beginning, or the first turn after a restart drops records that are seconds old.
func TestMaxAgeAfterCrash(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := testOptions()
		o.CommitInterval, o.MaxAge = 4*time.Second, 24*time.Hour
		dir := t.TempDir() + "/store"
		b := mustOpen(t, dir, o)
		run := func(length time.Duration) {
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan error)
			go func() {
				if length > time.Hour {
					slowTurns(ctx, b)
					done <- nil
				} else {
					done <- b.Run(ctx)
				}
			}()
			time.Sleep(length)
			cancel()
			<-done
		}
		run(30 * time.Hour) // the store is older than MaxAge, its records are not
		appendN(t, b, mustStream(t, b, "press"), 10)
		run(10 * time.Second)
		crash(b)
		b = mustOpen(t, dir, o)
		run(10 * time.Second)
		if n := b.Destination("cloud").Len(); n != 10 {
			t.Fatalf("%d of 10 records, 20 seconds old, are there after a crash: %+v", n, b.Ledger()[0].Destinations[0])
		}
		run(25 * time.Hour)
		if l := b.Ledger()[0].Destinations[0]; l.Dropped[CauseExpired] != 20 {
			t.Errorf("a day later they are not dropped as expired: %+v", l)
		}
		checkLedger(t, b)
		if err := b.Close(); err != nil {
			t.Fatal(err)
		}
	})
}

// TestGapsOutliveADrop: a segment that is dropped may hold gap records that nobody has got yet. A process killed right
// after the drop has told nothing of them: the next one must (this is what TestOutage/max_age failed of once in 20 runs).
func TestGapsOutliveADrop(t *testing.T) {
	dir := t.TempDir() + "/store"
	b := mustOpen(t, dir, testOptions())
	s := mustStream(t, b, "press")
	drop := func() {
		b.lockCommit()
		defer b.unlockCommit()
		if _, err := b.drop(b.segs[0], CauseExpired, true); err != nil {
			t.Fatal(err)
		}
	}
	for range 3 {
		appendN(t, b, s, 10)
		commitNow(t, b) // with the gap record of the drop before
		drop()
	}
	crash(b)
	b = mustOpen(t, dir, testOptions())
	var told uint64
	for range 2 {
		for _, r := range readAll(t, b.Destination("cloud"), true) {
			if r.Gap != nil && r.Gap.Cause == CauseExpired && r.Gap.From == 1 && r.Gap.To == 10 {
				told += r.Gap.Count
			}
		}
		commitNow(t, b)
	}
	if dropped := b.Ledger()[0].Destinations[0].Dropped[CauseExpired]; told != 60 || dropped != 60 {
		t.Errorf("gap records tell of %d readings, %d were dropped, want 60", told, dropped)
	}
	checkLedger(t, b)
}
