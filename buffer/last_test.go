package buffer

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// crashed is a store as kill -9 left it, with older copies of its files, and what is in it.
type crashed struct {
	dir      string
	records  map[uint64][]byte
	epoch    string
	due      map[uint64]bool // on disk and not acknowledged
	files    []string
	older    map[string][][]byte // content that a file had before
	rebooted bool
}

const crashedReadings = 3

// newCrashed makes a store. That the machine was started again since is played by the name of the boot.
func newCrashed(t *testing.T, rng *rand.Rand) *crashed {
	t.Helper()
	c := &crashed{dir: t.TempDir() + "/store", records: map[uint64][]byte{}, due: map[uint64]bool{}, older: map[string][][]byte{}, rebooted: rng.IntN(3) == 0}
	o := testOptions()
	o.SegmentSize = 256 << 10
	b := mustOpen(t, c.dir, o)
	c.epoch = b.Epoch()
	if c.rebooted {
		b.boot = "of another time"
	}
	for range 12 + rng.IntN(25) {
		c.round(t, b, rng)
	}
	// What was acknowledged is known to the last checkpoint.
	b.lockCommit()
	if err := b.commitOr(true); err != nil {
		t.Fatal(err)
	}
	b.unlockCommit()
	if rng.IntN(2) == 0 { // and a commit after it
		s := mustStream(t, b, "device-0")
		s.Count(crashedReadings, 0)
		p := []byte("the last record")
		seq, err := b.Append(s, p, crashedReadings, 5000)
		if err != nil {
			t.Fatal(err)
		}
		commitNow(t, b)
		c.records[seq], c.due[seq] = p, true
	}
	crash(b)
	if older := c.older[markName]; c.rebooted && len(older) > 0 { // the kernel had not written it back
		if err := os.WriteFile(filepath.Join(c.dir, markName), older[rng.IntN(len(older))], 0o640); err != nil {
			t.Fatal(err)
		}
	}
	entries, err := os.ReadDir(c.dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if e.Name() != lockName && e.Name() != reserveName {
			c.files = append(c.files, e.Name())
		}
	}
	return c
}

// round appends and commits, and perhaps has some acknowledged, writes a checkpoint or keeps a copy of the files.
func (c *crashed) round(t *testing.T, b *Buffer, rng *rand.Rand) {
	t.Helper()
	d := b.Destination("cloud")
	var fresh []uint64
	for range rng.IntN(120) {
		s := mustStream(t, b, fmt.Sprintf("device-%d", rng.IntN(3)))
		p := make([]byte, 50+rng.IntN(300))
		for j := range p {
			p[j] = byte(rng.IntN(64))
		}
		s.Count(crashedReadings+1, 1)
		seq, err := b.Append(s, p, crashedReadings, 1000+int64(len(c.records)))
		if err != nil {
			t.Fatal(err)
		}
		c.records[seq] = p
		fresh = append(fresh, seq)
	}
	commitNow(t, b)
	for _, seq := range fresh {
		c.due[seq] = true
	}
	switch rng.IntN(5) {
	case 0:
		for i, r := range readAll(t, d, false) {
			if i%7 != 0 && rng.IntN(3) > 0 {
				d.Ack(r.Seq)
				delete(c.due, r.Seq)
			}
		}
		d.Reset()
	case 1:
		b.lockCommit()
		if err := b.commitOr(true); err != nil {
			t.Fatal(err)
		}
		b.unlockCommit()
	}
	if rng.IntN(4) == 0 {
		c.keep(t)
	}
}

// keep remembers what is in the files now.
func (c *crashed) keep(t *testing.T) {
	names, _ := filepath.Glob(c.dir + "/*")
	for _, name := range names {
		raw, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		c.older[filepath.Base(name)] = append(c.older[filepath.Base(name)], raw)
	}
}

func (c *crashed) last() string {
	i := slices.IndexFunc(c.files, func(f string) bool { return f == stateName })
	return c.files[i-1]
}

var damages = []string{"truncated", "zeroed", "garbage", "flips", "deleted", "emptied", "older"}

// spoil damages a file of a copy. It reports false when there is nothing to do it with.
func (c *crashed) spoil(t *testing.T, dir, file, how string, rng *rand.Rand) bool {
	t.Helper()
	path := filepath.Join(dir, file)
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	pages := max(len(raw)/pageSize, 1)
	page := func() []byte {
		at := rng.IntN(pages) * pageSize
		return raw[at:min(at+pageSize, len(raw))]
	}
	switch how {
	case "truncated":
		raw = raw[:rng.IntN(len(raw))]
	case "zeroed":
		for range 1 + rng.IntN(8) {
			clear(page())
		}
	case "garbage":
		for range 1 + rng.IntN(8) {
			for i, p := 0, page(); i < len(p); i++ {
				p[i] = byte(rng.Uint32())
			}
		}
	case "flips":
		for range 1 + rng.IntN(4) {
			raw[rng.IntN(len(raw))] ^= 1 << rng.IntN(8)
		}
	case "deleted":
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		return true
	case "emptied":
		raw = nil
	case "older":
		older := c.older[file]
		if len(older) == 0 {
			return false
		}
		raw = older[rng.IntN(len(older))]
	}
	if err := os.WriteFile(path, raw, 0o640); err != nil {
		t.Fatal(err)
	}
	return true
}

// tally is what a campaign saw.
type tally struct{ tried, lost, records, unknown int }

