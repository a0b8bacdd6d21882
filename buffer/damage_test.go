package buffer

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// template is a store with several sealed segments, one that a crash left unsealed, a quarantine and a
// half-drained cursor, and what is in it.
type template struct {
	dir     string
	records map[uint64][]byte
	due     map[uint64]bool // not acknowledged
	files   []string
	next    uint64
	silent  bool     // the damage cannot be known
	found   []Damage // by the last check
	gaps    []*Gap   // likewise told
}

const templateReadings = 7

func newTemplate(t *testing.T) *template {
	t.Helper()
	tp := &template{dir: t.TempDir() + "/store", records: map[uint64][]byte{}, due: map[uint64]bool{}}
	o := testOptions()
	o.SegmentSize = 256 << 10
	b := mustOpen(t, tp.dir, o)
	d := b.Destination("cloud")
	rng := rand.New(rand.NewPCG(3, 4))
	for i := range 3000 {
		s := mustStream(t, b, fmt.Sprintf("device-%d", i%3))
		p := make([]byte, 100+rng.IntN(300))
		for j := range p {
			p[j] = byte(rng.IntN(64))
		}
		seq, err := b.Append(s, p, templateReadings, int64(i))
		if err != nil {
			t.Fatal(err)
		}
		tp.records[seq], tp.due[seq] = p, true
		if i%100 == 99 {
			commitNow(t, b)
		}
	}
	var rec Record
	r := d.Reader(0, 0)
	for i := range 400 {
		if ok, err := take(r, &rec); !ok || err != nil {
			t.Fatal(ok, err)
		}
		if i == 100 {
			if err := d.Reject(rec.Seq, "too large"); err != nil {
				t.Fatal(err)
			}
		} else {
			d.Ack(rec.Seq)
		}
		delete(tp.due, rec.Seq)
	}
	b.lockCommit()
	if err := b.commitOr(true); err != nil {
		t.Fatal(err)
	}
	b.unlockCommit()
	tp.next = b.NextSeq()
	crash(b)
	entries, err := os.ReadDir(tp.dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if e.Name() != lockName && e.Name() != reserveName {
			tp.files = append(tp.files, e.Name())
		}
	}
	if len(tp.files) < 4 {
		t.Fatalf("only %v", tp.files)
	}
	return tp
}

func (tp *template) copy(t *testing.T) string {
	t.Helper()
	dir := t.TempDir() + "/store"
	if err := os.CopyFS(dir, os.DirFS(tp.dir)); err != nil {
		t.Fatal(err)
	}
	return dir
}

