package publisher

import (
	"context"
	"fmt"
	"math/rand/v2"
	"runtime"
	"strings"
	"testing"
	"time"

	"millrace/buffer"
	"millrace/gateway/link/mqtt/brokersim"
)

func TestPublishes(t *testing.T) {
	t.Parallel()
	r := newRig(t, rigOptions{})
	r.run()
	for i := range 300 {
		r.append(i%3, 3)
	}
	r.delivered()
	if r.got.count() != 300 || r.got.sum() != 900 || r.got.historical > 300 {
		t.Errorf("received %d messages, %d readings", r.got.count(), r.got.sum())
	}
	r.append(0, 1)
	r.delivered()
	if r.got.payloads[301] != `{"gateway":"shop","device":"press-1","group":"fast","epoch":"`+r.buf.Epoch()+`","seq":301,"ts":1766480000000,"values":{"tag-000":900},"bad":{}}` {
		t.Errorf("a live message: %s", r.got.payloads[301])
	}
	s := r.p.Stats()
	if s.State != Connected || s.Acked != 301 || s.Sessions != 1 || s.Resent != 0 || s.InFlight != 0 || s.LiveLag != 0 || s.BacklogLag != 0 {
		t.Errorf("stats %+v", s)
	}
	r.stop()
	if s := r.p.Stats(); s.State != Stopped {
		t.Errorf("after Run: %v", s.State)
	}
}

// TestCuts cuts the connection while records come and looks at everything that is promised about order,
// loss and duplicates, and at the ledger all the time: it may never be ahead of the broker.
func TestCuts(t *testing.T) {
	t.Parallel()
	for _, order := range []Order{LiveFirst, OldestFirst} {
		t.Run(fmt.Sprint("order ", order), func(t *testing.T) {
			t.Parallel()
			r := newRig(t, rigOptions{publisher: Options{Order: order, Window: 64, RetryMin: time.Millisecond, RetryMax: 4 * time.Millisecond}})
			r.run()
			rng := rand.New(rand.NewPCG(1, uint64(order)))
			rounds := uint64(300 - 200*int(order))
			for cuts := uint64(0); cuts < rounds; {
				for range rng.IntN(100) {
					r.append(rng.IntN(3), 1+rng.IntN(3))
				}
				if rng.IntN(4) == 0 { // let it catch up now and then, so that live records are among those cut
					time.Sleep(5 * time.Millisecond)
				}
				if s := r.p.Stats(); s.Sessions > cuts {
					cuts = s.Sessions
					r.broker.CutAll()
				} else {
					time.Sleep(200 * time.Microsecond)
				}
				delivered, _, _, _ := r.ledger()
				if received := r.got.sum(); delivered > received {
					t.Fatalf("the ledger says %d readings delivered, the broker has %d", delivered, received)
				}
			}
			r.delivered()
			if r.got.sum() != r.sent {
				t.Errorf("received %d readings of %d", r.got.sum(), r.sent)
			}
			s := r.p.Stats()
			t.Logf("%d records, %d sessions, %d sent again, %d duplicates received, %d historical", r.got.count(), s.Sessions, s.Resent, r.got.duplicates, r.got.historical)
			if s.Rejected != 0 || s.Sessions < rounds {
				t.Errorf("stats %+v", s)
			}
		})
	}
}

// TestNoGoroutineStays runs alone: lost sessions must leave nothing behind.
func TestNoGoroutineStays(t *testing.T) {
	before := runtime.NumGoroutine()
	r := newRig(t, rigOptions{publisher: quick})
	r.run()
	for cuts := uint64(0); cuts < 30; {
		r.append(0, 3)
		if s := r.p.Stats(); s.Sessions > cuts {
			cuts = s.Sessions
			r.broker.CutAll()
		}
		time.Sleep(time.Millisecond)
	}
	r.delivered()
	r.stop()
	r.broker.Kill()
	r.await("every goroutine ended", func() bool { return runtime.NumGoroutine() <= before })
}

// TestRestarts stops the gateway's half at random moments without draining, keeps the directory, and starts
// it again while the broker comes and goes.
func TestRestarts(t *testing.T) {
	t.Parallel()
	o := rigOptions{dir: t.TempDir(), publisher: Options{Window: 32, RetryMin: time.Millisecond, RetryMax: 4 * time.Millisecond},
		buffer: buffer.Options{CommitInterval: 2 * time.Millisecond}}
	r := newRig(t, o)
	o.publisher.URL = "mqtt://" + r.broker.Addr()
	rng := rand.New(rand.NewPCG(3, 4))
	for round := range 30 {
		if round > 0 {
			r.streams = nil
			r.open(o)
		}
		r.run()
		for range rng.IntN(400) {
			r.append(rng.IntN(3), 3)
			if rng.IntN(100) == 0 {
				time.Sleep(time.Duration(rng.IntN(4)) * time.Millisecond)
			}
		}
		switch {
		case round%3 == 1:
			r.broker.Kill()
		case round%3 == 2:
			if err := r.broker.Start(); err != nil {
				t.Fatal(err)
			}
		}
		r.stop()
	}
	r.broker.Start()
	r.streams = nil
	r.open(o)
	r.run()
	r.delivered()
	if r.got.sum() != r.sent {
		t.Errorf("received %d readings of %d", r.got.sum(), r.sent)
	}
	t.Logf("%d records, %d duplicates, %d historical", r.got.count(), r.got.duplicates, r.got.historical)
}

