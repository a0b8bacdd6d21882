//go:build !386 && !arm

package buffer

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"
)

// TestEIO has one page of the segment being written fail, as it is read (under the map, where it is a fault) and as it is
// written: the process lives, what is wrong is visible, and nothing that was fsynced is lost when the page is read after all within
// readPatience. When it is not, what cannot be told without that page and stood in memory no more is; that is counted.
func TestEIO(t *testing.T) {
	disk := mountBad(t)
	states := 36 / min(raceShare, 2)
	if os.Getenv("MILLRACE_LONG") != "" {
		states = 450
	}
	seed := seeds(t, 1, 1)[0]
	rng := rand.New(rand.NewPCG(seed, 41))
	var hit, hitRead, lost int
	for i := range states {
		what := []string{"read", "write", "read for good"}[i%3]
		t.Run(fmt.Sprintf("%s %d", what, i), func(t *testing.T) {
			met, n := eioOnce(t, disk, what, i/3, rng)
			lost += n
			if met {
				hit++
			}
			if met && what == "read for good" {
				hitRead++
			}
		})
	}
	t.Logf("seed %d: %d states, %d of them met the page, %d records lost and told of", seed, states, hit, lost)
	if hit < states/3 {
		t.Errorf("only %d of %d states met the page", hit, states)
	}
	// A page has 8 records, the block that it is of 40: less than half of the block may go with it, on average.
	if hitRead > 50 && lost > 20*hitRead {
		t.Errorf("%d records lost with %d pages", lost, hitRead)
	}
}

func eioOnce(t *testing.T, disk *bad, what string, page int, rng *rand.Rand) (met bool, lost int) {
	o := testOptions()
	o.TailBytes, o.SegmentSize = 64<<10, 4<<20
	dir := filepath.Join(disk.dir, fmt.Sprintf("store-%s-%d", strings.ReplaceAll(what, " ", "-"), page))
	b := mustOpen(t, dir, o)
	what, forGood := strings.CutSuffix(what, " for good")
	if forGood {
		b.readPatience = 0
	}
	s, d := mustStream(t, b, "press"), b.Destination("cloud")
	due := map[uint64]string{}
	feed := func(n int) {
		for range n {
			p := make([]byte, 100+rng.IntN(900))
			for i := range p {
				p[i] = byte(rng.Uint32())
			}
			s.Count(2, 0)
			seq, err := b.Append(s, p, 2, 1)
			if err != nil {
				t.Fatal(err)
			}
			due[seq] = string(p)
		}
	}
	for range 6 {
		feed(40)
		commitNow(t, b)
	}
	name := filepath.Join(filepath.Base(dir), filepath.Base(b.active.path))
	pages := int(b.active.size / pageSize)
	if what == "write" {
		pages += 24 // those to come
	}
	disk.set("%s %s %d", what, name, page%pages)
	visible := false
	for range 4 {
		feed(30)
		took(t, "commit", func() {
			b.lockCommit()
			_ = b.commit()
			b.unlockCommit()
		})
		st := b.Stats()
		visible = visible || st.Damages > 0 || st.Health != "ok"
		checkLedger(t, b)
		took(t, "read", func() { look(d) })
	}
	st := b.Stats()
	met = disk.set("heal") > 0
	if met != visible && what == "write" || !met && visible {
		t.Errorf("met %v, but damages %d, health %q", met, st.Damages, st.Health)
	}
	b.lockCommit()
	if err := b.commit(); err != nil {
		t.Errorf("commit after the disk was healed: %v", err)
	}
	b.unlockCommit()
	took(t, "close", func() {
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	})
	told := toldOf(t, dir, o, due)
	if lost = len(due); told != uint64(lost)*2 || lost > 0 && !forGood {
		t.Errorf("%d records lost, gap records tell of %d readings", lost, told)
	}
	return met, lost
}

// toldOf opens a store, takes from due what is there, and returns how many readings gap records tell of.
func toldOf(t *testing.T, dir string, o Options, due map[uint64]string) (told uint64) {
	t.Helper()
	b := mustOpen(t, dir, o)
	checkLedger(t, b)
	balanced(t, b)
	for range 2 {
		for _, r := range readAll(t, b.Destination("cloud"), true) {
			switch want := due[r.Seq]; {
			case r.Gap != nil:
				told += r.Gap.Count
			case want != string(r.Payload):
				t.Fatalf("record %d is wrong", r.Seq)
			}
			delete(due, r.Seq)
		}
		commitNow(t, b)
	}
	checkLedger(t, b)
	return told
}

// TestHang has the disk never answer as it is written, or as a page is read that is in memory no more: health says so, appending goes on
// within what memory holds, garbage collection is not held up (under a map it would be, and with it everything), and Close ends.
func TestHang(t *testing.T) {
	for _, what := range []string{"hang", "hang-read"} {
		t.Run(what, func(t *testing.T) {
			t.Parallel() // Close takes its time
			hang(t, what)
		})
	}
}

func hang(t *testing.T, what string) {
	disk := mountBad(t)
	o := testOptions()
	o.CommitInterval, o.TailBytes, o.SegmentSize = 20*time.Millisecond, 256<<10, 4<<20
	b, err := Open(filepath.Join(disk.dir, "store"), o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- b.Run(ctx) }()
	s := mustStream(t, b, "press")
	appendN(t, b, s, 10)
	for b.Stats().Commits == 0 {
		time.Sleep(time.Millisecond)
	}
	if b.Stats().Health != "ok" {
		t.Fatal(b.Stats().Health)
	}
	disk.set("%s store/%s", what, filepath.Base(b.Segments()[0].File))
	appendN(t, b, s, 10)
	began := time.Now()
	for !strings.HasPrefix(b.Stats().Health, "failing: the disk has not answered") {
		if time.Since(began) > time.Minute {
			t.Fatalf("%+v", b.Stats())
		}
		time.Sleep(10 * time.Millisecond)
	}
	if b.Stats().CommitSince.IsZero() {
		t.Error("no commit is under way")
	}
	took(t, "garbage collection", runtime.GC)
	began = time.Now()
	for range 2000 {
		if _, err := b.Append(s, make([]byte, 1000), 1, 1); err != nil {
			t.Fatal(err)
		}
	}
	if d := time.Since(began); d > 20*time.Second { // 1,700 of them find no room, and waited two seconds each
		t.Errorf("2000 records took %v", d)
	}
	st := b.Stats()
	if st.TailBytes > b.o.TailBytes || st.TailBytes < b.o.TailBytes*3/4 {
		t.Errorf("%d bytes in memory, want up to %d", st.TailBytes, b.o.TailBytes)
	}
	checkLedger(t, b)
	if _, err := b.Quarantine(); err != nil {
		t.Error(err)
	}
	cancel()
	took(t, "stop", func() { <-ended })
	took(t, "close", func() { err = b.Close() })
	if err == nil || !strings.Contains(err.Error(), "has not answered") {
		t.Errorf("close: %v", err)
	}
	disk.end()
	took(t, "the end of what hung", func() { b.lockCommit(); b.unlockCommit() }) // it makes files
}