// check opens a damaged copy and drains it: no wrong value, no lost record but the allowed number, and a
// ledger that says so.
func (tp *template) check(t *testing.T, dir string, allowed int) (lost int) {
	t.Helper()
	o := testOptions()
	o.SegmentSize = 256 << 10
	b, err := Open(dir, o)
	if err != nil {
		t.Fatalf("open: %v", err)
	}
	defer func() { _ = b.Close() }()
	if b.NextSeq() < tp.next {
		t.Fatalf("next sequence number %d: %d was used", b.NextSeq(), tp.next-1)
	}
	checkLedger(t, b)
	d := b.Destination("cloud")
	got := map[uint64]bool{}
	tp.gaps = nil
	r := d.Reader(0, 0)
	var rec Record
	for {
		ok, err := take(r, &rec)
		if err != nil {
			t.Fatalf("read: %v", err)
		}
		if !ok {
			break
		}
		if rec.Gap != nil && rec.Gap.Cause == CauseDamaged {
			tp.gaps = append(tp.gaps, rec.Gap)
		}
		if rec.Gap == nil {
			if want := tp.records[rec.Seq]; want == nil || !bytes.Equal(want, rec.Payload) || rec.Readings != templateReadings ||
				string(rec.Stream.Dict()) != "dict of "+rec.Stream.Account() {
				t.Fatalf("wrong record %d: %.80q", rec.Seq, rec.Payload)
			}
		}
		got[rec.Seq] = true
		d.Ack(rec.Seq)
		checkLedger(t, b)
	}
	for seq := range tp.due {
		if !got[seq] {
			lost++
			if len(tp.gaps) > 0 && !slices.ContainsFunc(tp.gaps, func(g *Gap) bool {
				at := int64(seq - 1)
				return g.Unknown || g.FirstSeq <= seq && seq <= g.LastSeq && (g.To == 0 || g.From <= at && at <= g.To)
			}) {
				t.Fatalf("record %d is lost, and in no gap of %+v", seq, *tp.gaps[0])
			}
		}
	}
	if lost > allowed {
		t.Fatalf("%d records lost, at most %d may be: %+v", lost, allowed, b.Stats().Damage)
	}
	var dropped, buffered uint64
	for _, a := range b.Ledger() {
		dropped += a.Destinations[0].Dropped[CauseDamaged]
		buffered += a.Destinations[0].Buffered + a.Destinations[0].InFlight
	}
	tp.found = b.Stats().Damage
	if buffered != 0 || d.Len() != 0 {
		t.Fatalf("drained, but %d readings and %d records are left", buffered, d.Len())
	}
	if lost > 0 && !tp.silent && b.Stats().Damages == 0 {
		t.Fatalf("%d records lost and no damage reported", lost)
	}
	if dropped != 0 && dropped != uint64(lost)*templateReadings {
		t.Fatalf("%d records lost, %d readings counted", lost, dropped)
	}
	return lost
}

// blockRecords is more than the template has records in a block.
const blockRecords = 110

func TestBitFlips(t *testing.T) {
	tp := newTemplate(t)
	n := 90
	if os.Getenv("MILLRACE_LONG") != "" {
		n = 1000
	}
	seed := seeds(t, 1, 1)[0]
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 5))
	hit := 0
	for i := range n {
		file := tp.files[i%len(tp.files)]
		dir := tp.copy(t)
		raw, err := os.ReadFile(filepath.Join(dir, file))
		if err != nil {
			t.Fatal(err)
		}
		at, bit := rng.IntN(len(raw)), rng.IntN(8)
		if rng.IntN(4) == 0 {
			at = at / pageSize * pageSize // page headers and what follows are where trees break
			at += rng.IntN(64)
		}
		raw[at] ^= 1 << bit
		if err := os.WriteFile(filepath.Join(dir, file), raw, 0o640); err != nil {
			t.Fatal(err)
		}
		if t.Failed() {
			return
		}
		t.Run(fmt.Sprintf("%s/byte=%d/bit=%d", file, at, bit), func(t *testing.T) {
			allowed := blockRecords
			if file == stateName {
				allowed = 0
			}
			if tp.check(t, dir, allowed) > 0 {
				hit++
			}
		})
	}
	t.Logf("%d flips, %d of them cost a block", n, hit)
	if hit == 0 {
		t.Error("no flip cost anything: the test does not reach the data")
	}
}

// TestBitFlipsControl shows that the flips test can see a wrong value.
func TestBitFlipsControl(t *testing.T) {
	tp := newTemplate(t)
	for seq := range tp.due {
		tp.records[seq] = append([]byte("x"), tp.records[seq]...)
	}
	dir := tp.copy(t)
	mustFail(t, "a wrong value", func(t *testing.T) { tp.check(t, dir, 0) })
}

func TestTruncated(t *testing.T) {
	tp := newTemplate(t)
	n := 40
	if os.Getenv("MILLRACE_LONG") != "" {
		n = 200
	}
	seed := seeds(t, 1, 1)[0]
	rng := rand.New(rand.NewPCG(seed, 6))
	for i := range n {
		file := tp.files[i%len(tp.files)]
		t.Run(fmt.Sprintf("%s/%d", file, i), func(t *testing.T) {
			dir := tp.copy(t)
			path := filepath.Join(dir, file)
			info, err := os.Stat(path)
			if err != nil {
				t.Fatal(err)
			}
			size := rng.Int64N(info.Size())
			if err := os.Truncate(path, size); err != nil {
				t.Fatal(err)
			}
			allowed := 0
			if file != stateName {
				allowed = len(tp.records)*int(info.Size()-size)/int(info.Size()) + 3*blockRecords
			}
			tp.check(t, dir, allowed)
		})
	}
}

