package publisher

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"millrace/buffer"
	"millrace/gateway/format"
	"millrace/gateway/record"
)

func openWith(f plainFormat) func([]*record.Schema) format.Encoder {
	return func([]*record.Schema) format.Encoder { return f.Open() }
}

// long tells whether everything is to be tried that a campaign has, by MILLRACE_LONG in the environment.
func long() bool { return os.Getenv("MILLRACE_LONG") != "" }

// TestRefusedStreams: streams that are refused by closing, by silence or by both, from the start or later, hold up no
// other for longer than 10 s, all pauses of a minute together, and of the others nothing is given up.
func TestRefusedStreams(t *testing.T) {
	t.Parallel()
	counts := []int{2, 1, 10}[:3/raceShare] // the bar of issue 8
	if long() {
		counts = []int{1, 2, 5, 10}
	}
	for _, how := range []string{"closing", "silence", "both"} {
		for _, n := range counts {
			for _, later := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s,%d,later=%v", how, n, later), func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) { refusedStreams(t, how, n, later) })
				})
			}
		}
	}
}

func refusedStreams(t *testing.T, how string, n int, later bool) {
	r := newRig(t, nil)
	var healthy, refused []string
	for i := range 10 {
		healthy = append(healthy, fmt.Sprintf("good-%d", i))
	}
	for i := range n {
		refused = append(refused, fmt.Sprintf("poor-%d", i))
	}
	poor := func(g *got) bool { return strings.HasPrefix(g.topic, "poor") }
	odd := func(g *got) bool { return strings.HasPrefix(g.topic, "poor") && g.topic[5]%2 == 1 }
	switch how {
	case "closing":
		r.rec.closes = func(g *got, _ int) bool { return poor(g) }
	case "silence":
		r.rec.silent = poor
	case "both":
		r.rec.closes = func(g *got, _ int) bool { return poor(g) && !odd(g) }
		r.rec.silent = odd
	}
	r.start()
	all := append(slices.Clone(refused), healthy...)
	if later {
		r.feed(10*time.Second, 100*time.Millisecond, healthy...)
	}
	start := time.Now()
	r.feed(time.Minute, 100*time.Millisecond, all...)
	made := 10 * int(time.Since(start)/(100*time.Millisecond))
	if later {
		made += 10 * 100
	}
	time.Sleep(10 * time.Second)
	longest, count := r.longest(healthy...)
	s := r.pub.Stats()
	waited := r.waited(healthy...)
	t.Logf("longest wait of a healthy stream %v, in all %v, %d sessions, %d records given up", longest, waited, s.Sessions, s.Rejected)
	if longest > 10*time.Second || waited > 10*time.Second || count != made {
		t.Errorf("longest wait %v, in all %v, %d of %d records of healthy streams arrived; %+v\n%s", longest, waited, count, made, s, r.log)
	}
	for _, a := range r.buf.Ledger() {
		if strings.HasPrefix(a.Name, "good") && a.Destinations[0].Lost() > 0 {
			t.Errorf("%d readings of %s were given up", a.Destinations[0].Lost(), a.Name)
		}
	}
	for _, d := range refused {
		if !strings.Contains(r.log.String(), d+"/g") {
			t.Errorf("the log does not name %s:\n%s", d, r.log)
		}
	}
	if q, err := r.buf.Quarantine(); err != nil || slices.ContainsFunc(q, func(e *buffer.Quarantined) bool { return e.Gap != nil }) {
		t.Errorf("a gap record was given up, so nothing tells of a loss: %v\n%s", err, r.log)
	}
	if r.open() != n {
		t.Errorf("%d open breakers, want %d: %+v", len(s.Breakers), n, s.Breakers)
	}
	r.checkOrder()
	r.checkLedger()
	r.rec.set(func(r *receiver) { r.closes, r.silent = nil, nil })
	r.settle(20 * time.Minute)
	for end := time.Now().Add(20 * time.Minute); r.open() > 0 && time.Now().Before(end); time.Sleep(time.Second) {
	}
	if s := r.pub.Stats(); r.open() != 0 || s.Held != 0 || s.Rejected != 0 {
		t.Errorf("the receiver takes everything, and there are breakers, or records in quarantine: %+v", s)
	}
	r.checkLedger()
	r.stop()
}

// TestStreamIsRefusedForAWhile: nothing of it is given up, and it comes in order, whenever the receiver takes it again.
func TestStreamIsRefusedForAWhile(t *testing.T) {
	t.Parallel()
	passed, runs, step := 0, 0, 3
	if long() {
		step = 1
	}
	for _, how := range []string{"closing", "silence"} {
		for i := 0; i < 30; i += step {
			runs++
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t, nil)
				poor := func(g *got) bool { return g.topic == "poor/g" }
				if how == "closing" {
					r.rec.closes = func(g *got, _ int) bool { return poor(g) }
				} else {
					r.rec.silent = poor
				}
				r.start()
				r.feed(time.Duration(1+i*i)*300*time.Millisecond+time.Duration(i)*time.Second, 100*time.Millisecond, "good", "poor")
				r.rec.set(func(r *receiver) { r.closes, r.silent = nil, nil })
				r.feed(time.Minute, 100*time.Millisecond, "good", "poor")
				r.settle(20 * time.Minute)
				if s := r.pub.Stats(); s.Rejected != 0 {
					t.Errorf("%s, %d: %d records were given up:\n%s", how, i, s.Rejected, r.log)
				}
				if r.pub.passed == 0 {
					r.checkOrder()
				}
				passed += r.pub.passed
				r.checkLedger()
				r.stop()
			})
		}
	}
	t.Logf("%d records passed an older one of their stream in %d runs", passed, runs)
	if passed > 3+runs*3/20 { // 5 in 60 runs are usual
		t.Errorf("%d records passed an older one of their stream", passed)
	}
}

