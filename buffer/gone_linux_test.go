package buffer

import (
	"os"
	"strings"
	"testing"
)

// TestSegmentsTakenAway: that segments which are not being written were taken away, one of them or all with the directory, is told while the
// store runs, also for a destination that is not in use, and what memory has of them is written again. It is told once.
func TestSegmentsTakenAway(t *testing.T) {
	for _, what := range []string{"segment", "directory"} {
		t.Run(what, func(t *testing.T) {
			dir := t.TempDir() + "/store"
			o := testOptions()
			o.Destinations = []string{"cloud", "old"}
			b := mustOpen(t, dir, o)
			s := mustStream(t, b, "press")
			s.Count(90, 0)
			appendN(t, b, s, 30)
			if err := b.Close(); err != nil {
				t.Fatal(err)
			}
			first := b.segs[0].path
			o.Destinations = []string{"cloud"}
			b = mustOpen(t, dir, o)
			b.awayPatience = 0
			s = mustStream(t, b, "press")
			s.Count(60, 0)
			appendN(t, b, s, 30)
			commitNow(t, b)
			b.lockCommit()
			b.seal()
			b.unlockCommit()
			appendN(t, b, s, 30)
			commitNow(t, b)
			if what == "segment" {
				err := os.Remove(first)
				if err != nil {
					t.Fatal(err)
				}
			} else if err := os.Rename(dir, dir+"-away"); err != nil {
				t.Fatal(err)
			}
			appendN(t, b, s, 1)
			for range 3 {
				b.lookedSegs = b.lookedSegs.Add(-lookEvery)
				commitNow(t, b)
			}
			for _, d := range b.Ledger()[0].Destinations {
				if d.Dropped[CauseDamaged] != 60 { // two in each record
					t.Errorf("%s: %d readings are told as lost, of 60", d.Name, d.Dropped[CauseDamaged])
				}
			}
			if st := b.Stats(); st.Remade.IsZero() != (what == "segment") || st.Health != "ok" {
				t.Errorf("remade %v, %s", st.Remade, st.Health)
			}
			wantMissing(t, b)
			checkLedger(t, b)
			crash(b)
			b = mustOpen(t, dir, o)
			if n := b.Stats().Damages; n != 0 {
				t.Errorf("the next start tells of %+v", b.Stats().Damage)
			}
			got, gaps := 0, uint64(0)
			for _, r := range readAll(t, b.Destination("cloud"), true) {
				if r.Gap != nil {
					gaps += r.Gap.Count
				} else {
					got++
				}
			}
			if got != 61 || gaps != 60 {
				t.Errorf("%d records come, of 61, and gap records tell of %d", got, gaps)
			}
		})
	}
}

// wantMissing checks that segments of which something is lost are told as files that are not there.
func wantMissing(t *testing.T, b *Buffer) {
	t.Helper()
	for _, d := range b.Stats().Damage {
		if strings.HasPrefix(d.File, "seg-") && d.Readings > 0 && !d.Missing {
			t.Errorf("the file is said to be there: %+v", d)
		}
	}
}
