package buffer

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestStateOfAnotherStore: another store's state.db comes into the directory of a stopped store, alone or with its mark. The segments say whose it is:
// nothing of theirs is lost, every device is told that something may be, and nothing of the other store is told as this one's.
func TestStateOfAnotherStore(t *testing.T) {
	other := otherStore(t)
	for what, c := range map[string]struct {
		files    []string
		segments int
	}{
		"state.db, one segment":             {[]string{stateName}, 1},
		"state.db, four segments":           {[]string{stateName}, 4},
		"state.db and mark, two segments":   {[]string{stateName, markName}, 2},
		"state.db and mark, four segments":  {[]string{stateName, markName}, 4},
		"state.db gone, mark, two segments": {[]string{markName}, 2},
		"state.db gone, mark, one segment":  {[]string{markName}, 1},
	} {
		for _, killed := range []bool{false, true} {
			t.Run(what+map[bool]string{true: ", killed"}[killed], func(t *testing.T) {
				dir := ownStore(t, c.segments, killed)
				if c.files[0] == markName {
					if err := os.Remove(filepath.Join(dir, stateName)); err != nil {
						t.Fatal(err)
					}
				}
				for _, name := range c.files {
					if err := overwrite(filepath.Join(other, name), filepath.Join(dir, name)); err != nil {
						t.Fatal(err)
					}
				}
				if c.files[0] == stateName {
					wantForeignState(t, dir, uint64(30*c.segments))
				}
				b := mustOpen(t, dir, testOptions())
				got, gap := 0, false
				for _, r := range readAll(t, b.Destination("cloud"), true) {
					if r.Stream.Account() != "press" {
						t.Fatalf("%q is not of this store", r.Stream.Account())
					}
					got += map[bool]int{true: 1}[r.Gap == nil]
					gap = gap || r.Gap != nil
				}
				if got != 30*c.segments || !gap && !b.Left().Unknown {
					t.Errorf("%d records came, told %v, left %+v", got, gap, b.Left())
				}
				for _, a := range b.Ledger() {
					if a.Name != "press" || a.Destinations[0].Lost() != 0 {
						t.Errorf("account %+v", a)
					}
				}
				checkLedger(t, b)
				st := b.Stats()
				if c.files[0] == stateName && (st.Damages != 1 || st.Damage[0].File != stateName+asideSuffix || !strings.HasPrefix(st.Damage[0].Reason, "state.db is of another store")) {
					t.Errorf("%+v", st.Damage)
				}
				if err := b.Close(); err != nil {
					t.Fatal(err)
				}
				if b = mustOpen(t, dir, testOptions()); b.Stats().Damages != 0 {
					t.Errorf("the next start tells of %+v", b.Stats().Damage)
				}
			})
		}
	}
}

// TestOneSegmentIsNoMajority: where a lone segment says otherwise than state.db and the mark, it is the segment that does not belong here. state.db alone is believed.
func TestOneSegmentIsNoMajority(t *testing.T) {
	other := otherStore(t)
	dir := ownStore(t, 1, false)
	names, err := filepath.Glob(dir + "/seg-*.db")
	if err != nil || len(names) != 1 {
		t.Fatal(names, err)
	}
	theirs, err := filepath.Glob(other + "/seg-*.db")
	if err != nil || len(theirs) == 0 {
		t.Fatal(theirs, err)
	}
	if err := overwrite(theirs[0], names[0]); err != nil {
		t.Fatal(err)
	}
	b := mustOpen(t, dir, testOptions())
	if st := b.Stats(); st.Damages != 1 || st.Damage[0].File != filepath.Base(names[0])+asideSuffix || st.Damage[0].Readings != 60 {
		t.Errorf("%+v", st.Damage)
	}
	commitNow(t, b)
	told, got := toldAndGot(readAll(t, b.Destination("cloud"), true))
	if told != 60 || got != 0 {
		t.Errorf("%d records came, %d readings are told as lost", got, told)
	}
	store := b.store
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(dir, markName)); err != nil {
		t.Fatal(err)
	}
	if b = mustOpen(t, dir, testOptions()); b.store != store || b.Stats().Damages != 0 {
		t.Errorf("%+v", b.Stats().Damage)
	}
}

// wantForeignState checks what a look into the stopped store says, and that it has its records.
func wantForeignState(t *testing.T, dir string, records uint64) {
	t.Helper()
	r, err := OpenReadOnly(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	const says = "state.db is of another store"
	if h := r.Stats().Health; !strings.HasPrefix(h, "damaged: "+says) {
		t.Errorf("health is %q", h)
	}
	v, err := r.Verify(t.Context(), nil)
	if err != nil || v.Records != records || len(v.Problems) != 1 || v.Problems[0].File != stateName || !strings.HasPrefix(v.Problems[0].Reason, says) {
		t.Errorf("verify: %v, %+v", err, v)
	}
	n := uint64(0)
	if err := r.Scan(t.Context(), 0, 0, func(*Record) error { n++; return nil }); err != nil || n != records {
		t.Errorf("scan: %d records, %v", n, err)
	}
}

// ownStore makes a store of so many segments of 30 records, and ends its process.
func ownStore(t *testing.T, segments int, killed bool) (dir string) {
	t.Helper()
	dir = t.TempDir() + "/store"
	for i := range segments {
		b := mustOpen(t, dir, testOptions())
		s := mustStream(t, b, "press")
		s.Count(60, 0)
		appendN(t, b, s, 30)
		if killed && i == segments-1 {
			commitNow(t, b)
			crash(b)
		} else if err := b.Close(); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// otherStore makes a store that has lost something and has lived longer than the others.
func otherStore(t *testing.T) (dir string) {
	t.Helper()
	dir = t.TempDir() + "/other"
	for range 5 {
		b := mustOpen(t, dir, testOptions())
		s := mustStream(t, b, "pump")
		s.Count(60, 0)
		appendN(t, b, s, 30)
		if err := b.Close(); err != nil {
			t.Fatal(err)
		}
		names, err := filepath.Glob(dir + "/seg-*.db")
		if err != nil || len(names) == 0 {
			t.Fatal(names, err)
		}
		if len(names) > 1 {
			if err := os.Remove(names[len(names)-1]); err != nil {
				t.Fatal(err)
			}
		}
	}
	return dir
}
