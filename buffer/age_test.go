package buffer

import (
	"context"
	"testing"
	"testing/synctest"
	"time"
)

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
			go func() { done <- b.Run(ctx) }()
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
