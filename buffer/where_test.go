package buffer

import (
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
)

// TestGapOfDamageIsNarrow: the gap of a few pages that were overwritten in one segment of a store has the numbers and the times between the sound records
// beside them, not all that the store ever had.
func TestGapOfDamageIsNarrow(t *testing.T) {
	tp := newTemplate(t)
	dir := tp.copy(t)
	path := filepath.Join(dir, tp.files[3])
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for i := 8 * pageSize; i < 12*pageSize; i++ {
		raw[i] ^= 0x55
	}
	if err := os.WriteFile(path, raw, 0o640); err != nil {
		t.Fatal(err)
	}
	lost := tp.check(t, dir, 2*blockRecords)
	if lost == 0 || len(tp.gaps) == 0 {
		t.Fatalf("%d records lost, %d gaps", lost, len(tp.gaps))
	}
	for _, g := range tp.gaps {
		if n := g.LastSeq - g.FirstSeq + 1; n > uint64(lost)+2*blockRecords {
			t.Errorf("%d records lost in the gap %+v", lost, g)
		}
		if g.To == 0 || g.From < int64(g.FirstSeq)-3 || g.To > int64(g.LastSeq)+1 { // the time of record n is n-1
			t.Errorf("the times are not those of the records beside it: %+v", g)
		}
	}
}

// TestGapOfDamageWhileRunningIsNarrow: likewise when the damage is met in the segment being written, which no start has read.
func TestGapOfDamageWhileRunningIsNarrow(t *testing.T) {
	o := testOptions()
	o.SegmentSize = 4 << 20
	b := mustOpen(t, t.TempDir()+"/store", o)
	s := mustStream(t, b, "press")
	rng := rand.New(rand.NewPCG(3, 4))
	const n = 1000
	for i := range n {
		if _, err := b.Append(s, randomBytes(rng, 300), 1, int64(1000+i)); err != nil {
			t.Fatal(err)
		}
		if i%40 == 39 {
			commitNow(t, b)
		}
	}
	emptyTail(b)
	path := b.active.path
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for page := 30; page < 34; page++ {
		spoilPage(t, path, raw, page, "random", rng)
	}
	got, gaps := 0, 0
	for _, r := range readAll(t, b.Destination("cloud"), true) {
		g := r.Gap
		if g == nil {
			got++
			continue
		}
		gaps++
		if g.Unknown || g.LastSeq-g.FirstSeq+1 > g.Count+2*blockRecords {
			t.Errorf("%d of %d records lost in the gap %+v", n-got, n, g)
		}
		if g.From < int64(1000+g.FirstSeq)-3 || g.To > int64(1000+g.LastSeq)+1 { // the time of record k is 999+k
			t.Errorf("the times are not those of the records beside it: %+v", g)
		}
	}
	if gaps == 0 || got == n || got < n/2 {
		t.Errorf("%d of %d records, %d gaps", got, n, gaps)
	}
}

// TestGapOfMissingSegment: what was in a segment that is gone was there since its oldest record, though nothing on disk stands before it; and a damage
// that was told of is not told again with it.
func TestGapOfMissingSegment(t *testing.T) {
	dir := t.TempDir() + "/store"
	o := testOptions()
	o.Destinations = []string{"cloud"}
	b := mustOpen(t, dir, o)
	s := mustStream(t, b, "press")
	rng := rand.New(rand.NewPCG(1, 2))
	var files []string
	for round := range 3 {
		for i := range 100 {
			if _, err := b.Append(s, randomBytes(rng, 300), 2, int64(1000*(round+1)+i)); err != nil {
				t.Fatal(err)
			}
			if i%20 == 19 {
				commitNow(t, b)
			}
		}
		files = append(files, b.active.path)
		b.lockCommit()
		b.seal()
		b.unlockCommit()
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	gaps := func(err error) (all []Gap) {
		if err != nil {
			t.Fatal(err)
		}
		b = mustOpen(t, dir, o)
		commitNow(t, b)
		for _, r := range readAll(t, b.Destination("cloud"), false) {
			if r.Gap != nil {
				all = append(all, *r.Gap)
			}
		}
		return all
	}
	raw, err := os.ReadFile(files[2])
	if err != nil {
		t.Fatal(err)
	}
	for i := 8 * pageSize; i < 10*pageSize; i++ {
		raw[i] ^= 0x55
	}
	got := gaps(os.Remove(files[0]))
	if len(got) != 1 || got[0].From != 1000 || got[0].To != 2000 || got[0].Count != 200 || got[0].Unknown {
		t.Errorf("of the first it is told %+v", got)
	}
	crash(b)
	if got = gaps(os.WriteFile(files[2], raw, 0o600)); len(b.Stats().Damage) != 1 {
		t.Errorf("of the last it is told %+v, damages %+v", got, b.Stats().Damage)
	}
	crash(b)
	gaps(os.Remove(files[1]))
	for _, d := range b.Stats().Damage {
		if d.File != filepath.Base(files[1]) || d.Readings != 200 || d.Unknown {
			t.Errorf("of the second, when the last was told: %+v", b.Stats().Damage)
		}
	}
}
