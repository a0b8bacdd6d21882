package buffer

import (
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
