package buffer

import (
	"bytes"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/klauspost/compress/zstd"
)

// appendRandom appends records that cannot be packed, and returns their payloads by number.
func appendRandom(t testing.TB, b *Buffer, s *Stream, n int, rng *rand.Rand) map[uint64]string {
	t.Helper()
	all := map[uint64]string{}
	for range n {
		p := make([]byte, 100+rng.IntN(900))
		for i := range p {
			p[i] = byte(rng.Uint32())
		}
		s.Count(1, 0)
		seq, err := b.Append(s, p, 1, 1)
		if err != nil {
			t.Fatal(err)
		}
		all[seq] = string(p)
	}
	return all
}

const partEpoch = 7

// TestSoundPart: of a block with a page of zeros in its payloads every record is served that does not touch it, and none that
// does; packed payloads are served as a whole or not at all.
func TestSoundPart(t *testing.T) {
	seed := seeds(t, 1, 1)[0]
	rng := rand.New(rand.NewPCG(seed, 43))
	c, err := newBlockCoder()
	if err != nil {
		t.Fatal(err)
	}
	dec, err := newDecoder()
	if err != nil {
		t.Fatal(err)
	}
	c.seed = epochSeed(partEpoch)
	for range 200 {
		packed := rng.IntN(4) == 0
		onePart(t, &c, dec, rng, packed)
	}
}

func onePart(t *testing.T, c *blockCoder, dec *zstd.Decoder, rng *rand.Rand, packed bool) {
	t.Helper()
	var want []string
	for i := range 1 + rng.IntN(80) {
		p := make([]byte, rng.IntN(1500))
		for j := range p {
			if p[j] = byte(rng.Uint32()) | 1; packed {
				p[j] = 1
			}
		}
		want = append(want, string(p))
		c.add(&head{seq: 10 + 3*uint64(i), stream: 2, readings: uint32(i), at: int64(i)}, p)
	}
	value := bytes.Clone(c.finish())
	info, err := parseBlock(value, partEpoch, dec, nil)
	if err != nil {
		t.Fatal(err)
	}
	if isPacked := info.flags&packedPayload != 0; isPacked != packed && info.payloadRaw > 4096 {
		t.Fatalf("packed is %v, want %v", isPacked, packed)
	}
	if info.flags&packedPayload != 0 {
		if soundPart(value, partEpoch, dec) != nil {
			t.Fatal("a part of packed payloads")
		}
		return
	}
	from := info.payloadAt + rng.IntN(int(info.payloadRaw)+1)
	to := min(from+pageSize, len(value))
	clear(value[from:to])
	from, to = from-info.payloadAt, to-info.payloadAt
	sound := map[uint64]string{}
	at := 0
	for i, p := range want {
		touched := to > from && at/sumChunk <= (to-1)/sumChunk && (at+len(p)+sumChunk-1)/sumChunk > from/sumChunk
		if !touched || len(p) == 0 {
			sound[10+3*uint64(i)] = p
		}
		at += len(p)
	}
	checkPart(t, soundPart(value, partEpoch, dec), dec, sound)
}

// checkPart fails unless a part has exactly the sound records.
func checkPart(t *testing.T, part []byte, dec *zstd.Decoder, sound map[uint64]string) {
	t.Helper()
	if part == nil {
		if len(sound) > 0 {
			t.Fatalf("no part; %d records are sound", len(sound))
		}
		return
	}
	got, err := parseBlock(part, partEpoch, dec, nil)
	if err != nil {
		t.Fatal(err)
	}
	payloads, err := got.payloads(part, dec, nil)
	if err != nil || int(got.count) != len(sound) {
		t.Fatalf("%d records, %v; want %d", got.count, err, len(sound))
	}
	var h head
	at := 0
	for r := got.heads(); r.next(&h); at += h.size {
		if p, is := sound[h.seq]; !is || p != string(payloads[at:at+h.size]) || uint64(h.readings) != (h.seq-10)/3 || h.stream != 2 {
			t.Fatalf("record %+v is wrong, or not sound", h)
		}
	}
}

// TestPageByPage: each page of a segment in turn is zeros, as what cannot be read is taken: no record of a block without it is lost,
// no value is wrong, and of a block with it most are served.
func TestPageByPage(t *testing.T) {
	const commits, records = 6, 40
	rng := rand.New(rand.NewPCG(44, 44))
	dir := filepath.Join(t.TempDir(), "store")
	b := mustOpen(t, dir, testOptions())
	s := mustStream(t, b, "press")
	all := map[uint64]string{}
	for range commits {
		for seq, p := range appendRandom(t, b, s, records, rng) {
			all[seq] = p
		}
		commitNow(t, b)
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	names, _ := filepath.Glob(dir + "/seg-*.db")
	if len(names) != 1 {
		t.Fatal(names)
	}
	raw, err := os.ReadFile(names[0])
	if err != nil {
		t.Fatal(err)
	}
	pages, lost, worst := len(raw)/pageSize, 0, 0
	for page := range pages {
		copied := filepath.Join(t.TempDir(), "store")
		if err := os.CopyFS(copied, os.DirFS(dir)); err != nil {
			t.Fatal(err)
		}
		bad := bytes.Clone(raw)
		clear(bad[page*pageSize : (page+1)*pageSize])
		if err := os.WriteFile(filepath.Join(copied, filepath.Base(names[0])), bad, 0o640); err != nil {
			t.Fatal(err)
		}
		b := mustOpen(t, copied, testOptions())
		served := 0
		for _, r := range readAll(t, b.Destination("cloud"), false) {
			if r.Gap != nil {
				continue
			}
			if served++; string(r.Payload) != all[r.Seq] {
				t.Fatalf("page %d: record %d is wrong", page, r.Seq)
			}
		}
		checkLedger(t, b)
		if err := b.Close(); err != nil {
			t.Fatal(err)
		}
		lost, worst = lost+len(all)-served, max(worst, len(all)-served)
	}
	t.Logf("%d pages: %d records lost with one of them on average, %d at most; a block has %d", pages, lost/pages, worst, records)
	if worst > 2*records || lost/pages > records/2 {
		t.Errorf("%d records lost with a page on average, %d at most", lost/pages, worst)
	}
}