func TestLiveGoesBeforeTheBacklog(t *testing.T) {
	t.Parallel()
	r := newRig(t, rigOptions{publisher: Options{BacklogMessages: 500}})
	for range 1000 {
		r.append(0, 3)
	}
	r.run()
	r.await("link up", func() bool { return r.p.Stats().BacklogLag > 0 && r.p.Stats().BacklogLag < 980 })
	start := time.Now()
	seq := r.append(1, 3)
	r.await("the live record", func() bool {
		r.got.mu.Lock()
		defer r.got.mu.Unlock()
		return r.got.payloads[seq] != ""
	})
	took, lag := time.Since(start), r.p.Stats().BacklogLag
	if lag < 300 {
		t.Errorf("the live record came after %v, when %d of 1,000 old records were left", took, lag)
	}
	r.delivered()
	if took := time.Since(start); took < time.Second {
		t.Errorf("the backlog of 1,000 was sent in %v with a limit of 500 a second", took)
	}
	r.got.mu.Lock()
	if text := r.got.payloads[seq]; strings.Contains(text, "historical") || !strings.Contains(r.got.payloads[500], `"historical":true`) {
		t.Errorf("marks: live %s, old %s", text, r.got.payloads[500])
	}
	r.got.mu.Unlock()
}

func TestOldestFirst(t *testing.T) {
	t.Parallel()
	r := newRig(t, rigOptions{publisher: Options{Order: OldestFirst}})
	for range 2000 {
		r.append(0, 3)
	}
	r.run()
	for range 500 {
		r.append(1, 3)
		time.Sleep(100 * time.Microsecond)
	}
	r.delivered()
	for i, seq := range r.got.order {
		if seq != uint64(i+1) {
			t.Fatalf("message %d is record %d", i, seq)
		}
	}
}

func TestBytesLimit(t *testing.T) {
	t.Parallel()
	r := newRig(t, rigOptions{publisher: Options{BacklogBytes: 50_000}})
	for range 500 {
		r.append(0, 3)
	}
	r.run()
	start := time.Now()
	r.delivered()
	want := time.Duration(float64(r.p.Stats().Bytes)/50_000*1e9) - 500*time.Millisecond
	if took := time.Since(start); took < want {
		t.Errorf("%d bytes in %v, limit 50,000 a second", r.p.Stats().Bytes, took)
	}
}

func TestDrain(t *testing.T) {
	t.Parallel()
	r := newRig(t, rigOptions{broker: brokersim.Options{}})
	r.broker.SetFaults(brokersim.Faults{AckDelay: 2 * time.Millisecond})
	r.run()
	r.await("link up", func() bool { return r.p.Stats().State == Connected })
	for range 100 {
		r.append(0, 3)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	if err := r.p.Drain(ctx); err != nil || r.p.Stats().Unacked != 0 {
		t.Errorf("drain: %v, left %d", err, r.p.Stats().Unacked)
	}
	for range 2000 {
		r.append(0, 3)
	}
	short, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	if err := r.p.Drain(short); err == nil || !strings.Contains(err.Error(), "stay in the buffer") {
		t.Errorf("drain that cannot finish: %v", err)
	}
	r.broker.Kill()
	r.await("link down", func() bool { return r.p.Stats().State == Waiting })
	start := time.Now()
	if err := r.p.Drain(context.Background()); err == nil || time.Since(start) > time.Second {
		t.Errorf("drain with the link down: %v after %v", err, time.Since(start))
	}
}

func TestStopWaitsForWhatIsInFlight(t *testing.T) {
	t.Parallel()
	r := newRig(t, rigOptions{})
	r.broker.SetFaults(brokersim.Faults{AckDelay: time.Millisecond})
	r.run()
	for range 50 {
		r.append(0, 3)
	}
	r.await("in flight", func() bool { return r.p.Stats().InFlight > 20 })
	r.stop()
	if s := r.p.Stats(); uint64(r.got.count()) != s.Acked {
		t.Errorf("the broker got %d messages, %d acknowledged before the good-bye", r.got.count(), s.Acked)
	}
}

func TestNewRefuses(t *testing.T) {
	r := newRig(t, rigOptions{})
	defer r.buf.Close()
	for want, change := range map[string]func(*Options){
		"no destination": func(o *Options) { o.Destination = "other" },
		"scheme":         func(o *Options) { o.URL = "http://x" },
		"client id":      func(o *Options) { o.ClientID = "" },
		"format":         func(o *Options) { o.Format = nil },
	} {
		o := r.p.o
		change(&o)
		if _, err := New(r.buf, o); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want %q", err, want)
		}
	}
}
