package buffer

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// TestWellWithoutARecord: a store whose last write failed says that it is well again within a minute of the disk's being
// mended, also when nothing needs the disk any more; while the disk is not, it says nothing of the kind.
func TestWellWithoutARecord(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &faulty{kind: "write"}
		o := faultOptions()
		o.CommitInterval = time.Second
		b, err := open(t.TempDir()+"/store", o, f.files())
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() { defer close(ended); _ = b.Run(ctx) }()
		failing := func(from int) {
			f.mu.Lock()
			f.failAt, f.count, f.forever, f.hits = from, 0, true, 0
			f.mu.Unlock()
		}
		failing(1)
		appendN(t, b, mustStream(t, b, "press"), 10)
		time.Sleep(3 * time.Second)
		if h := b.Stats().Health; h == "ok" {
			t.Fatal("health is ok on a disk that fails")
		}
		readAll(t, b.Destination("cloud"), true) // nothing needs the disk from here on
		time.Sleep(10 * time.Minute)
		if h := b.Stats().Health; !strings.Contains(h, "cannot be written") {
			t.Fatalf("health %q on a disk that fails", h)
		}
		f.mu.Lock()
		tries := f.hits
		f.mu.Unlock()
		if tries > 10*60 {
			t.Errorf("%d operations tried in ten minutes", tries)
		}
		failing(0)
		time.Sleep(probeMost + time.Second)
		if h := b.Stats().Health; h != "ok" {
			t.Errorf("health %q on a disk that is mended", h)
		}
		cancel()
		<-ended
		if err := b.Close(); err != nil {
			t.Fatal(err)
		}
	})
}
