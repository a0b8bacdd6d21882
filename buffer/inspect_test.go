package buffer

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// fillStore appends n records of two accounts in turn, committing after each part of 100.
func fillStore(t testing.TB, b *Buffer, n int) {
	t.Helper()
	streams := []*Stream{mustStream(t, b, "press-1"), mustStream(t, b, "press-2")}
	for i := range n {
		if _, err := b.Append(streams[i%2], fmt.Appendf(nil, "payload %d %s", i, strings.Repeat("x", i%97)), 3, int64(i)+1000); err != nil {
			t.Fatal(err)
		}
		if i%100 == 99 {
			commitNow(t, b)
		}
	}
}

func scanAll(t testing.TB, b *Buffer, from, to uint64) (out []Record, err error) {
	t.Helper()
	err = b.Scan(t.Context(), from, to, func(r *Record) error {
		c := *r
		c.Payload = slices.Clone(r.Payload)
		out = append(out, c)
		return nil
	})
	return out, err
}

func TestScanSeesDiskAndTail(t *testing.T) {
	b := mustOpen(t, t.TempDir(), testOptions())
	fillStore(t, b, 1050) // 50 in memory only
	d := b.Destination("cloud")
	r := d.Reader(0, 0)
	var rec Record
	for range 30 { // acknowledged and in flight, which must make no difference
		if ok, err := take(r, &rec); !ok || err != nil {
			t.Fatal(ok, err)
		}
		if rec.Seq%2 == 0 {
			d.Ack(rec.Seq)
		}
	}
	before := b.Stats()
	for _, c := range []struct{ from, to, want uint64 }{{0, 0, 1050}, {101, 1031, 930}, {1040, 0, 11}, {1050, 2000, 1}, {1051, 0, 0}} {
		got, err := scanAll(t, b, c.from, c.to)
		if err != nil || uint64(len(got)) != c.want {
			t.Fatalf("%d to %d: %d records, want %d; %v", c.from, c.to, len(got), c.want, err)
		}
		for i := range got {
			e, n := &got[i], int(max(c.from, 1))+i-1
			if want := fmt.Sprintf("payload %d %s", n, strings.Repeat("x", n%97)); e.Seq != uint64(n+1) || string(e.Payload) != want ||
				e.Stream.Account() != fmt.Sprintf("press-%d", n%2+1) || string(e.Stream.Dict()) != "dict of "+e.Stream.Account() || e.Readings != 3 || e.At != int64(n)+1000 {
				t.Fatalf("%d to %d: record %d is %+v", c.from, c.to, n+1, e)
			}
		}
	}
	after := b.Stats()
	if after.Destinations[0] != before.Destinations[0] || after.NextSeq != before.NextSeq {
		t.Errorf("looking changed the store: %+v, before %+v", after, before)
	}
	checkLedger(t, b)
}