// check opens a damaged copy and drains it. Whatever is lost is told: with the right count, or as not known.
func (c *crashed) check(t *testing.T, dir string, sum *tally) {
	t.Helper()
	problems := verified(t, dir)
	o := testOptions()
	o.SegmentSize = 256 << 10
	b := mustOpen(t, dir, o)
	if b.Epoch() == c.epoch {
		t.Error("the epoch is used again")
	}
	checkLedger(t, b)
	balanced(t, b)
	told := b.Stats()
	if int(told.Damages) > 1 && problems == 0 {
		t.Error("verify saw nothing")
	}
	crash(b) // what was told is on disk, and not told again
	b = mustOpen(t, dir, o)
	if n := b.Stats().Damages; n != 0 {
		t.Errorf("told again: %+v", b.Stats().Damage)
	}
	checkLedger(t, b)
	got, gone, unsure := c.drain(t, b)
	checkLedger(t, b)
	balanced(t, b)
	lost, dropped := 0, uint64(0)
	for seq := range c.due {
		if !got[seq] {
			lost++
		}
	}
	for _, a := range b.Ledger() {
		dropped += a.Destinations[0].Lost()
		if d := a.Destinations[0]; d.Buffered != 0 || d.InFlight != 0 {
			t.Errorf("drained, but %+v", d)
		}
	}
	var said uint64
	unknown := false
	last := b.Stats() // what is only met when it is read is told then
	for _, d := range append(told.Damage, last.Damage...) {
		said += d.Readings
		unknown = unknown || d.Unknown
	}
	sum.tried++
	sum.records += lost
	if lost > 0 {
		sum.lost++
		if problems == 0 {
			t.Errorf("%d records lost, and verify saw nothing", lost)
		}
	}
	if unsure || unknown {
		sum.unknown++
	}
	want := uint64(lost) * crashedReadings
	if said != gone || gone != dropped || unsure != unknown || unknown != (last.LostUnknown > 0) {
		t.Errorf("damage says %d lost (unknown %v), gap records %d (%v), the ledger %d", said, unknown, gone, unsure, dropped)
	}
	if said != want && !unknown {
		t.Errorf("%d readings lost, %d told of, unknown %v: %+v %+v", want, said, unknown, told.Damage, last.Damage)
	}
	if lost > 0 && told.Damages+last.Damages == 0 {
		t.Errorf("%d records lost without a word", lost)
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
}

// verified returns how many problems verify finds, -1 when the store cannot be looked at.
func verified(t *testing.T, dir string) int {
	t.Helper()
	ro, err := OpenReadOnly(dir)
	if err != nil {
		return -1
	}
	defer ro.Close()
	v, err := ro.Verify(t.Context(), nil)
	if err != nil {
		t.Errorf("verify: %v", err)
		return -1
	}
	return len(v.Problems)
}

// drain reads all, and what gap records tell: how many readings are gone, and whether that is sure.
func (c *crashed) drain(t *testing.T, b *Buffer) (got map[uint64]bool, gone uint64, unsure bool) {
	t.Helper()
	got = map[uint64]bool{}
	for range 2 { // the gap records come with the second commit at the latest
		for _, r := range readAll(t, b.Destination("cloud"), true) {
			if r.Gap != nil {
				gone += r.Gap.Count
				unsure = unsure || r.Gap.Unknown
				continue
			}
			if want := c.records[r.Seq]; !bytes.Equal(want, r.Payload) || r.Readings != crashedReadings || r.Epoch != c.epoch {
				t.Fatalf("wrong record %d of epoch %s: %.40q", r.Seq, r.Epoch, r.Payload)
			}
			got[r.Seq] = true
		}
		commitNow(t, b)
	}
	return got, gone, unsure
}

// balanced holds the ledger's first half.
func balanced(t *testing.T, b *Buffer) {
	t.Helper()
	for _, a := range b.Ledger() {
		if a.Polled != a.Suppressed+a.Accepted {
			t.Errorf("account %q: polled %d, suppressed %d, accepted %d", a.Name, a.Polled, a.Suppressed, a.Accepted)
		}
	}
}

// TestDamagedAfterKill damages the files of a store that kill -9 left: the last segment, then each of the others.
func TestDamagedAfterKill(t *testing.T) {
	n := 42 / min(raceShare, 2)
	if os.Getenv("MILLRACE_LONG") != "" {
		n = 1000
	}
	seed := seeds(t, 1, 1)[0]
	for _, which := range []string{"last", "others"} {
		t.Run(which, func(t *testing.T) {
			rng := rand.New(rand.NewPCG(seed, 31))
			var c *crashed
			var sum tally
			for i := 0; sum.tried < n; i++ {
				if i%20 == 0 {
					c = newCrashed(t, rng)
				}
				how, file := damages[i%len(damages)], c.last()
				if how == "older" && c.rebooted && which == "last" {
					continue // nobody can know: see Caveats in DESIGN.md
				}
				if which == "others" {
					if file = c.files[rng.IntN(len(c.files))]; file == c.last() {
						continue
					}
				}
				dir := t.TempDir() + "/store"
				if err := os.CopyFS(dir, os.DirFS(c.dir)); err != nil {
					t.Fatal(err)
				}
				if !c.spoil(t, dir, file, how, rng) {
					continue
				}
				t.Run(fmt.Sprintf("%d %s %s", i, how, strings.TrimPrefix(file, "seg-")), func(t *testing.T) { c.check(t, dir, &sum) })
				_ = os.RemoveAll(dir)
			}
			t.Logf("seed %d: %d damages, %d lost something, %d records in all; %d told as unknown", seed, sum.tried, sum.lost, sum.records, sum.unknown)
			if sum.lost == 0 {
				t.Error("no damage cost anything: the test does not reach the data")
			}
		})
	}
}
