package buffer

import "testing"

// TestGapOfNewerVersion has a gap record on disk that this version cannot read, in a block with a good checksum: it is damage like any other, told and
// passed over. What stands beside it is read, and what it told is told again.
func TestGapOfNewerVersion(t *testing.T) {
	dir, o := t.TempDir()+"/store", testOptions()
	b := mustOpen(t, dir, o)
	s := mustStream(t, b, "press")
	appendN(t, b, s, 3)
	b.Missed(s, Gap{From: 100, To: 200, Cause: CauseOutage})
	b.lockCommit()
	b.survey() // makes the gap record
	appendN(t, b, s, 3)
	b.mu.Lock()
	spoilt := uint64(0)
	for seq := b.tail.first; seq < b.next; seq++ {
		if e := b.tail.at(seq); e.gap != nil {
			e.payload = append([]byte{gapVersion + 1}, e.payload[1:]...)
			spoilt = seq
		}
	}
	b.mu.Unlock()
	b.unlockCommit()
	if spoilt == 0 {
		t.Fatal("there is no gap record")
	}
	commitNow(t, b)
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	b = mustOpen(t, dir, o)
	var got []uint64
	again := 0
	for _, rec := range readAll(t, b.Destination(o.Destinations[0]), false) {
		if rec.Gap == nil {
			got = append(got, rec.Seq)
		} else if again++; rec.Gap.From != 100 || rec.Gap.To != 200 || rec.Gap.Cause != CauseOutage {
			t.Errorf("told %+v", *rec.Gap)
		}
	}
	if again != 1 {
		t.Errorf("what the gap record told is told again %d times, want once: the checkpoint has it", again)
	}
	if len(got) != 6 || got[2] != spoilt-1 || got[3] != spoilt+1 {
		t.Errorf("read %v, want three records before %d and three behind", got, spoilt)
	}
	if st := b.Stats(); st.Damages != 1 || st.Damage[0].FirstSeq > spoilt || st.Damage[0].LastSeq < spoilt {
		t.Errorf("damages %d: %+v", st.Damages, st.Damage)
	}
	checkLedger(t, b)
}

// TestOpenedTwice: a segment that the list of open ones has already is not the one to be closed for it.
func TestOpenedTwice(t *testing.T) {
	var h handleCache
	s := new(segment)
	for range 2 * openLimit {
		if old := h.opened(s); old != nil {
			t.Fatal("it is to be closed for itself")
		}
	}
	if h.closed(s); len(h.open) != 0 {
		t.Errorf("%d are open", len(h.open))
	}
}
