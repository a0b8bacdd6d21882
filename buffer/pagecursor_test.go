package buffer

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	bolt "go.etcd.io/bbolt"
)

// manyLeaves makes a store whose one segment has leaves of one to four pages and more than one level of branches.
func manyLeaves(t testing.TB) (path string, raw []byte) {
	t.Helper()
	dir := t.TempDir() + "/store"
	b := mustOpen(t, dir, Options{MaxSize: 64 << 20, SegmentSize: 8 << 20, CommitInterval: 1e12, Destinations: []string{"cloud"}})
	s := mustStream(t, b, "press")
	rng := rand.New(rand.NewPCG(4, 4))
	for i := range 1200 {
		p := make([]byte, 1+rng.IntN(2000))
		for j := range p {
			p[j] = byte(rng.Uint32())
		}
		if _, err := b.Append(s, p, 1, int64(i)); err != nil {
			t.Fatal(err)
		}
		if i%300 < 40 || i%300 == 299 {
			commitNow(t, b)
		}
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	names, err := filepath.Glob(dir + "/seg-*.db")
	if err != nil || len(names) != 1 {
		t.Fatal(names, err)
	}
	if raw, err = os.ReadFile(names[0]); err != nil {
		t.Fatal(err)
	}
	return names[0], raw
}

type pair struct{ k, v string }

// reference walks a tree as simply as can be: each node read for itself, nothing ahead. It returns what comes
// before the first damage, and whether there was one.
func reference(p *pageFile, root bucketRoot) (list []pair, sound bool) {
	var walk func(id uint64, depth int) bool
	walk = func(id uint64, depth int) bool {
		if depth >= maxDepth {
			return false
		}
		n, _, err := p.load(id, nil)
		if err != nil || n.count == 0 {
			return false
		}
		for i := range n.count {
			k, v, flags, child, ok := n.element(i)
			switch {
			case !ok:
				return false
			case !n.leaf:
				if !walk(child, depth+1) {
					return false
				}
				continue
			case flags&bucketFlag != 0 || len(k) == 0 || (len(list) > 0 && list[len(list)-1].k >= string(k)):
				return false
			}
			list = append(list, pair{string(k), string(v)})
		}
		return true
	}
	sound = walk(root.id, 0)
	return list, sound
}

// checkAhead compares the cursor, which reads leaves ahead, with the reference.
func checkAhead(t *testing.T, path string) (keys int, sound bool) {
	t.Helper()
	p, err := openPages(path)
	if err != nil {
		return 0, false
	}
	defer p.close()
	root, err := p.bucket(bucketName)
	if err != nil || root.inline != nil {
		return 0, false
	}
	want, sound := reference(p, root)
	c := pageCursor{file: p, root: root}
	n := 0
	for k, v := c.Seek([]byte{0}); k != nil; k, v = c.Next() {
		if n == len(want) || want[n].k != string(k) || want[n].v != string(v) {
			t.Fatalf("key %d: %x with %d bytes, not as it is in the file", n, k, len(v))
		}
		n++
	}
	if n != len(want) && !(n < len(want) && !sound && c.err != nil) || sound != (c.err == nil) {
		t.Fatalf("%d keys and %v; there are %d, and that the tree is sound is %v", n, c.err, len(want), sound)
	}
	return n, sound
}

// TestPagesAhead changes the page headers, elements and branches of a segment: read ahead or not, the cursor gives what
// the file has, up to the damage, and nothing else.
func TestPagesAhead(t *testing.T) {
	path, raw := manyLeaves(t)
	sizes := map[uint32]int{}
	for at := 2 * pageSize; at < len(raw); at += pageSize {
		if binary.NativeEndian.Uint64(raw[at:]) == uint64(at/pageSize) && binary.NativeEndian.Uint16(raw[at+8:]) == leafPage {
			sizes[binary.NativeEndian.Uint32(raw[at+12:])]++
		}
	}
	if sizes[0] == 0 || sizes[1] == 0 || sizes[pairPages-1] < 50 {
		t.Fatalf("overflow pages of the leaves: %v", sizes)
	}
	all, sound := checkAhead(t, path)
	if !sound || all < 400 {
		t.Fatalf("%d keys, sound: %v", all, sound)
	}
	rng := rand.New(rand.NewPCG(seeds(t, 1, 1)[0], 8))
	rounds, damaged := 150, 0
	if os.Getenv("MILLRACE_LONG") != "" {
		rounds = 20_000
	}
	bad := filepath.Join(t.TempDir(), filepath.Base(path))
	for range rounds {
		spoilt := bytes.Clone(raw)
		page := (2 + rng.IntN(len(raw)/pageSize-2)) * pageSize
		switch at := page + rng.IntN(200)&^3; rng.IntN(4) {
		case 0:
			spoilt[page+12+rng.IntN(2)] ^= 1 << rng.IntN(8) // overflow
		case 1:
			binary.NativeEndian.PutUint32(spoilt[at:], rng.Uint32())
		case 2: // another page's number
			binary.NativeEndian.PutUint64(spoilt[page+pageHead+8+16*rng.IntN(8):], rng.Uint64N(uint64(len(raw)/pageSize+40)))
		case 3:
			binary.NativeEndian.PutUint64(spoilt[at:], rng.Uint64()|1<<63)
		}
		if err := os.WriteFile(bad, spoilt, 0o640); err != nil {
			t.Fatal(err)
		}
		if _, sound := checkAhead(t, bad); !sound {
			damaged++
		}
	}
	t.Logf("%d of %d changes made the tree unsound", damaged, rounds)
	if damaged < rounds/20 {
		t.Error("the changes do not reach the tree")
	}
}

// FuzzPagesAhead is TestPagesAhead with changes that the fuzzer thinks of.
func FuzzPagesAhead(f *testing.F) {
	path, raw := manyLeaves(f)
	f.Add(uint32(7*pageSize+12), []byte{9})
	f.Add(uint32(30*pageSize+24), []byte{255, 255, 255, 255, 255, 255, 255, 255})
	f.Fuzz(func(t *testing.T, at uint32, patch []byte) {
		spoilt := bytes.Clone(raw)
		copy(spoilt[2*pageSize+int(at)%(len(spoilt)-2*pageSize):], patch)
		bad := filepath.Join(t.TempDir(), filepath.Base(path))
		if err := os.WriteFile(bad, spoilt, 0o640); err != nil {
			t.Fatal(err)
		}
		checkAhead(t, bad)
	})
}

// TestOtherPieces opens stores whose values are cut otherwise, as earlier builds did: how they are cut is no part of the
// format, so its number stays.
func TestOtherPieces(t *testing.T) {
	for _, size := range []int{652, 2012, 4060} {
		tp := newTemplate(t)
		for _, name := range tp.files {
			if name != stateName && name != markName {
				recut(t, filepath.Join(tp.dir, name), size)
			}
		}
		if lost := tp.check(t, tp.copy(t), 0); lost != 0 || len(tp.found) != 0 {
			t.Errorf("pieces of %d bytes: %d records lost, %+v", size, lost, tp.found)
		}
		dir := tp.copy(t)
		path := filepath.Join(dir, tp.files[2])
		raw, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		clear(raw[:2*pageSize]) // no meta page: the segment is salvaged
		if err := os.WriteFile(path, raw, 0o640); err != nil {
			t.Fatal(err)
		}
		if lost := tp.check(t, dir, 0); lost != 0 || len(tp.found) != 1 {
			t.Errorf("pieces of %d bytes, salvaged: %d records lost, %+v", size, lost, tp.found)
		}
	}
}

// recut writes a segment anew with its values in pieces of another size.
func recut(t *testing.T, path string, size int) {
	t.Helper()
	p, err := openPages(path)
	if err != nil {
		t.Fatal(err)
	}
	defer p.close()
	root, err := p.bucket(bucketName)
	if err != nil {
		t.Fatal(err)
	}
	db, err := bolt.Open(path+".new", 0o640, &bolt.Options{PageSize: pageSize, NoFreelistSync: true})
	if err != nil {
		t.Fatal(err)
	}
	err = db.Update(func(tx *bolt.Tx) error {
		bkt, err := tx.CreateBucket(bucketName)
		if err != nil {
			return err
		}
		bkt.FillPercent = 1
		c := pageCursor{file: p, root: root}
		for k, v := c.Seek([]byte{0}); k != nil; {
			region, seq, typ, _ := keyOf(k)
			var value []byte
			if value, k, v, err = getChunks(&c, k, v, nil, nil, maxBlock); err != nil {
				return err
			}
			for chunk := 0; len(value) > 0; chunk++ {
				n := min(size, len(value))
				if err := bkt.Put(makeKey(region, seq, typ, chunk), value[:n]); err != nil {
					return err
				}
				value = value[n:]
			}
		}
		return c.err
	})
	if err == nil {
		err = db.Close()
	}
	if err == nil {
		err = os.Rename(path+".new", path)
	}
	if err != nil {
		t.Fatal(err)
	}
}
