package buffer

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"testing"
	"time"
)

// TestDestinationsAtRunTime adds, removes, brings back and forgets destinations while another one is served, in memory and on disk.
func TestDestinationsAtRunTime(t *testing.T) {
	dir := t.TempDir() + "/store"
	b := mustOpen(t, dir, testOptions())
	s, cloud := mustStream(t, b, "press"), b.Destination("cloud")
	appendN(t, b, s, 3)
	commitNow(t, b)
	appendN(t, b, s, 2)
	for _, r := range readAll(t, cloud, false)[1:4] { // holes: 2, 3 on disk, 4 only in memory
		cloud.Ack(r.Seq)
	}
	now, err := b.AddDestination("now", StartNow)
	if err != nil {
		t.Fatal(err)
	}
	old, err := b.AddDestination("old", StartOldest)
	if err != nil {
		t.Fatal(err)
	}
	appendN(t, b, s, 4)
	checkLedger(t, b)
	if got := len(readAll(t, now, true)); got != 4 {
		t.Errorf("a destination that starts now got %d records, want 4", got)
	}
	if got := len(readAll(t, old, false)); got != 6 {
		t.Errorf("a destination that starts with the oldest got %d records, want the 6 that are not acknowledged by all", got)
	}
	r := old.Reader(0, 0)
	if err := b.RemoveDestination("old"); err != nil {
		t.Fatal(err)
	}
	var rec Record
	if _, err := r.Next(&rec); !errors.Is(err, ErrNoDestination) {
		t.Errorf("a reader of a destination that is gone: %v", err)
	}
	if b.Destination("old") != nil || !errors.Is(b.RemoveDestination("old"), ErrNoDestination) {
		t.Error("it is still there")
	}
	appendN(t, b, s, 1)
	commitNow(t, b)
	crash(b)
	b = mustOpen(t, dir, testOptions())
	checkLedger(t, b)
	if old, err = b.AddDestination("old", StartNow); err != nil {
		t.Fatal(err)
	}
	if got := len(readAll(t, old, true)); got != 6 {
		t.Errorf("one that came back got %d records, want the 6 that it had when it was taken out", got)
	}
	checkLedger(t, b)
	if err := b.RemoveDestination("old"); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Forget("old"); err != nil {
		t.Fatal(err)
	}
	crash(b)
	b = mustOpen(t, dir, testOptions())
	for _, d := range b.Stats().Destinations {
		if d.Name == "old" {
			t.Error("a destination that was forgotten rose again")
		}
	}
	checkLedger(t, b)
}

// TestDestinationsComeAndGoUnderLoad: two hundred times, and the one that stays gets every record, in order.
func TestDestinationsComeAndGoUnderLoad(t *testing.T) {
	o := testOptions()
	o.CommitInterval = 10 * time.Millisecond
	b := mustOpen(t, t.TempDir()+"/store", o)
	s, cloud := mustStream(t, b, "press"), b.Destination("cloud")
	stop := make(chan struct{})
	var wg sync.WaitGroup
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	wg.Go(func() { _ = b.Run(ctx) })
	var appended uint64
	wg.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				if _, err := b.Append(s, []byte("x"), 1, 1); err != nil {
					t.Error(err)
					return
				}
				appended++
				time.Sleep(50 * time.Microsecond)
			}
		}
	})
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 1))
	got, last := uint64(0), uint64(0)
	drain := func() {
		for _, r := range readAll(t, cloud, true) {
			if r.Seq <= last {
				t.Fatalf("record %d after %d", r.Seq, last)
			}
			got, last = got+1, r.Seq
		}
	}
	for i := range 200 {
		first := b.NextSeq()
		d, err := b.AddDestination("guest", StartAt(i%2))
		if err != nil {
			t.Fatal(err)
		}
		drain()
		for _, r := range readAll(t, d, rng.IntN(2) == 0) {
			if i == 0 && r.Seq < first {
				t.Fatalf("record %d for a destination that began at %d", r.Seq, first)
			}
		}
		if err := b.RemoveDestination("guest"); err != nil {
			t.Fatal(err)
		}
		if rng.IntN(2) == 0 {
			if _, err := b.Forget("guest"); err != nil {
				t.Fatal(err)
			}
		}
	}
	close(stop)
	cancel()
	wg.Wait()
	drain()
	if b.Close(); got != appended {
		t.Errorf("the destination that stayed got %d of %d records", got, appended)
	}
	checkLedger(t, b)

}
