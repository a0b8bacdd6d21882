package buffer

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestInspection(t *testing.T) {
	dir := t.TempDir() + "/store"
	o := testOptions()
	o.SegmentSize = 256 << 10
	b := mustOpen(t, dir, o)
	for i := range 5 {
		appendN(t, b, mustStream(t, b, fmt.Sprintf("device-%d", i)), 400)
		commitNow(t, b)
	}
	check := func(name string, scan func(context.Context, uint64, uint64, func(*Record) error) error, want int) {
		t.Helper()
		n := 0
		err := scan(t.Context(), 0, 0, func(r *Record) error {
			if n++; !strings.Contains(string(r.Payload), "of "+r.Stream.Account()) {
				t.Errorf("%s: record %d: %q", name, r.Seq, r.Payload)
			}
			return nil
		})
		if err != nil || n != want {
			t.Errorf("%s: %d records, want %d: %v", name, n, want, err)
		}
		some := 0
		if err := scan(t.Context(), 100, 200, func(*Record) error { some++; return nil }); err != nil || some != 100 {
			t.Errorf("%s: %d records of 100: %v", name, some, err)
		}
	}
	check("running", b.Scan, 2000)
	ro, err := OpenReadOnly(dir) // beside the running one
	if err != nil {
		t.Fatal(err)
	}
	check("beside", ro.Scan, 2000)
	v, err := ro.Verify(t.Context(), nil)
	if err != nil || len(v.Problems) != 0 || v.Records != 2000 {
		t.Errorf("verify: %+v %v", v, err)
	}
	if ro.Epoch() != b.Epoch() || ro.Ledger()[0].Accepted != 800 || len(ro.Segments()) != len(b.Segments()) || ro.Stats().Destinations[0].Backlog != 2000 {
		t.Errorf("beside: %+v", ro.Stats())
	}
	ro.Close()
	if v, err := b.Verify(t.Context(), func(done, all int64) {
		if done > all {
			t.Errorf("%d of %d", done, all)
		}
	}); err != nil || len(v.Problems) != 0 || v.Records != 2000 {
		t.Errorf("verify: %+v %v", v, err)
	}
	before, _ := os.ReadDir(dir)
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	if ro, err = OpenReadOnly(dir); err != nil {
		t.Fatal(err)
	}
	defer ro.Close()
	check("stopped", ro.Scan, 2000)
	after, _ := os.ReadDir(dir)
	if len(before) != len(after) {
		t.Errorf("the directory changed from %v to %v", before, after)
	}
	if _, err := OpenReadOnly(filepath.Join(dir, "none")); !errors.Is(err, ErrNotFound) {
		t.Errorf("no store: %v", err)
	}
}

// TestVerifyFindsDamage: wherever a segment is damaged, Verify names it and counts the records that Scan gives all the same, and changes nothing.
func TestVerifyFindsDamage(t *testing.T) {
	tp := newTemplate(t)
	for _, pages := range [][2]int{{0, 2}, {2, 4}, {5, 6}, {8, 12}} {
		dir := tp.copy(t)
		path := filepath.Join(dir, tp.files[3])
		raw, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for i := pages[0] * pageSize; i < pages[1]*pageSize; i++ {
			raw[i] ^= 0x55
		}
		if err := os.WriteFile(path, raw, 0o640); err != nil {
			t.Fatal(err)
		}
		ro, err := OpenReadOnly(dir)
		if err != nil {
			t.Fatal(err)
		}
		v, err := ro.Verify(t.Context(), nil)
		if err != nil || len(v.Problems) != 1 || v.Problems[0].File != tp.files[3] {
			t.Errorf("%+v %v", v, err)
		}
		n := uint64(0)
		err = ro.Scan(t.Context(), 0, 0, func(*Record) error { n++; return nil })
		if n == 0 || v.Records != n {
			t.Errorf("pages %v: Verify counts %d records, Scan gives %d (%v)", pages, v.Records, n, err)
		}
		if again, _ := os.ReadFile(path); !bytes.Equal(again, raw) {
			t.Error("the file was changed")
		}
		ro.Close()
	}
}
