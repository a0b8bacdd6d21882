package buffer

import (
	"fmt"
	"strings"
	"testing"
)

// fullHouse opens a store with all its places taken: by cloud and 15 that are not in use any more. Of these the ones that
// keep says keep a record, or have one in quarantine; the others have nothing.
func fullHouse(t *testing.T, dir string, keep map[int]string) {
	t.Helper()
	b := mustOpen(t, dir, testOptions())
	s := mustStream(t, b, "press")
	for i := range MaxDestinations - 1 {
		name := fmt.Sprintf("old-%02d", i)
		d, err := b.AddDestination(name, StartNow)
		if err != nil {
			t.Fatal(err)
		}
		seq, _ := appendN(t, b, s, 1)
		switch keep[i] {
		case "a record":
		case "a loss":
			b.mu.Lock()
			b.missing(s.account, bit(d.slot), &Gap{Count: 2, Cause: CauseFull, FirstSeq: seq, LastSeq: seq})
			b.mu.Unlock()
			readAll(t, d, true)
		case "quarantine":
			readAll(t, d, false)
			if err := d.Reject(seq, "no"); err != nil {
				t.Fatal(err)
			}
			readAll(t, d, true)
		default:
			readAll(t, d, true)
		}
		if err := b.RemoveDestination(name); err != nil {
			t.Fatal(err)
		}
	}
	readAll(t, b.Destination("cloud"), true)
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
}

func namesOf(b *Buffer) string {
	var names []string
	for _, d := range b.Stats().Destinations {
		names = append(names, d.Name)
	}
	return strings.Join(names, " ")
}

// TestEmptyPlacesGiveWay: a destination that is not in use and keeps nothing takes no place; of several the one used longest
// ago gives way, at Open and while the store is in use.
func TestEmptyPlacesGiveWay(t *testing.T) {
	dir := t.TempDir() + "/store"
	fullHouse(t, dir, map[int]string{0: "a record", 1: "quarantine", 8: "a loss"})
	ro, err := OpenReadOnly(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range ro.Stats().Destinations {
		if want := d.Name == "old-08"; (d.Untold == 1) != want || !d.Keeps() && want {
			t.Errorf("%s: %d losses to tell", d.Name, d.Untold)
		}
	}
	ro.Close()
	o := testOptions()
	o.Destinations = []string{"new", "cloud", "old-02"} // the new one first: it must not take the place of one that is named behind it
	b := mustOpen(t, dir, o)
	if got := namesOf(b); strings.Contains(got, "old-03") || !strings.Contains(got, "old-02") || !strings.Contains(got, "old-00 old-01") {
		t.Errorf("after Open: %s", got)
	}
	if accountOf(t, b, "cloud").Delivered == 0 || accountOf(t, b, "old-02").Delivered == 0 {
		t.Error("one that is named lost its account")
	}
	s := mustStream(t, b, "press")
	appendN(t, b, s, 2)
	if err := b.RemoveDestination("old-02"); err != nil { // keeps two now
		t.Fatal(err)
	}
	for i := range 8 { // of the nine that keep nothing
		name := fmt.Sprintf("later-%d", i)
		d, err := b.AddDestination(name, StartNow)
		if err != nil {
			t.Fatal(err)
		}
		appendN(t, b, s, 1)
		if got := readAll(t, d, true); len(got) != 1 {
			t.Errorf("%s: %d records, want 1", name, len(got))
		}
		checkLedger(t, b)
	}
	if got := namesOf(b); !strings.Contains(got, "old-08") || !strings.Contains(got, "old-02") || strings.Count(got, "old-") != 6 || !strings.Contains(got, "old-14") {
		t.Errorf("after eight more: %s", got)
	}
	commitNow(t, b)
	want := namesOf(b)
	crash(b)
	b = mustOpen(t, dir, Options{MaxSize: o.MaxSize})
	if got := namesOf(b); got != want {
		t.Errorf("after a crash: %s\nbefore:         %s", got, want)
	}
	checkLedger(t, b)
}

// TestUsedLongestAgo: one that was in use until now goes after all that were not, also when it is the oldest.
func TestUsedLongestAgo(t *testing.T) {
	dir := t.TempDir() + "/store"
	fullHouse(t, dir, nil)
	o := testOptions()
	o.Destinations = []string{"cloud", "old-00"}
	b := mustOpen(t, dir, o)
	if err := b.RemoveDestination("old-00"); err != nil {
		t.Fatal(err)
	}
	if _, err := b.AddDestination("new", StartNow); err != nil {
		t.Fatal(err)
	}
	if got := namesOf(b); !strings.Contains(got, "old-00") || strings.Contains(got, "old-01") {
		t.Error(got)
	}
}

// TestNoPlace: when every place is kept, the error names who keeps one and how it is given up.
func TestNoPlace(t *testing.T) {
	dir := t.TempDir() + "/store"
	keep := map[int]string{}
	for i := range MaxDestinations {
		keep[i] = "a record"
	}
	fullHouse(t, dir, keep)
	o := testOptions()
	o.Destinations = []string{"cloud", "new"}
	said := func(err error) {
		t.Helper()
		if err == nil {
			t.Fatal("it has a place")
		}
		for _, want := range []string{`"new"`, "old-00, old-01", "millrace buffer forget"} {
			if strings.Count(err.Error(), want) != 1 {
				t.Errorf("%q does not say %s once", err, want)
			}
		}
	}
	_, err := Open(dir, o)
	said(err)
	ro, err := OpenReadOnly(dir)
	if err != nil {
		t.Fatal(err)
	}
	have := ro.Stats().Destinations
	ro.Close()
	said(Places(o.Destinations, have))
	if err := Places([]string{"cloud", "old-00"}, have); err != nil {
		t.Error(err)
	}
	have[1].Backlog = 0 // old-00 keeps nothing
	if err := Places(o.Destinations, have); err != nil {
		t.Error(err)
	}
	_, err = mustOpen(t, dir, testOptions()).AddDestination("new", StartNow)
	said(err)
}