// TestVerify: a sound store has no problem; one flipped bit in a block's payload is found and the file named, while
// everything else is still given.
func TestVerifyPayload(t *testing.T) {
	dir := t.TempDir()
	b := mustOpen(t, dir, testOptions())
	fillStore(t, b, 2000)
	report, err := b.Verify(t.Context(), nil)
	if err != nil || len(report.Problems) != 0 || report.Records != 2000 {
		t.Fatalf("sound and being written: %+v, %v", report, err)
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	b = mustOpen(t, dir, testOptions())
	var steps int
	report, err = b.Verify(t.Context(), func(done, total int64) {
		if steps++; done < 0 || done > total {
			t.Errorf("progress %d of %d", done, total)
		}
	})
	if err != nil || len(report.Problems) != 0 || report.Records != 2000 || steps < 20 {
		t.Fatalf("sound and sealed: %+v, %v, %d steps", report, err, steps)
	}
	file := filepath.Join(dir, b.Segments()[0].File)
	damagePayload(t, b, file)
	report, err = b.Verify(t.Context(), nil)
	if err != nil || len(report.Problems) != 1 || report.Problems[0].File != filepath.Base(file) {
		t.Fatalf("damaged: %+v, %v", report, err)
	}
	got, err := scanAll(t, b, 0, 0)
	if !errors.Is(err, errDamaged) || !strings.Contains(err.Error(), filepath.Base(file)) {
		t.Errorf("records of a damaged segment: %v", err)
	}
	if len(got) < 1800 || len(got) >= 2000 {
		t.Errorf("%d of 2000 records, want all but one block's", len(got))
	}
	for i := range got {
		if want := fmt.Sprintf("payload %d ", got[i].Seq-1); !strings.HasPrefix(string(got[i].Payload), want) {
			t.Fatalf("record %d has payload %q", got[i].Seq, got[i].Payload)
		}
	}
	if b.Stats().Damages != 0 {
		t.Error("looking noted damage in the store's state")
	}
}

// damagePayload flips a bit in the payloads of the block that holds record 1000.
func damagePayload(t testing.TB, b *Buffer, file string) {
	t.Helper()
	var r blockReader
	info, err := b.blockAt(b.segs[0], 1000, &r)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	at := -1
	for from := info.payloadAt; at < 0; from++ { // not where the value is cut into pieces
		if from+16 > len(r.stored) {
			t.Fatal("the block is not in the file")
		}
		at = strings.Index(string(raw), string(r.stored[from:from+16]))
	}
	raw[at+8] ^= 4
	b.closeHandle(b.segs[0])
	if err := os.WriteFile(file, raw, 0o640); err != nil {
		t.Fatal(err)
	}
}

func TestVerifyNamesWhatWasSetAside(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "seg-0000000000000001.db"), []byte("no segment"), 0o640); err != nil {
		t.Fatal(err)
	}
	for _, again := range []bool{false, true} {
		b := mustOpen(t, dir, testOptions())
		report, err := b.Verify(t.Context(), nil)
		if err != nil || len(report.Problems) != 1 || report.Problems[0].File != "seg-0000000000000001.db.corrupt" {
			t.Fatalf("again %v: %+v, %v", again, report, err)
		}
		if err := b.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestForget(t *testing.T) {
	for _, where := range []string{"reopened", "crashed"} {
		t.Run(where, func(t *testing.T) {
			dir := t.TempDir()
			o := testOptions()
			o.Destinations = []string{"old", "cloud"}
			b := mustOpen(t, dir, o)
			fillStore(t, b, 300)
			if err := b.Close(); err != nil {
				t.Fatal(err)
			}
			o.Destinations = []string{"cloud"}
			b = mustOpen(t, dir, o)
			fillStore(t, b, 300) // into a segment whose checkpoints have both
			drainAll(t, b, "cloud")
			if b.Stats().Segments == 0 {
				t.Fatal("the old destination does not hold its records")
			}
			for name, want := range map[string]string{"cloud": "config", "nobody": ErrNoDestination.Error()} {
				if _, err := b.Forget(name); err == nil || !strings.Contains(err.Error(), want) {
					t.Errorf("forget %q: %v", name, err)
				}
			}
			if _, err := b.Forget("old"); err != nil {
				t.Fatal(err)
			}
			if s := b.Stats(); s.Segments != 0 || len(s.Destinations) != 1 {
				t.Errorf("after forgetting: %+v", s)
			}
			checkLedger(t, b)
			fillStore(t, b, 300)
			if where == "crashed" {
				crash(b)
			} else if err := b.Close(); err != nil {
				t.Fatal(err)
			}
			b = mustOpen(t, dir, o)
			if s := b.Stats(); len(s.Destinations) != 1 || s.Destinations[0].Backlog != 300 || s.Damages != 0 {
				t.Errorf("%s: %+v", where, s)
			}
			checkLedger(t, b)
		})
	}
}

// drainAll acknowledges everything that a destination has.
func drainAll(t testing.TB, b *Buffer, name string) {
	t.Helper()
	d := b.Destination(name)
	r := d.Reader(0, 0)
	var rec Record
	for {
		ok, err := take(r, &rec)
		if err != nil {
			t.Fatal(err)
		}
		if !ok {
			return
		}
		d.Ack(rec.Seq)
	}
}

// TestScanBesideNewSegment: while the first commit into a new segment is under way, that segment is in the list and
// empty; the records of the others are still found.
func TestScanBesideNewSegment(t *testing.T) {
	dir := t.TempDir()
	b := mustOpen(t, dir, testOptions())
	fillStore(t, b, 1000)
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	b = mustOpen(t, dir, testOptions())
	b.lockCommit()
	err := b.createSegment(b.next)
	b.unlockCommit()
	if err != nil {
		t.Fatal(err)
	}
	if got, err := scanAll(t, b, 0, 0); err != nil || len(got) != 1000 {
		t.Errorf("%d records, %v", len(got), err)
	}
}
