package faults

import (
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// faultSpoiledStore, S1: a file of the store is cut off or overwritten under the running gateway, whose broker is away, so that it
// commits all the time. Commits go on, the log and health say what became of the file, nothing is lost that was in memory, polls go on, and SIGTERM ends the gateway.
func faultSpoiledStore(t *testing.T) {
	const interval = 500 * time.Millisecond
	for _, c := range []struct {
		name, file string
		spoil      func(t *testing.T, path string, chance *rand.Rand)
	}{
		{"segment_truncated", "seg-*.db", truncated},
		{"state_truncated", "state.db", truncated},
		{"segment_garbage", "seg-*.db", garbage},
		{"state_garbage", "state.db", garbage},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			b := newBed(t, 3, Setup{Words: 8, Commit: "250ms", Interval: interval.String()})
			b.start()
			b.await(5, 20*time.Second)
			b.net.Refuse()
			b.net.Cut()
			from := time.Now()
			commits := func(n uint64) func() bool {
				before := b.snapshot().Buffer.Commits
				return func() bool { s, err := b.gateway.Snapshot(); return err == nil && s.Buffer.Commits >= before+n }
			}
			b.until(20*time.Second, "commits", commits(3))
			var went, said time.Duration // the longest
			damage := func() {
				t.Helper()
				names, err := filepath.Glob(filepath.Join(b.setup.Path, c.file))
				must(t, err)
				newest := names[len(names)-1]
				before := b.snapshot().Buffer.Corrupt
				began, next := time.Now(), commits(2) // one may be on its way
				c.spoil(t, newest, random(t))
				b.until(30*time.Second, "commits after the damage", next)
				went = max(went, time.Since(began))
				b.until(30*time.Second, "the damage in the snapshot and the log", func() bool {
					s, err := b.gateway.Snapshot()
					return err == nil && s.Buffer.Corrupt > before && strings.Contains(b.gateway.Log(), filepath.Base(newest))
				})
				said = max(said, time.Since(began))
				b.until(20*time.Second, "commits after it was said", commits(3))
			}
			damage()
			b.missedNone(from, interval, damage)
			b.heal()
			r := b.judge()
			began := time.Now()
			b.stop()
			ended := time.Since(began)
			_, stall := b.machine.stalled()
			t.Logf("FIGURES %s: commits went on after %v, said after %v, SIGTERM ended it after %v, %d answers; the machine stood still for %v at most", t.Name(), went, said, ended, r.Served, stall)
			if slack := 20 * stall; went > 2*time.Second+slack || said > 5*time.Second+slack || ended > 15*time.Second+slack { // grace_time is 10 s
				t.Errorf("commits after %v, said after %v, ended after %v", went, said, ended)
			}
		})
	}
}

func truncated(t *testing.T, path string, _ *rand.Rand) { must(t, os.Truncate(path, 0)) }

// garbage overwrites eight of the pages behind the meta pages, where a young file has everything.
func garbage(t *testing.T, path string, chance *rand.Rand) {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	must(t, err)
	page := make([]byte, 8*4096)
	for i := range page {
		page[i] = byte(chance.Uint32())
	}
	_, err = f.WriteAt(page, 2*4096)
	must(t, err)
	must(t, f.Close())
}
