package buffer

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"
)

// TestGapRecordIsLost: what only a gap record told is told again when it is lost with its file before everyone has it, and only then.
func TestGapRecordIsLost(t *testing.T) {
	missed := Gap{From: 100, To: 200, Cause: CauseOutage, Reason: "no answer"}
	for _, c := range []struct {
		name   string
		before func(t *testing.T, b *Buffer) // it is lost
		again  int                           // gap records that tell of it
	}{
		{"nobody has it", func(*testing.T, *Buffer) {}, 1},
		{"everyone has it", func(t *testing.T, b *Buffer) {
			if got := outages(gapsIn(t, b, "cloud")); len(got) != 1 {
				t.Fatalf("told at first: %+v", got)
			}
		}, 0},
		{"it is one of many", func(t *testing.T, b *Buffer) {
			for i := range int64(3 * maxWaiting) {
				b.accounts["press"].told = [gapCauses - CauseOutage]time.Duration{} // as if time had passed
				b.Missed(mustStream(t, b, "press"), Gap{From: 300 + i, To: 301 + i, Cause: CauseOutage})
				appendN(t, b, mustStream(t, b, "press"), 1)
				commitNow(t, b)
			}
		}, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir, o := t.TempDir()+"/store", testOptions()
			o.Destinations = []string{"cloud"}
			b := mustOpen(t, dir, o)
			s := mustStream(t, b, "press")
			b.Missed(s, missed)
			commitNow(t, b)
			c.before(t, b)
			appendN(t, b, s, 3)
			commitNow(t, b)
			if err := b.Close(); err != nil {
				t.Fatal(err)
			}
			files, err := filepath.Glob(dir + "/seg-*.db")
			if err != nil || len(files) == 0 {
				t.Fatal(files, err)
			}
			if err := os.Remove(files[0]); err != nil {
				t.Fatal(err)
			}
			b = mustOpen(t, dir, o)
			got := outages(gapsIn(t, b, "cloud"))
			if len(got) != c.again || c.again > 0 && (got[0].From > missed.From || got[0].To < missed.To || !got[0].Unknown) {
				t.Errorf("told after it was lost: %+v", got)
			}
			checkLedger(t, b)
			if err := b.Close(); err != nil {
				t.Fatal(err)
			}
			b = mustOpen(t, dir, o)
			if got := outages(gapsIn(t, b, "cloud")); len(got) != 0 {
				t.Errorf("told once more: %+v", got)
			}
		})
	}
}

func outages(all []Gap) []Gap {
	return slices.DeleteFunc(all, func(g Gap) bool { return g.Cause != CauseOutage })
}

// TestGapRecordIsDroppedUnread: likewise when a segment has to go that cannot be read.
func TestGapRecordIsDroppedUnread(t *testing.T) {
	dir, o := t.TempDir()+"/store", testOptions()
	o.Destinations = []string{"cloud"}
	b := mustOpen(t, dir, o)
	b.Missed(mustStream(t, b, "press"), Gap{From: 100, To: 200, Cause: CauseOutage, Reason: "no answer"})
	commitNow(t, b)
	b.lockCommit()
	b.seal()
	s := b.segs[0]
	b.closeHandle(s)
	if err := os.WriteFile(s.path, make([]byte, 64<<10), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := b.drop(s, CauseExpired, true); err != nil {
		t.Fatal(err)
	}
	b.unlockCommit()
	b.accounts["press"].told = [gapCauses - CauseOutage]time.Duration{} // as if time had passed
	if got := outages(gapsIn(t, b, "cloud")); len(got) != 1 || got[0].From != 100 || got[0].To != 200 || got[0].Reason != "no answer" {
		t.Errorf("told after it was dropped: %+v", got)
	}
	checkLedger(t, b)
}
