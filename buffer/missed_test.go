package buffer

import (
	"reflect"
	"strings"
	"testing"
)

// gapsIn returns the gap records that a destination gets, which it acknowledges.
func gapsIn(t *testing.T, b *Buffer, dest string) (gaps []Gap) {
	t.Helper()
	commitNow(t, b)
	for _, r := range readAll(t, b.Destination(dest), true) {
		if r.Gap == nil || r.Readings != 0 {
			t.Errorf("not a gap record: %+v", r)
			continue
		}
		gaps = append(gaps, *r.Gap)
	}
	return gaps
}

// TestMissed: what a device had and nobody got is told at once; then at most once in gapEvery, all together, over a restart too.
// It is in no ledger.
func TestMissed(t *testing.T) {
	dir, o := t.TempDir()+"/store", testOptions()
	b := mustOpen(t, dir, o)
	s := mustStream(t, b, "press")
	b.Missed(s, Gap{From: 100, To: 200, Cause: CauseOutage, Reason: "no answer"})
	got := gapsIn(t, b, o.Destinations[0])
	if len(got) != 1 || got[0].From != 100 || got[0].To != 200 || got[0].Cause != CauseOutage || got[0].Reason != "no answer" || !got[0].Unknown || got[0].Tags != nil {
		t.Fatalf("got %+v", got)
	}
	for i := range int64(100) { // a device that flaps
		b.Missed(s, Gap{From: 300 + i, To: 400 + i, Cause: CauseOutage, Reason: "again"})
	}
	b.Missed(s, Gap{From: 1, To: 2, Count: 3, Cause: CauseLost, Tags: []string{"a", "b"}, Reason: "overflow"})
	got = gapsIn(t, b, o.Destinations[0])
	if len(got) != 1 || got[0].Cause != CauseLost || !reflect.DeepEqual(got[0].Tags, []string{"a", "b"}) {
		t.Fatalf("while it has to wait: %+v", got)
	}
	checkLedger(t, b)
	if a := b.Ledger()[0]; a.Accepted != 0 {
		t.Errorf("the ledger has it: %+v", a)
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	b = mustOpen(t, dir, o)
	got = gapsIn(t, b, o.Destinations[0])
	if len(got) != 1 || got[0].From != 300 || got[0].To != 499 || got[0].Reason != "again" {
		t.Errorf("after a restart: %+v", got)
	}
	s = mustStream(t, b, "press")
	for _, tags := range [][]string{{"a", "b"}, {"b", "c"}} {
		b.Missed(s, Gap{From: 1, To: 2, Count: 1, Cause: CauseLost, Tags: tags})
	}
	if got = gapsIn(t, b, o.Destinations[0]); len(got) != 1 || got[0].Count != 2 || !reflect.DeepEqual(got[0].Tags, []string{"a", "b", "c"}) {
		t.Errorf("two in one: %+v", got)
	}
}

// TestMissedIsBounded: names and words beyond the bounds are left out, and the record says that it may be any tag.
func TestMissedIsBounded(t *testing.T) {
	b := mustOpen(t, t.TempDir()+"/store", testOptions())
	s := mustStream(t, b, "press")
	b.Missed(s, Gap{From: 1, To: 2, Cause: CauseLost, Reason: strings.Repeat("ä", maxReason), Tags: []string{"a", strings.Repeat("x", maxTags)}})
	b.Missed(s, Gap{From: 1, To: 2, Count: 9, Cause: CauseFull})
	got := gapsIn(t, b, testOptions().Destinations[0])
	if len(got) != 1 || got[0].Tags != nil || got[0].Reason != strings.Repeat("ä", maxReason/2) {
		t.Fatalf("got %+v", got)
	}
	long := Gap{Cause: CauseLost, Tags: []string{strings.Repeat("x", maxTags-2)}, Reason: strings.Repeat("y", maxReason)}
	if n := len(appendGap(nil, &long)); n > maxGap-60 {
		t.Errorf("the longest has %d bytes and its numbers", n)
	}
	if _, err := parseGap(append(appendGap(nil, &long), make([]byte, maxGap)...)); err == nil {
		t.Error("a longer one is read")
	}
}