// TestEverythingIsClosedOn for minutes: nothing is given up, and when the receiver takes messages again they flow at once.
func TestEverythingIsClosedOn(t *testing.T) {
	t.Parallel()
	for _, n := range []int{1, 3, 20} {
		synctest.Test(t, func(t *testing.T) {
			r := newRig(t, nil)
			var devices []string
			for i := range n {
				devices = append(devices, fmt.Sprintf("d%d", i))
			}
			r.start()
			r.feed(5*time.Second, 100*time.Millisecond, devices...)
			r.rec.set(func(r *receiver) { r.closes = func(*got, int) bool { return true } })
			r.feed(10*time.Minute, time.Second, devices...)
			if !strings.Contains(r.log.String(), "backlog_limit") || strings.Contains(r.log.String(), "refuses the messages of a stream") {
				t.Errorf("the log does not say what it may be:\n%s", r.log)
			}
			r.rec.set(func(r *receiver) { r.closes = nil })
			back := time.Now()
			r.settle(5 * time.Minute)
			t.Logf("%d devices: all delivered %v after the receiver took messages again, %d sessions", n, time.Since(back), r.pub.Stats().Sessions)
			if s := r.pub.Stats(); s.Rejected != 0 || len(s.Breakers) != 0 || time.Since(back) > 60*time.Second {
				t.Errorf("after %v: %+v", time.Since(back), s)
			}
			r.checkLedger()
			r.stop()
		})
	}
}

// TestRateLimit: a receiver that takes so many messages a session, or a minute, and then closes.
func TestRateLimit(t *testing.T) {
	t.Parallel()
	for _, limit := range []int{1, 2, 5, 20} {
		synctest.Test(t, func(t *testing.T) {
			r := newRig(t, nil)
			r.rec.closes = func(_ *got, nth int) bool { return nth > limit }
			r.start()
			r.feed(5*time.Minute, time.Second, "a", "b", "c")
			r.rec.set(func(r *receiver) { r.closes = nil })
			r.settle(10 * time.Minute)
			if s := r.pub.Stats(); s.Rejected != 0 {
				t.Errorf("limit %d: %d records given up:\n%s", limit, s.Rejected, r.log)
			}
			r.checkLedger()
			r.stop()
		})
	}
}

// TestAnsweredNo: a record whose message the receiver answers with no is in quarantine at once, and nothing else is.
func TestAnsweredNo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, nil)
		bad := r.append("a", 7)
		r.rec.answerNo = func(g *got) bool { return g.seq == bad }
		r.start()
		r.feed(5*time.Second, 100*time.Millisecond, "a", "b")
		r.settle(time.Second)
		q, err := r.buf.Quarantine()
		if err != nil || len(q) != 1 || q[0].Seq != bad || q[0].Reason != "not authorised" || r.pub.Stats().Sessions != 1 {
			t.Errorf("in quarantine: %+v, %v; want record %d\n%s", q, err, bad, r.log)
		}
		r.checkOrder()
		r.checkLedger()
		r.stop()
	})
}

// TestPoison: messages over a size limit are given up, each for itself; the rest of their stream is delivered.
func TestPoison(t *testing.T) {
	for i, devices := range [][]string{{"a"}, {"a", "b", "c"}, {"a"}, {"a", "b", "c"}} {
		synctest.Test(t, func(t *testing.T) {
			r := newRig(t, nil)
			r.rec.closes = func(g *got, _ int) bool { return g.size > 1000 }
			r.start()
			r.feed(5*time.Second, 100*time.Millisecond, devices...)
			poison := []uint64{r.append("a", 2000)}
			for range i / 2 * 3 {
				poison = append(poison, r.append("a", 2000))
			}
			r.feed(time.Minute, 100*time.Millisecond, devices...)
			r.settle(10 * time.Minute)
			q, err := r.buf.Quarantine()
			var there []uint64
			for _, e := range q {
				there = append(there, e.Seq)
			}
			if err != nil || !slices.Equal(there, poison) {
				t.Errorf("in quarantine: %d, %v; want %d\n%s", there, err, poison, r.log)
			}
			if most, _ := r.longest("b", "c"); most > 10*time.Second {
				t.Errorf("others waited %v", most)
			}
			if !strings.Contains(r.log.String(), "write that as max_message") {
				t.Errorf("the log does not say what to do:\n%s", r.log)
			}
			t.Logf("%d devices: %d sessions", len(devices), r.pub.Stats().Sessions)
			r.checkOrder()
			r.checkLedger()
			r.stop()
		})
	}
}
