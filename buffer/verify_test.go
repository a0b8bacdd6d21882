package buffer

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"sync"
	"testing"
	"time"
)

// TestVerifyRunning has each page of the segment being written spoiled in turn, with random bytes and with an element fewer, beside a
// destination that has acknowledged half: neither Verify nor Scan says that all is well when a record is gone, and Verify finds what
// it finds in a copy that nobody writes.
func TestVerifyRunning(t *testing.T) {
	dir := t.TempDir() + "/store"
	o := testOptions()
	o.TailBytes, o.SegmentSize = 64<<10, 4<<20
	b := mustOpen(t, dir, o)
	rng := rand.New(rand.NewPCG(7, 8))
	s, d := mustStream(t, b, "press"), b.Destination("cloud")
	total := 0
	feed := func(n, size int, acked bool) {
		for range n {
			seq, err := b.Append(s, randomBytes(rng, size), 1, 1)
			if err != nil {
				t.Fatal(err)
			}
			if acked && seq%3 == 0 { // a number that no file has
				if ok, err := take(d.Reader(seq, 0), new(Record)); !ok || err != nil {
					t.Fatal(ok, err)
				}
				d.Ack(seq)
			} else {
				total++
			}
		}
		commitNow(t, b)
	}
	for i := range 12 {
		feed(40, 300, i%4 == 0)
	}
	for range 60 { // blocks that are one value each: what is fewer is a whole one
		feed(3, 30, false)
	}
	r := d.Reader(0, 0)
	for range total / 2 {
		var rec Record
		if ok, err := take(r, &rec); !ok || err != nil {
			t.Fatal(ok, err)
		}
		d.Ack(rec.Seq)
	}
	emptyTail(b)
	path := b.active.path
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if v, err := b.Verify(t.Context(), nil); err != nil || len(v.Problems) > 0 || v.Records != uint64(total) {
		t.Fatalf("sound: %+v, %v, want %d records", v, err, total)
	}
	if got, err := scanAll(t, b, 0, 0); err != nil || len(got) != total {
		t.Fatalf("sound: %d records, %v, want %d", len(got), err, total)
	}
	hit := map[string]int{}
	for page := 2; page < len(raw)/pageSize; page += raceShare {
		for _, how := range []string{"random", "fewer"} {
			if spoilPage(t, path, raw, page, how, rng) && checkSpoiled(t, b, dir, fmt.Sprintf("page %d, %s", page, how), total) {
				hit[how]++
			}
		}
		spoilPage(t, path, raw, page, "not", rng)
	}
	t.Logf("%d pages, that cost records: %v", len(raw)/pageSize, hit)
	if hit["random"] < 20/raceShare || hit["fewer"] < 5/raceShare {
		t.Errorf("the test does not reach the records: %v", hit)
	}
	if b.Stats().Damages != 0 {
		t.Error("looking noted damage in the store's state")
	}
}

// spoilPage writes a page as it was, or spoiled. It reports false when it cannot be spoiled so.
func spoilPage(t *testing.T, path string, raw []byte, page int, how string, rng *rand.Rand) bool {
	t.Helper()
	data := append([]byte(nil), raw[page*pageSize:(page+1)*pageSize]...)
	switch how {
	case "random":
		data = randomBytes(rng, pageSize)
	case "fewer":
		n := binary.NativeEndian.Uint16(data[10:])
		if n == 0 {
			return false
		}
		binary.NativeEndian.PutUint16(data[10:], n-1)
	}
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err == nil {
		_, err = f.WriteAt(data, int64(page)*pageSize)
		err = errors.Join(err, f.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
	return true
}

var missingWords = regexp.MustCompile(`\d+ of its \d+ records (cannot be read, all of them from \d+ to \d+|were not found)|records \d+ to \d+ are missing`)

// checkSpoiled reports whether records are gone, and fails when that is not said, or not found though a copy has it.
func checkSpoiled(t *testing.T, b *Buffer, dir, what string, total int) bool {
	t.Helper()
	got, scanErr := scanAll(t, b, 0, 0)
	if len(got) != total && (scanErr == nil || !missingWords.MatchString(scanErr.Error())) {
		t.Errorf("%s: Scan gives %d of %d records and says %v", what, len(got), total, scanErr)
	}
	v, err := b.Verify(t.Context(), nil)
	if err != nil {
		t.Fatalf("%s: %v", what, err)
	}
	if v.Records != uint64(total) && (len(v.Problems) == 0 || !missingWords.MatchString(v.Problems[0].Reason)) || len(got) != total && len(v.Problems) == 0 {
		t.Errorf("%s: Verify finds %d of %d records, Scan %d, and the problems are %+v", what, v.Records, total, len(got), v.Problems)
	}
	if scanErr != nil && len(v.Problems) == 0 {
		t.Errorf("%s: Verify has no problem, Scan says %v", what, scanErr)
	}
	beside := filepath.Join(t.TempDir(), "copy")
	if err := os.CopyFS(beside, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	ro, err := OpenReadOnly(beside)
	if err != nil {
		t.Fatal(err)
	}
	defer ro.Close()
	w, err := ro.Verify(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if len(w.Problems) > 0 && len(v.Problems) == 0 {
		t.Errorf("%s: the copy has %+v", what, w.Problems)
	}
	if w.Records != uint64(total) && (len(w.Problems) == 0 || !missingWords.MatchString(w.Problems[0].Reason)) {
		t.Errorf("%s: of the copy %d of %d records are found, and its problems are %+v", what, w.Records, total, w.Problems)
	}
	return len(got) < total
}

// TestVerifyBeside: beside commits, acknowledgements in any order, sealing, dropping and unlinking neither Verify nor Scan finds damage in a
// store that is sound.
func TestVerifyBeside(t *testing.T) {
	o := testOptions()
	o.MaxSize, o.SegmentSize, o.TailBytes, o.CommitInterval = 4<<20, 256<<10, 64<<10, time.Millisecond
	o.Destinations = []string{"cloud", "site"}
	b := mustOpen(t, t.TempDir()+"/store", o)
	ctx, cancel := context.WithCancel(t.Context())
	var work sync.WaitGroup
	defer work.Wait()
	defer cancel()
	work.Go(func() { _ = b.Run(ctx) })
	s := mustStream(t, b, "press")
	work.Go(func() {
		rng := rand.New(rand.NewPCG(1, 2))
		for ctx.Err() == nil {
			if _, err := b.Append(s, randomBytes(rng, rng.IntN(600)), 1, 1); err != nil {
				return
			}
		}
	})
	for i, name := range o.Destinations {
		work.Go(func() {
			d := b.Destination(name)
			rng := rand.New(rand.NewPCG(3, uint64(i)))
			for ctx.Err() == nil {
				r, rec := d.Reader(0, 0), Record{}
				for range 300 {
					if ok, err := r.Next(&rec); !ok || err != nil {
						break
					}
					if rng.IntN(2+20*i) == 0 && d.Take(&rec) {
						d.Ack(rec.Seq)
					}
				}
			}
		})
	}
	for st := b.Stats(); st.Commits < 60 || st.Dropped == 0; st = b.Stats() {
		if v, err := b.Verify(t.Context(), nil); err != nil || len(v.Problems) > 0 {
			t.Fatalf("verify: %+v, %v", v, err)
		}
		if _, err := scanAll(t, b, 0, b.NextSeq()); err != nil {
			t.Fatalf("scan: %v", err)
		}
	}
	st := b.Stats()
	t.Logf("%d commits, %d records, %d segments dropped", st.Commits, st.NextSeq, st.Dropped)
	if st.Damages > 0 {
		t.Errorf("%+v", st)
	}
}