func TestZeroFilledForeignAndMissing(t *testing.T) {
	tp := newTemplate(t)
	for _, file := range tp.files {
		for name, spoil := range map[string]func(path string) error{
			"zero": func(path string) error {
				info, err := os.Stat(path)
				if err != nil {
					return err
				}
				return os.WriteFile(path, make([]byte, info.Size()), 0o640)
			},
			"empty":   func(path string) error { return os.WriteFile(path, nil, 0o640) },
			"text":    func(path string) error { return os.WriteFile(path, bytes.Repeat([]byte("hello "), 9000), 0o640) },
			"missing": os.Remove,
		} {
			t.Run(file+"/"+name, func(t *testing.T) {
				dir := tp.copy(t)
				if err := spoil(filepath.Join(dir, file)); err != nil {
					t.Fatal(err)
				}
				allowed := len(tp.records)
				if file == stateName {
					allowed = 0
				}
				// That the newest segment is not there at all is known to nobody: its checkpoint is gone with it.
				tp.silent = file == tp.files[len(tp.files)-2] && (name == "empty" || name == "missing")
				tp.checkMissing(t, dir, allowed)
				tp.silent = false
			})
		}
	}
}

func (tp *template) checkMissing(t *testing.T, dir string, allowed int) {
	t.Helper()
	if lost := tp.check(t, dir, allowed); lost == allowed && allowed > 0 {
		t.Fatal("everything is lost")
	}
}

func TestSegmentOfAnotherStore(t *testing.T) {
	tp, other := newTemplate(t), newTemplate(t)
	dir := tp.copy(t)
	raw, err := os.ReadFile(filepath.Join(other.dir, other.files[4]))
	if err != nil {
		t.Fatal(err)
	}
	for i := range other.records {
		other.records[i][0] ^= 1
	}
	if err := os.WriteFile(filepath.Join(dir, other.files[4]), raw, 0o640); err != nil {
		t.Fatal(err)
	}
	if lost := tp.check(t, dir, len(tp.records)/2); lost == 0 {
		t.Fatal("the foreign segment was taken for our own")
	}
}

func TestNewerIsRefusedInWords(t *testing.T) {
	tp := newTemplate(t)
	for _, file := range []string{stateName, tp.files[1]} {
		dir := tp.copy(t)
		path := filepath.Join(dir, file)
		raw, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		newer := newerVersion(t, raw)
		if err := os.WriteFile(path, newer, 0o640); err != nil {
			t.Fatal(err)
		}
		_, err = Open(dir, testOptions())
		if !errors.Is(err, ErrNewer) {
			t.Fatalf("%s: %v", file, err)
		}
		t.Log(err)
		again, err := os.ReadFile(path)
		if err != nil || !bytes.Equal(again, newer) {
			t.Fatalf("%s was changed: %v", file, err)
		}
	}
}

// newerVersion raises the format in every head and info value of a file.
func newerVersion(t *testing.T, raw []byte) []byte {
	t.Helper()
	out, n := bytes.Clone(raw), 0
	for i := 0; i+33 <= len(out); i++ {
		v := out[i : i+33]
		if body, err := openValue(v); err == nil && body[0] == formatMajor {
			v[8] = formatMajor + 1
			sealValue(v)
			n++
		}
	}
	if n == 0 {
		t.Fatal("no head found")
	}
	return out
}

