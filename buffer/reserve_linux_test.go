package buffer

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"syscall"
	"testing"
	"time"
)

// TestStartsOnFullDisk: while others leave no byte of the disk free, a store opens all the same, as often as it is stopped or killed, also one that may
// give nothing up; what waits in it comes, and what memory takes meanwhile. Without the reserve it does not, and leaves nothing behind.
func TestStartsOnFullDisk(t *testing.T) {
	for name, o := range map[string]Options{"empty": {}, "oldest": {}, "newest": {WhenFull: DropNewest}} {
		t.Run(name, func(t *testing.T) {
			mnt := smallDisk(t, "12m")
			o.MaxSize, o.CommitInterval, o.Destinations = 4<<20, time.Hour, []string{"cloud"}
			b := mustOpen(t, mnt+"/store", o)
			add := func(n int) {
				rng := rand.New(rand.NewPCG(1, 1))
				for range n {
					if _, err := b.Append(mustStream(t, b, "press"), randomBytes(rng, 3000), 1, 1); err != nil {
						t.Fatal(err)
					}
				}
			}
			if name != "empty" {
				add(300)
				commitNow(t, b)
			}
			fillDisk(t, mnt+"/junk")
			for i := range 6 {
				if i%2 == 0 {
					crash(b)
				} else if err := b.Close(); err != nil {
					t.Error(err)
				}
				fillDisk(t, mnt+"/junk") // it takes what the stop has left
				var err error
				if b, err = Open(mnt+"/store", o); err != nil {
					t.Fatalf("start %d: %v", i+1, err)
				}
			}
			add(1)
			told, got := toldAndGot(readAll(t, b.Destination("cloud"), true))
			if a := accountOf(t, b, "cloud"); a.Lost() != told || told+got == 0 || name == "newest" && told+got != 301 {
				t.Errorf("%d come and %d are told: %+v", got, told, a)
			}
			checkLedger(t, b)
			if err := b.Close(); err != nil {
				t.Error(err)
			}
			if name != "empty" {
				return // segments make way then
			}
			if err := os.Remove(mnt + "/store/" + reserveName); err != nil {
				t.Fatal(err)
			}
			fillDisk(t, mnt+"/junk")
			if _, err := Open(mnt+"/store", o); !errors.Is(err, syscall.ENOSPC) {
				t.Errorf("without its reserve: %v", err)
			}
			if _, err := os.Stat(mnt + "/store/" + stateNew); err == nil {
				t.Error("a state.db that was not finished stays")
			}
		})
	}
}

// TestRestoredStartsOnFullDisk: a copy of a store has a reserve, so that a process starts on it while others leave no byte of its disk free, also one that may
// give nothing up, and has all of it. A copy that finds no room for one is complete without it.
func TestRestoredStartsOnFullDisk(t *testing.T) {
	o := testOptions()
	o.MaxSize, o.WhenFull = 4<<20, DropNewest
	b := mustOpen(t, t.TempDir()+"/store", o)
	appendN(t, b, mustStream(t, b, "press"), 300)
	copyTo := func(dir string) {
		t.Helper()
		if err := WriteBackup(dir, func(file func(string, int64, io.Reader) error) error { return b.Backup(context.Background(), file) }); err != nil {
			t.Fatal(err)
		}
	}
	mnt := smallDisk(t, "12m")
	copyTo(mnt + "/store")
	fillDisk(t, mnt+"/junk")
	restored, err := Open(mnt+"/store", o)
	if err != nil {
		t.Fatal(err)
	}
	if n := len(readAll(t, restored.Destination("cloud"), true)); n != 300 || !restored.Left().Restored {
		t.Errorf("%d records come, %+v", n, restored.Left())
	}
	if err := restored.Close(); err != nil {
		t.Error(err)
	}

	tight := smallDisk(t, "12m")
	dir := tight + "/store"
	err = WriteBackup(dir, func(file func(string, int64, io.Reader) error) error {
		err := b.Backup(context.Background(), file)
		fillDisk(t, tight+"/junk")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if n := verified(t, dir); n != 0 {
		t.Errorf("%d problems in a copy without a reserve", n)
	}
}
