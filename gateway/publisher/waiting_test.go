package publisher

import (
	"errors"
	"os"
	"testing"
	"testing/synctest"
	"time"

	"millrace/buffer"
)

// withoutDisk has a file stand where the store's directory was while f runs: nothing can be written there.
func (r *rig) withoutDisk(f func()) {
	r.t.Helper()
	away := r.dir + ".away"
	if err := errors.Join(os.Rename(r.dir, away), os.WriteFile(r.dir, nil, 0o600)); err != nil {
		r.t.Fatal(err)
	}
	f()
	if err := errors.Join(os.Remove(r.dir), os.Rename(away, r.dir)); err != nil {
		r.t.Fatal(err)
	}
}

// TestSessionBeforeTheDisk: with commit_interval 0 a record is read when it is on disk. A session that begins before that sends
// what waits once it is, though it found nothing when it looked.
func TestSessionBeforeTheDisk(t *testing.T) {
	t.Parallel()
	for _, order := range []Order{LiveFirst, OldestFirst} {
		t.Run(string(order), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRigOn(t, buffer.Options{MaxSize: 1 << 30}, func(o *Options) { o.Order = order })
				r.rec.refuse = errors.New("no route")
				r.start()
				r.feed(20*time.Second, 100*time.Millisecond, "a")
				r.withoutDisk(func() {
					for range 150 {
						if _, err := r.tryAppend("a", 0); !errors.Is(err, buffer.ErrNotDurable) {
							t.Fatalf("appended without a disk: %v", err)
						}
					}
					r.rec.set(func(r *receiver) { r.refuse = nil })
					time.Sleep(20 * time.Second)
					if s := r.pub.Stats(); s.State != Connected || s.Unacknowledged != 150 || s.Overdue != 0 {
						t.Errorf("before the disk is back: %+v", s)
					}
				})
				r.feed(5*time.Second, 100*time.Millisecond, "a")
				r.settle(10 * time.Second)
				if n := len(r.got()); n != 400 {
					t.Errorf("%d messages, want 400", n)
				}
				r.checkOrder()
				r.checkLedger()
				r.stop()
			})
		})
	}
}

// TestQuarantineWithoutADisk: a record that can never be sent, while the quarantine cannot be written either, is put aside when it can; so
// is one whose session ended meanwhile.
func TestQuarantineWithoutADisk(t *testing.T) {
	t.Parallel()
	for _, cut := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			r := newRig(t, func(o *Options) { o.MaxMessage = 100 })
			r.start()
			r.feed(5*time.Second, 100*time.Millisecond, "a")
			r.withoutDisk(func() {
				if err := os.Truncate(r.dir+".away/state.db", 0); err != nil {
					t.Fatal(err)
				}
				for range 3 {
					r.append("a", 1000)
					r.feed(time.Second, 100*time.Millisecond, "a")
				}
				if s := r.pub.Stats(); s.Rejected != 0 || s.Unacknowledged == 0 {
					t.Errorf("put aside without a disk: %+v", s)
				}
				if cut {
					r.rec.cut()
					time.Sleep(time.Second)
				}
			})
			r.feed(5*time.Second, 100*time.Millisecond, "a")
			r.settle(10 * time.Second)
			if s := r.pub.Stats(); s.Rejected != 3 {
				t.Errorf("%d records are in quarantine, want 3: %+v", s.Rejected, s)
			}
			r.checkOrder()
			r.checkLedger()
			r.stop()
		})
	}
}

// TestOverdue: what the lanes have lost sight of is told, for the gateway's judgement, and is read again after a minute; what waits with a
// reason is not told: see watchOverdue.
func TestOverdue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, nil)
		r.blind = true
		first := r.append("a", 0)
		r.append("a", 0)
		next := r.buf.NextSeq()
		r.pub.lanes.live.set(next, 0)
		r.pub.lanes.backlog.set(next, next)
		r.start()
		r.feed(5*time.Second, 100*time.Millisecond, "a")
		time.Sleep(2 * lookEvery)
		if s := r.pub.Stats(); s.State != Connected || s.Overdue != first || s.Unacknowledged != 2 {
			t.Errorf("overdue is %d, want %d: %+v", s.Overdue, first, s)
		}
		r.rec.set(func(r *receiver) { r.refuse = errors.New("no route") })
		r.rec.cut()
		time.Sleep(time.Second)
		if s := r.pub.Stats(); s.State == Connected || s.Overdue != 0 {
			t.Errorf("without a link: %+v", s)
		}
		r.rec.set(func(r *receiver) { r.refuse = nil })
		r.feed(againAfter+2*lookEvery, 100*time.Millisecond, "a")
		r.settle(time.Second)
		if n := uint64(len(r.got())); n != r.buf.NextSeq()-first {
			t.Errorf("%d messages, want %d", n, r.buf.NextSeq()-first)
		}
		r.checkLedger()
		r.stop()
	})
}