// TestDictionaryIsStoredTwice damages every page that the dictionary begins on: a single page must not be
// worth a segment. The control damages the second copies too, and must lose more than a block.
func TestDictionaryIsStoredTwice(t *testing.T) {
	tp := newTemplate(t)
	spoil := func(keys ...[]byte) int {
		dir := tp.copy(t)
		path := filepath.Join(dir, tp.files[4])
		raw, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, key := range keys {
			hits := 0
			for at := 2 * pageSize; at < len(raw); at += pageSize {
				if bytes.Contains(raw[at:at+pageSize], key) {
					hits++
					clear(raw[at+pageHead : at+pageSize])
				}
			}
			if hits == 0 {
				t.Fatalf("no page has %x", key)
			}
		}
		if err := os.WriteFile(path, raw, 0o640); err != nil {
			t.Fatal(err)
		}
		return tp.check(t, dir, len(tp.records))
	}
	first := makeKey(regionDict, 0, 0, 0)
	if lost := spoil(first); lost > blockRecords {
		t.Errorf("%d records lost with one page", lost)
	}
	if len(tp.found) != 1 || tp.found[0].File != tp.files[4] {
		t.Errorf("the damage was not met: %+v", tp.found)
	}
	f, err := os.Open(filepath.Join(tp.dir, tp.files[4]))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	all := [][]byte{first}
	for k := range findPieces(f) {
		if k.region == regionAgain || k.region == regionRecords && k.typ == typeDict {
			all = append(all, makeKey(k.region, k.seq, k.typ, int(k.chunk)))
		}
	}
	if lost := spoil(all...); lost <= blockRecords {
		t.Errorf("the control: %d records lost without any dictionary", lost)
	}
}

// TestNumbersAreNotUsedAgain damages the newest meta page of state.db, so that the transaction before it
// comes to light, which has an older reservation.
func TestNumbersAreNotUsedAgain(t *testing.T) {
	dir := t.TempDir() + "/store"
	b := mustOpen(t, dir, testOptions())
	d, s := b.Destination("cloud"), mustStream(t, b, "press")
	appendN(t, b, s, 1)
	commitNow(t, b) // one record stays on disk, and with it the epoch
	var last uint64
	use := func(n uint64) { // as records that are acknowledged at once use numbers up
		b.mu.Lock()
		d.acked.add(b.next, b.next+n)
		b.next += n
		b.durable, b.tail.first, b.tail.n = b.next-1, b.next, 0
		b.mu.Unlock()
		last, _ = appendN(t, b, s, 1)
		var rec Record
		if ok, err := take(d.Reader(last, 0), &rec); !ok || err != nil {
			t.Fatal(ok, err)
		}
		d.Ack(rec.Seq)
	}
	use(reserveStep*3/4 + 10)
	b.lockCommit()
	if err := b.reserve(); err != nil {
		t.Fatal(err)
	}
	b.unlockCommit()
	use(reserveStep / 2)
	crash(b)
	path := filepath.Join(dir, stateName)
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	newest := 0
	if binary.NativeEndian.Uint64(raw[pageSize+pageHead+48:]) > binary.NativeEndian.Uint64(raw[pageHead+48:]) {
		newest = pageSize
	}
	raw[newest+pageHead+20] ^= 1
	if err := os.WriteFile(path, raw, 0o640); err != nil {
		t.Fatal(err)
	}
	epoch := b.Epoch()
	b = mustOpen(t, dir, testOptions())
	if b.Epoch() == epoch && b.NextSeq() <= last {
		t.Errorf("next number %d, but %d was used", b.NextSeq(), last)
	}
}

func TestLock(t *testing.T) {
	dir := t.TempDir() + "/store"
	b := mustOpen(t, dir, testOptions())
	_, err := Open(dir, testOptions())
	if !errors.Is(err, ErrInUse) {
		t.Fatalf("second open: %v", err)
	}
	t.Log(err)
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	mustOpen(t, dir, testOptions())
}

func TestBadDirectory(t *testing.T) {
	_, err := Open(filepath.Join(t.TempDir(), "no", "such"), testOptions())
	if err == nil {
		t.Fatal("opened in a directory without a parent")
	}
	t.Log(err)
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o640); err != nil {
		t.Fatal(err)
	}
	if _, err = Open(file, testOptions()); err == nil {
		t.Fatal("opened a file")
	}
	t.Log(err)
}
