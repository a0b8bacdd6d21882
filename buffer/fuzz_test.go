package buffer

import (
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
)

// FuzzValues feeds every parser of stored values with arbitrary bytes: no panic, no unbounded memory, and
// what they accept is consistent.
func FuzzValues(f *testing.F) {
	c, err := newBlockCoder()
	if err != nil {
		f.Fatal(err)
	}
	dec, err := newDecoder()
	if err != nil {
		f.Fatal(err)
	}
	const epoch = 7
	c.seed = epochSeed(epoch)
	gap := &Gap{From: 1, To: 2, Count: 3, Cause: CauseFull, FirstSeq: 4, LastSeq: 5}
	c.add(&head{seq: 10, stream: 1, readings: 3, at: 5}, []byte("payload"))
	c.add(&head{seq: 12, flags: headGap | headAddressed, to: 1}, appendGap(nil, gap))
	f.Add(append([]byte(nil), c.finish()...))
	f.Add(appendGap(nil, gap))
	f.Add(appendDict(c.enc, dictEntry{0, "press", "schema"}, dictEntry{1, "pump", ""}))
	f.Add(appendInfo(nil, info{5, 1, epoch}))
	f.Add(appendSummary(nil, &segment{last: 9, totals: map[*account]uint64{{name: "press"}: 4}}))
	f.Add(appendMark(nil, 5, 9, "boot", &promise{first: 3, last: 9, open: true}, []byte("base"), []byte("checkpoint")))
	f.Add(appendQuarantined(nil, &Quarantined{Account: "press", Gap: gap, Reason: "no"}))
	b := mustOpen(f, filepath.Join(f.TempDir(), "store"), testOptions())
	s := mustStream(f, b, "press")
	appendN(f, b, s, 3)
	b.mu.Lock()
	f.Add(b.takeCheckpoint(nil).pack(c.enc))
	b.mu.Unlock()
	f.Fuzz(func(t *testing.T, raw []byte) {
		// A checksum would keep the fuzzer out: values are tried as they are and with the right one.
		values := [][]byte{raw}
		if len(raw) >= 8 {
			values = append(values, sealValue(append([]byte(nil), raw...)))
		}
		for _, v := range values {
			if info, err := parseBlock(v, epoch, dec, nil); err == nil {
				var h head
				for r := info.heads(); r.next(&h); {
					if h.seq < info.first || h.size > maxRecord {
						t.Fatalf("head %+v of block %+v", h, info)
					}
				}
				_, _ = info.payloads(v, dec, nil)
				if part := soundPart(v, epoch, dec); part != nil {
					if _, err := parseBlock(part, epoch, dec, nil); err != nil {
						t.Fatal(err)
					}
				}
			}
			if g, err := parseGap(v); err == nil && !g.Cause.known() {
				t.Fatal(g)
			}
			if list, err := parseDict(v, dec); err == nil {
				for _, e := range list {
					if e.id >= maxStreams || e.account == "" {
						t.Fatal(e)
					}
				}
			}
			if ckpt, err := parseCheckpoint(v, dec); err == nil {
				_ = ckpt.apply(&checkpoint{dests: ckpt.dests})
			}
			_, _ = parseSummary(v)
			_, _ = parseInfo(v)
			if m, err := parseMark(v, dec); err == nil && m.last+1 < m.first {
				t.Fatalf("%+v", m)
			}
			_, _ = parseQuarantined([]byte("12345678cloud"), v)
		}
	})
}

// FuzzPages feeds the page reader and the salvage with arbitrary changes to a segment file.
func FuzzPages(f *testing.F) {
	dir := f.TempDir() + "/store"
	o := testOptions()
	o.SegmentSize = 256 << 10
	b := mustOpen(f, dir, o)
	for range 4 {
		appendN(f, b, mustStream(f, b, "press"), 200)
		commitNow(f, b)
	}
	appendRandom(f, b, mustStream(f, b, "press"), 100, rand.New(rand.NewPCG(1, 1)))
	commitNow(f, b)
	if err := b.Close(); err != nil {
		f.Fatal(err)
	}
	names, err := filepath.Glob(dir + "/seg-*.db")
	if err != nil || len(names) == 0 {
		f.Fatal(names, err)
	}
	raw, err := os.ReadFile(names[0])
	if err != nil {
		f.Fatal(err)
	}
	dec, err := newDecoder()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(uint32(0), []byte("xx"))
	f.Add(uint32(4*pageSize), []byte{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20})
	f.Add(uint32(5*pageSize+8), []byte{1, 0, 255, 255, 1})
	f.Add(uint32(7*pageSize+24), []byte{7, 0, 0, 0, 0, 0, 0, 0})
	f.Fuzz(func(t *testing.T, at uint32, patch []byte) {
		bad := append([]byte(nil), raw...)
		copy(bad[int(at)%len(bad):], patch)
		path := filepath.Join(t.TempDir(), filepath.Base(names[0]))
		if err := os.WriteFile(path, bad, 0o640); err != nil {
			t.Fatal(err)
		}
		p, err := openPages(path)
		if err == nil {
			walkAll(t, p)
			p.close()
		}
		if _, err := salvageFile(path, info{first: 1}, []uint64{b.epoch.n}, dec); err != nil {
			t.Log(err)
		}
	})
}

// walkAll goes through a file in both directions; it must end, with keys in order.
func walkAll(t *testing.T, p *pageFile) {
	root, err := p.bucket(bucketName)
	if err != nil {
		return
	}
	c := pageCursor{file: p, root: root}
	n := 0
	for k, _ := c.Seek(nil); k != nil; k, _ = c.Next() {
		if n++; n > 1<<20 {
			t.Fatal("the walk does not end")
		}
	}
	n = 0
	for k, _ := c.Last(); k != nil; k, _ = c.Prev() {
		if n++; n > 1<<22 {
			t.Fatal("the walk back does not end")
		}
	}
}
