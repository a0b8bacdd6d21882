package buffer

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	bolt "go.etcd.io/bbolt"
)

// identity is what consumers know a record by.
type identity struct {
	epoch string
	seq   uint64
}

// futures is one store and all that became of it and its copies, and every message that any of them sent.
type futures struct {
	t         *testing.T
	rng       *rand.Rand
	sent      map[identity]string
	conflicts int
	made      int    // contents, so that no two records are alike
	pin       uint64 // the control: every process takes this epoch
}

// live runs a process on a directory for a while: it takes records, commits, sends, has some acknowledged, and is killed
// or stopped in the end. meanwhile is called while it is at work.
func (f *futures) live(dir string, meanwhile func()) {
	o := testOptions()
	o.CommitInterval, o.SegmentSize = 5*time.Millisecond, 256<<10
	b := mustOpen(f.t, dir, o)
	if f.pin != 0 {
		b.epoch = newEpoch(f.pin)
		b.coder.seed = epochSeed(f.pin)
	}
	ctx, cancel := context.WithCancel(f.t.Context())
	ended := make(chan struct{})
	go func() { defer close(ended); _ = b.Run(ctx) }()
	copied := make(chan struct{})
	go func() { defer close(copied); meanwhile() }()
	for range 1 + f.rng.IntN(20) {
		s := mustStream(f.t, b, fmt.Sprintf("device-%d", f.rng.IntN(3)))
		for range f.rng.IntN(20) {
			f.made++
			if _, err := b.Append(s, fmt.Appendf(nil, "content %d %x", f.made, make([]byte, f.rng.IntN(300))), 1, int64(f.made)); err != nil {
				f.t.Fatal(err)
			}
		}
		if f.rng.IntN(3) == 0 {
			f.send(b)
		}
		if f.rng.IntN(4) == 0 {
			time.Sleep(time.Duration(f.rng.IntN(8)) * time.Millisecond)
		}
	}
	f.send(b)
	<-copied
	cancel()
	<-ended
	if f.rng.IntN(2) == 0 {
		crash(b)
	} else if err := b.Close(); err != nil {
		f.t.Fatal(err)
	}
}

func (f *futures) send(b *Buffer) {
	d := b.Destination("cloud")
	for _, r := range readAll(f.t, d, false) {
		content := fmt.Sprint(r.Stream.Account(), r.At, r.Readings, string(r.Payload), r.Gap)
		id := identity{r.Epoch, r.Seq}
		if before, ok := f.sent[id]; ok && before != content {
			f.conflicts++
		}
		f.sent[id] = content
		if f.rng.IntN(2) == 0 {
			d.Ack(r.Seq)
		}
	}
	d.Reset()
}

// copyDir copies what of a directory is there at each file's turn, as `cp -r` beside a running gateway does.
func (f *futures) copyDir(from, to string) {
	if err := os.MkdirAll(to, 0o750); err != nil {
		f.t.Error(err)
	}
	names, _ := filepath.Glob(from + "/*")
	for _, name := range names {
		raw, err := os.ReadFile(name)
		if err == nil {
			err = os.WriteFile(filepath.Join(to, filepath.Base(name)), raw, 0o640)
		}
		if err != nil && !os.IsNotExist(err) {
			f.t.Error(err)
		}
	}
}

// pair copies a store at a random moment, lets both go on, and then puts the copy back in the place of the original.
func (f *futures) pair() {
	dir := f.t.TempDir()
	a, copied := dir+"/a", dir+"/b"
	f.live(a, func() {})
	if f.rng.IntN(2) == 0 {
		moment := time.Duration(f.rng.IntN(20)) * time.Millisecond
		f.live(a, func() { time.Sleep(moment); f.copyDir(a, copied) })
	} else {
		f.copyDir(a, copied)
	}
	kept := dir + "/kept"
	f.copyDir(copied, kept)
	f.live(a, func() {})
	f.live(copied, func() {})
	f.live(a, func() {})
	if err := os.RemoveAll(a); err != nil {
		f.t.Fatal(err)
	}
	f.copyDir(kept, a) // restored
	f.live(a, func() {})
}

// TestFutures: whatever became of copies of one store, no two records have the same epoch and number. The control has
// them all take the same epoch.
func TestFutures(t *testing.T) {
	pairs := 10
	if os.Getenv("MILLRACE_LONG") != "" {
		pairs = 200
	}
	seed := seeds(t, 1, 1)[0]
	run := func(pairs int, pin uint64) *futures {
		f := &futures{t: t, rng: rand.New(rand.NewPCG(seed, 21)), sent: map[identity]string{}, pin: pin}
		for range pairs {
			f.pair()
		}
		return f
	}
	f := run(pairs, 0)
	t.Logf("seed %d: %d pairs, %d records sent", seed, pairs, len(f.sent))
	if f.conflicts > 0 || len(f.sent) < 100*pairs {
		t.Errorf("%d of %d records sent have the epoch and number of another", f.conflicts, len(f.sent))
	}
	if f := run(3, 7); f.conflicts == 0 {
		t.Error("the control: copies with one epoch, and no conflict was seen")
	}
}

// TestFormat1: a store that an older version wrote is taken over: its records keep the epoch that was the store's own.
func TestFormat1(t *testing.T) {
	dir := t.TempDir() + "/store"
	b := mustOpen(t, dir, testOptions())
	b.epoch = newEpoch(b.store)
	b.coder.seed = epochSeed(b.store)
	appendN(t, b, mustStream(t, b, "press"), 100)
	commitNow(t, b)
	old, store := b.Epoch(), b.store
	crash(b)
	older := func(path string, bucket, key []byte, n uint64) {
		db, err := bolt.Open(path, 0o640, nil)
		if err != nil {
			t.Fatal(err)
		}
		v := append(make([]byte, 8), appendInfo(nil, info{store, n, store})[8:25]...)
		v[8] = 1
		err = db.Update(func(tx *bolt.Tx) error {
			k, was := tx.Bucket(bucket).Cursor().Seek(key)
			if !bytes.Equal(k, key) || len(was) != 33 {
				t.Fatalf("%x: %x", k, was)
			}
			return tx.Bucket(bucket).Put(key, sealValue(v))
		})
		if err != nil || db.Close() != nil {
			t.Fatal(err)
		}
	}
	older(filepath.Join(dir, stateName), stateBucket, keyHead, b.reserved)
	older(filepath.Join(dir, fmt.Sprintf(segPattern, 1)), bucketName, makeKey(regionInfo, 0, 0, 0), 1)
	b = mustOpen(t, dir, testOptions())
	first, _ := appendN(t, b, mustStream(t, b, "press"), 1)
	all := readAll(t, b.Destination("cloud"), true)
	if len(all) != 101 || b.Stats().Damages != 0 || b.store != store {
		t.Fatalf("%d records of store %x; %+v", len(all), b.store, b.Stats())
	}
	for _, r := range all {
		if (r.Epoch == old) != (r.Seq < first) {
			t.Errorf("record %d is of epoch %s", r.Seq, r.Epoch)
		}
	}
}
