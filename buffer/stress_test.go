package buffer

import (
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// TestStress lets producers, two lanes for each of two destinations, Run, and people who look at the store
// work at once on small segments, under the race detector. Every record must come at least once and unspoilt.
func TestStress(t *testing.T) {
	for _, interval := range []time.Duration{0, 4 * time.Millisecond} {
		t.Run(fmt.Sprint(interval), func(t *testing.T) {
			o := Options{MaxSize: 256 << 20, CommitInterval: interval, SegmentSize: 256 << 10, Destinations: []string{"a", "b"}}
			b := mustOpen(t, t.TempDir()+"/store", o)
			b.stallWait = time.Minute
			ctx, cancel := context.WithCancel(t.Context())
			var run sync.WaitGroup
			run.Go(func() { _ = b.Run(ctx) })
			stop := time.Now().Add(800 * time.Millisecond)
			var appended atomic.Uint64
			var producers, others sync.WaitGroup
			for i := range 4 {
				producers.Go(func() { stressProducer(t, b, i, stop, &appended) })
			}
			var got [2]map[uint64]bool
			var mu sync.Mutex
			for i, name := range o.Destinations {
				got[i] = map[uint64]bool{}
				others.Go(func() {
					stressPublisher(t, b.Destination(name), stop, func(seq uint64) {
						mu.Lock()
						got[i][seq] = true
						mu.Unlock()
					})
				})
			}
			others.Go(func() {
				for time.Now().Before(stop) {
					checkLedger(t, b)
					_, _ = b.Stats(), b.Segments()
					_ = b.Scan(ctx, 0, 0, func(r *Record) error { return stressCheck(r) })
					time.Sleep(20 * time.Millisecond)
				}
			})
			producers.Wait()
			others.Wait()
			for i, name := range o.Destinations {
				d := b.Destination(name)
				d.Reset()
				b.lockCommit()
				if err := b.commit(); err != nil {
					t.Fatal(err)
				}
				b.unlockCommit()
				for _, r := range readAll(t, d, true) {
					if err := stressCheck(&r); err != nil {
						t.Fatal(err)
					}
					got[i][r.Seq] = true
				}
				if n := uint64(len(got[i])); n != appended.Load() {
					t.Errorf("%s got %d of %d records", name, n, appended.Load())
				}
			}
			checkLedger(t, b)
			cancel()
			run.Wait()
			if st := b.Stats(); st.Damages != 0 || st.Health != "ok" {
				t.Errorf("%+v", st)
			}
			t.Logf("%d records", appended.Load())
		})
	}
}

// stressProducer appends records that carry a mark of their content.
func stressProducer(t *testing.T, b *Buffer, i int, stop time.Time, appended *atomic.Uint64) {
	s, err := b.Stream(fmt.Sprintf("device-%d", i), []byte("schema"))
	if err != nil {
		t.Error(err)
		return
	}
	rng := rand.New(rand.NewPCG(uint64(i), 9))
	for n := uint64(0); time.Now().Before(stop); n++ {
		p := binary.BigEndian.AppendUint64(nil, n)
		for range rng.IntN(200) {
			p = append(p, byte(n*31))
		}
		if _, err := b.Append(s, p, 1, int64(n)); err != nil {
			t.Error(err)
			return
		}
		appended.Add(1)
		if n%64 == 0 {
			time.Sleep(time.Millisecond)
		}
	}
}

func stressCheck(r *Record) error {
	if r.Gap != nil {
		return fmt.Errorf("a gap: %+v", r.Gap)
	}
	n := binary.BigEndian.Uint64(r.Payload)
	for _, c := range r.Payload[8:] {
		if c != byte(n*31) {
			return fmt.Errorf("record %d is spoilt", r.Seq)
		}
	}
	if r.At != int64(n) || string(r.Stream.Dict()) != "schema" {
		return fmt.Errorf("record %d: %+v", r.Seq, r)
	}
	return nil
}

// stressPublisher is a link that comes and goes, with a live lane and a backlog lane.
func stressPublisher(t *testing.T, d *Destination, stop time.Time, got func(uint64)) {
	rng := rand.New(rand.NewPCG(uint64(len(d.Name())), 10))
	for time.Now().Before(stop) {
		from := d.b.NextSeq()
		lanes := []*Reader{d.Reader(from, 0), d.Reader(0, from)}
		until := time.Now().Add(time.Duration(rng.IntN(120)) * time.Millisecond)
		var window []uint64
		for time.Now().Before(until) {
			var rec Record
			ok, err := take(lanes[rng.IntN(2)], &rec)
			if err != nil {
				t.Error(err)
				return
			}
			if !ok {
				time.Sleep(100 * time.Microsecond)
			} else if err := stressCheck(&rec); err != nil {
				t.Error(err)
				return
			} else {
				window = append(window, rec.Seq)
			}
			if len(window) > 0 && (len(window) > 50 || !ok) {
				i := rng.IntN(len(window))
				d.Ack(window[i])
				got(window[i])
				window = append(window[:i], window[i+1:]...)
			}
		}
		d.Reset()
		time.Sleep(time.Duration(rng.IntN(60)) * time.Millisecond)
	}
}
